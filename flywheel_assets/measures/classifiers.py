"""Measures of a classifier's scores against labels, and the interval around the difference of two classifiers.

Scores are probabilities of the positive class. Labels are of matured rows only: a row that may still be labelled
belongs to no measure. Where a measure is not defined (no rows, one class only) it is None, never NaN, which JSON does
not know. scikit-learn computes what it knows; it and scipy are imported inside the functions: they load for a second.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.measures.texts import Interval

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Draws are made in blocks of this many numbers, so that many entities or positives do not cost memory.
_BLOCK_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Scores:
    """The fit of scores to the labels of one set of rows; sums are weighted where weights were given."""

    rows: int
    positives: int
    average_precision: float | None
    """Area under precision over recall, as a step function; None without a positive."""
    roc_auc: float | None
    """None unless both classes are there."""
    calibration_ratio: float | None
    """Σp / Σy: 1 where as many positives are predicted as there are; None without a positive."""
    log_loss: float | None
    """Mean −log p(label) in nats; None without rows."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Predicted and observed shares of the rows with scores from low to high, both occurring."""

    low: float
    high: float
    rows: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True)
class CurvePoint:
    """Precision and recall of alerting from `threshold` on."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class PrecisionAtK:
    """Of the k entities that one day's scores put first, the share that really had a positive."""

    mean: float | None
    """Over the days; None without rows."""
    by_day: Mapping[str, float]
    k: int


def score_rows(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    positive_weights: npt.ArrayLike | None = None,
) -> Scores:
    """Compute every measure of one set of rows.

    Args:
        labels: True or 1 for positives, one per row.
        scores: in [0, 1], one per row.
        weights: how many rows each stands for: 1 / allow_propensity of what the action policy let through by chance.
        positive_weights: how many positives a positive row stands for, more than its weight where positives become
            known late. They enter average precision and calibration; `weights` where it is None.
    """
    from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

    y, p, w = _check_arrays(labels, scores, weights)
    positives = int(y.sum())
    if not len(y):
        return Scores(0, 0, None, None, None, None)
    hits = w if positive_weights is None else np.asarray(positive_weights, dtype=np.float64)
    average_precision = None
    if positives and positive_weights is None:
        average_precision = float(average_precision_score(y, p, sample_weight=w))
    elif positives:
        everyone = _ResampledPrecision(y, p, w, hits, np.zeros(len(y), dtype=np.int64))
        average_precision = float(everyone.average_precision(np.ones((1, 1), dtype=np.int64))[0])
    return Scores(
        rows=len(y),
        positives=positives,
        average_precision=average_precision,
        roc_auc=float(roc_auc_score(y, p, sample_weight=w)) if 0 < positives < len(y) else None,
        calibration_ratio=float((w * p).sum() / hits[y].sum()) if positives else None,
        log_loss=float(log_loss(y, p, sample_weight=w, labels=[False, True])),
    )


def score_groups(
    groups: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    positive_weights: npt.ArrayLike | None = None,
) -> dict[str, Scores]:
    """Apply `score_rows` to each group (segment, week), by its name."""
    y, p, w = _check_arrays(labels, scores, weights)
    hits = None if positive_weights is None else np.asarray(positive_weights, dtype=np.float64)
    names, member = _encode_values(groups)
    return {
        name: score_rows(
            y[member == number],
            p[member == number],
            w[member == number],
            None if hits is None else hits[member == number],
        )
        for number, name in enumerate(names)
    }


def count_alerts(scores: npt.ArrayLike, threshold: float, weights: npt.ArrayLike | None = None) -> int:
    """Count the rows with scores from the threshold on, or sum their weights."""
    is_alert = np.asarray(scores, dtype=np.float64) >= threshold
    return round(float(is_alert.sum() if weights is None else np.asarray(weights, dtype=np.float64)[is_alert].sum()))


