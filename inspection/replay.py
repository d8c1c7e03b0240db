"""Inspects the stored frames of a record again, with the very version of the recipe that judged them, and compares.

What is repeated is the inspection: quality gate, registration, detector, judge, and the serial where it is read from the
frame.  What the station itself adds (a missed deadline, a serial that was used before) cannot be repeated from a
picture; it is taken over as it was recorded, and said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inspection.byte_cache import ByteCache
from inspection.chain_place import place_in_chain
from inspection.config import StationConfig
from inspection.errors import DriverMissing, InspectionError
from inspection.evidence import SKIPPED, evidence_of, file_name
from inspection.images import read_grey, read_image
from inspection.inspect_frame import Inspection
from inspection.inspector import with_reason
from inspection.judged_on import runs_on, scales_of
from inspection.model import cores
from inspection.no_picture import NoPicture
from inspection.picture_state import PictureLedger, PictureState
from inspection.recipe import LoadedRecipe, open_recipe, verify
from inspection.recipe_config import GOLDEN, GOLDEN_WITH_FRAME
from inspection.recipe_of_record import RecipesOfRecords
from inspection.record_reader import RecordReader
from inspection.replay_difference import Difference, Judged, differences
from inspection.replay_notes import DEADLINE, in_a_sentence, notes, of_chain, of_lateness, of_origin, of_pictures
from inspection.serials import resolve_serial
from inspection.trace_queries import TraceQueries
from inspection.types import Frame, Judgement, Record, Verdict, utc_now

Outcome = Literal["same", "differs", "cannot"]
RECIPES_LOADED = 3
REPEATED, CORRUPT = "serial.repeated", "camera.corrupt"


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of one record.

    ``cannot`` is the word, and ``text`` the sentence, why it could not be inspected again.  ``taken_over`` are parts of
    the verdict that no inspection gives, ``notes`` is what is known of why something differs.  ``now`` is the verdict
    with its reasons as the inspection gives it today; ``findings`` and ``measured`` count what was compared.
    """

    record: Record
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    taken_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    now: Judgement | None = None
    findings: int = 0
    measured: int = 0
    cannot: str = ""
    text: str = ""


class CannotReplay(Exception):
    """Why a record cannot be inspected again: a word, and a sentence."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


class Replayer:
    """Replays records of one station, in one thread.

    ``reader`` reads its record store and is closed by whoever made it; ``close`` closes the rest.
    """

    def __init__(self, config: StationConfig, reader: RecordReader, *, threads: int = 0) -> None:
        self._config = config
        self._queries = TraceQueries(reader)
        self._threads = threads or config.threads
        self._recipes = RecipesOfRecords(config)
        self._loaded: ByteCache[LoadedRecipe] = ByteCache(RECIPES_LOADED, lambda loaded: 1)
        self._ledger = PictureLedger(config)

    def close(self) -> None:
        """Close the ledger of pictures; a second call does nothing."""
        self._ledger.close()

    def runs_on(self) -> dict[str, str]:
        """What the inspection is repeated with."""
        return runs_on(self._config.provider, self._threads or cores())

    def replay(self, record: Record) -> Replay:
        """Inspect the stored frames of a record again; DriverMissing when something it needs is not installed."""
        try:
            _require_inspected(record)
            loaded = self._recipe(record)
            pictures = self._pictures(record)
            frames = _frames(record, loaded, pictures)
        except CannotReplay as refused:
            return Replay(record, "cannot", self._altered(record), cannot=refused.word, text=str(refused))
        return _compared(record, loaded, frames, pictures, self._altered(record))

    def _altered(self, record: Record) -> tuple[Difference, ...]:
        """That the record is not what its entry in the chain holds, where it is not."""
        row = self._queries.row_of(record.record_id)
        return of_chain(place_in_chain(self._queries, Path(self._config.store), record.record_id, row).altered)

    def _recipe(self, record: Record) -> LoadedRecipe:
        """The version that judged the record, every file of it as it was sealed."""
        try:
            folder = self._recipes.version(record).folder
            loaded = self._loaded.get(record.recipe_sha256, lambda: self._open(folder, record.recipe_sha256))
            loaded.set_mm_per_px(self._scales(record, loaded))
            return loaded
        except NoPicture as refused:
            raise CannotReplay(
                "recipe.missing" if refused.word == "no_recipe" else "recipe.changed", refused.what
            ) from None
        except DriverMissing:
            raise
        except InspectionError as error:
            raise CannotReplay("recipe.changed", f"{error.what}; {error.fix}") from error

    def _open(self, folder: Path, sha256: str) -> LoadedRecipe:
        verify(folder)
        loaded = open_recipe(folder, threads=self._threads, provider=self._config.provider)
        if loaded.sha256 != sha256:
            raise CannotReplay("recipe.changed", f"the recipe in {folder} was exchanged while it was read: try again")
        return loaded

    def _scales(self, record: Record, loaded: LoadedRecipe) -> dict[str, float | None]:
        """The millimetres per pixel that the record was judged by; those of today's config where it keeps none."""
        known = scales_of(dict(record.judged_on)) if record.judged_on else self._config.scale_mm_per_px
        return {role: known.get(role) for role in loaded.cameras}

    def _pictures(self, record: Record) -> dict[str, PictureState]:
        """What became of the record's pictures, by name; CannotReplay when none was kept."""
        evidence = evidence_of(record)
        if evidence.startswith(SKIPPED):
            raise CannotReplay("picture.skipped", f"no picture was kept: {evidence.removeprefix(SKIPPED).strip()}")
        if not evidence:
            rule = "of parts that are OK" if record.judgement.verdict == Verdict.OK else "of it"
            raise CannotReplay("picture.not_kept", f"no picture is kept {rule} (`keep` in [evidence] of the station)")
        return {state.name: state for state in self._ledger.states(record)}


