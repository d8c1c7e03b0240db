"""Which findings the gallery shows: a bounded number of each class."""

import polars as pl

from inspection.evidence import SKIPPED
from inspection.report.contents import GalleryItem, ParetoRow
from inspection.report.facts import Facts

MOST_CLASSES = 8
MOST_OF_A_CLASS = 6


def choose(facts: Facts, pareto: tuple[ParetoRow, ...]) -> tuple[GalleryItem, ...]:
    """Of the commonest classes some findings each, of different parts and without their pictures.

    Parts with pictures come first, of these the reviewed ones, of these the clearest findings.
    """
    classes = [row.defect_class for row in pareto[:MOST_CLASSES]]
    pictured = (pl.col("evidence") != "") & ~pl.col("evidence").str.starts_with(SKIPPED)
    parts = facts.parts.select(
        "rowid", "record_id", "serial", "judged_at", "verdict", pl.col("disposition").fill_null(""), pictured.alias("pictured")
    )  # fmt: skip
    found = facts.findings.filter("decisive").with_columns(pl.col("defect_class").cast(pl.String))
    ranked = (
        found.filter(pl.col("defect_class").is_in(classes))
        .join(parts, on="rowid", how="inner")
        .sort("pictured", pl.col("disposition") != "", "score", "rowid", descending=True)
        .unique(("rowid", "defect_class"), keep="first", maintain_order=True)
        .group_by("defect_class", maintain_order=True)
        .head(MOST_OF_A_CLASS)
        .drop_nulls("judged_at")
    )
    items = [_item(row) for row in ranked.iter_rows(named=True)]
    return tuple(sorted(items, key=lambda item: classes.index(item.defect_class)))


def _item(row: dict[str, object]) -> GalleryItem:
    box = tuple(float(row[side]) for side in ("x1", "y1", "x2", "y2"))  # type: ignore[arg-type]
    return GalleryItem(
        str(row["record_id"]), str(row["serial"]), row["judged_at"], str(row["defect_class"]), str(row["camera"]),  # type: ignore[arg-type]
        box, float(row["score"]), str(row["verdict"]), str(row["disposition"]),  # type: ignore[arg-type]
    )  # fmt: skip
