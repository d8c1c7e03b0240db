"""One camera's part of a recipe: model, golden template, regions and rules, ready to judge its frames."""

from dataclasses import replace
from pathlib import Path

from inspection.detector import Image
from inspection.errors import ConfigError, FrameCorrupt
from inspection.golden import GoldenTemplate
from inspection.images import read_grey
from inspection.inspect_frame import (
    FLOOR,
    Anchor,
    AnyDetector,
    Criteria,
    Inspection,
    faults_of_layout,
    inspect_frame,
    open_detector,
)
from inspection.model import LoadedModel
from inspection.recipe_config import GOLDEN_WITH_FRAME, ViewSection


class View:
    """One camera's part of a recipe, ready to judge its frames.  Used by one thread at a time."""

    def __init__(self, section: ViewSection, model: LoadedModel, golden: GoldenTemplate | None) -> None:
        self.section = section
        self.model = model
        self.golden = golden
        rules = tuple(rule.rule() for rule in section.rules)
        floor = min(FLOOR, *(rule.review_score for rule in rules))  # what a rule asks for must be kept
        self.criteria = Criteria(section.quality.limits(), rules, floor, tuple(roi.roi() for roi in section.rois))
        self.detector = None if model.card.golden_guided and golden is None else self._detector_for(golden)
        self._shape = None if golden is None else (golden.image.shape[0], golden.image.shape[1])

    @property
    def needs_scale(self) -> bool:
        """Whether a rule names millimetres."""
        return any(rule.needs_scale for rule in self.criteria.rules)

    def set_mm_per_px(self, mm_per_px: float | None) -> None:
        """Tell how large a pixel is on the part, millimetres."""
        self.criteria = replace(self.criteria, mm_per_px=mm_per_px)

    def golden_size(self, brought: Image | None) -> tuple[int, int] | None:
        """Height and width of the golden that a frame is compared with, where there is one (see ``inspect``)."""
        if brought is not None and self.section.golden == GOLDEN_WITH_FRAME:
            return _size(brought)
        return None if self.golden is None else _size(self.golden.image)

    def inspect(self, frame: Image, golden: Image | None = None) -> Inspection:
        """Judge a frame; ``golden`` counts only where the recipe says that frames bring their own.

        FrameCorrupt when a golden is needed and there is none.
        """
        brought = None
        if golden is not None and self.section.golden == GOLDEN_WITH_FRAME:
            brought = GoldenTemplate(golden)
        detector = self.detector if brought is None else self._detector_for(brought)
        template = self.golden if brought is None else brought
        if detector is None or (template is None and self.section.golden and self.criteria.rois):
            raise FrameCorrupt(
                "the frame brings no golden template, and the recipe has none of its own",
                fix="put the golden beside the frame, or name golden.png in the recipe",
            )
        self._shape = (frame.shape[0], frame.shape[1])
        anchor = None if template is None else Anchor(template, self.section.registration.limits())
        return inspect_frame(frame, detector, self.criteria, anchor)

    def warm_up(self) -> None:
        """Run the model once: the first inference allocates, and must not be the first part's."""
        if self.detector is not None and self._shape is not None:
            self.detector.warm_up(self._shape)

    def rehearse(self) -> None:
        """Run the model for nothing, as large as the last frame was."""
        if self.detector is not None and self._shape is not None:
            self.detector.rehearse(self._shape)

    def _detector_for(self, golden: GoldenTemplate | None) -> AnyDetector:
        return open_detector(self.model, golden, self.section.registration.limits())


def open_view(folder: Path, where: str, section: ViewSection, model: LoadedModel) -> View:
    """A view with its golden read from the recipe folder; ConfigError, beginning with ``where``, when they do not fit."""
    known = set(model.card.classes)
    ruled = {rule.defect_class for rule in section.rules}
    missing, unknown = sorted(known - ruled), sorted(ruled - known)
    if missing or unknown:
        raise ConfigError(
            f"{where}: rules do not match the model's classes {list(model.card.classes)}: "
            f"missing {missing}, unknown {unknown}",
            fix="give each class of the model one rule; a class without a rule would never be rejected",
        )
    if model.card.golden_guided and not section.golden:
        raise ConfigError(
            f"{where}: golden is empty, and model {model.card.name!r} compares with a golden template",
            fix='put golden.png into the folder and write golden = "golden.png"',
        )
    golden = None
    if section.golden and section.golden != GOLDEN_WITH_FRAME:
        golden = GoldenTemplate(read_grey(folder / section.golden))
    view = View(section, model, golden)
    faults = () if golden is None else faults_of_layout(view.criteria.rois, _size(golden.image))
    if faults:
        raise ConfigError(f"{where}: " + "; ".join(faults), fix="draw the regions within the golden template")
    return view


def _size(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