def precision_at_k(
    days: Sequence[str],
    entities: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    k: int,
    *,
    remove_detected: bool = True,
) -> PrecisionAtK:
    """Compute the precision of each day's k entities (cards, users) with the highest single score.

    These are as many as investigators can look at. Definition of the Fraud Detection Handbook (chapter 4, card
    precision top-k): an entity counts as a hit where any of its rows of the day is positive, and k divides also where a
    day has fewer entities.

    Args:
        days: the day of each row; they are walked in sorted order.
        entities: the entity of each row.
        labels: True or 1 for positives.
        scores: one per row. Entities with equal scores are taken in the order of their names.
        k: entities that can be looked at per day.
        remove_detected: an entity that was a hit is known from then on: its later rows are left out.
    """
    y, p, _ = _check_arrays(labels, scores, None)
    day_names, day_of = _encode_values(days)
    _, entity_of = _encode_values(entities)
    is_known = np.zeros(entity_of.max(initial=-1) + 1, dtype=bool)
    by_day = {}
    for number, day in enumerate(day_names):
        rows = np.flatnonzero(day_of == number)
        rows = rows[~is_known[entity_of[rows]]]
        present, member = np.unique(entity_of[rows], return_inverse=True)
        highest = np.full(len(present), -np.inf)
        np.maximum.at(highest, member, p[rows])
        is_hit = np.zeros(len(present), dtype=bool)
        np.logical_or.at(is_hit, member, y[rows])
        first = np.argsort(-highest, kind="stable")[:k]
        by_day[day] = float(is_hit[first].sum() / k)
        if remove_detected:
            is_known[present[first[is_hit[first]]]] = True
    return PrecisionAtK(float(np.mean(list(by_day.values()))) if by_day else None, by_day, k)


