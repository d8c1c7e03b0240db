"""The pictures of the report: which parts are shown, and how frame, labels, findings and heat map are drawn."""

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import InspectionError
from inspection.heat_picture import lay_heat
from inspection.images import read_image
from inspection.types import Box, Detection, Verdict
from training.evaluate import Case, Evaluation
from training.report.words import number

Image = NDArray[np.uint8]
SIDE_PX = 256
MOST_MISTAKES, MOST_UNDECIDED = 60, 24  # pictures of escapes and of overkill; of review and of errors
CLOSEST, TYPICAL = 8, 4  # of good and of defective parts each
_BELOW = 3  # findings under the limit that are drawn, best first
_JPEG_QUALITY = 80


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box in pixels of the small picture; ``kind``: true, found (it counts) or below (under the limit)."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture as data URI, with its size in pixels, its boxes, and what it is."""

    uri: str
    width: int
    height: int
    boxes: tuple[DrawnBox, ...]
    what: str


@dataclass(frozen=True, slots=True)
class Card:
    """One part: its name, verdict, score, why, what a person said of it, and its pictures (none: unreadable)."""

    name: str
    file: str
    group: str
    verdict: str
    score: str
    reason: str
    truth: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Parts of one kind; ``not_shown`` names those beyond the limit.  ``count`` is of all of them."""

    key: str
    title: str
    about: str
    count: int
    cards: tuple[Card, ...]
    not_shown: tuple[str, ...]
    empty: str


def make_galleries(result: Evaluation) -> list[Gallery]:
    """Mistakes and undecided parts first, all of them up to a limit; then the closest calls and some typical parts."""
    cases = result.cases
    bad, good = [c for c in cases if c.sample.defective], [c for c in cases if not c.sample.defective]
    passed = _by_score(c for c in good if c.verdict == Verdict.OK)
    caught = _by_score(c for c in bad if c.verdict == Verdict.NG)
    escapes = _by_score(c for c in bad if c.verdict == Verdict.OK)
    overkill = _by_score(c for c in good if c.verdict == Verdict.NG)[::-1]
    errors = [c for c in cases if c.verdict == Verdict.ERROR]
    refused = sum(not c.sample.defective for c in errors)
    also = (
        f" Overkill also counts good parts that could not be judged, {refused} here: see the errors." if refused else ""
    )
    return [
        _gallery(result, "escapes", "Escapes", "Defective parts that passed as OK, lowest score first.", escapes,
                 "No defective part passed." if bad else "Not measurable: there is no defective part here.", MOST_MISTAKES),
        _gallery(result, "overkill", "Overkill", "Good parts that were rejected, highest score first." + also, overkill,
                 f"No good part was rejected by a finding.{also}" if good else "Not measurable: there is no good part here.",
                 MOST_MISTAKES),
        _gallery(result, "review", "Review", "Parts that a person must look at, highest score first.",
                 _by_score(c for c in cases if c.verdict == Verdict.REVIEW)[::-1], "No part was sent to review.", MOST_UNDECIDED),
        _gallery(result, "errors", "Errors", "Parts that could not be judged, each with its reason.", errors,
                 "Every part could be judged.", MOST_UNDECIDED),
        *_right_ones(result, passed, caught),
    ]  # fmt: skip


def _right_ones(result: Evaluation, passed: Sequence[Case], caught: Sequence[Case]) -> list[Gallery]:
    near = [*caught[:CLOSEST], *passed[::-1][:CLOSEST]]
    usual = [*_middle(caught[CLOSEST:]), *_middle(passed[: max(0, len(passed) - CLOSEST)])]
    return [
        _gallery(result, "closest", "Closest calls",
                 "Judged rightly, but barely: caught parts with the lowest scores, then passed parts with the highest.",
                 near, "No part was judged rightly.", len(near)),
        _gallery(result, "typical", "Typical parts", "Judged rightly with scores in the middle of their kind.",
                 usual, "There are no more parts than those above.", len(usual)),
    ]  # fmt: skip


def _by_score(cases: Iterable[Case]) -> list[Case]:
    return sorted(cases, key=lambda case: (case.score, case.sample.name))


def _middle(cases: Sequence[Case]) -> Sequence[Case]:
    start = max(0, (len(cases) - TYPICAL) // 2)
    return cases[start : start + TYPICAL]


def _gallery(
    result: Evaluation, key: str, title: str, about: str, cases: Sequence[Case], empty: str, most: int
) -> Gallery:
    cards = tuple(_card(case, result.threshold) for case in cases[:most])
    return Gallery(key, title, about, len(cases), cards, tuple(c.sample.name for c in cases[most:]), empty)


def _card(case: Case, limit: float) -> Card:
    judgement, sample = case.prediction.inspection.judgement, case.sample
    error = case.verdict == Verdict.ERROR
    return Card(
        sample.name, sample.image.name, sample.group, case.verdict.name, "none" if error else number(case.score),
        "; ".join(reason.text for reason in judgement.reasons) or _nearest(case), _truth(case), _pictures(case, limit),
    )  # fmt: skip


def _nearest(case: Case) -> str:
    found = case.prediction.inspection.detections
    if not found:
        return "nothing found"
    best = max(found, key=lambda detection: detection.score)
    return f"no finding above its limit; the best is {best.defect_class} with {number(best.score)}"


def _truth(case: Case) -> str:
    counts = Counter(label.defect_class for label in case.sample.labels)
    marked = [f"{count} × {name}" for name, count in sorted(counts.items())]
    whole = [f"{case.sample.image_class} (the image as a whole)"] if case.sample.image_class and not counts else []
    return ", ".join([*marked, *whole]) or "good"


def _pictures(case: Case, limit: float) -> tuple[Picture, ...]:
    try:
        image = read_image(case.sample.image)
        golden = read_image(case.sample.golden) if case.sample.golden else None
    except InspectionError:  # the card says "no picture"; the reason of its ERROR says why
        return ()
    scale = SIDE_PX / max(image.shape[:2])
    small, seen = shrunk(image, scale), case.prediction.inspection
    drawn = [as_picture(small, _boxes(case, scale), "frame")]
    if seen.heat is not None:
        hot = lay_heat(small, seen.heat, outlined=bool(_counted(case)), limit=limit)
        drawn.append(as_picture(hot, (), "heat map"))
    elif golden is not None:
        drawn.append(as_picture(shrunk(golden, SIDE_PX / max(golden.shape[:2])), (), "golden template"))
    return tuple(drawn)


def _counted(case: Case) -> list[Detection]:
    return [found for reason in case.prediction.inspection.judgement.reasons for found in reason.detections]


def _boxes(case: Case, scale: float) -> tuple[DrawnBox, ...]:
    counted = _counted(case)
    below = [found for found in case.prediction.inspection.detections if found not in counted]
    below = sorted(below, key=lambda found: -found.score)[:_BELOW]
    return (
        *(drawn_box("below", found.region.xyxy_px, scale, f"{found.score:.2f}") for found in below),
        *(drawn_box("found", found.region.xyxy_px, scale, f"{found.score:.2f}") for found in counted),
        *(
            drawn_box("true", label.box_px, scale, "") for label in case.sample.labels
        ),  # on top: dashes let others through
    )


def drawn_box(kind: str, box: Box, scale: float, text: str) -> DrawnBox:
    """A box in frame pixels as it lies in a picture that is ``scale`` as large."""
    x1, y1, x2, y2 = (round(scale * side, 1) for side in box)
    return DrawnBox(kind, x1, y1, round(x2 - x1, 1), round(y2 - y1, 1), text)


def shrunk(image: Image, scale: float) -> Image:
    """The image scaled down (or up) by a factor."""
    size = [max(1, round(scale * side)) for side in (image.shape[1], image.shape[0])]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def as_picture(image: Image, boxes: tuple[DrawnBox, ...], what: str) -> Picture:
    """The image (H, W) or (H, W, 3) as data URI, as PNG or JPEG, whichever is smaller."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    png = cv2.imencode(".png", stored)[1].tobytes()
    kind, content = min((("png", png), ("jpeg", jpeg)), key=lambda pair: len(pair[1]))
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(uri, image.shape[1], image.shape[0], boxes, what)
