"""Which records' pictures are to be compressed or deleted now: by the rules, and by the limit of the disk."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import merge
from pathlib import Path

from inspection.config import StationConfig
from inspection.evidence_ledger import Present, Rows, newest, present
from inspection.record_reader import RecordReader
from inspection.retention.budget import Budget
from inspection.retention.rules import GROUPS, Part, fitting, named, protection, to_be_done
from inspection.retention.section import RetentionSection
from inspection.retention.steps import Order
from inspection.reviews import read_reviews, reviews_of, standing
from inspection.types import Record

_PAGE = 100  # records looked at without a pause
_END = "9999"  # after every time
STANDSTILL = timedelta(days=1)
FRESH = timedelta(seconds=10)  # the record of a picture, or its late result, may still be on its way into the store


class Parts:
    """What is known of parts, from the record store and the reviews, both only read; ``close`` gives them back."""

    def __init__(self, config: StationConfig) -> None:
        store = Path(config.store)
        self._records = RecordReader(store)
        self._reviews = read_reviews(store)

    def close(self) -> None:
        """Close both files."""
        self._records.close()
        self._reviews.close()

    def of(self, one: Present) -> Part:
        """What a rule asks about the part; StoreError when a file cannot be read."""
        reviews = reviews_of(self._reviews, one.record_id)
        decided = standing(reviews)
        # An OK part has no findings, and no true result that came later: its record tells nothing more.
        record = None if one.verdict == "OK" else self._records.find(one.record_id)
        return Part(
            one.verdict, datetime.fromisoformat(one.since),
            late_verdict=record.late.judgement.verdict.name if record and record.late else "",
            classes=_classes(record), disposition=decided.disposition if decided else None,
            reviews=len(reviews), known=record is not None,
        )  # fmt: skip


def _classes(record: Record | None) -> frozenset[str]:
    reasons = record.judgement.reasons if record else ()
    return frozenset(found.defect_class for reason in reasons for found in reason.detections)


class Selection:
    """One look at everything that lies on the disk, at the time ``now``.

    ``protected`` counts the parts that a rule or the limit would have liked to touch and may not, by reason.  Records in
    ``left`` are passed over.
    """

    def __init__(
        self, ledger: Rows, parts: Parts, section: RetentionSection, *, now: datetime, budget: Budget, left: set[str]
    ) -> None:
        self._ledger, self._parts, self._rules = ledger, parts, section.rules
        self._budget = budget
        self._seen: set[str] = set()  # parts that were counted as protected
        self.protected: Counter[str] = Counter()
        last = newest(ledger)
        # While no pictures come in none grows older: neither a holiday nor a clock that leapt ahead empties the folder.
        self.now = min(now, datetime.fromisoformat(last) + STANDSTILL) if last else now
        self.left = left

    def by_rules(self) -> Iterator[Order]:
        """What the rules ask for, the oldest parts of each rule first."""
        for rule in self._rules:
            if rule.keep == "lossless":
                continue
            before = (self.now - timedelta(days=rule.after_days)).isoformat()
            for verdict in rule.verdicts:
                for one, part in self._parts_of(verdict, before, lossless=rule.keep == "compressed"):
                    if to_be_done(self._rules, part, self.now) is rule:
                        yield Order(one.record_id, rule.keep, named(self._rules, rule))
                    elif fitting(self._rules, part, self.now) is rule:
                        self._note(one, part)

    def by_limit(self, over_bytes: int, limit: str) -> Iterator[Order]:
        """Deletions until so many bytes are freed: see GROUPS; parts that a rule keeps losslessly go last."""
        for wished in (False, True):
            for group in GROUPS:
                for one, part in merge(*(self._parts_of(verdict, _END) for verdict in group), key=_age):
                    if over_bytes <= 0:
                        return
                    if protection(part):
                        self._note(one, part)
                    elif wished == self._is_wished(part):
                        over_bytes -= one.bytes
                        yield Order(one.record_id, "nothing", limit)

    def _is_wished(self, part: Part) -> bool:
        rule = fitting(self._rules, part, self.now)
        return rule is not None and rule.keep == "lossless"

    def _note(self, one: Present, part: Part) -> None:
        if one.record_id not in self._seen:
            self._seen.add(one.record_id)
            self.protected[protection(part)] += 1

    def _parts_of(self, verdict: str, before: str, *, lossless: bool = False) -> Iterator[tuple[Present, Part]]:
        """Parts with pictures on the disk, the oldest first, read a page at a time."""
        after = ("", "")
        before = min(before, (self.now - FRESH).isoformat())
        while True:
            with self._budget.spend():
                page = present(self._ledger, verdict, before, after=after, limit=_PAGE, lossless=lossless)
                parts = [(one, self._parts.of(one)) for one in page if one.record_id not in self.left]
            if not page:
                return
            after = (page[-1].since, page[-1].record_id)
            yield from parts


def _age(found: tuple[Present, Part]) -> tuple[str, str]:
    return found[0].since, found[0].record_id
