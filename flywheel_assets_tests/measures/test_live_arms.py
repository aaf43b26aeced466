import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # noqa: TID253  (a test is started on its own)

from flywheel_assets.measures.live_arms import (
    Arm,
    ArmComparison,
    ArmVerdict,
    Look,
    bound_difference_below,
    compare_arms,
    compute_p_value,
    conclude_arms,
    find_look,
)

FIRST = Look(1, 1)
MEANS = st.lists(st.floats(0, 1), min_size=2, max_size=30)


def zeros_and_ones(ones: int, people: int) -> list[float]:
    return [1.0] * ones + [0.0] * (people - ones)


@pytest.mark.parametrize(
    ("current", "predecessor"),
    [((8, 20), (10, 200)), ((3, 100), (0, 1000)), ((60, 100), (40, 100)), ((19, 20), (700, 1000))],
)
def test_for_two_possible_values_the_bound_is_fishers_exact_test(
    current: tuple[int, int], predecessor: tuple[int, int]
) -> None:
    """Fay, Proschan and Brittain 2015 prove it; the saddlepoint approximation costs a few percent of the level."""
    table = [[current[0], current[1] - current[0]], [predecessor[0], predecessor[1] - predecessor[0]]]
    exact = stats.fisher_exact(table, alternative="greater").pvalue
    p_value = compute_p_value(zeros_and_ones(*current), zeros_and_ones(*predecessor))
    assert p_value == pytest.approx(exact, rel=0.06)


def test_the_bound_is_that_of_random_weights() -> None:
    random = np.random.default_rng(0)
    more, less = random.beta(0.3, 1, 60), random.beta(0.3, 1.5, 150)
    drawn = []
    for values, unseen in ((more, 0.0), (less, 1.0)):
        weights = random.standard_exponential((100_000, len(values) + 1))
        drawn.append(weights @ np.append(values, unseen) / weights.sum(axis=1))
    for alpha in (0.05, 0.01):
        expected = np.quantile(drawn[0] - drawn[1], alpha)
        assert bound_difference_below(more, less, alpha=alpha) == pytest.approx(expected, abs=0.002)


def test_one_prolific_person_is_one_vote() -> None:
    """A hundred edits of one person would be certain evidence by interactions."""
    current = Arm.from_counts([100] + [0] * 19, [100] + [1] * 19)
    predecessor = Arm.from_counts([0] * 20, [1] * 20)
    found = compare_arms(current, predecessor, Look(1, 1), margin=0.5)
    assert found.verdict != ArmVerdict.WORSE
    assert found.difference == pytest.approx(0.05)
    assert (found.current_users, found.current_interactions) == (20, 119)


def test_people_without_interactions_have_no_vote() -> None:
    arm = Arm.from_counts([1, 0, 0], [2, 0, 4])
    assert (arm.means.tolist(), arm.interactions) == ([0.5, 0.0], 6)


def test_a_few_sufferers_who_may_lie_in_the_other_arm_by_chance_prove_nothing() -> None:
    """Without a spread in either arm a t-test is certain: nobody of 20 suffers here and 1 of 20 there."""
    found = compare_arms(Arm(np.array(zeros_and_ones(1, 20)), 20), Arm(np.zeros(20), 20), FIRST)
    assert found.verdict == ArmVerdict.UNDECIDED


@pytest.mark.parametrize(
    ("current", "verdict"), [(0.8, ArmVerdict.WORSE), (0.3, ArmVerdict.NOT_WORSE), (0.36, ArmVerdict.UNDECIDED)]
)
def test_bounds_decide(current: float, verdict: ArmVerdict) -> None:
    people = 300
    arms = [Arm(np.array(zeros_and_ones(round(rate * people), people)), people) for rate in (current, 0.3)]
    found = compare_arms(arms[0], arms[1], FIRST, margin=0.12)
    assert found.verdict == verdict
    assert found.low is not None
    assert found.high is not None
    assert found.low < current - 0.3 < found.high
    assert found.describe().startswith(verdict.value)


def test_an_arm_without_people_decides_nothing() -> None:
    found = compare_arms(Arm(np.zeros(0), 0), Arm(np.zeros(5), 5), FIRST)
    assert (found.verdict, found.difference, found.low) == (ArmVerdict.UNDECIDED, None, None)
    assert "both models need people" in found.describe()


@given(MEANS, MEANS)
@settings(max_examples=30, deadline=None)
def test_bounds_stay_in_order_at_any_look(current: list[float], predecessor: list[float]) -> None:
    arms = Arm(np.array(current), len(current)), Arm(np.array(predecessor), len(predecessor))
    found = compare_arms(*arms, FIRST)
    later = compare_arms(*arms, Look(20, 101))
    assert found.low is not None
    assert found.high is not None
    assert found.difference is not None
    assert later.low is not None
    assert later.high is not None
    assert -1 <= later.low <= found.low + 1e-9
    assert found.low <= found.difference + 1e-6
    assert found.difference - 1e-6 <= found.high <= later.high + 1e-9 <= 1 + 1e-9


def test_means_outside_of_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="each from 0 to 1"):
        bound_difference_below([0.5, 1.5], [0.1], alpha=0.05)


def test_looks_are_rarer_as_days_pass_and_a_day_without_one_repeats_the_last() -> None:
    looks = [find_look(day) for day in range(1, 102)]
    days = sorted({look.day for look in looks if look})
    assert days == [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 70, 84, 101]
    assert find_look(9) == find_look(8) == Look(7, 8)
    assert find_look(0) is None


def test_levels_of_all_looks_make_alpha() -> None:
    spent = sum(Look(number, number).spend(0.05) for number in range(1, 100_000))
    assert 0.0499 < spent <= 0.05


def compare(verdict: ArmVerdict) -> ArmComparison:
    return ArmComparison(verdict, 0.0, 0.0, 0.0, 0.1, FIRST, 0.01, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([ArmVerdict.NOT_WORSE, ArmVerdict.WORSE], ArmVerdict.WORSE),
        ([ArmVerdict.NOT_WORSE, ArmVerdict.UNDECIDED], ArmVerdict.UNDECIDED),
        ([ArmVerdict.NOT_WORSE, ArmVerdict.NOT_WORSE], ArmVerdict.NOT_WORSE),
        ([], ArmVerdict.UNDECIDED),
    ],
)
def test_one_bad_measure_is_enough_and_going_on_takes_all(verdicts: list[ArmVerdict], expected: ArmVerdict) -> None:
    assert conclude_arms([compare(each) for each in verdicts]) == expected


@pytest.mark.long
def test_equal_models_are_rarely_taken_back_and_worse_ones_are() -> None:
    """A week of looks at 300 people, a tenth of them on the current model; benchmarks/production_watch.py has more."""
    taken = {0.0: 0, 0.3: 0}
    for harm in taken:
        random = np.random.default_rng(int(10 * harm))
        for _ in range(60):
            rates = np.where(random.random(300) < 0.1, 0.9, 0.1)
            is_current = random.random(300) < 0.1
            served, hits = np.zeros(300), np.zeros(300)
            for day in range(1, 9):
                served += (today := random.poisson(1.0, 300))
                hits += random.binomial(today, np.clip(rates + harm * is_current, 0, 1))
                look = find_look(day)
                assert look is not None
                arms = [Arm.from_counts(hits[chosen], served[chosen]) for chosen in (is_current, ~is_current)]
                if look.day == day and compare_arms(arms[0], arms[1], look).verdict == ArmVerdict.WORSE:
                    taken[harm] += 1
                    break
    assert taken[0.0] <= 4
    assert taken[0.3] >= 45
