"""The pictures of the parts whose verdict changed: the frame before and after, and the place beside its golden."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.errors import InspectionError
from inspection.geometry import Matrix
from inspection.golden import lay_over
from inspection.heat_picture import lay_heat
from inspection.images import Image, to_grey
from inspection.types import Box, Detection, Verdict
from inspection.view import View
from training.by_recipe import load_frame
from training.comparison import Change
from training.evaluate import Case
from training.report.gallery import DrawnBox, Picture, as_picture, drawn_box, shrunk
from training.report.words import number

FRAME_PX, MANY_FRAME_PX = 320, 200  # longest side of a picture, and of each of many
MANY = 24  # changed parts from which pictures are smaller
LEAST_WINDOW_PX = 72  # of the close-up, in the frame
_REACH = 2.6  # side of the close-up as a multiple of the finding's
_BELOW = 2  # findings under the limit that are drawn, best first
_STRICT = (Verdict.NG, Verdict.REVIEW, Verdict.ERROR, Verdict.OK)
Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ChangedPart:
    """One part whose verdict changed; ``kind``: worse, better, or other."""

    name: str
    truth: str
    side: str
    kind: str
    before: str
    after: str
    why_before: str
    why_after: str
    pictures: tuple[Picture, ...]


def changed_parts(changed: Sequence[Change], views: tuple[View, View]) -> list[ChangedPart]:
    """A card for every part; ``views`` are those of champion and challenger."""
    side = FRAME_PX if len(changed) <= MANY else MANY_FRAME_PX
    return [_part(change, views, side) for change in changed]


def _part(change: Change, views: tuple[View, View], side: int) -> ChangedPart:
    before, after = change.before, change.after
    return ChangedPart(
        change.sample.name, change.truth, change.side, change.kind, before.verdict.name, after.verdict.name,
        _why(before), _why(after), _pictures(change, views, side),
    )  # fmt: skip


def _why(case: Case) -> str:
    """Why the part got its verdict; of one that passed, how near it came to a limit."""
    texts = [reason.text for reason in case.prediction.inspection.judgement.reasons]
    if texts:
        return "; ".join(texts)
    found = case.prediction.inspection.detections
    best = max(found, key=lambda detection: detection.score, default=None)
    return "nothing found" if best is None else f"below its limit: {best.defect_class} with {number(best.score)}"


def _pictures(change: Change, views: tuple[View, View], side: int) -> tuple[Picture, ...]:
    try:
        image, brought = load_frame(views[1], change.sample)
    except InspectionError:  # the card says "no picture"; the reason of its ERROR says why
        return ()
    scale = side / max(image.shape[:2])
    drawn = [
        _frame(case, image, scale, f"{who}: {case.verdict.name}", view)
        for case, who, view in ((change.before, "before", views[0]), (change.after, "after", views[1]))
    ]
    window = _window(change, image.shape)
    if window is None:
        return tuple(drawn)
    golden = brought if brought is not None or views[1].golden is None else views[1].golden.image
    matrix = _matrix(change)
    close = _close_up(image, window, side, _boxes_of(change, window, side), "close-up of the frame")
    if golden is None or matrix is None:
        return (*drawn, close)
    laid = lay_over(golden, to_grey(image), matrix, window)
    x1, y1, x2, y2 = window
    return (*drawn, close, _close_up(laid, (0, 0, x2 - x1, y2 - y1), side, (), "the same place on the golden"))


def _frame(case: Case, image: Image, scale: float, what: str, view: View) -> Picture:
    small, seen = shrunk(image, scale), case.prediction.inspection
    counted = _counted(case)
    if seen.heat is not None:
        limit = min(rule.ng_score for rule in view.criteria.rules)
        return as_picture(lay_heat(small, seen.heat, outlined=bool(counted), limit=limit), (), what)
    return as_picture(small, _boxes(case, scale), what)


def _boxes(case: Case, scale: float) -> tuple[DrawnBox, ...]:
    counted = _counted(case)
    below = [found for found in case.prediction.inspection.detections if found not in counted]
    below = sorted(below, key=lambda found: -found.score)[:_BELOW]
    return (
        *(drawn_box("below", found.region.xyxy_px, scale, f"{found.score:.2f}") for found in below),
        *(drawn_box("found", found.region.xyxy_px, scale, f"{found.score:.2f}") for found in counted),
        *(drawn_box("true", label.box_px, scale, "") for label in case.sample.labels),
    )


def _counted(case: Case) -> list[Detection]:
    return [found for reason in case.prediction.inspection.judgement.reasons for found in reason.detections]


def _window(change: Change, shape: tuple[int, ...]) -> Window | None:
    """A square (x1, y1, x2, y2) px around what the verdicts differ on; None when there is nothing to point at."""
    box = _place(change)
    if box is None:
        return None
    longest = min(shape[:2])
    side = min(longest, max(LEAST_WINDOW_PX, round(_REACH * max(box[2] - box[0], box[3] - box[1]))))
    x = min(max(0, round((box[0] + box[2] - side) / 2)), shape[1] - side)
    y = min(max(0, round((box[1] + box[3] - side) / 2)), shape[0] - side)
    return x, y, x + side, y + side


def _place(change: Change) -> Box | None:
    """The best finding of the recipe that rejected, which is what it rejected for; else a true box; else any finding."""
    decisive = [found for case in _strictest_first(change) for found in _best(_counted(case))]
    if decisive:
        return decisive[0].region.xyxy_px
    if change.sample.labels:
        return change.sample.labels[0].box_px
    listed = [found for case in _strictest_first(change) for found in _best(case.prediction.inspection.detections)]
    return listed[0].region.xyxy_px if listed else None


def _strictest_first(change: Change) -> list[Case]:
    return sorted((change.after, change.before), key=lambda case: _STRICT.index(case.verdict))


def _best(found: Sequence[Detection]) -> list[Detection]:
    return [max(found, key=lambda detection: detection.score)] if found else []


def _matrix(change: Change) -> Matrix | None:
    """Where the golden lies on the frame, if either recipe found it."""
    for case in (change.after, change.before):
        if case.prediction.inspection.registration is not None:
            return case.prediction.inspection.registration.matrix
    return None


def _boxes_of(change: Change, window: Window, side: int) -> tuple[DrawnBox, ...]:
    """Labels and the findings of the recipe that rejected, in the close-up."""
    scale, (x, y) = side / (window[2] - window[0]), window[:2]
    strictest = _strictest_first(change)[0]
    boxes = [("found", found.region.xyxy_px, f"{found.score:.2f}") for found in _counted(strictest)]
    boxes += [("true", label.box_px, "") for label in change.sample.labels]
    return tuple(
        drawn_box(kind, (box[0] - x, box[1] - y, box[2] - x, box[3] - y), scale, text) for kind, box, text in boxes
    )


def _close_up(image: Image, window: Window, side: int, boxes: tuple[DrawnBox, ...], what: str) -> Picture:
    x1, y1, x2, y2 = window
    part = np.ascontiguousarray(image[y1:y2, x1:x2])
    return as_picture(shrunk(part, side / max(part.shape[:2])), boxes, what)
