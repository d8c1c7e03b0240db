"""Everything that a report says, as frozen types.  The page, the tables and the JSON are all made from one ``Report``.

Numbers count production parts alone; records of simulated cameras are counted apart (or alone, in a report of simulated
records, which says so).  Where something cannot be claimed there is a ``Claim`` without a value, or a ``Caveat``.  Their
words (``why_not``, ``Caveat.key``) are keys of ``texts/*.toml``.  Times are timezone-aware UTC; boxes are frame pixels.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Literal

from inspection.types import Box

if TYPE_CHECKING:  # the charts may use the types of this module
    from inspection.report.control_charts import ControlChart

Verdicts = Literal["OK", "NG", "REVIEW", "ERROR"]
Values = tuple[tuple[str, str | int | float], ...]  # what is filled into a text, by name
MOST_WIDTH = 0.5  # of the interval of a share, beyond which its value says nothing


@dataclass(frozen=True, slots=True)
class Span:
    """Which records a report is of: those judged from ``since`` to before ``until`` that agree with what is not empty.

    ``shift`` is the shift's name (DATE/NUMBER) where the span is one shift; the times say the same.
    """

    since: datetime | None = None
    until: datetime | None = None
    lot: str = ""
    serial: str = ""
    recipe_id: str = ""
    shift: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A number with its interval and what it counts of (``of``); or ``value`` None and the word that says why.

    ``value``, ``low`` and ``high`` are shares (0..1) unless the text says otherwise; the interval is 95 % where there is
    one.  ``text_key`` names the sentence that defines the number, ``values`` fills that of ``why_not``.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    of: int | None = None
    why_not: str = ""
    text_key: str = ""
    values: Values = ()

    @property
    def vague(self) -> bool:
        """Whether the interval of a share is so wide (``MOST_WIDTH``) that it is to be shown in place of the value."""
        return self.low is not None and self.high is not None and self.high - self.low > MOST_WIDTH


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something that the report cannot claim, or that its reader must know first: a key, and what fills its sentence."""

    key: str
    values: Values = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """Parts by the verdict that their controller was answered."""

    ok: int = 0
    ng: int = 0
    review: int = 0
    error: int = 0

    @property
    def parts(self) -> int:
        """All of them."""
        return self.ok + self.ng + self.review + self.error

    @property
    def judged(self) -> int:
        """Those that could be judged: all but ERROR."""
        return self.ok + self.ng + self.review


@dataclass(frozen=True, slots=True)
class Totals:
    """The head of the report.

    ``parts`` are inspections (records); ``serials`` distinct serials among them, ``without_serial`` those that had none.
    ``serials_used_twice`` names serials of more than one record, at most 50 of them; ``serials_repeated`` counts them all.
    ``first_pass_yield``: OK as answered of the judged.  ``final_yield``: the same after review: a false call is good, an
    escape is not, NG and REVIEW that nobody decided stay as they are.  ``late`` parts missed their deadline and were
    judged afterwards; they stand as ERROR here.  ``simulated`` records of simulated cameras were left out, or are all that
    is counted in a report of them.
    """

    tally: Tally
    simulated: int
    serials: int
    without_serial: int
    serials_repeated: int
    serials_used_twice: tuple[str, ...]
    lots: int
    first_pass_yield: Claim
    final_yield: Claim
    error_rate: Claim
    reviewed: int
    confirmed: int
    false_calls: int
    escapes: int
    unsure: int
    unreviewed_not_ok: int
    late: int


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """A rule that made parts NG, REVIEW or ERROR, and how many (a part counts under each of its rules)."""

    rule_id: str
    verdict: str
    parts: int


@dataclass(frozen=True, slots=True)
class ParetoRow:
    """A defect class among the findings that verdicts rest on.  ``share`` and ``cumulative`` are of all such findings."""

    defect_class: str
    findings: int
    parts: int
    share: float
    cumulative: float


