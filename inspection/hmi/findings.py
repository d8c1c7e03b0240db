"""The findings of a record as pages name them."""

from dataclasses import dataclass

from inspection.judge import asked_for
from inspection.types import Detection, Reason, Record, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding that the verdict rests on.

    ``number`` counts from 1, as it is drawn on the frame; ``index`` is its place among ``detections_of``, as the
    addresses of its pictures name it; ``asked`` is the verdict it asks for.
    """

    number: int
    index: int
    detection: Detection
    asked: Verdict


def detections_of(record: Record) -> tuple[Detection, ...]:
    """Every finding of a record; of a part that missed its deadline those that came later."""
    return record.detections or (record.late.detections if record.late else ())


def reasons_of(record: Record) -> tuple[Reason, ...]:
    """Why a part is not OK; of a part that missed its deadline also what was found later."""
    return record.judgement.reasons + (record.late.judgement.reasons if record.late else ())


def counted(record: Record) -> tuple[Finding, ...]:
    """The findings that the verdict rests on, in the order of its reasons, each once."""
    all_of_them = detections_of(record)
    place = {detection: index for index, detection in reversed(list(enumerate(all_of_them)))}
    found: dict[int, Verdict] = {}
    for reason in reasons_of(record):
        for detection in reason.detections:
            if detection in place:
                found.setdefault(place[detection], asked_for(reason))
    return tuple(
        Finding(number, index, all_of_them[index], asked) for number, (index, asked) in enumerate(found.items(), 1)
    )
