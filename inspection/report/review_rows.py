"""What people said of the records of a span: of each record the review that stands."""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from pathlib import Path

import polars as pl

from inspection.report.snapshot import reviews_at_one_moment
from inspection.reviews import standing
from inspection.types import Review


def dispositions(store: Path, record_ids: pl.Series) -> dict[str, str]:
    """What stands of those of the records that were reviewed, ``unsure`` where nobody has decided."""
    with reviews_at_one_moment(store) as database:
        if database is None:
            return {}
        sql = "SELECT record_id, disposition, reviewer, at FROM reviews ORDER BY record_id, review_id"
        rows = database.execute(sql).fetchall()
    reviewed = pl.Series("record_id", list({row[0] for row in rows}), dtype=pl.String)
    wanted = set(record_ids.filter(record_ids.is_in(reviewed.implode())).to_list())
    return _standing(row for row in rows if row[0] in wanted)


def _standing(rows: Iterable[tuple[str, str, str, str]]) -> dict[str, str]:
    found = {}
    for record_id, group in groupby(rows, key=lambda row: row[0]):
        given = [Review(name, word, who, datetime.fromisoformat(at)) for name, word, who, at in group]  # type: ignore[arg-type]
        stands = standing(given)
        found[record_id] = "unsure" if stands is None else str(stands.disposition)
    return found
