"""Limits that keep a promise: how many parts allow which claim, and which limits keep it.  Pure numbers, no model.

What is guaranteed.  A part passes when every class scores below its lower limit, so the more the limits rise, the more
defective parts pass, never fewer.  Seen from the lowest limit a recipe allows, each limit is a hypothesis "more than the
asked share of defective parts would pass", and an exact binomial test either rejects it or ends the walk.  Because the
limits form one ordered family that was fixed before the data was seen (all classes share one limit on the walk), each
test may use the whole error probability: the last limit that was reached lets through more than the asked share in at
most 1 - confidence of all calibrations, although it was chosen on the same parts (fixed-sequence testing: Angelopoulos,
Bates, Candes, Jordan and Lei 2021, Learn then Test, arXiv 2110.01052; for ordered families any threshold between scores
may be used: Bates et al. 2021, Risk-controlling prediction sets, J. ACM 68(6)).  Every limit below that one, of any class
and however it was chosen, passes fewer parts still and keeps the promise as well.  The rejection of good parts is the
same walk from above.  What is not guaranteed: that each single defect of a part is found (a part is stopped by any of them);
another mix of parts, defects, light or cameras than the calibration had; parts that are not independent (pictures of one
part or lot must share a group, and groups are what is counted); a tighter share than the one that was asked for
beforehand; and both promises at once have twice the error probability of one.
"""

import math
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inspection.errors import UsageError
from inspection.recipe_config import LEAST_SCORE, MOST_SCORE
from training.metrics import Floats, clopper_pearson

Count = Literal["groups", "parts"]
ESCAPE_WEIGHT = 5.0  # of a share of defective parts that pass against the same share of good ones rejected
Limits = tuple[tuple[float, float], ...]  # ng_score and review_score of each class


@dataclass(frozen=True, slots=True)
class Wish:
    """What the plant can live with; rates and confidence are shares of 0..1.

    ``costs``: of one escape and of one good part rejected, in any unit.  ``defect_rate``: share of defective parts on
    the line, to weigh the costs with (None: as in the calibration).  ``review_rate``: the largest share of good parts
    that people can look at.  ``count``: what is independent of each other, the groups or every single part.
    """

    escape_rate: float
    confidence: float = 0.95
    overkill_rate: float | None = None
    costs: tuple[float, float] | None = None
    defect_rate: float | None = None
    review_rate: float | None = None
    count: Count = "groups"

    def __post_init__(self) -> None:
        _require(0 < self.escape_rate < 1, "--escape-rate", self.escape_rate, "a share above 0 and below 1")
        _require(0.5 < self.confidence < 1, "--confidence", self.confidence, "a share above 0.5 and below 1")
        for option, rate in (("--overkill-rate", self.overkill_rate), ("--defect-rate", self.defect_rate)):
            _require(rate is None or 0 < rate < 1, option, rate, "a share above 0 and below 1")
        _require(
            self.review_rate is None or 0 <= self.review_rate < 1, "--review-rate", self.review_rate,
            "a share from 0 to below 1",
        )  # fmt: skip
        right = self.costs is None or (min(self.costs) > 0 and math.isfinite(sum(self.costs)))
        _require(right, "--cost-escape, --cost-overkill", self.costs, "numbers above 0")
        if self.overkill_rate is not None and self.costs is not None:
            raise UsageError("both an overkill rate and costs were given", fix="give one of them")
        if self.defect_rate is not None and self.costs is None:
            raise UsageError(
                "--defect-rate weighs costs, and none are given", fix="add --cost-escape and --cost-overkill"
            )


