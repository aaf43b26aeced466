"""Measures what a classifier's alerts catch, at the number of alerts that people can handle, and ratios with intervals.

Two models are compared at the same number of alerts, each from its own threshold on. At one common threshold they would
be compared by how high their scores lie: an incumbent that predicts too little has few alerts there, and each better
calibrated model seems to flood the people who look at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.measures.texts import Interval

Floats = npt.NDArray[np.float64]

_BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Capture:
    """Sums up what one model's alerts catch, weighted by the rows that each row stands for."""

    threshold: float
    """Score from which the model alerts."""
    alerts: float
    positives: float
    """Positives among the alerts."""
    share: float | None
    """Of all positives; None without one."""
    value: float | None = None
    """Sum of the amounts of the positives among the alerts; None without amounts."""
    value_share: float | None = None
    """Of the amounts of all positives."""


def find_budget_threshold(scores: npt.ArrayLike, budget: float, weights: npt.ArrayLike | None = None) -> float:
    """Return the lowest score from which at most `budget` rows alert; just above every score where that is none.

    Rows with equal scores alert together.
    """
    p = np.asarray(scores, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    ranked, alerts = p[order], np.cumsum(w[order])
    is_last = np.append(ranked[1:] != ranked[:-1], True)
    # Sums of weights differ in their last digits from one order to another.
    fits = np.flatnonzero(is_last & (alerts <= budget * (1 + 1e-9)))
    if len(fits):
        return float(ranked[fits[-1]])
    return float(np.nextafter(p.max(), np.inf)) if len(p) else 1.0


def measure_capture(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    weights: npt.ArrayLike | None = None,
    positive_weights: npt.ArrayLike | None = None,
    amounts: npt.ArrayLike | None = None,
) -> Capture:
    """Measure the alerts from a threshold on.

    Args:
        labels: True or 1 for positives, one per row.
        scores: one per row.
        threshold: of the alerts.
        weights: how many rows each stands for.
        positive_weights: how many positives a positive row stands for; `weights` where it is None.
        amounts: the money at stake in each row; a missing one counts as 0.
    """
    y, is_alert = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64) >= threshold
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    hits = y * (w if positive_weights is None else np.asarray(positive_weights, dtype=np.float64))
    total, caught = float(hits.sum()), float(hits[is_alert].sum())
    value = value_share = None
    if amounts is not None:
        values = hits * np.nan_to_num(np.asarray(amounts, dtype=np.float64))
        at_stake, value = float(values.sum()), float(values[is_alert].sum())
        value_share = value / at_stake if at_stake else None
    return Capture(
        threshold=threshold,
        alerts=float(w[is_alert].sum()),
        positives=caught,
        share=caught / total if total else None,
        value=value,
        value_share=value_share,
    )


def bootstrap_clustered_ratio(
    numerators: npt.ArrayLike,
    denominators: npt.ArrayLike,
    clusters: Sequence[str],
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute Σ numerators / Σ denominators with its percentile interval, resampling whole clusters.

    Args:
        numerators: one value per row.
        denominators: one per row, ≥ 0; a draw whose sum is 0 has no ratio and is left out.
        clusters: the cluster of each row (card, user).
        draws: bootstrap samples.
        confidence: two-sided.
        seed: of the drawn clusters.

    Returns:
        The ratio; with None inside where the denominators sum to 0.
    """
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    names, member = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    if not len(a) or not b.sum():
        return Interval(None, None, None, len(a), len(names))
    above = np.bincount(member, weights=a)
    below = np.bincount(member, weights=b)
    generator = np.random.default_rng(seed)
    ratios = np.empty(draws)
    block = max(1, _BLOCK_NUMBERS // len(names))
    for start in range(0, draws, block):
        drawn = generator.integers(0, len(names), (min(block, draws - start), len(names)))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios[start : start + len(drawn)] = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    ratios = ratios[np.isfinite(ratios)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(above.sum() / below.sum()), float(low), float(high), len(a), len(names))
