"""What is wrong at the station, worst first, from what it says of itself.  Pure; the words are in ``texts``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from inspection.errors import InspectionError
from inspection.station_link import StationStatus
from inspection.web.texts import Language, words

Situation = Literal["live", "waiting", "stopped", "gone", "full", "unreadable"]
JUDGING = ("READY", "SINGLE_EXECUTION", "CONTINUOUS_EXECUTION")
STANDS, LOSES, SOON = 3, 2, 1
STORE_MB_LOW, STORE_MB_OUT, STORE_MB_FULL = 1000.0, 200.0, 1.0
MANY_WAITING = 1000  # records that a publisher has not told
MANY_TO_REVIEW = 50
MANY_ERRORS = 5  # parts in a row that could not be judged: that is no accident of one part


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that is wrong.  ``level``: STANDS (no part is judged), LOSES (something is being lost) or SOON."""

    level: int
    word: str
    values: Mapping[str, str] = field(default_factory=dict)

    def what(self, language: Language) -> str:
        """What is wrong, in a sentence."""
        return words(language, "alarms")[self.word].format(**self.values)

    def to_do(self, language: Language) -> str:
        """What to do about it."""
        return words(language, "alarms")[f"{self.word}_do"].format(**self.values)


@dataclass(frozen=True, slots=True)
class Lately:
    """What the status alone does not tell: pictures lost in the last minutes, parts that wait for review, how many of the
    newest parts were ERROR in a row, with the last one's reason, and the free space beside the records as the pages
    measure it (None: not known).
    """

    skipped: int = 0
    failed: int = 0
    to_review: int = 0
    min_free_mb: int = 0
    errors: int = 0
    why: str = ""
    store_free_mb: float | None = None

    @property
    def full(self) -> bool:
        """Whether the disk of the records takes nothing more: a station on it cannot even say so."""
        return self.store_free_mb is not None and self.store_free_mb < STORE_MB_FULL


def situation(
    status: StationStatus | None, *, stale: bool, trouble: bool, parts: bool, full: bool = False
) -> Situation:
    """Whether the newest verdict may be shown as the present one (``live``), and if not, why."""
    if trouble:
        return "unreadable"
    if status is None or stale:
        return "full" if full else "gone"
    if status.state not in JUDGING or not status.healthy or status.holding:
        return "stopped"
    return "live" if parts else "waiting"


def alarms(
    status: StationStatus | None, *, stale: bool, trouble: InspectionError | None, lately: Lately
) -> tuple[Alarm, ...]:
    """All that is wrong, worst first.  Of a station that says nothing any more, only the disk is known."""
    found = [] if trouble is None else [Alarm(STANDS, "store", {"what": trouble.what, "fix": trouble.fix})]
    if status is None or stale:
        found += _silent("never" if status is None else "gone", lately)
    else:
        found += [*_standing(status), *_losing(status, lately), *_soon(status, lately)]
    if lately.to_review >= MANY_TO_REVIEW:
        found.append(Alarm(SOON, "review", {"parts": str(lately.to_review)}))
    return tuple(sorted(found, key=lambda alarm: -alarm.level))


def _silent(word: str, lately: Lately) -> Iterator[Alarm]:
    if lately.full:
        yield Alarm(STANDS, "full", {"mb": f"{lately.store_free_mb:.1f}"})
    else:
        yield Alarm(STANDS, word)
        yield from _store_disk(lately.store_free_mb)


def _standing(status: StationStatus) -> Iterator[Alarm]:
    if not status.healthy:
        yield Alarm(STANDS, "unhealthy")
    for role, fault in status.cameras.items():
        if fault:
            yield Alarm(STANDS, "camera", {"role": role, "fault": fault})
    if status.holding:
        yield Alarm(STANDS, "holding", {"why": status.holding})
    if status.controller.fault:
        yield Alarm(STANDS, "controller", {"kind": status.controller.kind, "fault": status.controller.fault})
    if status.state == "ERROR" and status.healthy and not any(status.cameras.values()):
        yield Alarm(STANDS, "error")
    if status.state in ("HALTED", "PREOPERATIONAL"):
        yield Alarm(STANDS, "halted", {"state": status.state})


def _losing(status: StationStatus, lately: Lately) -> Iterator[Alarm]:
    if status.contradicted:
        yield Alarm(LOSES, "contradicted", {"file": status.contradicted})
    if lately.errors >= MANY_ERRORS:
        yield Alarm(LOSES, "errors", {"parts": str(lately.errors), "why": lately.why})
    if lately.failed:
        yield Alarm(LOSES, "evidence_failed", {"parts": str(lately.failed), "why": status.evidence.last_error})
    if lately.skipped:
        yield Alarm(LOSES, "evidence_skipped", {"parts": str(lately.skipped)})
    yield from _store_disk(status.store_free_mb)
    free = status.evidence.free_mb
    if free is not None and free < lately.min_free_mb:
        yield Alarm(LOSES, "evidence_disk", {"mb": f"{free:.0f}", "least": str(lately.min_free_mb)})


def _store_disk(free_mb: float | None) -> Iterator[Alarm]:
    if free_mb is not None and free_mb < STORE_MB_OUT:
        yield Alarm(LOSES, "store_disk", {"mb": f"{free_mb:.0f}"})


def _soon(status: StationStatus, lately: Lately) -> Iterator[Alarm]:
    if status.evidence.unentered:
        files, why = str(status.evidence.unentered), status.evidence.last_error
        yield Alarm(SOON, "evidence_unentered", {"files": files, "why": why})
    if status.checkpoint_fault:
        yield Alarm(SOON, "unsigned", {"why": status.checkpoint_fault})
    free = status.store_free_mb
    if free is not None and STORE_MB_OUT <= free < STORE_MB_LOW:
        yield Alarm(SOON, "store_disk_low", {"mb": f"{free:.0f}"})
    free = status.evidence.free_mb
    if free is not None and lately.min_free_mb <= free < 3 * lately.min_free_mb:
        yield Alarm(SOON, "evidence_disk_low", {"mb": f"{free:.0f}", "least": str(lately.min_free_mb)})
    for name, publisher in status.publishers.items():
        waiting = str(publisher.waiting)
        if not publisher.connected:
            yield Alarm(SOON, "publisher", {"name": name, "waiting": waiting, "error": publisher.last_error})
        elif publisher.waiting >= MANY_WAITING:
            yield Alarm(SOON, "publisher_slow", {"name": name, "waiting": waiting})
    if status.refused is not None:
        yield Alarm(SOON, "refused", {"recipe": status.refused.recipe_id, "text": status.refused.text})