def _require(right: bool, option: str, value: object, wanted: str) -> None:
    if not right:
        raise UsageError(f"{option} is {value}", fix=f"give {wanted}, for example 0.05 for 5 %")


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What the model says of N parts of which a person said what they are: ``scores`` (N, C) the best of each class in
    0..1, ``present`` (N, C) whether the part has a defect of the class, ``defective`` (N,), ``groups`` (N,) numbers."""

    scores: Floats
    present: NDArray[np.bool_]
    defective: NDArray[np.bool_]
    groups: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Walk:
    """How far limits may go: ``limit`` is the last one allowed, ``proven`` whether a claim stands behind it.

    ``trials`` are the independent units (groups or parts), ``unavoidable`` those lost even at the safest limit.
    """

    limit: float
    proven: bool
    trials: int
    unavoidable: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Limits of each class, and the walks that bound them; ``overkill`` is None when no rate was asked for.

    ``covered``: which classes the promise speaks of.  ``overkill_kept``: proven, and not given up for the review rate.
    """

    limits: Limits
    escape: Walk
    overkill: Walk | None
    overkill_kept: bool
    covered: tuple[bool, ...]


def upper_bound(events: int, trials: int, confidence: float) -> float:
    """Exact one-sided upper bound of a proportion (Clopper and Pearson 1934); 1 without trials."""
    return clopper_pearson(events, trials, confidence=2 * confidence - 1)[1]


def most_events(trials: int, rate: float, confidence: float) -> int:
    """The most events in so many trials that still allow the claim "at most ``rate``"; -1 when not even none does."""
    from scipy.stats import binom

    passed = binom.cdf(np.arange(trials + 1), trials, rate) <= (1 - confidence) * (1 + 1e-9)
    return int(np.count_nonzero(passed)) - 1


def needed_trials(events: int, rate: float, confidence: float) -> int:
    """The fewest trials in which so many events allow the claim; for none it is ceil(ln(1 - confidence) / ln(1 - rate)).

    At 95 %: 59 trials without an event for 5 %, 93 with one.
    """
    enough = max(1, math.ceil((events + 1) / rate))
    while most_events(enough, rate, confidence) < events:
        enough *= 2
    low = 0
    while enough - low > 1:
        middle = (low + enough) // 2
        low, enough = (low, middle) if most_events(middle, rate, confidence) >= events else (middle, enough)
    return enough


def units(values: Floats, groups: NDArray[np.int64], count: Count, worst: "np.ufunc") -> Floats:
    """The score of each independent unit: of every part, or the worst (``np.minimum``, ``np.maximum``) of each group."""
    if count == "parts" or not len(values):
        return values
    names, place = np.unique(groups, return_inverse=True)
    out = np.full(len(names), np.inf if worst is np.minimum else -np.inf)
    worst.at(out, place, values)
    return out


def walk_up(defective: Floats, rate: float, confidence: float) -> Walk:
    """The highest lower limit that keeps the escape rate, from the scores (M,) of defective units.

    Where no claim is possible, the highest that keeps the rate among these units; where that is not possible either,
    no limit is drawn.
    """
    ordered, trials = np.sort(defective), len(defective)
    lost = int((ordered < LEAST_SCORE).sum())
    for allowed, proven in ((most_events(trials, rate, confidence), True), (math.floor(rate * trials), False)):
        if trials and lost <= allowed:
            return Walk(min(float(ordered[allowed]), MOST_SCORE), proven, trials, lost)
    return Walk(MOST_SCORE, False, trials, lost)


def walk_down(good: Floats, rate: float, confidence: float) -> Walk:
    """The limit above which every NG limit keeps the overkill rate, from the scores (M,) of good units.

    Where no claim is possible, the conformal quantile: above it lies at most the share ``rate`` of further good parts on
    average over calibrations, with (M + 1) for the part to come (Vovk, Gammerman and Shafer 2005, section 2.2).  With
    too few parts even for that, the highest score.
    """
    ordered, trials = np.sort(good)[::-1], len(good)
    lost = int((ordered >= MOST_SCORE).sum())
    conformal = max(0, trials - math.ceil((trials + 1) * (1 - rate) - 1e-9))
    for allowed, proven in ((most_events(trials, rate, confidence), True), (conformal, False)):
        if trials and lost <= allowed:
            return Walk(max(float(ordered[allowed]), LEAST_SCORE), proven, trials, lost)
    return Walk(MOST_SCORE if trials else LEAST_SCORE, False, trials, lost)


