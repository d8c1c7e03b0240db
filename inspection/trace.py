"""Everything about a part: how it was judged and by what, what was said of it since, and where its record stands.

Reads only, and by indexes alone, so that it answers at once in a store of many years, also while the station writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from inspection.chain_place import ChainPlace, checked, place_in_chain
from inspection.errors import InspectionError
from inspection.golden_place import on_golden
from inspection.read_only import ReadOnlyFile
from inspection.record_reader import RecordReader
from inspection.reviews import MARK, MIGRATIONS, REVIEWS, reviews_path, standing
from inspection.sealed_version import SealedVersion, SealedVersions
from inspection.station_places import Places
from inspection.store import UnreadableRecord
from inspection.trace_queries import Line, TraceQueries
from inspection.types import Detection, Record, Review

if TYPE_CHECKING:
    from inspection.picture_state import PictureLedger, PictureState

NEAR = 8  # serials that are named where there is none of that name
MOST_RECORDS = 50  # of one serial that are told whole
NO_PICTURES = {
    "none": "the record names no pictures",
    "skipped": "no picture was taken in",
    "unreadable": "the evidence ledger cannot be read",
}
_REVIEW = "SELECT record_id, disposition, reviewer, at, comment FROM reviews WHERE record_id = ? ORDER BY review_id"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a record; ``decides``: the verdict rests on it, ``late``: it came after the answer.

    ``on_golden_px`` is where its centre lies on the golden, None where the record does not say how the golden lay.
    """

    detection: Detection
    decides: bool
    late: bool
    on_golden_px: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class PartTrace:
    """All that is known of one record.

    ``rows_alike`` are the first and the last row that the same recipe and model judged without a break, (0, 0) where the
    store does not say.  ``pictures_why`` is the word why there are no pictures (``NO_PICTURES``), with the rest of what is
    known in ``pictures_detail``.  ``serial_used`` and ``lot_parts`` count the records of its serial and its lot.
    """

    row: int
    record: Record
    findings: tuple[Finding, ...]
    version: SealedVersion
    pictures: "tuple[PictureState, ...]"
    pictures_why: str
    pictures_detail: str
    reviews: tuple[Review, ...]
    stands: Review | None
    chain: ChainPlace
    serial_used: int
    lot_parts: int
    rows_alike: tuple[int, int]

    @property
    def places_by_version_in_force(self) -> bool:
        """Whether places on the golden are told by the version in force, for want of the one that judged."""
        return not self.version.folder and any(finding.on_golden_px for finding in self.findings)


@dataclass(frozen=True, slots=True)
class SerialTrace:
    """The records of a serial, newest first, and the rest in lines; ``near`` are serials that begin alike when there is none.

    ``unreadable`` are those of the newest that cannot be read.
    """

    serial: str
    count: int
    parts: tuple[PartTrace, ...]
    more: tuple[Line, ...]
    near: tuple[str, ...]
    unreadable: tuple[UnreadableRecord, ...] = ()


