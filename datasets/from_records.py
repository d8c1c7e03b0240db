"""Brings the line's own images into a dataset: reviewed records alone, with the golden and the recipe that judged them.

    verdict         disposition     becomes
    NG, REVIEW      confirmed       a defective sample: the findings that the verdict rests on are its boxes
    NG, REVIEW      false_call      a good sample
    OK              confirmed       a good sample
    OK              escape          a sample on ``todo.json``: its defects must be drawn before anything learns from it

A dataset holds the pictures of one camera, for its golden and its defects are not those of another.  Which camera shows
the defect of an escape that several look at was not asked: as long as none is drawn in a picture, it is no escape of that
camera (``unplaced``).

What a machine said and nobody looked at never becomes truth.  A reviewed record that cannot be used is listed with why.
A picture that retention has compressed is used, and marked ``compressed`` in records.jsonl: a person reviewed what can still
be seen in it, but the model would not see the very pixels again.  One that is not what was written is never used.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from datasets.drawn_before import RECORDS, take_over
from datasets.importers.reading import place_label
from datasets.lots import lot_groups
from datasets.manifest import Dataset, Origin, make_dataset, write_dataset
from datasets.recipe_goldens import JudgedBy, RecipesOnDisk, Unusable
from datasets.sample import LabelledBox, Sample
from inspection.config import StationConfig
from inspection.errors import InspectionError, UsageError
from inspection.evidence import SKIPPED, file_name
from inspection.images import read_image
from inspection.judge import asked_for
from inspection.picture_state import PictureLedger, PictureState, in_words
from inspection.recipe_config import GOLDEN, GOLDEN_WITH_FRAME
from inspection.record_reader import RecordReader
from inspection.reviews import ReviewStore, reviews_path
from inspection.store import UnreadableRecord
from inspection.types import Detection, Disposition, Record, Review, Verdict

LEFT_OUT = "left_out.jsonl"
_PAGE = 500  # reviews read at a time
_LISTED = 20
Truth = Literal["good", "marked", "escape"]
_TRUTH: dict[tuple[Verdict, Disposition], Truth] = {
    (Verdict.OK, "confirmed"): "good",
    (Verdict.NG, "false_call"): "good",
    (Verdict.REVIEW, "false_call"): "good",
    (Verdict.NG, "confirmed"): "marked",
    (Verdict.REVIEW, "confirmed"): "marked",
    (Verdict.OK, "escape"): "escape",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A reviewed record, or the picture of one of its cameras, that is not in the dataset."""

    record_id: str
    why: str
    camera: str = ""


