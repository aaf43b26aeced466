"""Compares two models that serve at the same time, each its own people, and may be looked at for ever.

The unit is the person, not the interaction. People are assigned to an arm by a hash and stay there, so that a person
with many interactions is one draw. Each person has one vote, the mean of all interactions so far, in [0, 1]; higher is
worse (edited, thumbs down). In `benchmarks/production_watch.py` a daily test of interactions takes about half of equal
models back within 90 days.

The bound of one arm is Gaffke's (see `measures.texts.bound_mean_below`), computed here by its saddlepoint approximation
(Daniels 1954; Lugannani and Rice 1980; Barndorff-Nielsen 1986) instead of drawn, because late looks have small levels.
Both arms' bounds are melded (Fay, Proschan and Brittain 2015, "Combining one-sample confidence procedures for inference
in the two-sample case", Biometrics 71:146): the distribution of the difference of their random means gives the bound;
for two possible values it is Fisher's exact test. It holds where the harm sits in few people whom the sample lacks,
as no interval does that estimates a spread from the sample.

Looks are spent: levels of all looks together make α, so that the union bound covers every later look, whatever the
looks have in common and however people's means move. A confidence sequence (Robbins 1970; Howard et al. 2021;
Waudby-Smith et al. 2021, asymptotic) needs increments that do not depend on the past; a person's rows do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Gt, Le, Lt, MinLen

from flywheel_assets.ranges import Checked

Floats = npt.NDArray[np.float64]

LOOK_GROWTH = 1.2
"""Days of evidence at a look by those at the look before, at least.

A look on every day costs levels and says little that is new: in 30 simulations (2,000 people, a tenth on a model with
.05 more edits) it took back .60 within 90 days, looks that grow by 1.2 .70, by 1.5 .73, which wait longer.
"""

FLAT_LOOKS = 5
"""Looks over which the levels fall slowly: level of look k is 5 α / ((k + 4) (k + 5)).

α / (k (k + 1)) spends half of α on the first day, when few people have been served.
"""

# With so many tilts and steps levels are within 6 % of Fisher's exact test.
_TILTS = np.geomspace(1e-2, 1e7, 100)
_STEPS = 800


@dataclass(frozen=True, kw_only=True)
class WatchLimits(Checked):
    """The limits by which a model in production is watched; rates are shares of a person's answers."""

    measures: Annotated[tuple[Literal["edited", "thumbs_down", "regenerated"], ...], MinLen(1)] = (
        "edited",
        "thumbs_down",
    )
    """Rates that decide, and share α; all others are shown."""
    margin: Annotated[float, Gt(0), Le(1)] = 0.1
    """More of a rate, absolute, that is tolerated for serving more people."""
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Probability that an equal model is ever found worse, and that one worse by the margin is ever found not worse."""


class ArmVerdict(StrEnum):
    """The conclusion about the current model at one look."""

    WORSE = "worse"
    """Proven: more than the predecessor. It is taken back."""
    NOT_WORSE = "not_worse_within_margin"
    """Proven: at most the margin more than the predecessor. It may serve more people."""
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Arm:
    """One model's people: the mean of each, in [0, 1], and the number of interactions behind them all."""

    means: Floats
    interactions: int

    @classmethod
    def from_counts(cls, hits: npt.ArrayLike, interactions: npt.ArrayLike) -> "Arm":
        """Divide each person's hits by their interactions; people without interactions have no vote."""
        served = np.asarray(interactions, dtype=np.float64)
        counted = np.asarray(hits, dtype=np.float64)[served > 0] / served[served > 0]
        return cls(counted, int(served.sum()))


@dataclass(frozen=True)
class Look:
    """One scheduled test: its number and its day, counted from 1, and the levels that look k spends."""

    number: int
    day: int

    def spend(self, alpha: float) -> float:
        """Compute this look's level; the levels of all looks together make `alpha` (their sum telescopes)."""
        return alpha * FLAT_LOOKS / ((self.number + FLAT_LOOKS - 1) * (self.number + FLAT_LOOKS))


