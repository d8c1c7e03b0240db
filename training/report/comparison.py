"""Writes the comparison of champion and challenger as one HTML page: no script, and nothing from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inspection.images import write_whole
from inspection.view import View
from training.comparison import Change, Gate, Judged, Tally, tally
from training.report.changed import changed_parts
from training.report.words import VERDICTS, number, percent, verdict_counts

TEMPLATE = "comparison.html"
Row = tuple[str, str]
_KINDS = (
    ("worse", "Judged worse than before", "The challenger is farther from what a person said of these parts."),
    ("other", "Judged otherwise, neither better nor worse", "Both verdicts are as near to what a person said."),
    ("better", "Judged better than before", "The challenger is nearer to what a person said of these parts."),
)


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One figure of both recipes, with what it rests on below each."""

    name: str
    champion: str
    champion_rests_on: str
    challenger: str
    challenger_rests_on: str


def write_comparison_page(
    path: Path,
    judged: Judged,
    held: Sequence[Gate],
    changed: Sequence[Change],
    content: dict[str, Any],
    views: tuple[View, View],
) -> None:
    """Write the page; it appears whole or not at all.  ``content`` is that of ``comparison.json``, ``views`` those of
    champion and challenger."""
    # Names come from files: whatever they hold is text, never markup.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    parts = changed_parts(changed, views)
    text = environment.get_template(TEMPLATE).render(
        content=content,
        made=_moment(content),
        gates=held,
        failed=[gate for gate in held if not gate.held],
        facts=_facts(judged, content),
        figures=_figures(judged),
        more_review=_more_review(judged),
        verdicts=[verdict.name for verdict in VERDICTS],
        verdict_counts=(verdict_counts(judged.champion), verdict_counts(judged.challenger)),
        limits=_limits(views),
        sections=[(kind, title, about, [p for p in parts if p.kind == kind]) for kind, title, about in _KINDS],
        changed=len(parts),
        heat=bool(views[1].model.card.task != "detect"),
        not_covered=list(_not_covered(judged, content)),
        program=f"lineside {version('lineside')}",
    )
    write_whole(path, text.encode())


def _facts(judged: Judged, content: dict[str, Any]) -> list[Row]:
    taught, holdout = content["taught"], judged.holdout
    return [
        ("champion", f"recipe {content['champion_sha256']}, model {content['champion_model_sha256']}"),
        ("challenger", f"model {content['challenger_model_sha256']}; its recipe is sealed with this page in it"),
        ("learnt from", f"{taught['parts']} parts ({taught['defective']} defective) of {taught['dataset']}, {taught['version']}"),
        ("compared on", f"{content['holdout_parts']} parts of {holdout.name}, {content['holdout_version']}"),
        ("divided", " ".join(content["sides"])),
        ("earlier escapes", f"{content['escapes']['known']} known, {content['escapes']['learnt']} of them learnt from"),
        ("limits", content["limits"]["note"]),
        ("made", _moment(content)),
        ("command", content["command"]),
    ]  # fmt: skip


def _moment(content: dict[str, Any]) -> str:
    return f"{datetime.fromisoformat(content['made_at']):%Y-%m-%d %H:%M} UTC"


def _figures(judged: Judged) -> list[FigureRow]:
    both = (tally(judged.champion), tally(judged.challenger))
    rows = [
        ("Escapes: defective parts that passed", [_escapes(one) for one in both]),
        ("Overkill: good parts rejected or not judged", [_overkill(one) for one in both]),
        ("Good parts that a person must look at", [_share(one.review_good, one.good) for one in both]),
        ("Defective parts that a person must look at", [_share(one.review_defective, one.defective) for one in both]),
        ("Parts that could not be judged", [_errors(one) for one in both]),
    ]
    return [FigureRow(name, *champion, *challenger) for name, (champion, challenger) in rows]


def _escapes(one: Tally) -> Row:
    if not one.defective:
        return "not measurable", "no defective part in the holdout"
    low, high = one.escape_interval
    return (
        f"{one.escapes} of {one.defective}",
        f"95 % interval {percent(low)} to {percent(high)} by parts; {one.escaped_units} of {one.escape_units} groups, upper "
        f"bound {percent(one.escape_bound)} at 95 % confidence",
    )


def _overkill(one: Tally) -> Row:
    if not one.good:
        return "not measurable", "no good part in the holdout"
    low, high = one.overkill_interval
    return f"{one.overkill} of {one.good}", f"95 % interval {percent(low)} to {percent(high)}"


def _errors(one: Tally) -> Row:
    unread = one.defective_unread + one.good_unread
    files = f"; of {unread} a file could not be read" if unread else ""
    return (
        f"{one.errors} of {one.defective + one.good}",
        f"{one.defective_errors} defective, {one.good_errors} good{files}",
    )


def _share(count: int, of: int) -> Row:
    return (f"{count} of {of}", percent(count / of)) if of else ("not measurable", "no such part in the holdout")


def _more_review(judged: Judged) -> int:
    """By how many more good parts a person must look at; no gate asks for it, and it costs somebody's time."""
    return tally(judged.challenger).review_good - tally(judged.champion).review_good


def _limits(views: tuple[View, View]) -> list[tuple[str, str, str]]:
    """Class and region, limits before, limits now."""
    old, new = (view.section.rules for view in views)
    return [
        (
            before.defect_class + (f", region {before.roi}" if before.roi else ""),
            f"NG {number(before.ng_score)}, review {number(before.review_score)}",
            f"NG {number(after.ng_score)}, review {number(after.review_score)}",
        )
        for before, after in zip(old, new, strict=True)
    ]


def _not_covered(judged: Judged, content: dict[str, Any]) -> list[str]:
    """What the figures do not say."""
    shown = {name for sample in judged.holdout.samples for name in sample.defect_classes}
    known = judged.challenger.card.classes if judged.challenger.card.task != "anomaly" else ()
    missing = [name for name in known if name not in shown]
    groups = len({sample.group for sample in judged.holdout.samples})
    said = [
        f"The holdout is {content['holdout_parts']} parts in {groups} groups. Figures hold for parts like these: another "
        "light, camera, supplier or kind of defect was not looked at.",
        "Each share is known only within its interval. That no count became worse on these parts does not prove that no "
        "rate became worse on the line.",
        "Both recipes were judged on the same parts, one after the other; the more often the same holdout is used to choose "
        "between versions, the more it flatters. Renew it from time to time.",
    ]
    if missing:
        said.insert(1, f"No part of the holdout shows {', '.join(missing)}: nothing here speaks of such defects.")
    if content["escapes"]["learnt"]:
        said.append(
            f"{content['escapes']['learnt']} earlier escapes were learnt from: that they are caught now shows that they were "
            "learnt, not that others like them are found."
        )
    if judged.challenger_latency.parts:
        said.append("The latency is that of this computer, without camera and store; the station measures its own.")
    return said
