import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.measures.classifiers import (
    Scores,
    bootstrap_average_precision_gain,
    compute_precision_recall_points,
    compute_reliability_bins,
    count_alerts,
    precision_at_k,
    score_groups,
    score_rows,
)
from flywheel_assets.measures.texts import Interval

average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score

Array = npt.NDArray[Any]


def world(rows: int = 3000, cards: int = 300, seed: int = 0) -> tuple[Array, Array, list[str]]:
    """Labels drawn from calibrated, skewed scores; a card's rows share a level, as frauds on one card do."""
    generator = np.random.default_rng(seed)
    card = generator.integers(0, cards, rows)
    logit = generator.normal(-4, 1.5, cards)[card] + generator.normal(0, 1, rows)
    scores = 1 / (1 + np.exp(-logit))
    return generator.random(rows) < scores, scores, [f"card{number}" for number in card]


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([], [], Scores(0, 0, None, None, None, None)),
        ([0, 0], [0.5, 0.5], Scores(2, 0, None, None, None, math.log(2))),
        ([1, 1], [0.5, 0.5], Scores(2, 2, 1.0, None, 0.5, math.log(2))),
        ([1, 0], [0.8, 0.2], Scores(2, 1, 1.0, 1.0, 1.0, -math.log(0.8))),
        ([0, 1], [0.8, 0.2], Scores(2, 1, 0.5, 0.0, 1.0, -math.log(0.2))),
        ([0, 1, 0], [0.5, 0.5, 0.5], Scores(3, 1, 1 / 3, 0.5, 1.5, math.log(2))),
    ],
)
def test_measures_of_few_rows(labels: list[int], scores: list[float], expected: Scores) -> None:
    found = score_rows(labels, scores)
    assert vars(found) == {name: pytest.approx(value) for name, value in vars(expected).items()}


def test_weights_measure_what_the_kept_rows_stand_for() -> None:
    labels, scores, _ = world(20_000)
    generator = np.random.default_rng(1)
    share = np.where(labels, 1.0, np.clip(10 * scores, 0.05, 1))
    kept = generator.random(len(labels)) < share
    everything, sampled = score_rows(labels, scores), score_rows(labels[kept], scores[kept], 1 / share[kept])
    unweighted = score_rows(labels[kept], scores[kept])
    for name in ("average_precision", "roc_auc", "calibration_ratio", "log_loss"):
        assert getattr(sampled, name) == pytest.approx(getattr(everything, name), rel=0.05)
    assert unweighted.log_loss != pytest.approx(everything.log_loss, rel=0.5)


def test_groups_are_measured_one_by_one() -> None:
    labels, scores, _ = world(100)
    groups = ["even" if row % 2 == 0 else "odd" for row in range(100)]
    found = score_groups(groups, labels, scores)
    assert found["odd"] == score_rows(labels[1::2], scores[1::2])
    assert list(found) == ["even", "odd"]


