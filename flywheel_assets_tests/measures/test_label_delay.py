"""Label delays: what the estimate finds in streams whose truth is known, and what it does not claim."""

import numpy as np
import numpy.typing as npt
import pytest

from flywheel_assets.measures.label_delay import DelayCurve, estimate_delay_curve, list_curves

Integers = npt.NDArray[np.int64]


def see(delays: Integers, span: int, seed: int = 0) -> tuple[Integers, Integers]:
    """Spread positives over the last `span` days; return the delays and ages of those that are known today."""
    ages = np.random.default_rng(seed).integers(0, span, len(delays))
    known = delays <= ages
    return delays[known], ages[known]


def curve(delays: Integers, ages: Integers) -> DelayCurve:
    found = estimate_delay_curve(delays, ages)
    assert found is not None
    return found


@pytest.mark.parametrize("mean", [3, 14])
def test_slow_labels_that_are_not_here_yet_are_counted(mean: int) -> None:
    """The plain share of known labels that came within a week says .95 where the truth is .63: slow ones are hidden."""
    delays = (7 + np.random.default_rng(1).exponential(mean, 20_000)).astype(np.int64)
    seen, ages = see(delays, 8 * mean)
    found = curve(seen, ages)
    for age in (7, 7 + mean // 2, 7 + mean, 7 + 2 * mean):
        # Of those that become known within the horizon: more cannot be seen.
        truth = (delays <= age).mean() / (delays <= found.horizon_days).mean()
        assert found.share_known(age) == pytest.approx(truth, abs=0.03)
        assert found.low[age] <= truth + 0.01
        assert found.high[age] >= truth - 0.01
    naive = (seen <= 7 + mean).mean()
    truth = (delays <= 7 + mean).mean()
    assert naive > truth + 0.05
    assert abs(found.share_known(7 + mean) - truth) < (naive - truth) / 2


def test_a_fixed_delay_is_a_step() -> None:
    found = curve(*see(np.full(500, 7), 60))
    assert [found.share_known(age) for age in (-1, 0, 6, 7, 30, 1000)] == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert found.find_age(0.95) == 7


def test_ages_that_few_predictions_have_do_not_decide() -> None:
    """One label of 90 days among three such old predictions once made every share before it zero."""
    delays, ages = see(np.full(500, 5), 40)
    found = curve(np.append(delays, 90), np.append(ages, 95))
    assert found.horizon_days < 60
    assert found.share_known(5) > 0.99


def test_few_positives_give_no_curve() -> None:
    assert estimate_delay_curve([1] * 49, [10] * 49) is None
    assert estimate_delay_curve([], []) is None
    assert estimate_delay_curve([1], [10], [50]) is not None


def test_a_label_from_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than its age"):
        estimate_delay_curve([5], [4], [100])


def test_each_large_source_has_a_curve_of_its_own() -> None:
    quick, slow = see(np.full(300, 1), 60), see(np.full(200, 20), 60)
    delays, ages = np.append(quick[0], slow[0]), np.append(quick[1], slow[1])
    sources = ["analyst"] * len(quick[0]) + ["chargeback"] * len(slow[0]) + ["user"]
    curves = list_curves([*delays, 3], [*ages, 9], [1] * len(sources), sources)
    assert [each.source for each in curves] == [None, "analyst", "chargeback"]
    assert [each.find_age(0.95) for each in curves[1:]] == [1, 20]