@dataclass(frozen=True)
class ArmComparison:
    """The current model less its predecessor by one measure at one look; positive is worse.

    `low` and `high` are one-sided bounds at the look's level. None: an arm has no person yet.
    """

    verdict: ArmVerdict
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    look: Look
    level: float
    current_users: int
    predecessor_users: int
    current_interactions: int
    predecessor_interactions: int

    def describe(self) -> str:
        """Write the comparison as a sentence."""
        people = (
            f"{self.current_users} people ({self.current_interactions} interactions) against {self.predecessor_users} "
            f"({self.predecessor_interactions})"
        )
        if self.difference is None:
            return f"undecided: {people}; both models need people"
        return (
            f"{self.verdict.value}: {self.difference:+.3f}, from {self.low:+.3f} to {self.high:+.3f}; {people}; "
            f"look {self.look.number}, day {self.look.day}, level {self.level:.2g}, margin {self.margin:g}"
        )


def find_look(day: int, growth: float = LOOK_GROWTH) -> Look | None:
    """Find the last scheduled look up to a day of service, counted from 1; None before the first day.

    Looks are on days 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 70, 84, 101 and so on. Between them
    the verdict of the last look stands: data of later days must not be used for it, since every use is a look.
    """
    if day < 1:
        return None
    look = Look(1, 1)
    while (following := max(look.day + 1, math.ceil(look.day * growth - 1e-9))) <= day:
        look = Look(look.number + 1, following)
    return look


def compare_arms(
    current: Arm, predecessor: Arm, look: Look, *, margin: float = 0.1, alpha: float = 0.05
) -> ArmComparison:
    """Compare the people of two models that served at the same time, at one look out of infinitely many.

    Over all looks together an equal model is found worse with probability `alpha` at most, and a model that is worse
    by the margin or more is found not worse with probability `alpha` at most.

    Args:
        current: people whom the newer model served, since both served.
        predecessor: people whom the older model served in the same days.
        look: of `find_look`; its day is the last day whose data are in both arms.
        margin: more of the measure that is tolerated for going on, absolute.
        alpha: of each of the two errors.

    Raises:
        ValueError: a mean is outside of [0, 1].
    """
    level = look.spend(alpha)
    difference = low = high = None
    verdict = ArmVerdict.UNDECIDED
    if len(current.means) and len(predecessor.means):
        difference = float(current.means.mean() - predecessor.means.mean())
        low = bound_difference_below(current.means, predecessor.means, alpha=level)
        high = -bound_difference_below(predecessor.means, current.means, alpha=level)
        if low > 0:
            verdict = ArmVerdict.WORSE
        elif high < margin:
            verdict = ArmVerdict.NOT_WORSE
    return ArmComparison(
        verdict,
        difference,
        low,
        high,
        margin,
        look,
        level,
        len(current.means),
        len(predecessor.means),
        current.interactions,
        predecessor.interactions,
    )


def conclude_arms(comparisons: Sequence[ArmComparison]) -> ArmVerdict:
    """Combine measures that share α: worse by one is worse; not worse takes all of them."""
    verdicts = {each.verdict for each in comparisons}
    if ArmVerdict.WORSE in verdicts:
        return ArmVerdict.WORSE
    return ArmVerdict.NOT_WORSE if verdicts == {ArmVerdict.NOT_WORSE} else ArmVerdict.UNDECIDED


def bound_difference_below(more: npt.ArrayLike, less: npt.ArrayLike, *, alpha: float) -> float:
    """Compute a lower bound of mean(more) − mean(less) for any two distributions in [0, 1]: melded Gaffke bounds.

    Args:
        more: one value per person of one arm.
        less: one value per person of the other arm, independent of the first.
        alpha: probability, one-sided, that the true difference is lower.

    Raises:
        ValueError: a value is outside of [0, 1], or an arm is empty.
    """
    difference = _RandomDifference(more, less)
    found_low, found_high = -1.0, 1.0
    for _ in range(40):
        middle = (found_low + found_high) / 2
        if difference.share_below(middle) > alpha:
            found_high = middle
        else:
            found_low = middle
    return found_low


