"""Picture files that should lie on the disk by the ledger, and are not there: no limit may count them as lying there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from inspection.audit.findings import FEW
from inspection.evidence_ledger import Rows, due_files
from inspection.retention.folder import EvidenceFolder

_PAGE = 200  # records looked at without a pause


@dataclass(slots=True)
class Missing:
    """Files that are missing: how many, their bytes by the ledger, the first few of them, and whose they are."""

    files: int = 0
    bytes: int = 0
    first: list[str] = field(default_factory=list)
    records: set[str] = field(default_factory=set)

    def add(self, files: Sequence[tuple[str, str, int]]) -> None:
        """Count files: record, file, bytes."""
        self.files += len(files)
        self.bytes += sum(size for _, _, size in files)
        self.first += [file for _, file, _ in files[: FEW - len(self.first)]]
        self.records |= {record_id for record_id, _, _ in files}


def missing_files(ledger: Rows, folder: EvidenceFolder) -> Iterator[list[tuple[str, str, int]]]:
    """What is missing of all that should lie there (record, file, bytes), some records at a time."""
    last, files = due_files(ledger, 0, _PAGE)
    while last:
        yield [one for one in files if folder.lacks(one[1])]
        last, files = due_files(ledger, last, _PAGE)
