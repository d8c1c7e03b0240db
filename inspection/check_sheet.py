"""Draws the guided check of a recipe: each golden with its regions, each frame with the regions moved onto it, the findings,
the verdict and the numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.contact_sheet import COLOURS
from inspection.golden import GoldenTemplate
from inspection.heat_picture import draw_inspection
from inspection.recipe import LoadedRecipe
from inspection.recipe_check import CheckedPart, CheckedView, numbers, uncounted
from inspection.rois import Roi
from inspection.view import View

Image = NDArray[np.uint8]
_SIDE, _GAP, _LINE = 440, 10, 17
_TEXT_LINES, _LETTERS = 7, 72
_BAR = 32
_FONT = cv2.FONT_HERSHEY_SIMPLEX
INSPECT, KEEP_OUT = (0, 110, 190), (150, 0, 150)  # RGB
_GREY, _BLACK, _WHITE, _AMBER = (90, 90, 90), (20, 20, 20), (255, 255, 255), (170, 80, 0)
MOST_CELLS = 120


def draw_check(loaded: LoadedRecipe, parts: Sequence[CheckedPart], warnings: Sequence[str]) -> Image:
    """One RGB picture (H, W, 3) uint8 of the check; of very many parts only the first are drawn."""
    cells = [_golden_cell(role, view, view.golden) for role, view in loaded.views.items() if view.golden is not None]
    for part in parts:
        cells += [_frame_cell(part, role, loaded.views[role], checked) for role, checked in part.views.items()]
    left_out = max(0, len(cells) - MOST_CELLS)
    cells = cells[:MOST_CELLS]
    columns = min(3, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    texts = [f"recipe {loaded.recipe_id}", *(f"warning: {text}" for text in warnings)]
    if left_out:
        texts.append(f"{left_out} more pictures are not drawn")
    return np.vstack([_headline(texts, rows[0].shape[1]), *rows])


def _headline(texts: Sequence[str], width: int) -> Image:
    lines = [line for text in texts for line in _wrapped(text, width // 8)]
    picture = np.full((_LINE * len(lines) + 2 * _GAP, width, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        _write(picture, line, (_GAP, _GAP + 12 + number * _LINE), _AMBER if number else _BLACK, 0.5)
    return picture


def _golden_cell(role: str, view: View, golden: GoldenTemplate) -> Image:
    rois = view.criteria.rois
    image = with_regions(_coloured(golden.image), rois)
    texts = [f"{roi.roi_id}: {roi.kind}" for roi in rois] or [
        "no regions: the whole picture is judged by the general rules"
    ]
    return _cell(f"golden, camera {role}", _GREY, image, texts)


def _frame_cell(part: CheckedPart, role: str, view: View, checked: CheckedView) -> Image:
    seen, image = checked.seen, checked.image
    plain = replace(seen, heat=None)  # a heat map would cover the regions
    if image is not None:
        matrix = None if seen.registration is None else seen.registration.matrix
        known = matrix is not None or view.golden is None  # else nobody knows where the regions lie
        moved = [roi.moved(matrix) for roi in view.criteria.rois] if known else []
        image = draw_inspection(_with_uncounted(with_regions(_coloured(image), moved), view, checked), plain)
    texts = [reason.text for reason in seen.judgement.reasons]
    texts += [f"not counted: {found.defect_class} {found.score:.2f} {found.roi_id}" for found in uncounted(view, seen)]
    texts += [f"! {text}" for text in checked.warnings] + numbers(view, checked)
    verdict = seen.judgement.verdict
    return _cell(f"{verdict.name}  {part.name}, camera {role}", COLOURS[verdict], image, texts)


def _with_uncounted(picture: Image, view: View, checked: CheckedView) -> Image:
    """A picture with grey boxes for findings that reach a limit and do not count: too small, tolerated or kept out."""
    for found in uncounted(view, checked.seen):
        x1, y1, x2, y2 = (round(side) for side in found.region.xyxy_px)
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), _WHITE, 4)
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), _GREY, 2)
    return picture


def with_regions(image: Image, rois: Iterable[Roi]) -> Image:
    """An RGB picture (H, W, 3) with regions drawn on it: inspect as an outline, keep_out hatched."""
    picture = image.copy()
    line = max(1, round(max(picture.shape[:2]) / 300))
    for roi in rois:
        points = np.array(roi.polygon_px, float).round().astype(np.int32)
        colour = INSPECT if roi.kind == "inspect" else KEEP_OUT
        if roi.kind == "keep_out":
            _hatch(picture, points, colour, line)
        cv2.polylines(picture, [points], True, colour, 2 * line, cv2.LINE_AA)
        _name(picture, roi.roi_id, (int(points[:, 0].min()), int(points[:, 1].min())), colour)
    return picture


def _name(picture: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """The name of a region on white, inside its upper left corner."""
    size = 0.5 * max(1.0, max(picture.shape[:2]) / 640)
    weight = max(1, round(size))
    (wide, high), below = cv2.getTextSize(text, _FONT, size, weight)
    left, top = max(0, min(corner[0], picture.shape[1] - wide - 6)), max(0, corner[1])
    cv2.rectangle(picture, (left, top), (left + wide + 5, top + high + below + 3), _WHITE, -1)
    cv2.putText(picture, text, (left + 3, top + high + 2), _FONT, size, colour, weight, cv2.LINE_AA)


def _hatch(picture: Image, points: NDArray[np.int32], colour: tuple[int, int, int], line: int) -> None:
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [points], (1,))
    rows, columns = np.indices(mask.shape)
    stripes = (mask > 0) & ((rows + columns) % (12 * line) < 2 * line)
    picture[stripes] = colour


def _cell(title: str, colour: tuple[int, int, int], image: Image | None, texts: Sequence[str]) -> Image:
    cell = np.full((_BAR + _SIDE + _TEXT_LINES * _LINE + 3 * _GAP, _SIDE + 2 * _GAP, 3), 255, np.uint8)
    cv2.rectangle(cell, (_GAP // 2, 0), (cell.shape[1] - 1 - _GAP // 2, _BAR), colour, -1)
    _write(cell, title, (_GAP + 4, 22), _WHITE, 0.55)
    top = _BAR + _GAP
    if image is None:
        _write(cell, "no picture", (_SIDE // 2 - 40, top + _SIDE // 2), _GREY, 0.6)
    else:
        scale = _SIDE / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cell[top : top + small.shape[0], _GAP : _GAP + small.shape[1]] = small[:_SIDE, :_SIDE]
    lines = [line for text in texts for line in _wrapped(text, _LETTERS)]
    if len(lines) > _TEXT_LINES:
        lines = [*lines[: _TEXT_LINES - 1], f"... and {len(lines) - _TEXT_LINES + 1} lines more"]
    for number, line in enumerate(lines):
        colour = _AMBER if line.startswith("!") else _BLACK
        _write(cell, line, (_GAP, top + _SIDE + 18 + number * _LINE), colour, 0.38)
    return cell


def _coloured(image: Image) -> Image:
    return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def _wrapped(text: str, letters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append(" ")
        lines[-1] += (" " if lines[-1].strip() else "") + word[:letters]
    return lines


def _write(image: Image, text: str, place: tuple[int, int], colour: tuple[int, int, int], size: float) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(image, plain, place, _FONT, size, colour, 1, cv2.LINE_AA)
