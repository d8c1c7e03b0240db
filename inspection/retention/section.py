"""`[retention]` of the station config: which pictures are compressed or deleted, and when.

What must be kept cannot be asked for here: a rule that would touch a part nobody has decided on, or an escape, is refused
with the reason, so that nobody believes that it works.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from inspection.toml_file import Section

VerdictName = Literal["OK", "NG", "REVIEW", "ERROR"]
Keep = Literal["lossless", "compressed", "nothing"]
DECIDED = ("confirmed", "false_call")


class RetentionRule(Section):
    """What becomes of the pictures of some parts; the first rule of the list that fits a part decides."""

    verdicts: tuple[VerdictName, ...] = Field(min_length=1, description="verdicts of the parts that it is for")
    classes: tuple[str, ...] = Field(
        default=(), max_length=100,
        description="only parts with these defect classes: with all of a part's classes among them where the rule "
        "compresses or deletes, with any where it keeps; empty = whatever was found",
    )  # fmt: skip
    dispositions: tuple[Literal["confirmed", "false_call", "escape", "unsure"], ...] = Field(
        default=(), description="only parts whose reviews came to this; empty = also parts that nobody has reviewed"
    )
    after_days: float = Field(
        ge=0, le=36500, allow_inf_nan=False,
        description="age from which it fits, days, counted up to a day after the newest picture; a clock that leaps ahead by "
        "more than 62 days ages none unless pictures show that it stayed so for a day",
    )  # fmt: skip
    keep: Keep = Field(
        description="lossless = as written, can be replayed; compressed = frames as JPEG, raw pictures deleted; nothing = "
        "deleted, a tombstone stays"
    )

    @model_validator(mode="after")
    def _touches_nothing_protected(self) -> "RetentionRule":
        if self.keep == "lossless":
            return self
        judged = [verdict for verdict in self.verdicts if verdict in ("NG", "REVIEW")]
        if judged and not self.dispositions:
            raise ValueError(
                f"keep = {self.keep!r} for {' and '.join(judged)} would take in parts that nobody has reviewed: their pictures "
                'are kept as they are until a review decided; add dispositions = ["confirmed", "false_call"] (or one of them)'
            )
        wrong = [word for word in self.dispositions if word not in DECIDED]
        if wrong:
            raise ValueError(
                f"keep = {self.keep!r} for dispositions {' and '.join(wrong)}: pictures of escapes, and of parts that "
                "nobody has decided on, are always kept as they are; leave these words out"
            )
        return self


class RetentionSection(Section):
    """Which pictures are compressed or deleted; without rules and limits none ever is."""

    rules: tuple[RetentionRule, ...] = Field(
        default=(), max_length=100, description="tried in this order; the first that fits a part decides"
    )
    max_share: float = Field(
        default=0.0, ge=0, le=0.95, allow_inf_nan=False,
        description="share of its disk that the pictures may take (0..0.95), 0 = no limit; beyond it the oldest go: OK first, "
        "then ERROR, then reviewed NG and REVIEW, each with those last that a rule keeps losslessly",
    )  # fmt: skip
    max_gb: float = Field(
        default=0.0, ge=0, le=1e6, allow_inf_nan=False, description="the same as a size, GB (10^9 bytes), 0 = no limit"
    )
    min_free_gb: float = Field(
        default=0.0, ge=0, le=1e6, allow_inf_nan=False,
        description="space that the disk of the pictures is to have free, whatever else takes it, GB, 0 = no limit",
    )  # fmt: skip
    budget_ms_per_s: int = Field(
        default=100, ge=1, le=1000, description="time at work on disk and processor, ms of each second"
    )
    jpeg_level: int = Field(default=90, ge=50, le=100, description="quality of the JPEGs")
    every_s: int = Field(default=60, ge=1, le=86400, description="pause between two passes, s")

    @model_validator(mode="after")
    def _each_rule_can_fit(self) -> "RetentionSection":
        for number, rule in enumerate(self.rules, 1):
            first = _that_hides(rule, self.rules[: number - 1])
            if first:
                raise ValueError(
                    f"rule {number} can never fit: rule {first} fits all its parts before it does; put the rule with the "
                    "longer age or the narrower choice first"
                )
        return self

    @property
    def asks_for_something(self) -> bool:
        """Whether any picture can ever be compressed or deleted."""
        limited = bool(self.max_share or self.max_gb or self.min_free_gb)
        return limited or any(rule.keep != "lossless" for rule in self.rules)


def _that_hides(rule: RetentionRule, earlier: Sequence[RetentionRule]) -> int:
    """Number (from 1) of the earlier rule that always fits where this one does; 0 when there is none."""
    for number, other in enumerate(earlier, 1):
        reviews = not other.dispositions or (rule.dispositions and {*rule.dispositions} <= {*other.dispositions})
        if (
            {*rule.verdicts} <= {*other.verdicts}
            and reviews
            and not other.classes
            and other.after_days <= rule.after_days
        ):
            return number
    return 0
