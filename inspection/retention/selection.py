"""Which records' pictures are to be compressed or deleted now: by the rules, and by the limit of the disk."""

from collections import Counter
from collections.abc import Container, Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from pathlib import Path

from inspection.config import StationConfig
from inspection.errors import StoreError
from inspection.evidence_ledger import Present, Rows, present
from inspection.record_reader import RecordReader
from inspection.retention.budget import Budget
from inspection.retention.rules import GROUPS, Part, fitting, named, protection, to_be_done
from inspection.retention.section import RetentionSection
from inspection.retention.steps import Order
from inspection.reviews import read_reviews, reviews_of, standing
from inspection.types import Record

_PAGE = 100  # records looked at without a pause
_END = "9999"  # after every time
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

    def of(self, one: Present) -> Part | str:
        """What a rule asks about the part; where its own rows cannot be read why not.  StoreError when a file cannot be."""
        try:
            return self._of(one)
        except (StoreError, ValueError, OverflowError) as error:
            self._records.last_rowid()  # StoreError when it is not this record alone
            self._reviews.rows("SELECT 1 FROM reviews LIMIT 1")
            return error.what if isinstance(error, StoreError) else f"what is known of it cannot be read ({error})"

    def _of(self, one: Present) -> Part:
        reviews = reviews_of(self._reviews, one.record_id)
        decided = standing(reviews)
        # An OK part has no findings, and no true result that came later: its record tells nothing more.
        record = None if one.verdict == "OK" else self._records.find(one.record_id)
        return Part(
            one.verdict, datetime.fromisoformat(one.since).astimezone(UTC),
            late_verdict=record.late.judgement.verdict.name if record and record.late else "",
            classes=_classes(record), disposition=decided.disposition if decided else None,
            reviews=len(reviews), known=record is not None,
        )  # fmt: skip


def _classes(record: Record | None) -> frozenset[str]:
    reasons = record.judgement.reasons if record else ()
    return frozenset(found.defect_class for reason in reasons for found in reason.detections)


class Selection:
    """One look at everything that lies on the disk, at the time ``now``; pictures age up to ``aged_to``.

    ``protected`` counts the parts that a rule or the limit would have liked to touch and may not, by reason.  Records in
    ``left`` are passed over, those in ``incompressible`` where they would be compressed; ``unreadable`` are those of which
    too little can be read to decide, with why.
    """

    def __init__(
        self,
        ledger: Rows,
        parts: Parts,
        section: RetentionSection,
        *,
        now: datetime,
        aged_to: datetime,
        budget: Budget,
        left: set[str],
        incompressible: Container[str] = (),
    ) -> None:
        self._ledger, self._parts, self._rules = ledger, parts, section.rules
        self._budget = budget
        self._seen: set[str] = set()  # parts that were counted as protected
        self.protected: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}
        self._now, self._aged_to = now, aged_to
        self.left, self._incompressible = left, incompressible

    def by_rules(self) -> Iterator[Order]:
        """What the rules ask for, the oldest parts of each rule first."""
        for rule in self._rules:
            if rule.keep == "lossless":
                continue
            before = (self._aged_to - timedelta(days=rule.after_days)).isoformat()
            for verdict in rule.verdicts:
                for one, part in self._parts_of(verdict, before, lossless=rule.keep == "compressed"):
                    if to_be_done(self._rules, part, self._aged_to) is rule:
                        yield Order(one.record_id, rule.keep, named(self._rules, rule), one.bytes)
                    elif fitting(self._rules, part, self._aged_to) is rule:
                        self._note(one, part)

    def by_limit(self, limit: str) -> Iterator[Order]:
        """Deletions in the order in which pictures go, for as long as it is asked: see GROUPS; parts that a rule keeps
        losslessly go last.
        """
        for wished in (False, True):
            for group in GROUPS:
                for one, part in merge(*(self._parts_of(verdict, _END) for verdict in group), key=_age):
                    if protection(part):
                        self._note(one, part)
                    elif wished == self._is_wished(part):
                        yield Order(one.record_id, "nothing", limit, one.bytes)

    def _is_wished(self, part: Part) -> bool:
        rule = fitting(self._rules, part, self._aged_to)
        return rule is not None and rule.keep == "lossless"

    def _note(self, one: Present, part: Part) -> None:
        if one.record_id not in self._seen:
            self._seen.add(one.record_id)
            self.protected[protection(part)] += 1

    def _parts_of(self, verdict: str, before: str, *, lossless: bool = False) -> Iterator[tuple[Present, Part]]:
        """Parts with pictures on the disk, the oldest first, read a page at a time; ``lossless`` those to be compressed."""
        after = ("", "")
        passed_over = (self.left, self._incompressible if lossless else ())
        before = min(before, (self._now - FRESH).isoformat())
        while True:
            with self._budget.spend():
                page = present(self._ledger, verdict, before, after=after, limit=_PAGE, lossless=lossless)
                parts = [
                    (one, self._parts.of(one))
                    for one in page
                    if not any(one.record_id in names for names in passed_over)
                ]
            if not page:
                return
            after = (page[-1].since, page[-1].record_id)
            self.unreadable |= {one.record_id: why for one, why in parts if isinstance(why, str)}
            yield from ((one, part) for one, part in parts if isinstance(part, Part))


def _age(found: tuple[Present, Part]) -> tuple[str, str]:
    return found[0].since, found[0].record_id