def _require_inspected(record: Record) -> None:
    """CannotReplay for a record whose verdict rests on no frame."""
    if record.frame_ids or (record.late is not None and record.late.frame_ids):
        return
    rules = ", ".join(reason.rule_id for reason in record.judgement.reasons) or "none"
    text = "; ".join(reason.text for reason in record.judgement.reasons)
    raise CannotReplay(
        "not_inspected",
        f"no frame was inspected, so there is nothing to repeat: {record.judgement.verdict.name} by {rules} ({text})",
    )


def _frames(record: Record, loaded: LoadedRecipe, pictures: Mapping[str, PictureState]) -> dict[str, Frame]:
    """The stored frames by role, with the goldens that they brought along; CannotReplay when one is not there."""
    frames = {}
    for role, view in loaded.recipe.views.items():
        path = _path(pictures, role)
        golden = None
        if view.golden == GOLDEN_WITH_FRAME and not _came_without_golden(record):
            golden = _path(pictures, f"{role}{GOLDEN}")
        try:
            brought = None if golden is None else read_grey(golden)
            frames[role] = Frame(read_image(path), role, utc_now(), path.name, True, golden=brought)
        except InspectionError as error:
            raise CannotReplay("picture.damaged", error.what) from error
    return frames


def _path(pictures: Mapping[str, PictureState], name: str) -> Path:
    state = pictures.get(file_name(name, "no-role")) or pictures.get("")  # "": all of them
    if state is None:
        if name.endswith(GOLDEN):
            text = "the golden that the frame brought along was not kept (it is since this version of the program)"
            raise CannotReplay("golden.not_kept", text)
        raise CannotReplay("picture.missing", f"there is no picture of camera {name}, and nothing says that there was")
    if state.path is None:
        raise CannotReplay(f"picture.{state.state}", in_a_sentence(state))
    return state.path


def _came_without_golden(record: Record) -> bool:
    """Whether the record's own verdict is that a frame could not be judged, as one that brought no golden."""
    judgement = record.judgement if record.late is None else record.late.judgement
    return any(reason.rule_id == CORRUPT for reason in judgement.reasons)


def _compared(
    record: Record, loaded: LoadedRecipe, frames: Mapping[str, Frame], pictures: Mapping[str, PictureState],
    altered: tuple[Difference, ...],
) -> Replay:  # fmt: skip
    then, taken_over = _then(record)
    seen = loaded.inspect(frames)
    now = _now(record, loaded, frames, seen, then)
    found = (
        *altered,
        *of_origin(record, loaded),
        *of_lateness(record),
        *of_pictures(loaded, pictures),
        *differences(then, now),
    )
    return Replay(
        record,
        "differs" if found else "same",
        found,
        taken_over,
        tuple(notes(record, loaded, pictures, found)),
        now.judgement,
        len(then.detections),
        0 if then.measured is None else len(then.measured),
    )


def _then(record: Record) -> tuple[Judged, tuple[str, ...]]:
    """What the record says that the inspection gave, and what of its verdict is not the inspection's."""
    kept = bool(record.frame_ids)  # else the deadline passed before there was anything to keep but the late result
    measured = dict(record.measured) if kept and record.measured else None
    serial = record.read_serial if kept else None
    if record.late is not None:
        text = f"{record.judgement.verdict.name} by {DEADLINE} is the station's: the late result is what is compared"
        return Judged(record.late.judgement, record.late.detections, measured, serial), (text,)
    repeated = [reason for reason in record.judgement.reasons if reason.rule_id == REPEATED]
    text = f"reason {REPEATED} comes from the records of the station, and is taken over"
    return Judged(record.judgement, record.detections, measured, serial), (text,) if repeated else ()


def _now(
    record: Record, loaded: LoadedRecipe, frames: Mapping[str, Frame], seen: Inspection, then: Judged
) -> Judged:  # fmt: skip
    """What the inspection gives today, and what the station adds to it as it was recorded."""
    section = loaded.recipe.serial
    frame = frames[section.camera or loaded.cameras[0]]
    read, reason, verdict = resolve_serial(section, record.trigger.serial, frame.image)
    judgement = with_reason(seen.judgement, reason, verdict)
    if record.late is None:
        for repeated in (reason for reason in then.judgement.reasons if reason.rule_id == REPEATED):
            judgement = with_reason(judgement, repeated, Verdict.ERROR)
    return Judged(judgement, seen.detections, dict(seen.measured), read)
