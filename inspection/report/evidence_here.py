"""Whether the pictures of parts that are not OK are still there: a look at names, not at contents."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from inspection.config import StationConfig
from inspection.evidence import SKIPPED
from inspection.evidence_ledger import LEDGER, MARK, MIGRATIONS, ledger_path
from inspection.picture_state import NO_FILE
from inspection.read_only import ReadOnlyFile


@dataclass(frozen=True, slots=True)
class EvidenceHere:
    """Records that are not OK: how many should have pictures, have none since the disk was too slow or full, were deleted by
    a rule of retention, or have lost theirs without one.

    Of ``begun`` ones the deletion was begun, but a file is still there; of ``unreadable`` ones the folder may not be read.
    """

    wanted: int = 0
    skipped: int = 0
    deleted: int = 0
    missing: int = 0
    begun: int = 0
    unreadable: int = 0


def look_at_names(config: StationConfig, parts: pl.DataFrame) -> EvidenceHere:
    """Of the records in ``parts`` that are not OK.  StoreError when the evidence ledger cannot be read."""
    not_ok = parts.filter((pl.col("verdict") != "OK") & (pl.col("evidence") != "")).select("record_id", "evidence")
    skipped = pl.col("evidence").str.starts_with(SKIPPED)
    wanted = not_ok.filter(~skipped)
    names = dict(wanted.iter_rows())
    gone, unreadable = _gone(Path(config.evidence.folder), names)
    deleted, begun = _deleted(config) if names else (set(), set())
    buried = len(gone & deleted)
    return EvidenceHere(
        wanted.height, not_ok.height - wanted.height, buried, len(gone) - buried,
        len((begun & names.keys()) - gone - unreadable), len(unreadable),
    )  # fmt: skip


def _gone(folder: Path, evidence: dict[str, str]) -> tuple[set[str], set[str]]:
    """Records of which there is no file, and those of which that cannot be seen."""
    by_folder: dict[PurePosixPath, list[tuple[str, str]]] = defaultdict(list)
    for record_id, text in evidence.items():
        path = PurePosixPath(text)
        by_folder[path.parent].append((record_id, f"{path.name}_"))
    gone, unreadable = set(), set()
    for relative, wanted in by_folder.items():
        # What a record names becomes no path out of the folder.
        plain = not relative.is_absolute() and ".." not in relative.parts
        names = _names(folder / relative) if plain else []
        if names is None:
            unreadable |= {record_id for record_id, _ in wanted}
            continue
        for record_id, start in wanted:
            place = bisect_left(names, start)
            if place == len(names) or not names[place].startswith(start):
                gone.add(record_id)
    return gone, unreadable


def _names(folder: Path) -> list[str] | None:
    """What lies in a folder, [] when it is not there (any more); None when it may not be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return [] if error.errno in NO_FILE else None


def _deleted(config: StationConfig) -> tuple[set[str], set[str]]:
    """Records with a tombstone, and those of them of which a file is still to be removed."""
    ledger = ReadOnlyFile(ledger_path(Path(config.store)), LEDGER, mark=MARK, newest=len(MIGRATIONS))
    try:
        deleted = {str(row[0]) for row in ledger.rows("SELECT record_id FROM deleted")}
        files = ledger.rows("SELECT file FROM unfinished WHERE step = 'remove'")
        return deleted, deleted & {str(file).rpartition("/")[2].partition("_")[0] for (file,) in files}
    finally:
        ledger.close()
