"""Alerts at an equal budget: thresholds, what they catch, and ratios with intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.measures.decisions import bootstrap_clustered_ratio, find_budget_threshold, measure_capture


@pytest.mark.parametrize(
    ("scores", "budget", "threshold"),
    [
        ([0.9, 0.8, 0.7], 2, 0.8),
        ([0.9, 0.8, 0.7], 2.9, 0.8),
        ([0.9, 0.8, 0.7], 99, 0.7),
        ([0.9, 0.8, 0.8, 0.8], 2, 0.9),  # equal scores alert together
        ([0.5, 0.9], 1, 0.9),
    ],
)
def test_the_threshold_gives_at_most_the_budget(scores: list[float], budget: float, threshold: float) -> None:
    assert find_budget_threshold(scores, budget) == threshold


def test_a_budget_that_no_score_fits_alerts_on_none() -> None:
    assert find_budget_threshold([0.9, 0.9], 1) > 0.9
    assert find_budget_threshold([], 1) == 1.0


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=50),
    budget=st.floats(0, 60),
    weight=st.floats(0.5, 5),
)
def test_no_budget_is_exceeded(scores: list[float], budget: float, weight: float) -> None:
    threshold = find_budget_threshold(scores, budget, [weight] * len(scores))
    assert sum(weight for score in scores if score >= threshold) <= budget * (1 + 1e-6)


def test_a_positive_that_stands_for_two_is_caught_twice() -> None:
    found = measure_capture(
        [1, 1, 0, 1], [0.9, 0.8, 0.7, 0.1], 0.5, None, [2.0, 1.0, 1.0, 1.0], [10.0, 20.0, 99.0, 50.0]
    )
    assert (found.alerts, found.positives, found.share) == (3.0, 3.0, 0.75)
    assert (found.value, found.value_share) == (40.0, pytest.approx(40 / 90))


def test_without_positives_there_is_no_share() -> None:
    found = measure_capture([0, 0], [0.9, 0.1], 0.5, amounts=[1.0, np.nan])
    assert (found.share, found.value, found.value_share) == (None, 0.0, None)


def test_the_ratio_and_its_interval() -> None:
    random = np.random.default_rng(3)
    cards = random.integers(0, 500, 20_000)
    predicted, came = random.random(20_000) * 0.2, random.random(20_000) < 0.1
    found = bootstrap_clustered_ratio(predicted, came, cards.astype(str).tolist())
    assert found.mean == pytest.approx(predicted.sum() / came.sum())
    assert found.mean == pytest.approx(1.0, abs=0.1)
    assert found.low < found.mean < found.high  # type: ignore[operator]
    assert found.high - found.low == pytest.approx(4 * 1 / np.sqrt(2000), rel=0.4)  # type: ignore[operator]


def test_a_ratio_to_nothing_is_none() -> None:
    assert bootstrap_clustered_ratio([1.0], [0.0], ["a"]).mean is None
    assert bootstrap_clustered_ratio([], [], []).mean is None