@dataclass(slots=True)
class Gathered:
    """What reviewed records gave: samples with the row that tells where each came from, and what they did not give.

    ``others`` counts the reviewed records of recipes that were not asked for.
    """

    samples: list[Sample] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    escapes: set[str] = field(default_factory=set)
    unplaced: set[str] = field(default_factory=set)
    cameras: dict[str, None] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    classes: dict[str, None] = field(default_factory=dict)
    unsure: int = 0
    others: Counter[str] = field(default_factory=Counter)
    drawn_before: tuple[str, ...] = ()
    reviewed_anew: tuple[str, ...] = ()

    @property
    def recipes(self) -> "Counter[str]":
        """How many samples each recipe judged."""
        return Counter(row["recipe_id"] for row in self.rows)

    @property
    def lots(self) -> tuple[str, ...]:
        """The lot that each sample comes from, empty where the controller named none."""
        return tuple(row["lot"].strip() for row in self.rows)

    def group_by_lot(self) -> None:
        """Give the samples groups by lot instead of by serial."""
        groups = lot_groups(list(zip((sample.group for sample in self.samples), self.lots, strict=True)))
        self.samples = [replace(sample, group=group) for sample, group in zip(self.samples, groups, strict=True)]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which records may enter; empty or None: all."""

    since: datetime | None
    lot: str
    recipe: str
    camera: str


def from_records(
    config: StationConfig,
    folder: Path,
    *,
    since: datetime | None = None,
    lot: str = "",
    recipe: str = "",
    camera: str = "",
    by_lot: bool = False,
    labels_from: Path | None = None,
) -> tuple[Dataset, Gathered]:
    """Write the reviewed records of a station as a new dataset folder: those judged at ``since`` or later, of one lot, by
    one recipe id, the pictures of one camera.

    A serial is a group of its own; ``by_lot``: a lot is, together with the lots that one of its serials was in too.
    Beside dataset.json: ``records.jsonl`` tells of each sample its record, recipe, verdict, disposition and reviewer;
    ``left_out.jsonl`` names what could not be used.  Samples that somebody drew in the dataset ``labels_from``, made from
    the same records earlier, bring their labels from there (see ``take_over``).
    UsageError when nothing could be used, nobody has reviewed anything, or several cameras look at the parts and none is
    named; StoreError when a store cannot be read.
    """
    store = Path(config.store)
    with TemporaryDirectory() as scratch:
        gathered = _gather(config, store, Path(scratch), _Asked(since, lot, recipe, camera))
        if not gathered.samples:
            reasons = "".join(f"\n  {one.record_id}: {one.why}" for one in gathered.left_out[:_LISTED])
            raise UsageError(
                f"no reviewed record of {store} can be used{reasons and ':'}{reasons}",
                fix="review parts first; where pictures are missing, set evidence.keep in the station's config"
                + (
                    "; or ask for another --since, --lot, --recipe or --camera"
                    if since or lot or recipe or camera
                    else ""
                )
                + (f" (reviewed parts of other recipes: {counted(gathered.others)})" if gathered.others else ""),
            )
        if by_lot:
            gathered.group_by_lot()
        origin = Origin("from-records", f"station {config.station_id}" + (f", camera {camera}" if camera else ""))
        made = make_dataset(folder.absolute().name, gathered.samples, classes=tuple(gathered.classes), origin=origin)
        made = replace(made, escapes=frozenset(gathered.escapes), unplaced=frozenset(gathered.unplaced))
        if labels_from is not None:
            taken = take_over(made, gathered.rows, labels_from)
            made, gathered.drawn_before, gathered.reviewed_anew = taken.dataset, taken.names, taken.reviewed_anew
        beside = {RECORDS: _lines(gathered.rows), LEFT_OUT: _lines([_row(one) for one in gathered.left_out])}
        dataset = write_dataset(folder, made, beside=beside)
    return dataset, gathered


def _row(left: LeftOut) -> dict[str, Any]:
    return {"record_id": left.record_id, "camera": left.camera, "why": left.why}


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def counted(recipes: "Counter[str]") -> str:
    """Recipe ids with how many, in words; they are quoted, for a store may hold anything."""
    return ", ".join(f"{recipe!r} ({count})" for recipe, count in recipes.most_common(_LISTED))


def _gather(config: StationConfig, store: Path, scratch: Path, asked: _Asked) -> Gathered:
    gathered, recipes = Gathered(), RecipesOnDisk(config, scratch)
    with closing(PictureLedger(config)) as ledger:
        _gather_reviewed(store, gathered, recipes, ledger, asked)
    return gathered


def _gather_reviewed(
    store: Path, gathered: Gathered, recipes: RecipesOnDisk, ledger: PictureLedger, asked: _Asked
) -> None:
    for record, review in _reviewed(store, gathered):
        if (asked.lot and record.trigger.lot != asked.lot) or (asked.since and record.judged_at < asked.since):
            continue
        if asked.recipe and record.recipe_id != asked.recipe:
            gathered.others[record.recipe_id] += 1
            continue
        if review.disposition == "unsure":
            gathered.unsure += 1
            continue
        try:
            _take(record, review, ledger, recipes, gathered, asked.camera)
        except Unusable as problem:
            gathered.left_out.append(LeftOut(record.record_id, str(problem)))


def _reviewed(store: Path, gathered: Gathered) -> Iterator[tuple[Record, Review]]:
    """Every record that has a review, with what stands of its reviews; in the order in which they were first reviewed."""
    place = reviews_path(store)
    if not place.is_file():
        raise UsageError(
            f"nobody has reviewed anything: there is no {place}", fix="review parts on the station's pages"
        )
    records = RecordReader(store)
    try:
        reviews = ReviewStore(place)
    except BaseException:
        records.close()
        raise
    try:
        seen: set[str] = set()
        last = 0
        while page := reviews.after(last, _PAGE):
            last = page[-1][0]
            fresh = [name for name in dict.fromkeys(review.record_id for _, review in page) if name not in seen]
            seen.update(fresh)
            for name, review in reviews.latest_by_record(fresh).items():
                try:
                    record = records.find(name)
                except UnreadableRecord as problem:
                    gathered.left_out.append(LeftOut(name, problem.what))
                    continue
                if record is None:
                    gathered.left_out.append(LeftOut(name, "the record store has no such record"))
                else:
                    yield record, review
    finally:
        reviews.close()
        records.close()


def _take(
    record: Record, review: Review, ledger: PictureLedger, recipes: RecipesOnDisk, gathered: Gathered, camera: str
) -> None:
    """Add the sample of one record that a camera gives; Unusable when it gives none."""
    truth = truth_of(record.judgement.verdict, review.disposition)
    if truth == "marked" and not _rested_on(record):
        raise Unusable("its verdict rests on no finding that could become a box")
    judged_by = recipes.of(record)
    role = _role(judged_by, gathered, camera)
    pictures = _pictures(record, ledger)
    try:
        sample = _sample(record, role, truth, judged_by, pictures)
    except Unusable as problem:
        gathered.left_out.append(LeftOut(record.record_id, str(problem), role))
        return
    gathered.samples.append(sample)
    gathered.rows.append(_origin(record, review, role, sample) | {"picture": _kept(pictures, role)})
    gathered.classes |= dict.fromkeys(judged_by.classes)
    if truth == "escape":
        gathered.escapes.add(sample.name)
        if len(judged_by.recipe.views) > 1:
            gathered.unplaced.add(sample.name)


def _role(judged_by: JudgedBy, gathered: Gathered, camera: str) -> str:
    """The camera whose picture is taken: the one asked for (Unusable where the recipe has none of that role), or the only
    one; UsageError when there are several, because a model learns and judges the pictures of one."""
    views = judged_by.recipe.views
    gathered.cameras |= dict.fromkeys(views)
    if camera and camera not in views:
        raise Unusable(f"recipe {judged_by.recipe.recipe_id} has no camera {camera!r}, but {', '.join(views)}")
    if not camera and len(gathered.cameras) > 1:
        raise UsageError(
            f"the reviewed parts were looked at by several cameras: {', '.join(gathered.cameras)}",
            fix="make a dataset for each: --camera ROLE (where recipes are mixed, --recipe ID as well)",
        )
    return camera or next(iter(views))


def truth_of(verdict: Verdict, disposition: Disposition) -> Truth:
    """What a disposition makes of a part that got this verdict; Unusable when the two contradict each other."""
    if verdict == Verdict.ERROR:
        raise Unusable("its verdict is ERROR: nothing was judged that a person could confirm or overturn")
    truth = _TRUTH.get((verdict, disposition))
    if truth is None:
        raise Unusable(f"the disposition {disposition} contradicts the verdict {verdict.name}: review it again")
    return truth


def _rested_on(record: Record) -> tuple[Detection, ...]:
    """The findings of the reasons that asked for the record's verdict, each once."""
    verdict = record.judgement.verdict
    reasons = (reason for reason in record.judgement.reasons if asked_for(reason) == verdict)
    return tuple(dict.fromkeys(found for reason in reasons for found in reason.detections))


