"""The guided check of a recipe: what it says of some frames, how near their numbers are to its limits, and what is odd."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from inspection.detector import Image, grey_of
from inspection.errors import InspectionError
from inspection.frame_files import PartFiles
from inspection.golden import displacement
from inspection.images import read_image
from inspection.inspect_frame import Inspection, error_verdict
from inspection.quality import FrameQuality, QualityLimits, gate, measure
from inspection.recipe import LoadedRecipe, frames_of, joined
from inspection.types import Detection, Judgement
from inspection.view import View

_NEAR = 0.8  # share of a limit from which a frame is near it
_CLOSE_FIT = 0.1  # registration quality above its limit, below which it is near
_LOOSE, _TIGHT = 0.25, 0.8  # share of the least sharpness seen, below and above which the limit is odd
_BLURRED = 0.6  # sharpness of the golden as share of what frames show, below which it is blurred


@dataclass(frozen=True, slots=True, eq=False)
class CheckedView:
    """What one camera saw of a part (None where the file could not be read) and what the recipe says of it."""

    image: Image | None
    seen: Inspection
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedPart:
    """One part: the verdict, and each view by camera role."""

    name: str
    judgement: Judgement
    views: dict[str, CheckedView]


def check_parts(loaded: LoadedRecipe, parts: Sequence[PartFiles]) -> list[CheckedPart]:
    """Judge the parts as a station would, and look how near each frame is to the limits."""
    return [_check_part(loaded, part) for part in parts]


def _check_part(loaded: LoadedRecipe, part: PartFiles) -> CheckedPart:
    images: dict[str, Image] = {}
    unread: dict[str, Inspection] = {}
    for role, path in part.frames.items():
        try:
            images[role] = read_image(path)
        except InspectionError as error:
            unread[role] = Inspection(error_verdict(error), (), ())
    seen = {**loaded.inspect_views(frames_of(images)), **unread}
    views = {}
    for role, view in loaded.views.items():
        image = images.get(role)
        warnings = () if image is None else tuple(_frame_warnings(view, image, seen[role]))
        views[role] = CheckedView(image, seen[role], warnings)
    return CheckedPart(part.name, joined(seen).judgement, views)


def uncounted(view: View, seen: Inspection) -> list[Detection]:
    """Findings that reach the limit of their class and do not count: too small, tolerated, or in a keep-out."""
    counted = {found for reason in seen.judgement.reasons for found in reason.detections}
    limits = {rule.defect_class: rule.review_score for rule in view.criteria.rules if not rule.roi}
    return [f for f in seen.detections if f.score >= limits[f.defect_class] and f not in counted]


def numbers(view: View, checked: CheckedView) -> list[str]:
    """The measured numbers of a frame beside their limits, one line a subject."""
    lines, quality, limits = [], checked.seen.quality, view.criteria.quality
    if quality is not None:
        lines.append(
            f"sharpness {quality.sharpness:.0f} (>= {limits.min_sharpness:.0f}), contrast {quality.contrast:.0f} "
            f"(>= {limits.min_contrast:.0f}), brightness {quality.brightness:.0f} "
            f"({limits.min_brightness:.0f}..{limits.max_brightness:.0f})"
        )
    found, section = checked.seen.registration, view.section.registration
    if found is not None and checked.image is not None:
        moved = displacement(found.matrix, checked.image.shape)
        lines.append(
            f"registration {found.quality:.2f} (>= {section.min_quality:.2f}), shift {moved.shift_px:.1f} px "
            f"(<= {section.max_shift_px:g}), rotation {moved.angle_deg:+.2f} deg (<= {section.max_rotate_deg:g}), "
            f"scale {100 * moved.scale:+.1f} %"
        )
    return lines


def _frame_warnings(view: View, image: Image, seen: Inspection) -> Iterator[str]:
    quality, limits, found = seen.quality, view.criteria.quality, seen.registration
    if quality is not None and gate(quality, limits) is None:
        if quality.sharpness * _NEAR < limits.min_sharpness:
            yield f"sharpness {quality.sharpness:.0f} is near its limit {limits.min_sharpness:.0f}"
        if not limits.min_brightness / _NEAR <= quality.brightness <= limits.max_brightness * (1 + _NEAR) / 2:
            yield f"brightness {quality.brightness:.0f} is near its limits {limits.min_brightness:.0f}..{limits.max_brightness:.0f}"
    if found is None:
        return
    section, moved = view.section.registration, displacement(found.matrix, image.shape)
    if found.quality < section.min_quality + _CLOSE_FIT:
        yield f"registration {found.quality:.2f} is near its limit {section.min_quality:.2f}"
    for name, value, limit in (
        ("shift", moved.shift_px, section.max_shift_px),
        ("rotation", abs(moved.angle_deg), section.max_rotate_deg),
        ("scale", abs(moved.scale), section.max_scale),
    ):
        if value > _NEAR * limit:
            yield f"{name} {value:.3g} is near its limit {limit:g}: check the fixture, or widen the limit"


def recipe_warnings(loaded: LoadedRecipe, parts: Sequence[CheckedPart]) -> list[str]:
    """What is odd about the recipe itself, seen beside these parts; each sentence names its camera."""
    found = []
    for role, view in loaded.views.items():
        seen = [q for part in parts if (q := part.views[role].seen.quality) is not None]
        for text in (*_golden_warnings(view, seen), *_limit_warnings(view.criteria.quality, seen)):
            found.append(f"camera {role}: {text}")
    return found


def _golden_warnings(view: View, seen: Sequence[FrameQuality]) -> Iterator[str]:
    if view.golden is None:
        return
    image = view.golden.image
    quality = measure(grey_of(image))
    refused = gate(quality, view.criteria.quality)
    if refused is not None:
        yield f"the golden would itself be refused: {refused.text}"
    if seen and quality.sharpness < _BLURRED * median(q.sharpness for q in seen):
        yield (
            f"the golden is too blurred: sharpness {quality.sharpness:.0f}, frames show "
            f"{median(q.sharpness for q in seen):.0f}; take it again in focus"
        )
    picture = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    for roi in view.criteria.rois:
        share = roi.shared_px(picture) / roi.area_px
        if share < 0.999:
            yield f"{100 * (1 - share):.0f} % of region {roi.roi_id} lies outside the golden"


def _limit_warnings(limits: QualityLimits, seen: Sequence[FrameQuality]) -> Iterator[str]:
    judged = [quality.sharpness for quality in seen if gate(quality, limits) is None]
    if not judged:
        return
    least = min(judged)
    if limits.min_sharpness < _LOOSE * least:
        yield (
            f"min_sharpness {limits.min_sharpness:g} is far below what the frames show ({least:.0f} and more): blurred "
            f"frames would be judged; half of it would be {least / 2:.0f}"
        )
    if limits.min_sharpness > _TIGHT * least:
        yield f"min_sharpness {limits.min_sharpness:g} is close to what the frames show ({least:.0f}): good frames may be refused"


def report(loaded: LoadedRecipe, parts: Sequence[CheckedPart], odd: Sequence[str]) -> list[str]:
    """The check in words, a paragraph a part, then what is odd, then the count of verdicts."""
    lines = []
    for part in parts:
        lines.append(f"{part.name}: {part.judgement.verdict.name}")
        lines += [f"  {reason.text}" for reason in part.judgement.reasons]
        for role, checked in part.views.items():
            lines += [f"  {role}: {line}" for line in _view_lines(loaded.views[role], checked)]
    lines += [f"warning: {text}" for text in odd]
    names = [part.judgement.verdict.name for part in parts]
    counts: Mapping[str, int] = {name: names.count(name) for name in sorted(set(names))}
    warned = len(odd) + sum(len(view.warnings) for part in parts for view in part.views.values())
    return [
        *lines,
        f"{len(parts)} parts: " + ", ".join(f"{name} {n}" for name, n in counts.items()) + f"; {warned} warnings",
    ]


def _view_lines(view: View, checked: CheckedView) -> Iterator[str]:
    yield from numbers(view, checked)
    left_out = uncounted(view, checked.seen)
    counted = [found for reason in checked.seen.judgement.reasons for found in reason.detections]
    for found in (*dict.fromkeys(counted), *left_out):
        x1, y1, x2, y2 = found.region.xyxy_px
        place = f", region {found.roi_id}" if found.roi_id else ""
        end = ", not counted" if found in left_out else ""
        yield f"{found.defect_class} {found.score:.2f} at {x1:.0f},{y1:.0f}, {x2 - x1:.0f}x{y2 - y1:.0f} px{place}{end}"
    for text in checked.warnings:
        yield f"warning: {text}"
