"""What a pass of retention would do now; nothing is written."""

from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path

from inspection.audit.unknown import unknown_files
from inspection.config import StationConfig
from inspection.evidence_ledger import LEDGER, MARK, MIGRATIONS, ledger_path, total_bytes
from inspection.read_only import ReadOnlyFile
from inspection.retention.ages import Clock
from inspection.retention.budget import Budget
from inspection.retention.folder import EvidenceFolder
from inspection.retention.limit import over_limit
from inspection.retention.lying import lying_of, refusal_of
from inspection.retention.missing import missing_files
from inspection.retention.selection import Parts, Selection
from inspection.retention.steps import Order
from inspection.retention.summary import Summary
from inspection.types import utc_now


def planned(config: StationConfig, now: datetime | None = None) -> tuple[Summary, Counter[str]]:
    """What a pass would do now, and how many records by each rule.

    Bytes that compressing would free nobody knows before: they are not in ``freed_bytes``.  Records whose files are missing,
    or refuse to go, are not promised.
    """
    folder, summary, by_rule = EvidenceFolder(Path(config.evidence.folder)), Summary(), Counter[str]()
    with (
        closing(Parts(config)) as parts,
        closing(ReadOnlyFile(ledger_path(Path(config.store)), LEDGER, mark=MARK, newest=len(MIGRATIONS))) as ledger,
    ):
        if ledger.rows("SELECT 1 FROM present LIMIT 1"):
            folder.check_there()
        for files in missing_files(ledger, folder):
            summary.missing.add(files)
        clock, budget = Clock(), Budget(1000, lambda seconds: None)
        clock.read(ledger, budget)
        now = now or utc_now()
        selection = Selection(
            ledger, parts, config.retention, now=now, aged_to=clock.limit(now), budget=budget,
            left={*summary.missing.records},
        )  # fmt: skip

        def is_possible(order: Order) -> bool:
            why = refusal_of(folder, lying_of(ledger, order.record_id))
            summary.refused |= {order.record_id: why} if why else {}
            return not why

        def count(order: Order) -> None:
            by_rule[order.rule] += 1
            if order.keep == "nothing":
                summary.freed_bytes += order.bytes
                selection.left.add(order.record_id)

        for order in filter(is_possible, selection.by_rules()):
            count(order)
        summary.total_bytes = total_bytes(ledger) - summary.missing.bytes
        over, words = over_limit(config.retention, folder.root, summary.total_bytes)
        orders = filter(is_possible, selection.by_limit(words))
        while summary.freed_bytes < over and (next_one := next(orders, None)):
            count(next_one)
        summary.over_bytes = max(0, over - summary.freed_bytes)
        summary.protected, summary.left = selection.protected, selection.unreadable
        for some in unknown_files(folder.root, ledger.rows):
            summary.unknown = summary.unknown.with_more(some)
    return summary, by_rule
