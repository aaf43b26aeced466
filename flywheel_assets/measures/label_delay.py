"""Estimates how late positives become known: the share F(a) of them that is known at age a.

A positive is seen only once it is known, so recent predictions show quick labels and hide slow ones. That is right
truncation: a label of delay d is seen only if its prediction is at least d days old. The reverse-time product-limit
estimate corrects it (Lagakos, Barraj and De Gruttola, Biometrika 75, 1988; Kalbfleisch and Lawless, JASA 84, 1989):

    F(a) = Π over x > a of (1 − n(x) / r(x)),  n(x) = labels with d = x,  r(x) = labels with d ≤ x of predictions with
    age ≥ x

It is the share among those that become known within `horizon_days`; of what comes later still, nothing can be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_POSITIVES = 50
"""Fewer known positives give no curve."""
_MIN_AT_RISK = 20
"""The last days are seen of few predictions: one late label among three would move the whole curve."""


@dataclass(frozen=True)
class DelayCurve:
    """F(a) for the ages 0 … `horizon_days`, with the 95 % interval of each."""

    source: str | None
    """Labeling source; None: all together."""
    positives: int
    """Known ones that it rests on."""
    known_shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def horizon_days(self) -> int:
        """Return the greatest delay that can be seen."""
        return len(self.known_shares) - 1

    def share_known(self, age_days: int) -> float:
        """Return F at an age; 1 beyond the horizon, 0 below 0."""
        if age_days < 0:
            return 0.0
        return self.known_shares[age_days] if age_days <= self.horizon_days else 1.0

    def find_age(self, share: float) -> int:
        """Find the first age at which this share of the positives is known."""
        return next(age for age, known in enumerate(self.known_shares) if known >= share)


def estimate_delay_curve(
    delays: npt.ArrayLike,
    ages: npt.ArrayLike,
    counts: npt.ArrayLike | None = None,
    *,
    source: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> DelayCurve | None:
    """Estimate the curve of known positives; None with fewer than `MIN_POSITIVES`.

    Args:
        delays: days from each prediction to its first positive label, ≥ 0.
        ages: days from the prediction to the last day on which a label could be seen, ≥ the delay.
        counts: positives that each pair stands for; None: one.
        source: name of the labels' source.
        draws: bootstrap samples of the positives, for the interval.
        seed: of the draws.

    Raises:
        ValueError: a delay is negative or longer than its age.
    """
    d, a = np.asarray(delays, dtype=np.int64), np.asarray(ages, dtype=np.int64)
    n = np.ones(len(d), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
    if len(d) and not ((d >= 0) & (d <= a)).all():
        raise ValueError("a delay is negative or longer than its age; a label cannot be seen before it came")
    if n.sum() < MIN_POSITIVES:
        return None
    cells, at = np.unique(np.stack([d, a]), axis=1, return_inverse=True)
    observed = np.bincount(at.ravel(), weights=n).astype(np.int64)
    at_risk = _count_at_risk(cells, observed[None])[0]
    # Ages at which hardly anything can be seen are cut off.
    seen = np.flatnonzero(at_risk >= _MIN_AT_RISK)
    horizon = int(seen[-1]) if len(seen) else 0
    random = np.random.default_rng(seed)
    total = int(observed.sum())
    drawn = random.multinomial(total, observed / total, draws)
    curves = _estimate(cells, drawn, horizon)
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    return DelayCurve(
        source=source,
        positives=total,
        known_shares=tuple(map(float, _estimate(cells, observed[None], horizon)[0])),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
    )


def _count_at_risk(cells: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Floats:
    """Return r(x) for every x, per row of `counts`: labels with d ≤ x ≤ age."""
    length = int(cells[1].max()) + 2
    changes = np.zeros((len(counts), length))
    for cell, (delay, age) in enumerate(cells.T):
        changes[:, delay] += counts[:, cell]
        changes[:, age + 1] -= counts[:, cell]
    return np.cumsum(changes, axis=1)[:, :-1]


def _estimate(cells: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], horizon: int) -> Floats:
    at_risk = _count_at_risk(cells, counts)[:, : horizon + 1]
    events = np.zeros_like(at_risk)
    for cell, delay in enumerate(cells[0]):
        if delay <= horizon:
            events[:, delay] += counts[:, cell]
    with np.errstate(invalid="ignore", divide="ignore"):
        stays = np.where(at_risk > 0, 1 - events / at_risk, 1.0)
    # F(a) is the product over x > a; F(horizon) is 1.
    later = np.cumprod(stays[:, :0:-1], axis=1)[:, ::-1]
    return np.concatenate([later, np.ones((len(counts), 1))], axis=1)


def list_curves(
    delays: npt.ArrayLike, ages: npt.ArrayLike, counts: npt.ArrayLike, sources: Sequence[str]
) -> list[DelayCurve]:
    """Estimate the curve of all positives and one of each source that has enough, the largest source first."""
    d, a, n = np.asarray(delays), np.asarray(ages), np.asarray(counts)
    names = np.asarray(sources, dtype=object)
    sizes = {name: int(n[names == name].sum()) for name in set(sources)}
    wanted: list[str | None] = [None, *sorted(sizes, key=lambda name: (-sizes[name], name))]
    found = []
    for name in wanted:
        chosen = np.ones(len(d), dtype=bool) if name is None else names == name
        if curve := estimate_delay_curve(d[chosen], a[chosen], n[chosen], source=name):
            found.append(curve)
    return found