def compute_p_value(more: npt.ArrayLike, less: npt.ArrayLike, *, difference: float = 0.0) -> float:
    """Compute the level at which `bound_difference_below` is just `difference`, forty times as fast as the bound."""
    return _RandomDifference(more, less).share_below(difference)


class _RandomDifference:
    """One arm's random mean, as low as its people allow, less the other's, as high as allowed."""

    def __init__(self, more: npt.ArrayLike, less: npt.ArrayLike) -> None:
        self._lower, upper = _RandomMean(more, unseen=0.0), _RandomMean(less, unseen=1.0)
        # Right ends of the steps: the coarse distribution is never below the true one, and the bound never above.
        self._steps = upper.list_steps(_STEPS)
        self._masses = np.diff(upper.share_below(self._steps), prepend=0.0)

    def share_below(self, at: float) -> float:
        """Compute the probability that the difference is at most `at`."""
        return float(self._masses @ self._lower.share_below(self._steps + at))


class _RandomMean:
    """The mean under weights that are uniform on the simplex, with one more person at `unseen`.

    Its distribution function is that of Σ Eᵢ (xᵢ − t) at 0 for exponential E. The saddlepoint is explicit in the tilt r
    of the values: t(r) = Σ xᵢ / (1 − r xᵢ) ÷ Σ 1 / (1 − r xᵢ).
    """

    def __init__(self, values: npt.ArrayLike, *, unseen: float) -> None:
        given = np.asarray(values, dtype=np.float64)
        if not len(given) or not (given.min() >= 0 and given.max() <= 1):
            raise ValueError(f"received {len(given)} means; one per person is needed, each from 0 to 1")
        # Values that differ by less have no spread that can be divided by.
        points, counts = np.unique(np.round(np.append(given, unseen), 9), return_counts=True)
        self.least, self.greatest = float(points[0]), float(points[-1])
        self._is_known = len(points) == 1
        if self._is_known:
            return
        mean = float(points @ counts / counts.sum())
        tilts = _TILTS / math.sqrt(float(counts @ (points - mean) ** 2))
        rising = tilts / (1 + tilts * self.greatest)
        tilt = np.concatenate([-tilts[::-1], rising])[:, None]
        denominators = 1 - tilt * points
        weights = counts / denominators
        at = (weights @ points) / weights.sum(axis=1)
        scale = 1 - tilt[:, 0] * at
        log_moment = -(np.log(denominators / scale[:, None]) @ counts)
        spread = (((points - at[:, None]) * scale[:, None] / denominators) ** 2) @ counts
        saddle = tilt[:, 0] / scale
        root = np.sign(saddle) * np.sqrt(np.maximum(0.0, -2 * log_moment))
        slope = saddle * np.sqrt(spread)
        usable = (np.abs(root) > 5e-3) & (np.abs(root) < 9) & (slope / np.where(root == 0, 1, root) > 0)
        root, slope, at = root[usable], slope[usable], at[usable]
        deviates = root + np.log(slope / root) / root
        in_order = np.argsort(at)
        self._at, self._deviates = at[in_order], np.maximum.accumulate(deviates[in_order])
        self.least, self.greatest = float(self._at[0]), float(self._at[-1])

    def list_steps(self, steps: int) -> Floats:
        """List values that part the distribution into steps of equal normal deviates."""
        if self._is_known:
            return np.array([self.least])
        deviates = np.linspace(self._deviates[0], self._deviates[-1], steps + 1)
        found: Floats = np.interp(deviates, self._deviates, self._at)
        return found

    def share_below(self, at: Floats) -> Floats:
        """Compute the probability that the mean is at most `at`."""
        if self._is_known:
            return (at >= self.least).astype(np.float64)
        deviates = np.interp(at, self._at, self._deviates, left=-40, right=40)
        # As scipy.special.ndtr computes it; the watch runs where nothing is trained, and SciPy has 140 MB.
        return np.array([math.erfc(-each * math.sqrt(0.5)) / 2 for each in deviates.tolist()])
