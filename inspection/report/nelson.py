"""Nelson's eight tests for special causes.  Pure: standardised points in, signals out.

Source: Lloyd S. Nelson, "The Shewhart Control Chart - Tests for Special Causes", Journal of Quality Technology 16(4),
1984, pages 237-239.  Points come as z = (value - centre) / sigma, each with its own sigma, so that the tests also hold where
sample sizes vary.  Zone C lies within one sigma of the centre, zone B from one to two, zone A from two to three.  A point
exactly on a line is neither within nor beyond it, and one exactly on the centre line is on neither side.

1  one point beyond three sigma
2  nine points in a row on one side of the centre
3  six points in a row steadily rising or falling
4  fourteen points in a row going alternately up and down
5  two of three points in a row beyond two sigma on one side
6  four of five points in a row beyond one sigma on one side
7  fifteen points in a row within one sigma, on either side
8  eight points in a row beyond one sigma, on both sides

A signal stands at the point that completes its pattern, so a pattern that goes on signals again at each further point;
with tests 5 and 6 the completing point is itself one of those beyond, and at the left end of a chart the window may be
shorter (two points of which both are beyond are two of three whatever came before).  A point that does not exist (an hour
without parts) is passed over: "in a row" means one after the other as drawn.

Eight tests raise more false alarms than one: a process in perfect control gives a signal at CHANCE of all points (measured
on a million independent normal points; test 1 alone at 0.27 %, each other test below 0.5 %).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CHANCE = 0.023  # share of points with at least one signal while nothing is wrong
_CHANCES = {(1,): 0.0027, (1, 2, 3, 4): 0.014, (1, 2, 3, 4, 5, 6, 7, 8): CHANCE}  # of the sets of rules that charts use


@dataclass(frozen=True, slots=True)
class Signal:
    """Rule ``rule`` (1..8) is met at point ``index``; ``of`` are the points it rests on, the last of them ``index``."""

    rule: int
    index: int
    of: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One test: its number, the points it looks at together and how many of them must fit."""

    number: int
    name: str
    window: int
    needed: int


RULES = (
    Rule(1, "one point beyond three sigma", 1, 1),
    Rule(2, "nine points in a row on one side of the centre", 9, 9),
    Rule(3, "six points in a row steadily rising or falling", 6, 6),
    Rule(4, "fourteen points in a row going alternately up and down", 14, 14),
    Rule(5, "two of three points in a row beyond two sigma on one side", 3, 2),
    Rule(6, "four of five points in a row beyond one sigma on one side", 5, 4),
    Rule(7, "fifteen points in a row within one sigma", 15, 15),
    Rule(8, "eight points in a row beyond one sigma, on both sides", 8, 8),
)


ALL_RULES = tuple(rule.number for rule in RULES)


def chance(rules: Sequence[int]) -> float | None:
    """Share of points with at least one signal of these rules while nothing is wrong; None where nobody measured it."""
    return _CHANCES.get(tuple(rules))


def nelson(points: Sequence[float | None], rules: Sequence[int] = ALL_RULES) -> tuple[Signal, ...]:
    """The signals of standardised points (None: no point), by index, then by rule."""
    places = [place for place, point in enumerate(points) if point is not None]
    z = np.array([point for point in points if point is not None], np.float64)
    found = [
        Signal(rule.number, places[last], tuple(places[place] for place in of))
        for rule in RULES
        if rule.number in rules
        for last, of in _TESTS[rule.number](z, rule)
    ]
    return tuple(sorted(found, key=lambda signal: (signal.index, signal.rule)))


Found = list[tuple[int, tuple[int, ...]]]


def _beyond_three(z: Floats, rule: Rule) -> Found:
    return [(int(place), (int(place),)) for place in np.flatnonzero(np.abs(z) > 3)]


def _one_side(z: Floats, rule: Rule) -> Found:
    return _rows(z > 0, rule.window) + _rows(z < 0, rule.window)


def _steady(z: Floats, rule: Rule) -> Found:
    steps = np.diff(z)
    return _between(steps > 0, rule.window) + _between(steps < 0, rule.window)


def _alternating(z: Floats, rule: Rule) -> Found:
    steps = np.sign(np.diff(z))
    turns = steps[1:] * steps[:-1] < 0  # between three points each
    return [(last + 2, tuple(range(last + 3 - rule.window, last + 3))) for last, _ in _rows(turns, rule.window - 2)]


def _most_beyond(z: Floats, rule: Rule, sigma: float) -> Found:
    return _some(z > sigma, rule) + _some(z < -sigma, rule)


def _near(z: Floats, rule: Rule) -> Found:
    return _rows(np.abs(z) < 1, rule.window)


def _mixture(z: Floats, rule: Rule) -> Found:
    both = _rows(np.abs(z) > 1, rule.window)
    return [(last, of) for last, of in both if z[list(of)].min() < 0 < z[list(of)].max()]


_TESTS: dict[int, Callable[[Floats, Rule], Found]] = {
    1: _beyond_three,
    2: _one_side,
    3: _steady,
    4: _alternating,
    5: lambda z, rule: _most_beyond(z, rule, 2.0),
    6: lambda z, rule: _most_beyond(z, rule, 1.0),
    7: _near,
    8: _mixture,
}


def _rows(fits: NDArray[np.bool_], length: int) -> Found:
    """Where ``length`` points in a row fit: the last of them, and all of them."""
    if len(fits) < length:
        return []
    whole = np.convolve(fits.astype(np.int64), np.ones(length, np.int64), "valid") == length
    return [(int(first) + length - 1, tuple(range(first, first + length))) for first in np.flatnonzero(whole)]


def _between(fits: NDArray[np.bool_], length: int) -> Found:
    """The same where ``fits`` speaks of the steps between points."""
    return [(last + 1, (*of, last + 1)) for last, of in _rows(fits, length - 1)]


def _some(fits: NDArray[np.bool_], rule: Rule) -> Found:
    found = []
    for last in np.flatnonzero(fits):
        window = range(max(0, int(last) + 1 - rule.window), int(last) + 1)
        of = tuple(place for place in window if fits[place])
        if len(of) >= rule.needed:
            found.append((int(last), of))
    return found