def log_odds(score: float) -> float:
    """ln(p / (1 - p)), with p kept a millionth away from 0 and 1."""
    inside = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))


def middle(low: float, high: float) -> float:
    """The score half way between two others in log-odds, within what a recipe allows; it separates them where they differ
    and lie in that range: above ``low``, and not above ``high``."""
    if high <= low:
        return min(max(high, LEAST_SCORE), MOST_SCORE)
    between = 1 / (1 + math.exp(-(log_odds(low) + log_odds(high)) / 2))
    if not low < between <= high:  # too near to 0, to 1 or to each other for log-odds
        between = low + (high - low) / 2
    between = between if between > low else high
    return min(max(between, LEAST_SCORE), MOST_SCORE)


def choose(parts: Scores, wish: Wish, own: Limits) -> Choice:
    """Limits for each class.  ``own``: the model's limits until now, kept for classes that no defective part shows.

    First the escape rate: no lower limit goes above the end of its walk.  Second the overkill rate, if one is asked for:
    no NG limit goes below the end of its walk.  When both leave room, there is one limit a class, with the least weight
    of escapes and overkill; when they do not, the parts in between go to review.
    """
    shown = np.asarray(parts.present.any(0), bool)
    known = shown if parts.defective.any() else np.ones(len(shown), bool)
    best = parts.scores[:, known].max(1)
    bad = units(best[parts.defective], parts.groups[parts.defective], wish.count, np.minimum)
    escape = walk_up(bad, wish.escape_rate, wish.confidence)
    overkill = None
    if wish.overkill_rate is not None:
        elsewhere = (parts.scores >= [limit[0] for limit in own])[:, ~known].any(1)  # rejected whatever is chosen here
        rejecting = np.where(elsewhere, 1.0, best)[~parts.defective]
        good = units(rejecting, parts.groups[~parts.defective], wish.count, np.maximum)
        overkill = walk_down(good, wish.overkill_rate, wish.confidence)
    lowest = overkill.limit if overkill is not None else 0.0
    limits = tuple(
        _in_few_digits(_limits_of(parts, index, wish, own[index], escape, overkill), lowest)
        if known[index]
        else _in_range(own[index])
        for index in range(len(own))
    )
    if wish.review_rate is not None:
        limits = _less_review(parts, limits, known, wish.review_rate)
    kept = overkill is not None and overkill.proven
    kept = kept and all(limit[0] > overkill.limit for limit, one in zip(limits, known, strict=True) if one and overkill)
    return Choice(limits, escape, overkill, kept, tuple(bool(one) for one in known))


def in_few_digits(score: float) -> float:
    """The score in four digits for people to read, never above what it was: a promise holds below its limit, not above."""
    return float(Context(prec=4, rounding=ROUND_DOWN).create_decimal(repr(float(score))))


def _in_few_digits(limit: tuple[float, float], lowest: float) -> tuple[float, float]:
    """Both limits in four digits; an NG limit that would no longer be above ``lowest`` is kept to the last digit."""
    ng, review = in_few_digits(limit[0]), in_few_digits(limit[1])
    ng = ng if ng > lowest else limit[0]
    return ng, ng if limit[0] == limit[1] else min(ng, review)


def _in_range(limit: tuple[float, float]) -> tuple[float, float]:
    ng, review = (min(max(score, LEAST_SCORE), MOST_SCORE) for score in limit)
    return ng, review


def _limits_of(
    parts: Scores, index: int, wish: Wish, own: tuple[float, float], escape: Walk, overkill: Walk | None
) -> tuple[float, float]:
    scores = parts.scores[:, index]
    bad, good = scores[parts.present[:, index]], scores[~parts.defective]
    low, high = LEAST_SCORE if overkill is None else overkill.limit, _ceiling(parts, wish, escape)
    if not parts.defective.any():
        return (_above(good, low),) * 2
    if not len(good):  # nothing speaks against the model's own limit but the promise
        return (min(_in_range(own)[0], high),) * 2
    if low < high:
        return (_lightest(bad, good, low, high, _weights(parts, wish)),) * 2
    return _ng_limit(bad, good, low), _review_limit(bad, good, high)


