"""Reasons of a verdict in the words of the person at the line."""

import re

from inspection.types import Reason
from inspection.web.texts import Language, words

_FINDING = re.compile(r"(ng|review)\.(.+?)(?:@(.+))?")


def in_words(language: Language, reason: Reason) -> str:
    """A sentence for the operator; the reason's own text where its rule has none."""
    table = words(language, "reasons")
    found = _FINDING.fullmatch(reason.rule_id)
    if found is not None and reason.detections:
        kind, name, roi = found.groups()
        best = max(detection.score for detection in reason.detections)
        sentence = table[f"{kind}_in" if roi else kind]
        return sentence.format(name=name, roi=roi, count=len(reason.detections), best=f"{best:.2f}")
    return table.get(reason.rule_id, reason.text)


def explains_itself(language: Language, reason: Reason) -> bool:
    """Whether the sentence already says all that the reason's own text does."""
    return bool(reason.detections) or in_words(language, reason) == reason.text
