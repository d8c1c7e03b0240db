"""Counts of a report: totals, reasons, Pareto, stages, versions.  Frames in, rows out."""

import polars as pl

from inspection.report.contents import Claim, ParetoRow, ReasonRow, StageRow, Tally, Totals, VersionRow
from inspection.report.facts import Facts

MOST_SERIALS = 50  # that are named because they have more than one record
VERDICTS = ("OK", "NG", "REVIEW", "ERROR")
TALLY = [(pl.col("verdict") == name).sum().alias(name) for name in VERDICTS]
CALLED = ("NG", "REVIEW")


def totals(facts: Facts, simulated: int) -> Totals:
    """The head of the report; ``simulated`` records were left out, or are all there is in ``facts``."""
    parts = facts.parts
    tally = Tally(*parts.select(TALLY).row(0))
    said = dict(parts.drop_nulls("disposition").group_by("disposition").len().iter_rows())
    serials = parts["serial"].filter(parts["serial"] != "")
    twice, distinct = _repeated(serials)
    decided = pl.col("disposition").is_in(("confirmed", "false_call", "escape")).fill_null(False)
    open_calls = parts.filter(pl.col("verdict").is_in(CALLED) & ~decided).height
    return Totals(
        tally=tally,
        simulated=simulated,
        serials=distinct,
        without_serial=parts.height - serials.len(),
        serials_repeated=twice.len(),
        serials_used_twice=tuple(twice.head(MOST_SERIALS)),
        lots=parts.filter(pl.col("lot").cast(pl.String) != "")["lot"].n_unique(),
        first_pass_yield=first_pass_yield(tally),
        final_yield=_final_yield(parts, tally),
        error_rate=share(tally.error, tally.parts, "nothing_inspected", "error_rate"),
        reviewed=sum(said.values()),
        confirmed=said.get("confirmed", 0),
        false_calls=said.get("false_call", 0),
        escapes=said.get("escape", 0),
        unsure=said.get("unsure", 0),
        unreviewed_not_ok=open_calls,
        late=parts["late_verdict"].drop_nulls().len(),
    )


def _repeated(serials: pl.Series) -> tuple[pl.Series, int]:
    """Serials with more than one record, in order, and how many distinct ones there are.

    Those whose hash comes once are distinct without a doubt, so that only a few texts need be compared.
    """
    doubtful = serials.filter(serials.hash().is_duplicated())
    counted = doubtful.value_counts(name="records")
    twice = counted.filter(pl.col("records") > 1)["serial"].sort()
    return twice, serials.len() - doubtful.len() + counted.height


def share(count: int, of: int, why_not: str, text_key: str) -> Claim:
    """A share of everything there was: it is counted, so it has no interval."""
    return Claim(count / of, of=of, text_key=text_key) if of else Claim(None, of=0, why_not=why_not, text_key=text_key)


def first_pass_yield(tally: Tally) -> Claim:
    """OK parts, as their controller was answered, of those that could be judged."""
    return share(tally.ok, tally.judged, "nothing_judged", "first_pass_yield")


def _final_yield(parts: pl.DataFrame, tally: Tally) -> Claim:
    """After review: a false call is a good part, an escape is not; what nobody decided stays as it was answered."""
    said = pl.col("disposition").fill_null("")
    if not parts.filter(said.is_in(("confirmed", "false_call", "escape")) & (pl.col("verdict") != "ERROR")).height:
        why = "nothing_reviewed" if tally.judged else "nothing_judged"
        return Claim(None, of=tally.judged, why_not=why, text_key="final_yield")
    good = ((pl.col("verdict") == "OK") & (said != "escape")) | (
        pl.col("verdict").is_in(CALLED) & (said == "false_call")
    )
    return share(parts.filter(good).height, tally.judged, "nothing_judged", "final_yield")


def reasons(facts: Facts) -> tuple[ReasonRow, ...]:
    """Rules by how many parts they made not OK, the commonest first; with what each asks for."""
    counted = facts.reasons.group_by("rule_id").agg(pl.col("rowid").n_unique().alias("parts"))
    rows = [(str(rule), parts) for rule, parts in counted.iter_rows()]
    asked = {"ng": "NG", "review": "REVIEW"}
    return tuple(
        ReasonRow(rule, asked.get(rule.partition(".")[0], "ERROR"), parts)
        for rule, parts in sorted(rows, key=lambda row: (-row[1], row[0]))
    )


def pareto(facts: Facts) -> tuple[ParetoRow, ...]:
    """Defect classes by the findings that reasons name, the commonest first."""
    decisive = facts.findings.filter("decisive")
    counted = decisive.group_by("defect_class").agg(
        pl.len().alias("findings"), pl.col("rowid").n_unique().alias("parts")
    )
    rows = sorted(((str(name), findings, parts) for name, findings, parts in counted.iter_rows()), key=_commonest)
    total, seen, made = decisive.height, 0, []
    for name, findings, parts in rows:
        seen += findings
        made.append(ParetoRow(name, findings, parts, findings / total, seen / total))
    return tuple(made)


def _commonest(row: tuple[str, int, int]) -> tuple[int, str]:
    return -row[1], row[0]


def stages(facts: Facts) -> tuple[StageRow, ...]:
    """Times of each stage.  A quantile is a time that was measured: the least that so many parts did not exceed."""
    rows = []
    for name in facts.stages.columns[2:]:
        times = facts.stages[name].drop_nulls()
        if times.len():
            quantiles = (times.quantile(share, "equiprobable") for share in (0.5, 0.95, 0.99))
            numbers = (round(float(one), 4) for one in (*quantiles, times.max()))  # type: ignore[arg-type]
            rows.append(StageRow(name, times.len(), *numbers))
    return tuple(rows)


def versions(facts: Facts) -> tuple[VersionRow, ...]:
    """Parts by the recipe version and model that judged them, in the order of their first records."""
    by = ("recipe_id", "recipe_sha256", "model_sha256")
    spans = (pl.col("judged_at").min().alias("first"), pl.col("judged_at").max().alias("last"))
    counted = facts.parts.group_by(by).agg(*spans, *TALLY, pl.col("rowid").min()).sort("rowid")
    return tuple(
        VersionRow(str(recipe), str(sha256), str(model), first, last, Tally(*counts))
        for recipe, sha256, model, first, last, *counts, _ in counted.iter_rows()
    )