def _ceiling(parts: Scores, wish: Wish, escape: Walk) -> float:
    """The highest limit: the end of a proven walk; without a claim, what keeps the rate among these very parts, because
    to spare the worst picture of every group could reject half of the good parts for nothing."""
    if escape.proven or not parts.defective.any():
        return escape.limit
    ordered = np.sort(parts.scores[parts.defective].max(1))
    return min(max(float(ordered[math.floor(wish.escape_rate * len(ordered))]), LEAST_SCORE), MOST_SCORE)


def _above(good: Floats, low: float) -> float:
    """A limit above ``low`` from good parts alone: half way to the next of them; above the highest, as far as half the way
    from the median to it, in log-odds."""
    higher = good[good > low]
    if len(higher):
        return middle(low, float(higher.min()))
    reach = 0.5 * max(0.0, log_odds(low) - log_odds(float(np.median(good)))) if len(good) else 0.0
    above = 1 / (1 + math.exp(-log_odds(low) - reach))
    return min(max(above, math.nextafter(low, 1.0)), MOST_SCORE)


def _weights(parts: Scores, wish: Wish) -> tuple[float, float]:
    """What one defective part that passes and one good part that is rejected weigh."""
    bad, good = int(parts.defective.sum()), int((~parts.defective).sum())
    if wish.costs is None:
        return ESCAPE_WEIGHT / bad, 1 / good
    share = bad / (bad + good) if wish.defect_rate is None else wish.defect_rate
    return wish.costs[0] * share / bad, wish.costs[1] * (1 - share) / good


def _lightest(bad: Floats, good: Floats, low: float, high: float, weights: tuple[float, float]) -> float:
    """The limit in (low, high] with the least weight of wrong parts, in the middle of the gap between two scores; of
    several the lowest, because an escape costs more."""
    scores = np.concatenate([bad, good])
    inside = scores[(scores > low) & (scores < high)]
    edges = np.unique(np.concatenate([[low], inside, [high]]))
    places = [middle(float(a), float(b)) for a, b in pairwise(edges)]
    weight = [weights[0] * (bad < at).sum() + weights[1] * (good >= at).sum() for at in places]
    return places[int(np.argmin(weight))]


def _review_limit(bad: Floats, good: Floats, high: float) -> float:
    """As far below ``high`` as no further good part goes to review: that costs no one's time."""
    low = max(good[good < high].max(initial=LEAST_SCORE), LEAST_SCORE)
    return middle(float(low), float(min(bad[bad > low].min(initial=high), high)))


def _ng_limit(bad: Floats, good: Floats, low: float) -> float:
    """As far above ``low`` as no further defective part leaves the rejected ones."""
    high = min(bad[bad > low].min(initial=MOST_SCORE), MOST_SCORE)
    return middle(float(max(good[good < high].max(initial=low), low)), float(high))


def _less_review(parts: Scores, limits: Limits, known: NDArray[np.bool_], rate: float) -> Limits:
    """NG limits so low that at most this share of the good parts goes to review; the lower limits stay."""
    good = parts.scores[~parts.defective]
    ng, review = (np.array([limit[side] for limit in limits]) for side in (0, 1))
    stopped = np.where(good >= review, good, 0.0)[:, known].max(1, initial=0.0)
    waiting = np.sort(stopped[(stopped > 0) & ~(good >= ng).any(1)])
    allowed = math.floor(rate * len(good))
    if len(waiting) <= allowed:
        return limits
    below = float(waiting[allowed - 1]) if allowed else 0.0
    lower = np.maximum(review, np.minimum(ng, middle(below, float(waiting[allowed])))) if allowed else review
    return tuple(
        (float(low), edge) if one else (high, edge) for low, one, (high, edge) in zip(lower, known, limits, strict=True)
    )
