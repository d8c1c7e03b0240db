"""The queue as the page shows it: every sample with its place, what is known of it, and what happened to it last."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from datasets.relabel.background import Order
from datasets.relabel.labels import Labels
from datasets.relabel.vouched import read_words


@dataclass(frozen=True, slots=True)
class Last:
    """The last save of a sample, whether it changed anything or not."""

    at: datetime
    who: str
    why: str


class Worklist:
    """The samples of a dataset in an order; ``number`` of a sample is its place in the dataset, which never changes."""

    def __init__(self, labels: Labels, *, by_name: bool) -> None:
        self._labels = labels
        self._by_name = by_name
        self.names = labels.names
        self.number = {name: number for number, name in enumerate(self.names)}
        self._last: dict[str, Last] = {}
        for change in labels.changes():
            self.note(change.sample, Last(change.at, change.who, change.why))
        for word in read_words(labels.folder):
            self.note(word.sample, Last(word.when, word.who, word.why))

    def note(self, name: str, last: Last) -> None:
        """Remember a save, unless a later one is known."""
        known = self._last.get(name)
        if known is None or known.at <= last.at:
            self._last[name] = last

    def last(self, name: str) -> Last | None:
        """The last save of a sample; None when there was none."""
        return self._last.get(name)

    def rows(self, order: Order) -> list[dict[str, Any]]:
        """A row for each sample, escapes that must be drawn first; copies say under which sample they are folded."""
        to_draw = set(self._labels.to_draw)
        ranked = {} if self._by_name else {row["name"]: row for row in order.rows if row["name"] in self.number}
        under = {copy: name for name, row in ranked.items() for copy in row["folded"] if copy in self.number}
        names = list(dict.fromkeys([*ranked, *under, *self.names]))
        if self._by_name:
            names.sort()
        names.sort(key=lambda name: name not in to_draw)
        return [self._row(name, ranked.get(name, {}), under, name in to_draw) for name in names]

    def _row(self, name: str, ranked: dict[str, Any], under: dict[str, str], to_draw: bool) -> dict[str, Any]:
        sample, last = self._labels.sample(name), self._last.get(name)
        return {
            "n": self.number[name],
            "name": name,
            "labels": len(sample.labels),
            "image_class": sample.image_class,
            "classes": sorted(sample.defect_classes),
            "to_draw": to_draw,
            "done": last is not None and not to_draw,
            **_last_fields(last),
            "reasons": {key: round(float(value), 3) for key, value in ranked.get("reasons", {}).items()},
            "folded": list(self._copies(ranked)),
            "folded_under": -1 if to_draw else self.number.get(under.get(name, ""), -1),
        }

    def _copies(self, ranked: dict[str, Any]) -> Iterator[int]:
        return (self.number[name] for name in ranked.get("folded", ()) if name in self.number)


def _last_fields(last: Last | None) -> dict[str, Any]:
    if last is None:
        return {"today": False, "changed": "", "who": "", "why": ""}
    today = last.at.astimezone().date() == datetime.now().astimezone().date()
    return {"today": today, "changed": last.at.isoformat(), "who": last.who, "why": last.why}
