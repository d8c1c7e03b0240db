"""False calls in the three denominators that the industry quarrels about.  Pure functions over counts.

A part is called when it was answered NG or REVIEW.  It is a false call when its standing review says so.  Then:
* board: falsely called parts by parts inspected (judged; ERROR parts were not);
* component: falsely called places by places inspected.  A place is a region of interest of a view, and the rest of the
  view around them is one more; a part that was called in three places is three false calls here;
* opportunity: falsely called (place, defect class) pairs by those that were ruled there, as DPMO counts (IPC-7912 counts
  components and terminations in the same manner; here it is what the recipe looks for).
One part thus gives three very different rates, each right; a comparison needs the same denominator on both sides.

What is not seen: a review speaks of the whole part, so a wrong finding on a part that is truly defective is no false call.

Not all called parts are reviewed.  Where all were, the rate is counted and its interval is exact.  Where only some were,
the share among those reviewed is carried over to the others, NG and REVIEW each for itself, and the interval then holds
only if those reviewed are like the others (the queue gives REVIEW before NG and the oldest first, so they are not a random
draw).  ``least`` and ``most`` need no such belief: no unreviewed call is false, or all are.

Several places on one part are not independent of each other: the counts are divided by the design effect before the exact
interval is taken (Korn and Graubard, Confidence intervals for proportions with small expected number of positive counts
estimated from survey data, Survey Methodology 24(2), 1998); for rare bundles it is their sum of squares by their sum.  With
fewer than about ten bundles that interval is approximate (measured: it holds in 94 % of runs at four); of boards it is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inspection.report.contents import Claim, FalseCallRow
from inspection.report.intervals import ERROR, Stratum, bounds_needed, expected, interval, share_of_all

Denominator = Literal["board", "component", "opportunity"]
DECIDED = ("confirmed", "false_call", "escape")


@dataclass(frozen=True, slots=True)
class Call:
    """One part that was answered NG or REVIEW.

    ``disposition``: its standing review, "" or unsure while nobody decided.  ``units``: how many places (or pairs of place
    and class) its reasons rest on; 1 where parts are counted, and at least 1 where a reason rests on no finding.
    """

    verdict: str
    disposition: str = ""
    units: int = 1

    def __post_init__(self) -> None:
        if self.verdict not in ("NG", "REVIEW") or self.units < 1:
            raise ValueError(f"only NG and REVIEW are calls, at one place or more: got {self}")


def places(views: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Components and opportunities of one part, from each view's (inspected regions, ruled defect classes).

    A class is ruled everywhere in its view, and the rest of the view around the regions is a place of its own.
    """
    components = [regions + 1 for regions, _ in views]
    return sum(components), sum(count * classes for count, (_, classes) in zip(components, views, strict=True))


def false_calls(denominator: Denominator, calls: Sequence[Call], of: int | None, *, parts: int) -> FalseCallRow:
    """The row of one denominator; ``of`` is the denominator of all ``parts`` judged, None where a recipe is unknown.

    The claim's ``values`` are ``reviewed`` and ``unreviewed`` (parts), and ``least`` and ``most`` (shares).
    """
    false = sum(call.units for call in calls if call.disposition == "false_call")
    return FalseCallRow(denominator, false, of, _rate(calls, false, of, parts))


def _rate(calls: Sequence[Call], false: int, of: int | None, parts: int) -> Claim:
    if of is None:
        return Claim(None, why_not="false_calls_recipe_unknown")
    if of == 0:
        return Claim(None, of=0, why_not="nothing_inspected")
    called = sum(call.units for call in calls)
    if len(calls) > parts:
        raise ValueError(f"{len(calls)} calls of {parts} parts: more was called than judged")
    if called > of:  # records that name regions or classes that their recipe does not have
        return Claim(None, of=of, why_not="false_calls_more_than_places", values=(("called", called), ("places", of)))
    decided = [call for call in calls if call.disposition in DECIDED]
    waiting = called - sum(call.units for call in decided)
    values = (
        ("reviewed", len(decided)),
        ("unreviewed", len(calls) - len(decided)),
        ("least", false / of),
        ("most", (false + waiting) / of),
    )
    if calls and not decided:
        return Claim(None, of=of, why_not="false_calls_no_reviews", values=values)
    # Without a single call nothing is known of bundles, and one part may be all wrong: its places count as one.
    effect = _design_effect(calls) if calls else of / parts
    if not waiting:
        low, high = interval(false / effect, of / effect)
        return Claim(false / of, low, high, of, text_key="false_calls_counted", values=values)
    strata = _strata(calls)
    low, high = _extrapolated(strata, effect, of)
    return Claim(expected(strata) / of, low, high, of, text_key="false_calls_extrapolated", values=values)


def _extrapolated(strata: Sequence[Stratum], effect: float, of: int) -> tuple[float, float]:
    smaller = [Stratum(one.parts / effect, one.decided / effect, one.found / effect) for one in strata]
    return share_of_all(smaller, of / effect, ERROR / 2 / bounds_needed(strata))


def _strata(calls: Sequence[Call]) -> list[Stratum]:
    """NG and REVIEW apart: people look at REVIEW first, and find other things there."""
    rows = []
    for verdict in sorted({call.verdict for call in calls}):
        own = [call for call in calls if call.verdict == verdict]
        decided = sum(call.units for call in own if call.disposition in DECIDED)
        false = sum(call.units for call in own if call.disposition == "false_call")
        rows.append(Stratum(sum(call.units for call in own), decided, false))
    return rows


def _design_effect(calls: Sequence[Call]) -> float:
    """By how much calls come in bundles: those known to be false, or all calls while none is.

    What is estimated from few bundles is raised by Student's t, as Korn and Graubard do, up to the largest bundle of all:
    a sum of bundles never spreads more than one of bundles that are all as large as the largest.
    """
    from scipy.stats import norm, t

    units = [call.units for call in calls if call.disposition == "false_call"] or [call.units for call in calls]
    largest = max((call.units for call in calls), default=1)
    if largest == 1 or len(units) == 1:
        return float(largest)
    tail = 1 - ERROR / 2
    unsure = (float(t.ppf(tail, len(units) - 1)) / float(norm.ppf(tail))) ** 2
    return min(float(largest), unsure * sum(count * count for count in units) / sum(units))