@dataclass(frozen=True, slots=True)
class HourRow:
    """Parts judged in the hour that begins at ``begin``; hours without a part have a row too while the span is short."""

    begin: datetime
    tally: Tally
    findings: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Parts of one shift (``name`` DATE/NUMBER), from its begin to its end, or of one lot, from first to last record."""

    name: str
    begin: datetime
    end: datetime
    tally: Tally
    findings: int
    first_pass_yield: Claim


@dataclass(frozen=True, slots=True)
class StageRow:
    """How long a stage took, milliseconds, over ``count`` parts."""

    stage: str
    count: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class VersionRow:
    """Parts judged by one recipe version with one model."""

    recipe_id: str
    recipe_sha256: str
    model_sha256: str
    first: datetime
    last: datetime
    tally: Tally


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """From this record on another recipe or model judged."""

    at: datetime
    rowid: int
    recipe_id: str
    recipe_sha256: str
    model_sha256: str


@dataclass(frozen=True, slots=True)
class FalseCallRow:
    """False calls by one of the three denominators: ``board``, ``component`` (or ROI), ``opportunity``.

    ``false_calls`` counts what people called so; ``of`` is the denominator.  ``rate`` has no value where it is unknown.
    """

    denominator: Literal["board", "component", "opportunity"]
    false_calls: int
    of: int | None
    rate: Claim


@dataclass(frozen=True, slots=True)
class EscapeView:
    """What a model's calibration promised beside what review has observed of the parts that it judged in this span.

    ``promised_bound``: the upper bound of the escape rate (defective parts that pass, of all defective parts) that it was
    calibrated to, and ``confidence``; None where nothing is promised or the model is not here, and then ``promised_text``
    is a word of ``texts/*.toml`` that says which.  ``observed``: that rate as review shows it (``Claim.vague`` while too few
    were reviewed), ``share``: defective parts among the OK ones, both from ``reviewed_ok`` OK parts that were drawn at
    random and decided, ``escapes`` of them.  ``drawn_unknown`` reviewed OK parts are in neither, as their reviews are from
    before it was noted whether the part was drawn.  ``against``: what the one says of the other (``escapes.Against``).
    ``not_covered`` are words of ``texts/*.toml`` or defect classes (``class:NAME``) that neither number covers.
    """

    model_sha256: str
    promised_bound: float | None
    promised_text: str
    observed: Claim
    reviewed_ok: int
    escapes: int
    not_covered: tuple[str, ...]
    share: Claim = Claim(None)
    against: str = "no_promise"
    confidence: float | None = None
    drawn: int = 0
    chance_escapes: int = 0
    drawn_unknown: int = 0


@dataclass(frozen=True, slots=True)
class ChartView:
    """A control chart: ``what`` is charted (defective, findings), its points grouped by ``hour``, ``shift`` or ``lot``.

    ``labels`` name the points, ``begins`` say when each began; ``sizes`` are the parts in each.
    """

    what: Literal["defective", "findings"]
    grouped_by: Literal["hour", "shift", "lot"]
    labels: tuple[str, ...]
    begins: tuple[datetime, ...]
    sizes: tuple[int, ...]
    chart: "ControlChart"


@dataclass(frozen=True, slots=True)
class HealthChart:
    """A quantity of one camera's frames by the hour: median, and what 5 % and 95 % of the frames lie under.

    None in hours without a measured frame.  ``suspect``: hours (index) in which it was off by what matters while too many
    parts were not OK, so that the camera, not the lot, is to be looked at first; see ``health`` and ``RiseRow``.
    """

    camera: str
    quantity: str
    unit: str
    hours: tuple[datetime, ...]
    values: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    frames: tuple[int, ...]
    chart: "ControlChart | None"
    suspect: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RiseRow:
    """Hours with too many parts that are not OK, and what these are put down to (``health.Cause``).

    From ``begin`` to ``end``, ``hours`` of them.  ``because``: (camera, quantity) that had changed then.
    """

    begin: datetime
    end: datetime
    hours: int
    cause: str
    because: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CameraChange:
    """An optical quantity of a camera that was off by what matters, in ``hours`` hours between ``begin`` and ``end``.

    ``usual`` is the centre of its chart and ``most`` its value when it was farthest off, both in ``unit``.  ``together``:
    how many of the hours followed one another, at the most.
    """

    camera: str
    quantity: str
    unit: str
    begin: datetime
    end: datetime
    hours: int
    usual: float
    most: float
    together: int


@dataclass(frozen=True, slots=True)
class MapPoint:
    """The centre of a finding in golden pixels, and half of its box's diagonal there."""

    x: float
    y: float
    radius: float
    defect_class: str
    verdict: str
    disposition: str
    record_id: str


@dataclass(frozen=True, slots=True)
class MapView:
    """Where findings lie on one golden.  ``width`` and ``height`` are its pixels, 0 where there is none.

    ``placed`` findings have a place; ``points`` are all of them or, where there are too many, an even choice of them.
    ``unplaced`` findings are of parts whose place on the golden was not measured; they are on no map.
    """

    camera: str
    recipe_id: str
    golden_sha256: str
    golden_png: bytes | None
    width: int
    height: int
    points: tuple[MapPoint, ...]
    placed: int
    unplaced: int
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One finding to be shown: cut-outs of frame and golden as JPEG, or the word that says why there is none.

    ``numbers`` chooses them and leaves the pictures out; ``gallery.with_pictures`` puts them in.
    """

    record_id: str
    serial: str
    at: datetime
    defect_class: str
    camera: str
    box: Box
    score: float
    verdict: str
    disposition: str
    frame_jpg: bytes | None = None
    golden_jpg: bytes | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the control limits were taken from.  ``declared`` false: nobody named one, all of the span was taken."""

    declared: bool
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything.  ``first`` and ``last`` are the earliest and latest records in it, None where it is empty.

    ``snapshot_rowid`` is the newest record of the store when it was read.  Local times are those of ``zone`` (None: that of
    this computer) at each moment; ``utc_offsets`` are its offsets from ``first`` to ``last``, each with when it came into force.
    """

    station_id: str
    span: Span
    made_at: datetime
    program: str
    utc_offsets: tuple[tuple[datetime, timedelta], ...]
    simulated: bool
    first: datetime | None
    last: datetime | None
    snapshot_rowid: int
    totals: Totals
    reasons: tuple[ReasonRow, ...]
    pareto: tuple[ParetoRow, ...]
    hours: tuple[HourRow, ...]
    shifts: tuple[GroupRow, ...]
    lots: tuple[GroupRow, ...]
    stages: tuple[StageRow, ...]
    versions: tuple[VersionRow, ...]
    changes: tuple[ChangePoint, ...]
    false_calls: tuple[FalseCallRow, ...]
    escapes: tuple[EscapeView, ...]
    baseline: Baseline
    charts: tuple[ChartView, ...]
    health: tuple[HealthChart, ...]
    maps: tuple[MapView, ...]
    gallery: tuple[GalleryItem, ...]
    caveats: tuple[Caveat, ...]
    rises: tuple[RiseRow, ...] = ()
    camera_changes: tuple[CameraChange, ...] = ()
    zone: tzinfo | None = None
