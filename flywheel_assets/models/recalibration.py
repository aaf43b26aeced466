"""Recalibrates scores: a last step that is fitted on scores of rows which the model has not seen.

Isotonic: pool adjacent violators (Barlow et al. 1972), read at the pools' mean scores with straight lines between them
(the centered isotonic regression of Oron & Flournoy 2017), so that scores stay apart where a step function would make
them equal. Platt (1999): a straight line in the scores' log odds.

Every recalibration is strictly rising: it never changes the order of rows, their average precision, or which of them a
budget of alerts holds. So a threshold must be derived after it. Both are text: breakpoints, or two numbers.

Few positives teach noise: `fit_recalibration` then takes the simpler method, or none.
"""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import TrainingError
from flywheel_assets.models.trainer_recipe import RecalibrationMethod

Floats = npt.NDArray[np.float64]

LEAST_POSITIVES: dict[RecalibrationMethod, int] = {"isotonic": 200, "platt": 20}
"""Rows of each class below which the next simpler method is taken: isotonic, Platt, none."""
_OWN_SHARE = 1e-3  # of the score itself in an isotonic answer: keeps apart what one pool or an end holds
_SMALLEST = 1e-9  # log odds are finite from here on
_RIDGE = 0.1  # pull of Platt's line towards "no change", in rows: it stays finite where classes are separate
_NEWTON_STEPS = 100


class Recalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A strictly rising map from scores to probabilities."""

    method: Literal["none", "isotonic", "platt"]
    scores: tuple[float, ...] = ()
    """Isotonic: mean score of each pool, rising."""
    probabilities: tuple[float, ...] = ()
    """Isotonic: weighted share of positives in each pool, rising."""
    slope: float = 1.0
    """Platt: log odds = slope · log odds of the score + intercept."""
    intercept: float = 0.0

    def apply(self, scores: Floats) -> Floats:
        """Compute the recalibrated probability of each score, in float64."""
        found = np.asarray(scores, dtype=np.float64)
        if self.method == "isotonic":
            read = np.interp(found, (0.0, *self.scores, 1.0), (0.0, *self.probabilities, 1.0))
            return np.clip((1 - _OWN_SHARE) * read + _OWN_SHARE * found, 0.0, 1.0)
        if self.method == "platt":
            return np.asarray(_squash(self.slope * _compute_log_odds(found) + self.intercept))
        return found


IDENTITY = Recalibration(method="none")


def fit_recalibration(
    method: RecalibrationMethod, scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Recalibration:
    """Fit a recalibration to out-of-sample scores; `none`, or a simpler method, where positives or negatives are few.

    Args:
        method: the recipe's.
        scores: one per row, of a model that did not see the row, 0 to 1.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: how many rows each one stands for, above 0; the counts that choose the method are of rows.

    Raises:
        TrainingError: lengths differ, a score is outside 0 to 1, a label is neither 0 nor 1, or a weight is not
            above 0.
    """
    found, targets = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    row_weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(found, targets, row_weights)
    rarer = int(min(targets.sum(), len(targets) - targets.sum()))
    if method == "isotonic" and rarer >= LEAST_POSITIVES["isotonic"]:
        return _fit_isotonic(found, targets, row_weights)
    if method != "none" and rarer >= LEAST_POSITIVES["platt"]:
        return _fit_platt(found, targets, row_weights)
    return IDENTITY


def read_recalibration(path: Path) -> Recalibration:
    """Read a stored recalibration.

    Raises:
        TrainingError: the file is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recalibration)
    except msgspec.DecodeError as unreadable:
        raise TrainingError(f"{path} is no recalibration: {unreadable}; train the version again") from None


def write_recalibration(path: Path, recalibration: Recalibration) -> None:
    """Write a recalibration as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(recalibration)))


def _fit_isotonic(scores: Floats, targets: Floats, weights: Floats) -> Recalibration:
    # Rows of one score are one point: no order is known among them.
    places, inverse = np.unique(scores, return_inverse=True)
    mass = np.bincount(inverse, weights)
    shares = np.bincount(inverse, weights * targets) / mass
    pools: list[tuple[float, float, float]] = []  # (mass, share, mean score)
    for pool in zip(mass, shares, places, strict=True):
        merged = tuple(map(float, pool))
        while pools and pools[-1][1] >= merged[1]:
            merged = _merge(pools.pop(), merged)
        pools.append((merged[0], merged[1], merged[2]))
    return Recalibration(
        method="isotonic", scores=tuple(pool[2] for pool in pools), probabilities=tuple(pool[1] for pool in pools)
    )


def _merge(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    total = left[0] + right[0]
    return (total, *((left[0] * a + right[0] * b) / total for a, b in zip(left[1:], right[1:], strict=True)))


def _fit_platt(scores: Floats, targets: Floats, weights: Floats) -> Recalibration:
    """Minimise the weighted log loss by Newton's method; it is convex, and the ridge makes its minimum finite."""
    inputs = np.column_stack([_compute_log_odds(scores), np.ones(len(scores))])
    unchanged = np.array([1.0, 0.0])
    line = unchanged.copy()
    for _ in range(_NEWTON_STEPS):
        chances = _squash(inputs @ line)
        slope = inputs.T @ (weights * (chances - targets)) + _RIDGE * (line - unchanged)
        curvature = (inputs * (weights * chances * (1 - chances))[:, None]).T @ inputs + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        line = line - step * min(1.0, 2.0 / float(np.abs(step).max() or 1.0))
        if float(np.abs(step).max()) < 1e-10:
            break
    if line[0] <= 0:
        # Higher scores were rarer positives. To turn the order round is no recalibration: only the level is moved.
        return _shift(scores, targets, weights)
    return Recalibration(method="platt", slope=float(line[0]), intercept=float(line[1]))


def _shift(scores: Floats, targets: Floats, weights: Floats) -> Recalibration:
    wanted, log_odds = float(weights @ targets), _compute_log_odds(scores)
    low, high = -40.0, 40.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if float(weights @ _squash(log_odds + middle)) < wanted else (low, middle)
    return Recalibration(method="platt", slope=1.0, intercept=(low + high) / 2)


def _compute_log_odds(scores: Floats) -> Floats:
    kept = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return np.log(kept) - np.log1p(-kept)


def _squash(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -700, 700))))


def _check(scores: Floats, targets: Floats, weights: Floats) -> None:
    if not len(scores) == len(targets) == len(weights):
        raise TrainingError(f"{len(scores)} scores, {len(targets)} labels and {len(weights)} weights; need as many")
    refused = ~((scores >= 0) & (scores <= 1))
    if refused.any():
        raise TrainingError(f"a score is {scores[refused][0]}; a recalibration reads probabilities from 0 to 1")
    if not np.isin(targets, (0.0, 1.0)).all():
        raise TrainingError("a label is neither 0 nor 1; rows of unknown label stay out")
    if not (weights > 0).all() or np.isinf(weights).any():
        raise TrainingError("a weight is not a number above 0; it says how many rows a row stands for")
