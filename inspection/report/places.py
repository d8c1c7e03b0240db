"""Where findings lie on the golden: from frame pixels to golden pixels, by what registration measured of each frame."""

import polars as pl

from inspection.no_picture import NoPicture
from inspection.report.contents import MapPoint, MapView
from inspection.report.facts import Facts
from inspection.report.versions_here import Golden, VersionsHere

MOST_POINTS = 50_000  # of a map
_MEASURED = ("shift_x_px", "shift_y_px", "turn_deg", "scale")
_POINT = ("x", "y", "radius", "defect_class", "verdict", "disposition", "record_id")


def maps(facts: Facts, versions: VersionsHere) -> tuple[MapView, ...]:
    """A map for each golden that findings lie on, the one with the most first; one without picture where there is none."""
    findings = _findings(facts, versions)
    by_golden: dict[tuple[str, str, str], list[tuple[pl.DataFrame, Golden | NoPicture]]] = {}
    for (recipe_id, sha256, role), own in findings.group_by("recipe_id", "recipe_sha256", "role", maintain_order=True):
        golden = versions.golden(str(sha256), str(role))
        key = (str(recipe_id), str(role), golden.sha256 if isinstance(golden, Golden) else golden.word)
        by_golden.setdefault(key, []).append((own, golden))
    made = [_map(recipe_id, role, found) for (recipe_id, role, _), found in by_golden.items()]
    return tuple(sorted(made, key=lambda view: (-view.placed - view.unplaced, view.recipe_id, view.camera)))


def _findings(facts: Facts, versions: VersionsHere) -> pl.DataFrame:
    """Findings that reasons name, with the part's version; records of one camera need not name it."""
    columns = ("rowid", "record_id", "recipe_id", "recipe_sha256", "verdict", "disposition")
    parts = facts.parts.select(columns).with_columns(pl.col("recipe_id", "recipe_sha256").cast(pl.String))
    found = facts.findings.filter("decisive").join(parts, on="rowid", how="inner", maintain_order="left")
    only = {sha: next(iter(versions.views(sha)), "") for sha in found["recipe_sha256"].unique()}
    first = pl.col("recipe_sha256").replace_strict(only, default="", return_dtype=pl.String)
    camera = pl.col("camera").cast(pl.String)
    return found.with_columns(pl.when(camera == "").then(first).otherwise(camera).alias("role")).join(
        facts.measured.drop("judged_at"), on="rowid", how="left", maintain_order="left"
    )


def _map(recipe_id: str, role: str, found: list[tuple[pl.DataFrame, Golden | NoPicture]]) -> MapView:
    findings, golden = pl.concat([frame for frame, _ in found]), found[0][1]
    if isinstance(golden, NoPicture):
        return MapView(role, recipe_id, "", None, 0, 0, (), 0, findings.height, why_not=golden.word)
    placed = placed_on(golden, findings, role)
    step = -(-placed.height // MOST_POINTS) or 1
    points = tuple(MapPoint(*row) for row in placed.gather_every(step).iter_rows())
    unplaced = findings.height - placed.height
    return MapView(
        role, recipe_id, golden.sha256, golden.png, golden.width, golden.height, points, placed.height, unplaced,
        why_not="" if placed.height else "not_measured",
    )  # fmt: skip


def placed_on(golden: Golden, findings: pl.DataFrame, role: str) -> pl.DataFrame:
    """Columns as ``MapPoint``; findings of frames whose place was not measured are left out.

    The golden's centre c lies at c + shift on the frame, turned (positive from x towards y) and scaled about it; so the
    frame's p lies at c + R(-turn) / scale (p - c - shift) on the golden.
    """
    names = [f"{role}.{name}" for name in _MEASURED]
    if not set(names) <= set(findings.columns):
        return pl.DataFrame(schema=dict.fromkeys(_POINT, pl.Null))
    shift_x, shift_y, turn, scale = (pl.col(name).cast(pl.Float64) for name in names)
    dx = (pl.col("x1") + pl.col("x2")).cast(pl.Float64) / 2 - golden.width / 2 - shift_x
    dy = (pl.col("y1") + pl.col("y2")).cast(pl.Float64) / 2 - golden.height / 2 - shift_y
    angle = turn.radians()
    wide, high = pl.col("x2") - pl.col("x1"), pl.col("y2") - pl.col("y1")
    return findings.drop_nulls(names).filter(scale > 0).select(
        (golden.width / 2 + (angle.cos() * dx + angle.sin() * dy) / scale).alias("x"),
        (golden.height / 2 + (angle.cos() * dy - angle.sin() * dx) / scale).alias("y"),
        ((wide * wide + high * high).sqrt().cast(pl.Float64) / 2 / scale).alias("radius"),
        pl.col("defect_class", "verdict").cast(pl.String), pl.col("disposition").fill_null(""), "record_id",
    )  # fmt: skip
