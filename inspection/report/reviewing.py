"""What review says: false calls in three denominators, and escapes beside what the models promised."""

from collections.abc import Sequence

import polars as pl

from inspection.model import ModelCard
from inspection.recipe_config import ViewSection
from inspection.report.contents import EscapeView, FalseCallRow
from inspection.report.counting import CALLED
from inspection.report.escapes import Promise, Reviewed, escapes, promise_of
from inspection.report.facts import Facts
from inspection.report.false_calls import DECIDED, Call, Denominator, false_calls, places
from inspection.report.intervals import Stratum
from inspection.report.versions_here import VersionsHere

_PLACE = {"component": ("camera", "roi_id"), "opportunity": ("camera", "roi_id", "defect_class")}


def false_call_rows(facts: Facts, versions: VersionsHere) -> tuple[FalseCallRow, ...]:
    """A row for each denominator."""
    judged = facts.parts.filter(pl.col("verdict") != "ERROR")
    components, opportunities = _inspected(judged, versions)
    of: dict[Denominator, int | None] = {
        "board": judged.height, "component": components, "opportunity": opportunities,
    }  # fmt: skip
    return tuple(false_calls(name, _calls(facts, name), count, parts=judged.height) for name, count in of.items())


def _inspected(judged: pl.DataFrame, versions: VersionsHere) -> tuple[int | None, int | None]:
    """Places, and pairs of place and class, that were inspected on all parts; None where a recipe is not here."""
    components = opportunities = 0
    for sha256, parts in judged.group_by("recipe_sha256").len().iter_rows():
        views = versions.views(str(sha256))
        if not views:
            return None, None
        own = places([_ruled(view) for view in views.values()])
        components += parts * own[0]
        opportunities += parts * own[1]
    return components, opportunities


def _ruled(view: ViewSection) -> tuple[int, int]:
    """Regions that are inspected, and defect classes that are ruled."""
    return sum(roi.kind == "inspect" for roi in view.rois), len({rule.defect_class for rule in view.rules})


def _calls(facts: Facts, denominator: Denominator) -> list[Call]:
    called = facts.parts.filter(pl.col("verdict").is_in(CALLED))
    rows = called.select("rowid", pl.col("verdict").cast(pl.String), pl.col("disposition").fill_null(""))
    if denominator == "board":
        return [Call(verdict, said) for _, verdict, said in rows.iter_rows()]
    place = pl.struct(_PLACE[denominator]).n_unique().alias("units")
    units = facts.findings.filter("decisive").group_by("rowid").agg(place)
    counted = rows.join(units, on="rowid", how="left").with_columns(pl.col("units").fill_null(1))
    return [Call(verdict, said, count) for _, verdict, said, count in counted.iter_rows()]


def escape_views(facts: Facts, versions: VersionsHere) -> tuple[EscapeView, ...]:
    """One for each model that judged, in the order in which they began to."""
    models = facts.parts.filter(pl.col("model_sha256") != "")["model_sha256"].unique(maintain_order=True)
    return tuple(_of_model(facts, versions, str(model)) for model in models)


def _of_model(facts: Facts, versions: VersionsHere, model: str) -> EscapeView:
    parts = facts.parts.filter(pl.col("model_sha256") == model)
    recipes = [str(sha256) for sha256 in parts["recipe_sha256"].unique(maintain_order=True)]
    cards = versions.cards(recipes)
    promise = _promise(list(cards.values()), here=any(versions.find(sha256) for sha256 in recipes))
    others = [sha256 for sha256 in recipes if not _as_calibrated(versions.views(sha256), cards)]
    seen = _reviewed(parts, parts.filter(pl.col("recipe_sha256").cast(pl.String).is_in(others)).height)
    found = escapes(promise, seen)
    return EscapeView(
        model, promise.bound, promise.text, found.rate, seen.decided, seen.escapes, found.not_covered, found.share,
        found.against, promise.confidence, seen.drawn, seen.chance_escapes,
        seen.drawn_unknown,
    )  # fmt: skip


def _promise(cards: Sequence[ModelCard], *, here: bool) -> Promise:
    """That of the model; several cameras' models promise nothing of the part as a whole.

    Where there is none the text is the model card's own, or the word in ``[promise]`` that says why.  ``here``: a recipe
    version that held the model is on this computer.
    """
    if not cards:
        return Promise(None, text="model_altered" if here else "recipe_not_here")
    if len(cards) > 1:
        return Promise(None, text="several_cameras")
    promise = promise_of(cards[0])
    return promise if promise.bound is not None or promise.text else Promise(None, text="not_calibrated")


def _as_calibrated(views: dict[str, ViewSection], cards: dict[str, ModelCard]) -> bool:
    """Whether a version judges by the very limits that its models were calibrated to, everywhere, and by nothing else."""
    for role, view in views.items():
        card = cards.get(role)
        limits = {} if card is None else {one.defect_class: (one.ng_score, one.review_score) for one in card.limits}
        if view.beyond_scores:
            return False
        if any(limits.get(rule.defect_class) != (rule.ng_score, rule.review_score) for rule in view.rules):
            return False
    return bool(views)


def _reviewed(parts: pl.DataFrame, other_limits: int) -> Reviewed:
    said, verdict = pl.col("disposition").fill_null(""), pl.col("verdict")
    ok = parts.filter(verdict == "OK")
    drawn = ok.filter("sampled")
    decided = drawn.filter(said.is_in(DECIDED))
    escaped = decided.filter(said == "escape").height
    unknown = ok.filter(pl.col("sampled").is_null())
    return Reviewed(
        ok=ok.height, drawn=drawn.height, decided=decided.height, escapes=escaped,
        called=tuple(_stratum(parts.filter(verdict == name)) for name in CALLED),
        unsure=drawn.filter(said == "unsure").height,
        chance_escapes=ok.filter((said == "escape") & ~pl.col("sampled")).height,
        errors=parts.filter(verdict == "ERROR").height, other_limits=other_limits, drawn_unknown=unknown.height,
    )  # fmt: skip


def _stratum(called: pl.DataFrame) -> Stratum:
    decided = called.filter(pl.col("disposition").is_in(DECIDED))
    return Stratum(called.height, decided.height, decided.filter(pl.col("disposition") != "false_call").height)
