"""Bounds a share that was counted in a random sample, exactly.

Without SciPy: the page of the wheel runs where it is not installed.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_HALVINGS = 60


def bound_share(hits: int, drawn: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """Compute the two-sided interval of a share by Clopper and Pearson.

    Its ends are the shares at which so many hits, or more, and so many, or fewer, have a probability of α / 2.
    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".

    Args:
        hits: draws that had the property.
        drawn: all draws, independent of each other.
        alpha: probability at most that the true share is outside.

    Raises:
        ValueError: hits are more than draws, or less than none.
    """
    if not 0 <= hits <= drawn:
        raise ValueError(f"received {hits} hits of {drawn} draws; valid: 0 to {drawn}")
    counts = np.arange(drawn + 1)
    log_factorials = np.array([math.lgamma(each + 1) for each in range(drawn + 1)])
    log_ways = log_factorials[-1] - log_factorials - log_factorials[::-1]

    def sum_tail(share: float, tail: npt.NDArray[np.int64]) -> float:
        logs = log_ways[tail] + tail * math.log(share) + (drawn - tail) * math.log1p(-share)
        return float(np.exp(logs).sum())

    low = 0.0 if hits == 0 else _find_share(lambda share: sum_tail(share, counts[hits:]) < alpha / 2)
    high = 1.0 if hits == drawn else _find_share(lambda share: sum_tail(share, counts[: hits + 1]) > alpha / 2)
    return low, high


def _find_share(is_below: Callable[[float], bool]) -> float:
    """Find the share up to which `is_below` holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not 0 < middle < 1:
            break
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