class Tracer:
    """Traces parts of one station.  ``reader`` is closed by whoever made it; ``close`` closes the rest.

    Methods raise StoreError when a file cannot be read.
    """

    def __init__(self, places: Places, reader: RecordReader) -> None:
        self.queries = TraceQueries(reader)
        self.versions = SealedVersions(places)
        self._places = places
        self._store = Path(places.store)
        self._reader = reader
        self._reviews = ReadOnlyFile(reviews_path(self._store), REVIEWS, mark=MARK, newest=len(MIGRATIONS))
        self._ledger: PictureLedger | None = None

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        self._reviews.close()
        if self._ledger is not None:
            self._ledger.close()

    def serial(self, serial: str, limit: int = MOST_RECORDS) -> SerialTrace:
        """A part by its serial; with none, ``near`` says what there is instead."""
        count = self.queries.count_of_serial(serial)
        if not count:
            near = self.queries.serials_from(serial, NEAR) or self.queries.serials_from(
                serial[: len(serial) // 2 + 1], NEAR
            )
            return SerialTrace(serial, 0, (), (), tuple(near))
        whole = min(limit, MOST_RECORDS)
        found = self._reader.readable_by_serial(serial, whole)
        parts = tuple(self._part(row, one, count) for row, one in found if isinstance(one, Record))
        unreadable = tuple(one for _, one in found if isinstance(one, UnreadableRecord))
        more = self.checked(self.queries.of_serial(serial, limit)[whole:])
        return SerialTrace(serial, count, parts, more, (), unreadable)

    def record(self, record_id: str) -> PartTrace | None:
        """A part by the id of its record; None when there is none, UnreadableRecord when it cannot be read."""
        record = self._reader.find(record_id)
        if record is None:
            return None
        return self._part(self.queries.row_of(record_id), record, self.queries.count_of_serial(record.serial))

    def checked(self, lines: Sequence[Line]) -> tuple[Line, ...]:
        """The lines, with what is known against the record of each: some 0.2 ms a line."""
        return tuple(checked(self.queries, lines, self._store))

    def _part(self, row: int, record: Record, serial_used: int) -> PartTrace:
        version = self.versions.of(record.recipe_id or record.trigger.recipe_id, record.recipe_sha256)
        pictures, why, detail = self._pictures(record)
        reviews = self.reviews_of(record.record_id)
        return PartTrace(
            row=row,
            record=record,
            findings=self._findings(record, version),
            version=version,
            pictures=pictures,
            pictures_why=why,
            pictures_detail=detail,
            reviews=reviews,
            stands=standing(reviews),
            chain=place_in_chain(self.queries, self._store, record.record_id, row),
            serial_used=serial_used,
            lot_parts=self.queries.count_of_lot(record.trigger.lot),
            rows_alike=self._rows_alike(row),
        )

    def reviews_of(self, record_id: str) -> tuple[Review, ...]:
        """What people said of a record, oldest first."""
        rows = self._reviews.rows(_REVIEW, (record_id,))
        return tuple(Review(name, word, who, datetime.fromisoformat(at), text) for name, word, who, at, text in rows)

    def golden_size(self, record_recipe: str, sha256: str, camera: str) -> tuple[int, int]:
        """Width and height in pixels of the golden that a version lays over a camera's frames, (0, 0) when not known.

        Where that version is not here, those of the version in force count: a golden of another size is another product.
        """
        version = self.versions.of(record_recipe, sha256)
        goldens = version.goldens if version.folder else self.versions.in_force().goldens
        return next((golden.size_px for golden in goldens if golden.camera == camera or not camera), (0, 0))

    def _findings(self, record: Record, version: SealedVersion) -> tuple[Finding, ...]:
        found = [(one, record.judgement, False) for one in record.detections]
        if record.late is not None:
            found += [(one, record.late.judgement, True) for one in record.late.detections]
        measured = dict(record.measured)
        recipe_id = record.recipe_id or record.trigger.recipe_id
        told = []
        for one, judgement, late in found:
            decides = any(one in reason.detections for reason in judgement.reasons)
            size = self.golden_size(recipe_id, record.recipe_sha256, one.camera)
            place = None if late else on_golden(one.region.xyxy_px, measured, one.camera, size)
            told.append(Finding(one, decides, late, place))
        return tuple(sorted(told, key=lambda finding: not finding.decides))

    def _pictures(self, record: Record) -> "tuple[tuple[PictureState, ...], str, str]":
        """What became of its pictures, or why there are none."""
        evidence = record.evidence or (record.late.evidence if record.late else "")
        if not evidence:
            return (), "none", ""
        from inspection.evidence import SKIPPED
        from inspection.picture_state import PictureLedger

        if evidence.startswith(SKIPPED):
            return (), "skipped", evidence.removeprefix(SKIPPED).strip()
        if self._ledger is None:
            self._ledger = PictureLedger(self._places)
        try:
            return self._ledger.states(record), "", ""
        except InspectionError as error:
            return (), "unreadable", f"{error.what}; {error.fix}"

    def _rows_alike(self, row: int) -> tuple[int, int]:
        if not self.queries.has_chain():
            return (0, 0)
        firsts = [point.first_row for point in self.queries.change_points()]
        first = max((one for one in firsts if one <= row), default=0)
        last = min((one for one in firsts if one > row), default=self._reader.last_rowid() + 1) - 1
        return (first, last) if first else (0, 0)


def lots_of(parts: Sequence[PartTrace]) -> tuple[str, ...]:
    """The lots in which a serial was used, each once, newest first."""
    return tuple(dict.fromkeys(part.record.trigger.lot for part in parts))