def compute_reliability_bins(labels: npt.ArrayLike, scores: npt.ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Compare predicted with observed shares, from low scores to high; no empty bins.

    Each bin holds about the same sum of scores, that is of *expected positives*: with rare positives, bins of equal
    width or of equally many rows would leave all but one of them to the rows about which there is no doubt.
    """
    y, p, _ = _check_arrays(labels, scores, None)
    order = np.argsort(p, kind="stable")
    y, p = y[order], p[order]
    total = p.sum()
    if not total:
        return [ReliabilityBin(0.0, 0.0, len(p), 0.0, float(y.mean()))] if len(p) else []
    ends = np.searchsorted(np.cumsum(p), total * np.arange(1, bins) / bins)
    # Equal scores stay together: a bin's border is a score, not a row.
    borders = np.unique(np.concatenate(([0], np.searchsorted(p, p[ends]), [len(p)])))
    found = []
    for start, end in itertools.pairwise(borders):
        shares = float(p[start:end].mean()), float(y[start:end].mean())
        found.append(ReliabilityBin(float(p[start]), float(p[end - 1]), int(end - start), *shares))
    return found


def compute_precision_recall_points(
    labels: npt.ArrayLike, scores: npt.ArrayLike, max_points: int = 200
) -> list[CurvePoint]:
    """Compute the precision–recall curve by rising threshold, thinned evenly in recall; empty without a positive."""
    from sklearn.metrics import precision_recall_curve

    y, p, _ = _check_arrays(labels, scores, None)
    if not y.any():
        return []
    precision, recall, thresholds = precision_recall_curve(y, p, drop_intermediate=True)
    targets = np.linspace(recall[0], recall[len(thresholds) - 1], max_points)
    # Recall falls along the curve; searching needs it to rise.
    chosen = np.unique(np.searchsorted(-recall[: len(thresholds)], -targets).clip(max=len(thresholds) - 1))
    return [CurvePoint(float(thresholds[i]), float(precision[i]), float(recall[i])) for i in chosen]


def bootstrap_average_precision_gain(
    labels: npt.ArrayLike,
    incumbent: npt.ArrayLike,
    challenger: npt.ArrayLike,
    entities: Sequence[str],
    *,
    weights: npt.ArrayLike | None = None,
    positive_weights: npt.ArrayLike | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute AP(challenger) − AP(incumbent) on the same rows, with a bootstrap interval over entities.

    One card's rows resemble each other, so cards are drawn, each with all its rows, and both classifiers see the same
    draw. Every score is sorted once: a draw changes only how often rows count, and AP needs nothing of the rows between
    two positives but their number, so a draw is one product with a sparse matrix of positives × entities. 200,000 rows
    of 5,000 cards with 1,000 draws take half a second.

    Args:
        labels: True or 1 for positives, one per row.
        incumbent: scores of the model that serves now.
        challenger: scores of the model that may replace it.
        entities: the cluster of each row (card, user).
        weights: how many rows each stands for.
        positive_weights: how many positives a positive row stands for: 1 / F(age) times its weight where positives
            become known late, or its amount for AP by value; `weights` where it is None.
        draws: bootstrap samples; one without any positive has no AP and is left out.
        confidence: two-sided.
        seed: of the drawn entities.

    Returns:
        An interval in units of AP; with None inside where there is no positive.
    """
    y, old, w = _check_arrays(labels, incumbent, weights)
    _, new, _ = _check_arrays(labels, challenger, None)
    names, member = _encode_values(entities)
    if not y.any():
        return Interval(None, None, None, len(y), len(names))
    hits = w if positive_weights is None else np.asarray(positive_weights, dtype=np.float64)
    before, after = _ResampledPrecision(y, old, w, hits, member), _ResampledPrecision(y, new, w, hits, member)
    gains = np.empty(draws)
    block = max(1, _BLOCK_NUMBERS // (len(names) + before.steps + after.steps))
    for start, times in _draw_entities(len(names), draws, block, seed):
        count = times.shape[1]
        gains[start : start + count] = after.average_precision(times) - before.average_precision(times)
    once = np.ones((len(names), 1), dtype=np.int64)
    mean = float((after.average_precision(once) - before.average_precision(once))[0])
    return _build_interval(mean, gains, confidence, len(y), len(names))


@dataclass(frozen=True)
class ClassGains:
    """Differences of two models of several classes in average precision, each class against the rest."""

    macro: Interval
    """Of the mean over the compared classes."""
    by_class: tuple[Interval, ...]
    """Of each compared class."""


def bootstrap_class_gains(
    labels: npt.ArrayLike,
    incumbent: Floats,
    challenger: Floats,
    entities: Sequence[str],
    compared: Sequence[int],
    *,
    weights: Floats,
    positive_weights: Floats,
    draws: int = 1000,
    confidence: float = 0.95,
    class_confidence: float = 0.95,
    seed: int = 0,
) -> ClassGains:
    """Compute AP(challenger) − AP(incumbent) of classes and of their mean, with intervals over the same draws.

    As `bootstrap_average_precision_gain`, each class against the rest. All classes see the same drawn entities, so that
    the interval of the mean holds what one entity does to several classes.

    Args:
        labels: the number of each row's class.
        incumbent: rows × classes, probabilities of the model that serves now.
        challenger: the same of the model that may replace it.
        entities: the cluster of each row.
        compared: numbers of the classes, each with at least one row.
        weights: how many rows each stands for.
        positive_weights: how many rows of its class a row stands for.
        draws: bootstrap samples; one without any row of a class is left out of that class's and the mean's.
        confidence: of the mean's interval, two-sided.
        class_confidence: of each class's interval.
        seed: of the drawn entities.
    """
    numbers = np.asarray(labels, dtype=np.int64)
    names, member = _encode_values(entities)
    if not compared:
        return ClassGains(Interval(None, None, None, len(numbers), len(names)), ())
    pairs = []
    for number in compared:
        y, old, w = _check_arrays(numbers == number, incumbent[:, number], weights)
        _, new, _ = _check_arrays(numbers == number, challenger[:, number], None)
        ranked = (_ResampledPrecision(y, scores, w, positive_weights, member) for scores in (old, new))
        pairs.append(tuple(ranked))

    def subtract(times: Integers) -> Floats:
        return np.array([after.average_precision(times) - before.average_precision(times) for before, after in pairs])

    gains = np.empty((len(pairs), draws))
    block = max(1, _BLOCK_NUMBERS // (len(names) + sum(before.steps + after.steps for before, after in pairs)))
    for start, times in _draw_entities(len(names), draws, block, seed):
        gains[:, start : start + times.shape[1]] = subtract(times)
    means = subtract(np.ones((len(names), 1), dtype=np.int64))[:, 0]
    shape = len(numbers), len(names)
    return ClassGains(
        _build_interval(float(means.mean()), gains.mean(axis=0), confidence, *shape),
        tuple(_build_interval(float(means[i]), gains[i], class_confidence, *shape) for i in range(len(pairs))),
    )


def count_confusions(labels: npt.ArrayLike, probabilities: Floats, weights: npt.ArrayLike) -> list[list[float]]:
    """Sum the weights of rows by true class, in rows, and most probable class, in columns.

    Args:
        labels: the number of each row's class.
        probabilities: rows × classes; of equal ones the first class counts.
        weights: how many rows each stands for.
    """
    classes = probabilities.shape[1]
    cells = np.asarray(labels, dtype=np.int64) * classes + probabilities.argmax(axis=1)
    found = np.bincount(cells, np.asarray(weights, dtype=np.float64), minlength=classes * classes)
    return [[float(value) for value in row] for row in found.reshape(classes, classes)]


def _draw_entities(entities: int, draws: int, block: int, seed: int) -> Iterator[tuple[int, Integers]]:
    """Draw entities with replacement; yields the first draw's number and how often each counts, entities × draws."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, block):
        count = min(block, draws - start)
        drawn = generator.integers(0, entities, (count, entities))
        drawn += np.arange(count)[:, None] * entities
        yield start, np.bincount(drawn.ravel(), minlength=count * entities).reshape(count, entities).T


def _build_interval(mean: float, gains: Floats, confidence: float, rows: int, clusters: int) -> Interval:
    """Build the percentile interval of drawn gains; those that are not a number are left out."""
    known = gains[~np.isnan(gains)]
    if not len(known):
        return Interval(mean, None, None, rows, clusters)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), rows, clusters)


class _ResampledPrecision:
    """Average precision of fixed scores as a function of how often each entity counts.

    A step is one distinct score that some positive has, together with the higher scores since the step before.
    """

    def __init__(
        self, labels: npt.NDArray[np.bool_], scores: Floats, weights: Floats, hit_weights: Floats, member: Integers
    ) -> None:
        from scipy.sparse import csr_array

        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        tie = np.concatenate(([0], np.cumsum(ranked[1:] != ranked[:-1])))
        positive_ties = np.unique(tie[labels[order]])
        step = np.searchsorted(positive_ties, tie)
        above = step < len(positive_ties)  # what is ranked below the last positive never matters
        order, step = order[above], step[above]
        self.steps = len(positive_ties)
        shape = (self.steps, int(member.max()) + 1)
        is_hit = labels[order]
        hits = order[is_hit]
        self._rows = csr_array((weights[order], (step, member[order])), shape=shape)
        self._hits = csr_array((hit_weights[hits], (step[is_hit], member[hits])), shape=shape)

    def average_precision(self, times: Integers) -> Floats:
        """Return one value per draw, NaN without a positive.

        Args:
            times: entities × draws, how often each entity was drawn.
        """
        counts = times.astype(np.float64)
        hits = self._hits @ counts
        found = np.cumsum(hits, axis=0)
        seen = np.cumsum(self._rows @ counts, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(seen > 0, found / seen, 0.0)
            areas: Floats = (hits * precision).sum(axis=0) / found[-1]
        return areas


def _check_arrays(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
    y = np.asarray(labels, dtype=np.float64)
    p = np.asarray(scores, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(y) == len(p) == len(w):
        raise ValueError(f"{len(y)} labels, {len(p)} scores and {len(w)} weights; need as many of each")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError(f"a label is {y[~np.isin(y, (0.0, 1.0))][0]}; it must be 0 or 1: unknown rows stay out")
    # Not "p < 0": a score that is not a number is refused too.
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"a score is {p[~((p >= 0) & (p <= 1))][0]}; it must be a probability in [0, 1]")
    return y == 1, p, w


def _encode_values(values: Sequence[str]) -> tuple[list[str], Integers]:
    names, member = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    return names.tolist(), member.astype(np.int64)
