"""The words, numbers and times of a report in one language.

Texts stand in ``texts/LANGUAGE.toml``, one table a purpose.  A key that has no text yet is shown as it is, with what it was
to be filled with: a reader loses the sentence, never the fact.
"""

import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Literal

from inspection.report import local_time
from inspection.report.contents import Claim, Span

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
FOLDER = Path(__file__).with_name("texts")
Value = str | int | float
DASH = "\u2013"
_SHARES = ("least", "most", "bound")  # values that are shares, 0..1
_MOST_VALUE = 300  # characters of a value in a sentence


@cache
def all_texts(language: Language) -> Mapping[str, Mapping[str, str]]:
    """Every table of a language."""
    return tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Wording:
    """Words of a language, and times in the station's ``zone``; None is that of this computer."""

    language: Language
    zone: tzinfo | None = None

    def zone_name(self, at: datetime) -> str:
        """The zone at a moment in words: UTC, UTC+08:00, UTC-03:30."""
        return local_time.zone_name(local_time.offset_at(at, self.zone))

    def zone_names(self, offsets: local_time.Offsets) -> str:
        """The same of several, each once."""
        return ", ".join(dict.fromkeys(local_time.zone_name(offset) for _, offset in offsets))

    def words(self, section: str) -> Mapping[str, str]:
        """One table of texts."""
        return all_texts(self.language)[section]

    def text(self, section: str, key: str, values: Mapping[str, object] | Iterable[tuple[str, Value]] = ()) -> str:
        """A sentence with its values filled in; a key without a sentence is shown with its values.

        Where the first count is 1, the sentence KEY_one is taken if the language has one.
        """
        known = dict(values)
        given = {name: self._shown(name, value) for name, value in known.items()}
        first = next((value for value in known.values() if isinstance(value, int)), None)
        words = self.words(section)
        pattern = words.get(f"{key}_one", words.get(key)) if first == 1 else words.get(key)
        if pattern is not None:
            with suppress(KeyError, IndexError):
                return pattern.format(**given)
        filled = ", ".join(f"{name} {value}" for name, value in given.items())
        return f"{key} ({filled})" if filled else key

    def _shown(self, name: str, value: object) -> str:
        if name in _SHARES and isinstance(value, float):
            return self.percent(value)
        if name == "quantity" and isinstance(value, str):
            return self.words("quantity").get(value, self.value(value))
        if name == "unit" and value:
            return f" {self.words('unit').get(str(value), self.value(value))}"
        return self.value(value)

    def has(self, section: str, key: str) -> bool:
        """Whether there is a text for a key."""
        return key in self.words(section)

    def value(self, value: object) -> str:
        """A value as it stands in a sentence: counts and numbers grouped, times local."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return str(value)
        if isinstance(value, int):
            return self.count(value)
        if isinstance(value, float):
            return self.number(value)
        with suppress(ValueError):
            if len(value) >= 19 and (at := datetime.fromisoformat(value)).tzinfo is not None:
                return self.when(at)
        return value if len(value) <= _MOST_VALUE else value[:_MOST_VALUE] + "\u2026"

    def count(self, value: int) -> str:
        """A whole number with its thousands apart, as both languages write it."""
        return f"{value:,}"

    def number(self, value: float) -> str:
        """A measured number with four significant digits."""
        shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return shown.replace("-", "\u2212")

    def tenths(self, value: float) -> str:
        """Milliseconds to a tenth."""
        return f"{value:,.1f}"

    def percent(self, share: float) -> str:
        """A share in per cent; what is not quite 0 or 1 is never rounded there."""
        return f"{percent_digits(share)}%"

    def when(self, at: datetime | None) -> str:
        """A moment in the station's time, to the second."""
        return DASH if at is None else local_time.on_the_clock(at, "%Y-%m-%d %H:%M:%S", self.zone)

    def minute(self, at: datetime) -> str:
        """A moment in the station's time, to the minute."""
        return local_time.on_the_clock(at, "%Y-%m-%d %H:%M", self.zone)

    def claim(self, claim: Claim) -> str:
        """The number of a claim, or its interval where that is too wide for one number; empty where there is none."""
        if claim.value is not None and claim.vague and claim.low is not None and claim.high is not None:
            return f"{self.percent(claim.low)} {DASH} {self.percent(claim.high)}"
        return "" if claim.value is None else self.percent(claim.value)

    def rests_on(self, claim: Claim) -> str:
        """What a claim rests on: its interval and count; or why there is no number."""
        if claim.value is None:
            return self.text("why_not", claim.why_not or "unknown", claim.values)
        parts = [self.text("page", "no_number_yet")] if claim.vague else []
        if claim.low is not None and claim.high is not None:
            between = {"low": self.percent(claim.low), "high": self.percent(claim.high)}
            parts.append(self.text("page", "interval", between))
        if claim.of is not None:
            parts.append(self.text("page", "of_count", {"n": claim.of}))
        return self.words("page")["semicolon"].join(parts)

    def promise(self, text: str) -> str:
        """What a model promises: a sentence of ours by its key, or the model card's own words."""
        return self.words("promise").get(text, text)

    def span(self, span: Span) -> str:
        """Which records: the times, or all of them, and what narrows them down."""
        if span.since is None and span.until is None:
            parts = [self.text("page", "span_all")]
        else:
            ends = {"since": self.when(span.since), "until": self.when(span.until)}
            key = "span_until" if span.since is None else "span_since" if span.until is None else "span_between"
            parts = [self.text("page", key, ends)]
        for name in ("shift", "lot", "serial", "recipe_id"):
            if chosen := getattr(span, name):
                parts.append(self.text("page", f"span_{name}", {"name": chosen}))
        return self.words("page")["semicolon"].join(parts)


def percent_digits(share: float) -> str:
    """Digits of a share in per cent: two decimals, more where that would round to 0 or 100."""
    shown = 100 * share
    rest = min(abs(shown), abs(100 - shown))
    if rest == 0:
        return f"{shown:.0f}"
    decimals = 2
    while rest < 1.5 * 10**-decimals and decimals < 9:
        decimals += 1
    return f"{shown:.{decimals}f}"
