"""Whether the pictures of parts that are not OK are still there: a look at names, not at contents."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from inspection.config import StationConfig
from inspection.evidence import SKIPPED
from inspection.evidence_ledger import LEDGER, MARK, MIGRATIONS, ledger_path
from inspection.read_only import ReadOnlyFile


@dataclass(frozen=True, slots=True)
class EvidenceHere:
    """Records that are not OK: how many should have pictures, have none since the disk was too slow or full, were deleted by
    a rule of retention, or have lost theirs without one."""

    wanted: int = 0
    skipped: int = 0
    deleted: int = 0
    missing: int = 0


def look_at_names(config: StationConfig, parts: pl.DataFrame) -> EvidenceHere:
    """Of the records in ``parts`` that are not OK.  StoreError when the evidence ledger cannot be read."""
    not_ok = parts.filter((pl.col("verdict") != "OK") & (pl.col("evidence") != "")).select("record_id", "evidence")
    skipped = pl.col("evidence").str.starts_with(SKIPPED)
    wanted = not_ok.filter(~skipped)
    gone = _gone(Path(config.evidence.folder), dict(wanted.iter_rows()))
    deleted = len(gone & _deleted(config)) if gone else 0
    return EvidenceHere(wanted.height, not_ok.height - wanted.height, deleted, len(gone) - deleted)


def _gone(folder: Path, evidence: dict[str, str]) -> set[str]:
    """Records of which there is no file."""
    by_folder: dict[PurePosixPath, list[tuple[str, str]]] = defaultdict(list)
    for record_id, text in evidence.items():
        path = PurePosixPath(text)
        by_folder[path.parent].append((record_id, f"{path.name}_"))
    gone = set()
    for relative, wanted in by_folder.items():
        # What a record names becomes no path out of the folder.
        plain = not relative.is_absolute() and ".." not in relative.parts
        names = _names(folder / relative) if plain else []
        for record_id, start in wanted:
            place = bisect_left(names, start)
            if place == len(names) or not names[place].startswith(start):
                gone.add(record_id)
    return gone


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:  # it is not there (any more), or may not be read: then nothing of it can be shown
        return []


def _deleted(config: StationConfig) -> set[str]:
    ledger = ReadOnlyFile(ledger_path(Path(config.store)), LEDGER, mark=MARK, newest=len(MIGRATIONS))
    try:
        return {str(row[0]) for row in ledger.rows("SELECT record_id FROM deleted")}
    finally:
        ledger.close()
