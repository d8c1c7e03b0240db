"""What one pass of retention did, or would do."""

from collections import Counter
from dataclasses import dataclass, field

from inspection.audit.findings import Unknown
from inspection.errors import StoreError
from inspection.retention.missing import Missing
from inspection.retention.steps import Done

REFUSED = (
    "mount that disk writable, give the user that lineside runs as write permission on that folder, and take back what keeps "
    "the file (`lsattr` shows whether it is immutable); the next pass tries again"
)


@dataclass(slots=True)
class Summary:
    """What one pass did.  ``over_bytes`` are left above the limit; ``protected`` counts parts that may not go, by reason.

    ``unknown`` are files that the ledger does not know: retention leaves them alone, and no limit counts them.  ``refused``
    is what could not be done, by record or file.  ``missing`` should be on the disk by the ledger and is not; ``total_bytes``
    are without it.
    """

    compressed: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    total_bytes: int = 0
    over_bytes: int = 0
    protected: Counter[str] = field(default_factory=Counter)
    left: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unknown: Unknown = field(default_factory=Unknown)
    missing: Missing = field(default_factory=Missing)

    def add(self, done: Done) -> None:
        """Count what a batch did."""
        self.compressed += done.compressed
        self.deleted += done.deleted
        self.freed_bytes += done.freed_bytes
        self.left |= done.left
        self.refused |= done.refused

    def check(self) -> None:
        """StoreError when something could not be done."""
        if not self.refused:
            return
        what = sorted({*self.refused.values()})
        more = f", and {len(what) - 1} more such places" if len(what) > 1 else ""
        raise StoreError(f"{what[0]}{more}", fix=REFUSED)
