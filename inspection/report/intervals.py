"""Exact binomial intervals, and shares that are known through a review of a part of the parts only.  Pure.

The interval of a proportion is that of Clopper and Pearson (The use of confidence or fiducial limits illustrated in the case
of the binomial, Biometrika 26, 1934): it holds at least as often as it says, for every true share and every number of parts.
Where several such intervals are put together the error is divided among them (Bonferroni), which again errs on the safe side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ERROR = 0.05  # that an interval does not hold the true value


@dataclass(frozen=True, slots=True)
class Stratum:
    """Parts of one verdict: how many there are, how many of them a person decided about, and how many were such.

    ``found`` is what is counted (false calls, or truly defective parts) among the ``decided``.  Whole numbers, unless they
    are effective counts of something that comes in bundles.
    """

    parts: float
    decided: float
    found: float

    def __post_init__(self) -> None:
        if not 0 <= self.found <= self.decided <= self.parts:
            raise ValueError(f"wanted 0 <= found <= decided <= parts, got {self.found}, {self.decided}, {self.parts}")


def lower_bound(events: float, trials: float, error: float) -> float:
    """What the true share is not below, but for ``error``; events may be a fraction (effective counts); 0 without trials."""
    from scipy.stats import beta

    return float(beta.ppf(error, events, trials - events + 1)) if events > 0 else 0.0


def upper_bound(events: float, trials: float, error: float) -> float:
    """What the true share is not above, but for ``error``; 1 without trials."""
    from scipy.stats import beta

    return float(beta.ppf(1 - error, events + 1, trials - events)) if events < trials else 1.0


def interval(events: float, trials: float, error: float = ERROR) -> tuple[float, float]:
    """Both bounds of a share; (0, 1) without trials."""
    return lower_bound(events, trials, error / 2), upper_bound(events, trials, error / 2)


def bounds_needed(strata: Sequence[Stratum]) -> int:
    """Into how many bounds ``share_of_all`` divides the error of each side."""
    return 2 * len(strata)


def share_of_all(strata: Sequence[Stratum], trials: float, error: float) -> tuple[float, float]:
    """Bounds of the share that is such among all ``trials`` parts, of which the strata are some and the others are not such.

    ``error`` is that of each single bound, of which there are ``bounds_needed`` on either side.  Within a stratum those
    decided stand for the others; a stratum in which nobody decided may be such as a whole or not at all.
    """
    low = high = 0.0
    for one in strata:
        low += lower_bound(one.parts, trials, error) * lower_bound(one.found, one.decided, error)
        high += upper_bound(one.parts, trials, error) * upper_bound(one.found, one.decided, error)
    return low, min(1.0, high)


def expected(strata: Sequence[Stratum]) -> float:
    """How many parts are such if within each stratum those decided are typical.

    A stratum in which nobody decided goes by the others; 0 where nobody decided anything.
    """
    decided, found = (sum(getattr(one, name) for one in strata) for name in ("decided", "found"))
    overall = found / decided if decided else 0.0
    return sum(one.parts * (one.found / one.decided if one.decided else overall) for one in strata)
