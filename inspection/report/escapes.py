"""What a model's calibration promised about escapes, beside what review has observed.  Pure functions over counts.

An escape is a defective part that passed as OK.  The promise is an upper bound of the escape rate: of all defective parts,
the share that passes.  Review can only look at some parts, so the same rate is put together from three observations:
* q, the share of defective parts among the OK ones: from the OK parts that were drawn at random and decided;
* c, the share of truly defective ones among NG, and among REVIEW: from those that were decided;
* how many parts were answered OK, NG and REVIEW.
Escape rate = OK x q / (OK x q + NG x c_ng + REVIEW x c_review).  It rises with q and falls with c and with the share of
parts called, so bounds of these give bounds of the rate.  Each is the exact binomial bound of Clopper and Pearson and the
error is divided among them (Bonferroni): the interval holds the true rate at least as often as it says (tests/report/
test_escapes.py counts it), and is wide while few OK parts were looked at: that is what is known.  Wider than half of all
there can be (``contents.MOST_WIDTH``), it is shown in place of the rate, with a caveat: one escape among 19 drawn parts
gives 62 % as readily as 1 %.

Which OK parts were drawn is noted with each review (``reviews``), for the share that is drawn may change.  Reviews from before
that was noted are in no rate, and counted.

Escapes that were found in any other way (by chance, by a customer, by somebody who suspected something) are counted and
shown, and never used for a rate: who looks where he expects something finds more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inspection.report.contents import Claim
from inspection.report.intervals import (
    ERROR,
    Stratum,
    bounds_needed,
    expected,
    interval,
    lower_bound,
    share_of_all,
    upper_bound,
)

if TYPE_CHECKING:  # the card is all that is wanted, not the engine that runs the model
    from inspection.model import ModelCard

Against = Literal["kept", "broken", "undecided", "no_promise", "nothing_observed"]


@dataclass(frozen=True, slots=True)
class Promise:
    """What the card of a model says of escapes: the bound and its confidence, None where none is claimed, and the sentence.

    ``classes``: defect classes that the claim leaves out.
    """

    bound: float | None
    confidence: float | None = None
    text: str = ""
    classes: tuple[str, ...] = ()


def promise_of(card: "ModelCard") -> Promise:
    """What a model's card promises; a model that was never calibrated promises nothing."""
    calibration = card.calibration
    if calibration is None:
        return Promise(None, text=card.escape_bound)
    return Promise(calibration.escape_bound, calibration.confidence, calibration.statement, calibration.not_covered)


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Counts of the parts that one model judged.

    ``ok`` parts answered OK; of these ``drawn`` belong to the random sample, ``unsure`` of the sample people could not
    decide, and ``decided`` with ``escapes`` among them they could.  ``chance_escapes``: escapes outside the sample.
    ``drawn_unknown``: reviewed OK parts of which it is not known whether they belong to the sample; they are in no number.
    ``called``: NG and REVIEW, each with how many were decided and how many of these are truly defective.
    ``errors``: parts that could not be judged.  ``other_limits``: parts that were judged by a recipe whose limits are
    not those of the promise, or of which that is unknown.
    """

    ok: int
    drawn: int
    decided: int
    escapes: int
    called: tuple[Stratum, ...] = ()
    unsure: int = 0
    chance_escapes: int = 0
    errors: int = 0
    other_limits: int = 0
    drawn_unknown: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.escapes <= self.decided <= self.drawn <= self.ok or self.decided + self.unsure > self.drawn:
            raise ValueError(f"wanted escapes <= decided (+ unsure) <= drawn <= ok, got {self}")


@dataclass(frozen=True, slots=True)
class Escapes:
    """``share``: defective parts among the OK ones; its ``values`` hold ``bound``, the one-sided 95 % upper bound.

    ``rate``: defective parts passed by all defective parts.  ``against``: what that says of the promise, judged by the
    whole interval; a promise that was given for other limits than every part was judged by is none.  ``not_covered``:
    words of the table ``not_covered`` of ``texts/*.toml``, or ``class:NAME``.
    """

    share: Claim
    rate: Claim
    against: Against
    not_covered: tuple[str, ...]


def escapes(promise: Promise, seen: Reviewed) -> Escapes:
    """Both numbers with their 95 % intervals, beside the promise."""
    share, rate = _share(seen), _rate(seen)
    judged = seen.ok + sum(one.parts for one in seen.called)
    elsewhere = 0 < judged <= seen.other_limits  # the promise was given for other limits than these
    stands = Promise(None) if elsewhere else promise
    return Escapes(share, rate, _against(stands, rate), _not_covered(promise, seen))


def _share(seen: Reviewed) -> Claim:
    if seen.ok == 0:
        return Claim(None, of=0, why_not="escapes_no_ok_parts")
    if seen.decided == 0:
        return Claim(None, of=0, why_not=_none_decided(seen), values=(("drawn", seen.drawn),))
    low, high = interval(seen.escapes, seen.decided)
    bound = upper_bound(seen.escapes, seen.decided, ERROR)
    values = (("bound", bound), ("drawn", seen.drawn), ("unsure", seen.unsure))
    return Claim(seen.escapes / seen.decided, low, high, seen.decided, text_key="escapes_share", values=values)


def _none_decided(seen: Reviewed) -> str:
    return "escapes_draw_not_known" if seen.drawn_unknown else "escapes_no_ok_reviewed"


def _rate(seen: Reviewed) -> Claim:
    if seen.decided == 0:
        return Claim(None, of=0, why_not=_none_decided(seen) if seen.ok else "escapes_no_ok_parts")
    called = tuple(one for one in seen.called if one.parts)
    if not called:
        return Claim(None, of=0, why_not="escapes_nothing_called")
    if not any(one.decided for one in called):
        return Claim(
            None, of=0, why_not="escapes_no_ng_reviewed", values=(("called", int(sum(one.parts for one in called))),)
        )
    passed, caught = seen.ok * seen.escapes / seen.decided, expected(called)
    low, high = _bounds(seen, called)
    decided = seen.decided + int(sum(one.decided for one in called))
    if passed + caught == 0:  # neither an escape nor a true NG is known: a share of nothing
        return Claim(None, of=decided, why_not="escapes_nothing_defective", values=(("decided", decided),))
    return Claim(passed / (passed + caught), low, high, decided, text_key="escapes_rate")


def _bounds(seen: Reviewed, called: Sequence[Stratum]) -> tuple[float, float]:
    """Of the escape rate; parts that could not be judged are left out on all sides."""
    judged = seen.ok + sum(one.parts for one in called)
    error = (
        ERROR / 2 / (2 + bounds_needed(called))
    )  # of q, of the share of OK parts, and of what ``share_of_all`` needs
    least_caught, most_caught = share_of_all(called, judged, error)
    most_passed = upper_bound(seen.escapes, seen.decided, error) * upper_bound(seen.ok, judged, error)
    least_passed = lower_bound(seen.escapes, seen.decided, error) * lower_bound(seen.ok, judged, error)
    low = least_passed / (least_passed + most_caught) if least_passed else 0.0
    return low, most_passed / (most_passed + least_caught)


def _against(promise: Promise, rate: Claim) -> Against:
    if promise.bound is None:
        return "no_promise"
    if rate.value is None or rate.low is None or rate.high is None:
        return "nothing_observed"
    if rate.high <= promise.bound:
        return "kept"
    return "broken" if rate.low > promise.bound else "undecided"


def _not_covered(promise: Promise, seen: Reviewed) -> tuple[str, ...]:
    """What neither number speaks of: first what is always so, then what this span adds."""
    unreviewed = any(one.decided < one.parts for one in seen.called)
    added = (
        ("unreviewed_ng", unreviewed),
        ("drawn_unreviewed", seen.drawn - seen.decided - seen.unsure > 0),
        ("unsure", seen.unsure > 0),
        ("chance", seen.chance_escapes > 0),
        ("drawn_unknown", seen.drawn_unknown > 0),
        ("errors", seen.errors > 0),
        ("other_limits", seen.other_limits > 0 and promise.bound is not None),
    )
    always = ("not_drawn", "reviewers", "not_seen")
    return (*always, *(word for word, so in added if so), *(f"class:{name}" for name in promise.classes))
