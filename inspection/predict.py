"""Judges image files with a model alone, on the very path a station uses.  Behind `lineside predict` and `evaluate`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inspection.detector import Image, StageClock
from inspection.errors import FrameCorrupt, InspectionError, UsageError
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.images import IMAGE_SUFFIXES, golden_beside, is_golden, read_grey, read_image
from inspection.inspect_frame import Criteria, Inspection, error_verdict, inspect_frame, open_detector
from inspection.judge import Rule, ng_score
from inspection.model import LoadedModel, ModelCard
from inspection.quality import QualityLimits
from inspection.types import Verdict

PREDICT_FLOOR = 0.005


@dataclass(frozen=True, slots=True)
class Request:
    """One image to judge and the golden to compare it with (None: the model needs none)."""

    image: Path
    golden: Path | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome for one image; ``ms`` is the runtime path without reading files or preparing the golden."""

    image: str
    inspection: Inspection
    ms: float

    def as_json(self) -> dict[str, object]:
        """The fixed format of `lineside predict`: boxes in pixels of the image as given."""
        judgement = self.inspection.judgement
        row: dict[str, object] = {
            "image": self.image,
            "verdict": judgement.verdict.name,
            "score": round(ng_score(self.inspection.detections), 5),
            "detections": [
                {"class": d.defect_class, "score": round(d.score, 5), "box": [round(v, 2) for v in d.region.xyxy_px]}
                for d in self.inspection.detections
            ],
            "ms": round(self.ms, 3),
        }
        if judgement.verdict == Verdict.ERROR:
            row["reason"] = judgement.reasons[0].text
        return row


def card_criteria(model: LoadedModel, threshold: float | None = None) -> Criteria:
    """Judge by the model's own limits, or by one given threshold for every class."""
    card = model.card
    images = QualityLimits() if card.images is None else QualityLimits(**card.images.model_dump())
    rules = rules_of(card, threshold)
    return Criteria(images, rules, min(PREDICT_FLOOR, *(rule.review_score for rule in rules)))


def rules_of(card: ModelCard, threshold: float | None = None) -> tuple[Rule, ...]:
    """The model's own limits of each class, or one given threshold for every class."""
    if card.limits and threshold is None:
        return tuple(Rule(row.defect_class, row.ng_score, row.review_score) for row in card.limits)
    limit = card.threshold if threshold is None else threshold
    return tuple(Rule(name, limit, limit) for name in card.classes)


def predict(model: LoadedModel, requests: Iterable[Request], criteria: Criteria) -> Iterator[Prediction]:
    """Judge each image; what cannot be judged comes back as ERROR with its reason, never as an empty OK."""
    prepared: tuple[Path | None, GoldenTemplate | None] = (None, None)
    for request in requests:
        try:
            image = read_image(request.image)
            if request.golden is not None and request.golden != prepared[0]:
                prepared = (request.golden, GoldenTemplate(read_grey(request.golden)))
            golden = prepared[1] if request.golden is not None else None
            seen, ms = _timed(image, model, golden, criteria)
        except InspectionError as error:
            seen, ms = Inspection(error_verdict(error), (), ()), 0.0
        yield Prediction(request.image.name, seen, ms)


def _timed(
    image: Image, model: LoadedModel, golden: GoldenTemplate | None, criteria: Criteria
) -> tuple[Inspection, float]:
    if model.card.golden_guided and golden is None:
        raise FrameCorrupt(
            "there is no golden template for this image",
            fix="give --golden FILE, or put NAME.golden.png beside NAME.png",
        )
    clock = StageClock()
    seen = inspect_frame(image, open_detector(model, golden, RegistrationLimits()), criteria)
    clock.lap("all")
    return seen, clock.total()


def requests_for(paths: Iterable[Path], golden: Path | None) -> list[Request]:
    """Images named as files or folders, each with ``golden`` or the golden that lies beside it.

    UsageError for a path that does not exist or a folder without images.  In a folder, goldens are not images to judge.
    """
    if golden is not None and not golden.is_file():
        raise UsageError(f"there is no golden {golden}", fix="check the path after --golden")
    found: list[Request] = []
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            files = [file for file in files if not is_golden(file) and not (golden and file.samefile(golden))]
            if not files:
                raise UsageError(f"{path} holds no image", fix=f"known suffixes: {', '.join(IMAGE_SUFFIXES)}")
            found.extend(Request(file, golden or golden_beside(file)) for file in files)
        elif path.is_file():
            found.append(Request(path, golden or golden_beside(path)))
        else:
            raise UsageError(f"there is no image or folder {path}", fix="check the path")
    if not found:
        raise UsageError("no image was given", fix="name images or folders, or --data DATASET")
    return found
