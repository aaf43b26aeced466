"""Measures generated text against the users' texts, and the interval around a paired difference."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

Floats = npt.NDArray[np.float64]

# Draws are made in blocks of this many cluster indices, so that many subjects do not cost memory.
_BLOCK_INDICES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap percentile interval; None where there were no rows (JSON knows no NaN)."""

    mean: float | None
    low: float | None
    high: float | None
    rows: int
    clusters: int


def normalized_edit_distances(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """Compute Levenshtein(text, reference) / length of the longer one, per row; 0 = equal, 1 = nothing in common.

    1 minus the similarity of the records. Two empty texts are equal. Unit: code points.
    """
    if not texts:
        return np.zeros(0)
    return cpdist(texts, references, scorer=Levenshtein.normalized_distance, dtype=np.float64)


def length_ratios(texts: Sequence[str], references: Sequence[str]) -> Floats:
    """Divide the code points of each text by those of its reference; an empty reference counts as one."""
    return np.array([len(a) / max(1, len(b)) for a, b in zip(texts, references, strict=True)], dtype=np.float64)


def measure_repetition(text: str) -> float:
    """Compute the share of adjacent word pairs that occurred before: 0 for prose, near 1 for a stuck model."""
    words = text.split()
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def bootstrap_clustered_mean(
    differences: npt.ArrayLike, clusters: Sequence[str], *, draws: int = 4000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Compute the percentile interval of the mean of paired differences, resampling whole clusters (subjects).

    One person's rows resemble each other, so rows are no independent evidence; people are. The statistic of one draw is
    the sum over the drawn clusters' rows by their number (ratio estimator). Equal seeds and clusters draw the same
    clusters, so that raising any difference never lowers a bound.

    Args:
        differences: one value per row.
        clusters: the cluster of each row.
        draws: bootstrap samples.
        confidence: two-sided.
        seed: of the drawn clusters.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return Interval(None, None, None, 0, 0)
    names, member = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(member, weights=values)
    sizes = np.bincount(member)
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    block = max(1, _BLOCK_INDICES // len(names))
    for start in range(0, draws, block):
        drawn = generator.integers(0, len(names), (min(block, draws - start), len(names)))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values), len(names))