@pytest.mark.parametrize(
    ("labels", "scores", "named"),
    [
        ([0, 1], [0.5], "2 labels, 1 scores"),
        ([0, 1], [0.5, math.nan], "a score is nan"),
        ([0, 1], [0.5, 1.5], "a score is 1.5"),
        ([0, None], [0.5, 0.5], "a label is nan"),
        ([0, 2], [0.5, 0.5], "a label is 2"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused(labels: list[Any], scores: list[float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        score_rows(labels, scores)


def test_alerts_start_at_the_threshold() -> None:
    assert count_alerts([0.1, 0.5, 0.9], 0.5) == 2
    assert count_alerts([], 0.5) == 0


def test_a_card_that_was_caught_is_not_caught_again() -> None:
    """Two days, k = 2. Day 1: a (fraud) and b lead. Day 2: a is known, so that c (fraud) takes its place."""
    days = ["1", "1", "1", "1", "2", "2", "2"]
    cards = ["a", "a", "b", "c", "a", "b", "c"]
    labels = [1, 0, 0, 1, 1, 0, 1]
    scores = [0.2, 0.9, 0.8, 0.1, 0.9, 0.8, 0.1]
    found = precision_at_k(days, cards, labels, scores, 2)
    assert found.by_day == {"1": 0.5, "2": 0.5}
    assert precision_at_k(days, cards, labels, scores, 2, remove_detected=False).by_day == {"1": 0.5, "2": 0.5}
    assert precision_at_k(days, cards, labels, scores, 1).by_day == {"1": 1.0, "2": 0.0}
    assert precision_at_k(days, cards, labels, scores, 1, remove_detected=False).by_day == {"1": 1.0, "2": 1.0}
    assert precision_at_k(days, cards, labels, scores, 4).mean == pytest.approx((2 / 4 + 0 / 4) / 2)
    assert precision_at_k([], [], [], [], 2).mean is None


def test_reliability_bins_spread_the_expected_positives_and_lose_no_row() -> None:
    labels, scores, _ = world(20_000)
    bins = compute_reliability_bins(labels, scores)
    assert sum(part.rows for part in bins) == 20_000
    assert sum(part.rows * part.positive_share for part in bins) == pytest.approx(labels.sum())
    assert 8 <= len(bins) <= 10
    assert all(before.high < after.low for before, after in itertools.pairwise(bins))
    for part in bins:  # calibrated by construction
        assert part.rows * part.mean_score == pytest.approx(scores.sum() / 10, rel=0.15)
        deviation = math.sqrt(part.mean_score * (1 - part.mean_score) / part.rows)
        assert abs(part.positive_share - part.mean_score) < 4 * deviation


@pytest.mark.parametrize("scores", [[0.3] * 50, [0.0] * 50, [0.0] * 49 + [1.0]])
def test_equal_scores_share_a_bin(scores: list[float]) -> None:
    bins = compute_reliability_bins([1] + [0] * 49, scores)
    assert sum(part.rows for part in bins) == 50
    assert len(bins) == len(set(scores))
    assert compute_reliability_bins([], []) == []


def test_the_curve_is_thin_and_ends_where_it_should() -> None:
    labels, scores, _ = world(20_000)
    points = compute_precision_recall_points(labels, scores, max_points=50)
    assert len(points) <= 50
    assert points[0].recall == 1.0
    assert points[0].precision <= points[-1].precision
    assert all(a.threshold < b.threshold and a.recall >= b.recall for a, b in itertools.pairwise(points))
    for point in points:
        alerted = scores >= point.threshold
        assert point.precision == pytest.approx(labels[alerted].mean())
        assert point.recall == pytest.approx(labels[alerted].sum() / labels.sum())
    assert compute_precision_recall_points([0, 0], [0.1, 0.2]) == []


rows_of_cards = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.floats(0, 1), st.sampled_from("abcd")),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(rows=rows_of_cards)
def test_the_gain_is_the_difference_of_what_scikit_learn_says(rows: list[tuple[bool, float, float, str]]) -> None:
    labels, old, new, cards = (list(column) for column in zip(*rows, strict=True))
    found = bootstrap_average_precision_gain(labels, old, new, cards, draws=20)
    if not any(labels):
        assert found == Interval(None, None, None, len(rows), len(set(cards)))
        return
    expected = average_precision_score(labels, new) - average_precision_score(labels, old)
    assert found.mean == pytest.approx(expected, abs=1e-12)


def test_each_draw_is_the_average_precision_of_the_drawn_cards_rows() -> None:
    """The shortcut (sort once, count by steps) against copying the rows of the drawn cards and asking scikit-learn."""
    labels, old, cards = world(400, 40)
    new = np.round(np.clip(old * 1.3, 0, 1), 2)  # ties
    generator = np.random.default_rng(0)
    names, member = np.unique(cards, return_inverse=True)
    gains = []
    for _ in range(60):
        times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        rows = np.repeat(np.arange(400), times[member])
        gains.append(
            average_precision_score(labels[rows], new[rows]) - average_precision_score(labels[rows], old[rows])
        )
    found = bootstrap_average_precision_gain(labels, old, new, cards, draws=60)
    assert [found.low, found.high] == pytest.approx(np.quantile(gains, [0.025, 0.975]).tolist(), abs=1e-9)


def test_a_gain_over_oneself_is_nothing() -> None:
    labels, scores, cards = world()
    assert bootstrap_average_precision_gain(labels, scores, scores, cards, draws=50) == Interval(0, 0, 0, 3000, 300)


def test_equal_seeds_give_equal_intervals_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, cards = world()
    whole = bootstrap_average_precision_gain(labels, scores**2, scores, cards, draws=50, seed=3)
    monkeypatch.setattr("flywheel_assets.measures.classifiers._BLOCK_NUMBERS", 1000)
    assert bootstrap_average_precision_gain(labels, scores**2, scores, cards, draws=50, seed=3) == whole


def test_cards_carry_less_evidence_than_rows() -> None:
    labels, scores, cards = world(4000, 40)
    worse = np.clip(scores + np.random.default_rng(2).normal(0, 0.02, 4000), 0, 1)
    by_card = bootstrap_average_precision_gain(labels, worse, scores, cards)
    by_row = bootstrap_average_precision_gain(labels, worse, scores, [str(row) for row in range(4000)])
    assert by_card.low is not None
    assert by_card.high is not None
    assert by_row.low is not None
    assert by_row.high is not None
    assert by_card.high - by_card.low > by_row.high - by_row.low


def test_draws_without_a_positive_are_left_out() -> None:
    """One positive on one of two cards: a quarter of the draws have none, and none of them is a gain of NaN."""
    found = bootstrap_average_precision_gain([1, 0, 0], [0.1, 0.5, 0.2], [0.9, 0.5, 0.2], ["a", "b", "b"], draws=100)
    assert found.mean == pytest.approx(2 / 3)
    assert found.low is not None
    assert found.low >= 0


def test_a_weight_counts_like_as_many_equal_rows() -> None:
    """What a policy let through with a probability of 1/3 stands for the two others that it blocked."""
    rng = np.random.default_rng(4)
    labels = rng.random(400) < 0.2
    old, new = rng.random(400), np.clip(rng.random(400) * 0.5 + labels * 0.4, 0, 1)
    entities = [f"card-{number % 40}" for number in range(400)]
    weights = rng.integers(1, 4, 400)
    repeated = np.repeat(np.arange(400), weights)
    cards = [entities[row] for row in repeated]
    gain = bootstrap_average_precision_gain(labels, old, new, entities, weights=weights, draws=200)
    plain = bootstrap_average_precision_gain(labels[repeated], old[repeated], new[repeated], cards, draws=200)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((plain.mean, plain.low, plain.high))
    weighted, unweighted = score_rows(labels, new, weights), score_rows(labels[repeated], new[repeated])
    assert weighted.average_precision == pytest.approx(unweighted.average_precision)
    assert weighted.calibration_ratio == pytest.approx(unweighted.calibration_ratio)
    assert count_alerts(new, 0.5, weights) == count_alerts(new[repeated], 0.5)