def _pictures(record: Record, ledger: PictureLedger) -> dict[str, PictureState]:
    """What became of the record's pictures, by name; Unusable when none were kept or are left."""
    told = record.evidence
    if not told or told.startswith(SKIPPED):
        raise Unusable(f"no picture of it was kept{': ' + told if told else ' (see evidence.keep)'}")
    states = {state.name: state for state in ledger.states(record)}
    if not any(state.path for state in states.values()):
        why = "; ".join(dict.fromkeys(map(in_words, states.values())))
        raise Unusable(f"its pictures {told}_* are not there: {why}")
    return states


def _kept(pictures: dict[str, PictureState], role: str) -> str:
    """Whether the picture of a camera is as it was judged: "lossless" or "compressed"."""
    return "compressed" if pictures[file_name(role, "no-role")].state == "compressed" else "lossless"


def _sample(record: Record, role: str, truth: Truth, judged_by: JudgedBy, pictures: dict[str, PictureState]) -> Sample:
    state = pictures.get(file_name(role, "no-role"))
    image = state.path if state else None
    if state is None or image is None:
        raise Unusable(f"its picture is not there: {in_words(state)}" if state else "its picture is not there")
    if state.state == "altered":
        raise Unusable(f"its picture was {in_words(state)}")
    try:
        height, width = read_image(image).shape[:2]
    except InspectionError as problem:
        raise Unusable(problem.what) from None
    labels = tuple(_labels(record, role, (width, height))) if truth == "marked" else ()
    if truth == "marked" and not labels:
        raise Unusable("the verdict rests on other cameras: that this picture shows no defect was not reviewed")
    name = record.record_id if len(judged_by.recipe.views) == 1 else f"{record.record_id}-{role}"
    return Sample(
        image, _golden(role, judged_by, pictures), labels, record.serial.strip() or record.record_id, "", name
    )


def _golden(role: str, judged_by: JudgedBy, pictures: dict[str, PictureState]) -> Path | None:
    """What a frame was compared with: the golden that it brought along, or that of the recipe."""
    if judged_by.recipe.views[role].golden == GOLDEN_WITH_FRAME:
        kept = pictures.get(file_name(f"{role}{GOLDEN}", "no-role"))
        if kept is not None and kept.path is not None and kept.state != "altered":
            return kept.path
    return judged_by.golden(role)


def _labels(record: Record, role: str, size: tuple[int, int]) -> Iterator[LabelledBox]:
    for found in _rested_on(record):
        if found.camera == role:
            label = place_label(found.defect_class, found.region.xyxy_px, size)
            if isinstance(label, str):
                raise Unusable(f"a finding cannot become a box: {label}")
            yield label


def _origin(record: Record, review: Review, role: str, sample: Sample) -> dict[str, Any]:
    """What is kept of where a sample came from."""
    counted = set(_rested_on(record))
    return {
        "sample": sample.name,
        "record_id": record.record_id,
        "camera": role,
        "serial": record.serial,
        "lot": record.trigger.lot,
        "station_id": record.station_id,
        "judged_at": record.judged_at.isoformat(),
        "recipe_id": record.recipe_id,
        "recipe_sha256": record.recipe_sha256,
        "model_sha256": record.model_sha256,
        "verdict": record.judgement.verdict.name,
        "disposition": review.disposition,
        "reviewer": review.reviewer,
        "reviewed_at": review.at.isoformat(),
        "comment": review.comment,
        "labels_from": "findings that the reviewer confirmed" if sample.labels else "",
        "findings": [
            {
                "defect_class": found.defect_class,
                "score": found.score,
                "box_px": found.region.xyxy_px,
                "counted": found in counted,
            }
            for found in record.detections
            if found.camera == role
        ],
    }
