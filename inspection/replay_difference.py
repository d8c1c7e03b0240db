"""Where two inspections of one part differ: the one that its record keeps, and the one that was made again.  Pure.

Everything is compared exactly: floats come back from a record as they were.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from inspection.geometry import overlap
from inspection.types import Detection, Judgement, Reason

SAME_PLACE_IOU = 0.1  # findings that overlap by so much are taken for one finding that moved


@dataclass(frozen=True, slots=True)
class Judged:
    """What an inspection said of a part, as far as a record keeps it; None: this record does not keep it."""

    judgement: Judgement
    detections: tuple[Detection, ...]
    measured: Mapping[str, float] | None
    read_serial: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.  ``what`` is its kind; ``by`` by how much (score, pixels, or the measured unit), 0 = no number."""

    what: str
    text: str
    camera: str = ""
    by: float = 0.0


def differences(then: Judged, now: Judged) -> tuple[Difference, ...]:
    """Everything in which ``now`` is not what it was ``then``, the verdict first; () when they are equal."""
    found = tuple(_of_findings(then.detections, now.detections))
    return (
        *_of_verdict(then.judgement, now.judgement),
        *_of_reasons(then.judgement.reasons, now.judgement.reasons, findings_differ=bool(found)),
        *found,
        *_of_serial(then.read_serial, now.read_serial),
        *_of_measured(then.measured, now.measured),
    )


def _of_verdict(then: Judgement, now: Judgement) -> Iterator[Difference]:
    if then.verdict != now.verdict:
        why = f" ({'; '.join(reason.text for reason in now.reasons)})" if now.reasons and not then.reasons else ""
        yield Difference("verdict", f"verdict: {then.verdict.name} then, {now.verdict.name} now{why}")


def _of_reasons(then: Sequence[Reason], now: Sequence[Reason], *, findings_differ: bool) -> Iterator[Difference]:
    """Reasons are told apart by their rules; that one rests on a finding that differs is not said twice."""
    for rule_id in dict.fromkeys(reason.rule_id for reason in (*then, *now)):
        before = [reason for reason in then if reason.rule_id == rule_id]
        after = [reason for reason in now if reason.rule_id == rule_id]
        for old, new in zip_longest(before, after):
            if new is None:
                yield Difference("reason.gone", f"reason {rule_id}: given then ({old.text}), not now")
            elif old is None:
                yield Difference("reason.new", f"reason {rule_id}: not given then, but now ({new.text})")
            elif old.text != new.text:
                yield Difference("reason.text", f"reason {rule_id}: then {old.text!r}, now {new.text!r}")
            elif old.detections != new.detections and not findings_differ:
                counts = f"{len(old.detections)} then, {len(new.detections)} now"
                yield Difference("reason.findings", f"reason {rule_id} rests on other findings ({counts})")


def _of_findings(then: Sequence[Detection], now: Sequence[Detection]) -> Iterator[Difference]:
    if tuple(then) == tuple(now):
        return
    left = Counter(now)
    gone: list[tuple[int, Detection]] = []
    for number, found in enumerate(then, 1):
        if left[found]:
            left[found] -= 1
        else:
            gone.append((number, found))
    fresh = list(left.elements())
    if not gone and not fresh:
        yield Difference("finding.order", "the findings are the same, in another order")
    pairs = _paired(gone, fresh)
    for number, old in gone:
        new = pairs.get(number)
        if new is None:
            yield Difference("finding.gone", f"finding {number} ({_named(old)}): there then, not now", old.camera)
        else:
            yield from _of_finding(number, old, new)
    paired = Counter(pairs.values())
    for new in fresh:
        if paired[new]:
            paired[new] -= 1
        else:
            yield Difference("finding.new", f"a finding that was not there then: {_named(new)}", new.camera)


def _paired(gone: Sequence[tuple[int, Detection]], fresh: Sequence[Detection]) -> dict[int, Detection]:
    """The finding that each of ``gone`` became, by its number: at the same place, of the same class before of another."""
    candidates = [
        (old.defect_class == new.defect_class, shared, number, place)
        for number, old in gone
        for place, new in enumerate(fresh)
        if old.camera == new.camera
        and (shared := overlap(old.region.xyxy_px, new.region.xyxy_px)) >= SAME_PLACE_IOU
    ]  # fmt: skip
    pairs: dict[int, int] = {}
    for _, _, number, place in sorted(candidates, key=lambda one: (-one[0], -one[1], one[2], one[3])):
        if number not in pairs and place not in pairs.values():
            pairs[number] = place
    return {number: fresh[place] for number, place in pairs.items()}


def _of_finding(number: int, old: Detection, new: Detection) -> Iterator[Difference]:
    name = f"finding {number} ({_named(old)})"
    if old.defect_class != new.defect_class:
        text = f"{name}: class {old.defect_class} then, {new.defect_class} now"
        yield Difference("finding.class", text, old.camera)
    if old.score != new.score:
        text = f"{name}: score {old.score!r} then, {new.score!r} now ({new.score - old.score:+.3g})"
        yield Difference("finding.score", text, old.camera, abs(new.score - old.score))
    if old.region.xyxy_px != new.region.xyxy_px:
        moves = [b - a for a, b in zip(old.region.xyxy_px, new.region.xyxy_px, strict=True)]
        text = f"{name}: box moved by {', '.join(f'{move:+.3g}' for move in moves)} px (x1, y1, x2, y2)"
        yield Difference("finding.box", text, old.camera, max(map(abs, moves)))
    elif old.region != new.region:
        yield Difference("finding.outline", f"{name}: another outline", old.camera)
    if old.roi_id != new.roi_id:
        text = f"{name}: in region {old.roi_id or 'none'} then, {new.roi_id or 'none'} now"
        yield Difference("finding.region", text, old.camera)
    if old.found_by != new.found_by:
        text = f"{name}: found by {old.found_by} then, {new.found_by} now"
        yield Difference("finding.found_by", text, old.camera)


def _of_serial(then: str | None, now: str | None) -> Iterator[Difference]:
    if then is not None and now is not None and then != now:
        yield Difference("serial", f"serial read from the frame: {then!r} then, {now!r} now")


def _of_measured(then: Mapping[str, float] | None, now: Mapping[str, float] | None) -> Iterator[Difference]:
    if then is None or now is None:
        return
    for name in dict.fromkeys((*then, *now)):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if before is None or after is None:
            text = f"{name}: measured only {'now' if before is None else 'then'}"
            yield Difference("measured", text, name.rpartition(".")[0])
        else:
            text = f"{name}: {before!r} then, {after!r} now ({after - before:+.3g})"
            yield Difference("measured", text, name.rpartition(".")[0], abs(after - before))


def _named(found: Detection) -> str:
    x1, y1, x2, y2 = (round(side) for side in found.region.xyxy_px)
    return f"{found.defect_class} at {x1},{y1}..{x2},{y2}" + (f" of {found.camera}" if found.camera else "")
