"""Which rule decides on the pictures of a part, and which parts no rule can touch.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from inspection.retention.section import RetentionRule
from inspection.types import Disposition

GROUPS = (("OK",), ("ERROR",), ("NG", "REVIEW"))  # in this order pictures go when a limit is exceeded


@dataclass(frozen=True, slots=True)
class Part:
    """What a rule asks about: ``verdict`` as answered, ``late_verdict`` the true one of a part that missed its deadline.

    ``disposition`` is what stands of its reviews, None while nobody has decided; ``reviews`` is how many there are.
    ``known`` is False where the record store has no record of it.
    """

    verdict: str
    at: datetime
    late_verdict: str = ""
    classes: frozenset[str] = frozenset()
    disposition: Disposition | None = None
    reviews: int = 0
    known: bool = True


def protection(part: Part) -> str:
    """Why no rule and no limit may touch the pictures of a part; "" when they may."""
    if part.disposition == "escape":
        return "escape"
    if part.disposition not in ("confirmed", "false_call"):
        if {part.verdict, part.late_verdict} & {"NG", "REVIEW"}:
            return "not reviewed"
        if part.reviews:
            return "undecided"
    if not part.known and part.verdict != "OK":
        return "record not in the store"
    if part.verdict not in ("OK", "NG", "REVIEW", "ERROR"):
        return "verdict not known"
    return ""


def fitting(rules: Sequence[RetentionRule], part: Part, now: datetime) -> RetentionRule | None:
    """The first rule that fits; None when none does."""
    return next((rule for rule in rules if _fits(rule, part, now)), None)


def _fits(rule: RetentionRule, part: Part, now: datetime) -> bool:
    if part.verdict not in rule.verdicts or now - part.at < timedelta(days=rule.after_days):
        return False
    # Somebody who is unsure has decided nothing; a rule that keeps such parts may name that.
    word = "unsure" if part.disposition is None and part.reviews else part.disposition
    if rule.dispositions and word not in rule.dispositions:
        return False
    if not rule.classes:
        return True
    if rule.keep == "lossless":
        return bool(part.classes & {*rule.classes})
    return bool(part.classes) and part.classes <= {*rule.classes}


def to_be_done(rules: Sequence[RetentionRule], part: Part, now: datetime) -> RetentionRule | None:
    """The rule by which the pictures of a part are compressed or deleted now; None when they stay as they are."""
    rule = fitting(rules, part, now)
    return None if rule is None or rule.keep == "lossless" or protection(part) else rule


def named(rules: Sequence[RetentionRule], rule: RetentionRule) -> str:
    """A rule in words that can be read years later, when the config has other rules."""
    chosen = " ".join(filter(None, ("/".join(rule.verdicts), "/".join(rule.classes), "/".join(rule.dispositions))))
    return f"rule {rules.index(rule) + 1}: {chosen} after {rule.after_days:g} days keep {rule.keep}"
