import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.measures.texts import (
    Interval,
    KnownCorrections,
    SubjectMeans,
    average_by_subject,
    bootstrap_clustered_mean,
    bound_mean_below,
    count_subjects_to_prove,
    find_corrected,
    find_least_provable_mean,
    length_ratios,
    measure_repetition,
    normalized_edit_distances,
)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("", "", 0.0),
        ("", "ab", 1.0),
        ("abcd", "abcd", 0.0),
        ("abcd", "abcx", 0.25),
        ("ab", "abcd", 0.5),
        ("👍🏽", "👍", 0.5),  # code points, not bytes or graphemes
    ],
)
def test_edit_distance_is_normalized_by_the_longer_text(text: str, reference: str, expected: float) -> None:
    assert normalized_edit_distances([text], [reference]).tolist() == [expected]


def test_measures_of_nothing_are_empty() -> None:
    assert normalized_edit_distances([], []).tolist() == []
    assert bootstrap_clustered_mean([], []) == Interval(None, None, None, 0, 0)


def test_a_length_ratio_survives_an_empty_reference() -> None:
    assert length_ratios(["abcd", "ab", ""], ["ab", "", ""]).tolist() == [2.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("", 0, 0), ("one", 0, 0), ("the claim is new and the claim was old", 0.1, 0.2), ("claim " + "is " * 50, 0.9, 1)],
)
def test_repetition_tells_prose_from_a_stuck_model(text: str, low: float, high: float) -> None:
    assert low <= measure_repetition(text) <= high


def test_rows_of_one_subject_are_no_independent_evidence() -> None:
    """Forty rows of two people who disagree: by rows the gain looks certain, by people it does not."""
    differences = [0.5] * 30 + [-0.1] * 10
    by_person = bootstrap_clustered_mean(differences, ["a"] * 30 + ["b"] * 10)
    by_row = bootstrap_clustered_mean(differences, [str(row) for row in range(40)])
    assert by_person.low is not None
    assert by_row.low is not None
    assert by_person.low < 0 < by_row.low
    assert (by_person.rows, by_person.clusters, by_person.mean) == (40, 2, by_row.mean)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 worlds of 60 subjects with their own levels: a 95 % interval misses the mean in about 5 %, not in 40 %."""
    generator = np.random.default_rng(7)
    misses = 0
    for _ in range(200):
        levels = generator.normal(0.3, 0.5, 60)
        rows = generator.integers(1, 6, 60)
        values = np.repeat(levels, rows) + generator.normal(0, 0.1, rows.sum())
        found = bootstrap_clustered_mean(values, np.repeat(np.arange(60).astype(str), rows).tolist(), draws=400)
        assert found.low is not None
        assert found.high is not None
        misses += not found.low <= 0.3 <= found.high
    assert misses <= 24


def test_the_interval_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    differences, subjects = list(range(30)), [str(row % 7) for row in range(30)]
    whole = bootstrap_clustered_mean(differences, subjects, draws=100)
    monkeypatch.setattr("flywheel_assets.measures.texts._BLOCK_INDICES", 50)
    assert bootstrap_clustered_mean(differences, subjects, draws=100) == whole


@given(
    rows=st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abcdefgh"), st.floats(0, 0.5)), min_size=1, max_size=30)
)
def test_a_larger_gain_on_any_row_never_lowers_a_bound(rows: list[tuple[float, str, float]]) -> None:
    subjects = [subject for _, subject, _ in rows]
    before = bootstrap_clustered_mean([gain for gain, _, _ in rows], subjects, draws=60)
    after = bootstrap_clustered_mean([gain + more for gain, _, more in rows], subjects, draws=60)
    assert before.low is not None
    assert after.low is not None
    assert after.low >= before.low - 1e-12


def test_each_subject_has_one_vote_however_much_they_write() -> None:
    """Incident: power users carried the mean of the rows, and kept its interval wrong with 200 subjects."""
    rows = [-0.2, -0.2, *[0.5] * 98]
    assert average_by_subject(rows, ["a", "b", *["writes-much"] * 98]) == SubjectMeans((-0.2, -0.2, 0.5), 100)
    assert average_by_subject([], []) is None


@pytest.mark.parametrize(("wins", "subjects"), [(0, 20), (3, 20), (20, 20), (45, 50)])
def test_the_bound_of_a_share_is_clopper_and_pearsons(wins: int, subjects: int) -> None:
    from scipy import stats

    exact = stats.beta.ppf(0.025, wins, subjects - wins + 1) if wins else 0.0
    values = [1.0] * wins + [0.0] * (subjects - wins)
    assert bound_mean_below(values, least=0, alpha=0.025) == pytest.approx(exact, abs=0.005)


def test_nobody_who_lost_much_among_twenty_is_no_proof_that_nobody_does() -> None:
    """Incident: 5 % of people lose .8, the others gain .042. A third of samples of twenty has none of them, and an
    interval that estimates its width from such a sample is a point above zero: 34 to 45 % of challengers passed."""
    lucky = average_by_subject([0.042] * 60, [f"user-{row % 20}" for row in range(60)])
    assert lucky is not None
    assert lucky.bound_below(least=-1, alpha=0.025) < 0
    assert bootstrap_clustered_mean([0.042] * 60, [f"user-{row % 20}" for row in range(60)]).low == pytest.approx(0.042)


def test_the_bound_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [place / 30 for place in range(30)]
    whole = bound_mean_below(values, least=-1, alpha=0.1, draws=100)
    monkeypatch.setattr("flywheel_assets.measures.texts._BLOCK_INDICES", 50)
    assert bound_mean_below(values, least=-1, alpha=0.1, draws=100) == pytest.approx(whole)


@given(rows=st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_a_larger_gain_of_any_subject_never_lowers_the_bound(rows: list[tuple[float, float]]) -> None:
    before = bound_mean_below([gain for gain, _ in rows], least=-1, alpha=0.2, draws=60)
    after = bound_mean_below([gain + more for gain, more in rows], least=-1, alpha=0.2, draws=60)
    assert after >= before - 1e-12


def test_both_bounds_of_an_interval_enclose_the_mean() -> None:
    found = SubjectMeans((-0.2, 0.1, 0.4), 9).to_interval(least=-1, greatest=1)
    assert (found.mean, found.rows, found.clusters) == (pytest.approx(0.1), 9, 3)
    assert found.low is not None
    assert found.high is not None
    assert -1 < found.low < 0.1 < found.high < 1


@pytest.mark.parametrize("subjects", [6, 20, 60])
@pytest.mark.parametrize("alpha", [0.025, 0.004])
@pytest.mark.parametrize("floor", [0.0, -0.1])
def test_the_least_provable_mean_is_where_the_bound_meets_its_floor(subjects: int, alpha: float, floor: float) -> None:
    least = find_least_provable_mean(subjects, floor=floor, least=-1, alpha=alpha)
    assert bound_mean_below([least] * subjects, least=-1, alpha=alpha) == pytest.approx(floor, abs=0.02)


def test_a_spread_among_the_subjects_asks_for_more_than_the_least_provable_mean() -> None:
    least = find_least_provable_mean(20, floor=0.0, least=-1, alpha=0.025)
    assert bound_mean_below([least - 0.4, least + 0.4] * 10, least=-1, alpha=0.025) < -0.01


@pytest.mark.parametrize(("alpha", "floor", "subjects"), [(0.025, 0.0, 6), (0.025, -0.1, 5), (0.05 / 6, 0.0, 7)])
def test_fewer_subjects_prove_nothing_whatever_they_say(alpha: float, floor: float, subjects: int) -> None:
    assert count_subjects_to_prove(floor=floor, least=-1, greatest=1, alpha=alpha) == subjects
    assert bound_mean_below([1.0] * subjects, least=-1, alpha=alpha) > floor
    assert bound_mean_below([1.0] * (subjects - 1), least=-1, alpha=alpha) < floor
    assert find_least_provable_mean(subjects - 1, floor=floor, least=-1, alpha=alpha) > 1


def test_votes_that_are_worth_half_bound_as_half_as_many_do() -> None:
    """For two values that is Clopper and Pearson's bound of half the counts; a vote raised never lowers it."""
    of_all = bound_mean_below([1.0] * 30 + [-1.0] * 10, least=-1, alpha=0.025, worth=0.5)
    of_half = bound_mean_below([1.0] * 15 + [-1.0] * 5, least=-1, alpha=0.025)
    assert of_all == pytest.approx(of_half, abs=0.01)
    raised = bound_mean_below([1.0] * 31 + [-1.0] * 9, least=-1, alpha=0.025, worth=0.5)
    assert raised > of_all
    needed = count_subjects_to_prove(floor=0.0, least=-1, greatest=1, alpha=0.025, worth=0.5)
    assert needed == 11
    assert bound_mean_below([1.0] * needed, least=-1, alpha=0.025, worth=0.5) > 0
    assert bound_mean_below([1.0] * (needed - 1), least=-1, alpha=0.025, worth=0.5) < 0


def test_what_can_never_be_proven() -> None:
    assert find_least_provable_mean(0, floor=0.0, least=-1, alpha=0.05) == math.inf
    # Of so small a level the draws show nothing, whatever the number of subjects.
    assert bound_mean_below([1.0] * 500, least=-1, alpha=1e-5) == -1
    assert find_least_provable_mean(500, floor=0.0, least=-1, alpha=1e-5) == math.inf
    assert count_subjects_to_prove(floor=0.0, least=-1, greatest=1, alpha=1e-5) is None
    assert count_subjects_to_prove(floor=1.0, least=-1, greatest=1, alpha=0.05) is None
    assert count_subjects_to_prove(floor=-1.0, least=-1, greatest=1, alpha=0.05) == 1


@pytest.mark.parametrize(
    ("rejected", "chosen", "spans"),
    [
        (
            'x = ledger.get_table("orders").head(5)',
            'x = ledger.read("orders", limit=5)',
            {"get_table": 8, ") . head (": 4},
        ),
        # Too short to mean something by itself: with its neighbours, counted by what was deleted.
        ('cache.set("n", rows, 30)', 'cache.put("n", rows, ttl_s=30)', {"cache . set (": 3}),
        ("It is not safe to go", "It is safe to go", {"is not": 3}),
        # Two deletions that overlap once they are widened.
        ('ledger.push(rows, table="n")', 'ledger.write("n", rows, mode="append")', {"push": 4, 'table = " n " )': 6}),
        ("Short. And then more of it.", "Short.", {"And then more of it .": 15}),
        ("a = 1", "a = 1  # remark", {}),
        ("first second", "second first", {}),
        ("go on, please", "go on please", {"on , please": 1}),
        ("abc", "abc def", {}),
        ("", "abc", {}),
    ],
)
def test_what_a_correction_took_out(rejected: str, chosen: str, spans: dict[str, int]) -> None:
    found = find_corrected(rejected, chosen)
    assert found is not None
    assert found.spans == {f" {span} ": letters for span, letters in spans.items()}


@pytest.mark.parametrize(
    ("answer", "repeats"),
    [
        ('y = ledger.get_table("orders").head(5)', True),
        ('x = ledger . get_table("orders", limit=5)', True),  # most of what was deleted
        ('x = ledger.read("orders").head(5)', False),  # less than half of it
        ('x = ledger.read("orders", limit=5)', False),
        ("get_tables head", False),  # whole words only
        ("", False),
        ("x x x x", False),
    ],
)
def test_an_answer_that_still_says_what_people_corrected(answer: str, repeats: bool) -> None:
    found = find_corrected('x = ledger.get_table("orders").head(5)', 'x = ledger.read("orders", limit=5)')
    assert found is not None
    assert found.is_repeated_in(answer) is repeats


def test_where_nothing_was_deleted_only_the_whole_rejected_text_is_a_repetition() -> None:
    """A person adds a sentence: what the model wrote is no fault as a part of a longer answer."""
    found = find_corrected("Restart the server.", "Restart the server. Then clear the cache.")
    assert found is not None
    assert found.is_repeated_in("Restart  the server .")
    assert not found.is_repeated_in("Restart the server. Then wait.")


def test_a_change_of_spacing_alone_says_nothing() -> None:
    assert find_corrected("f( a )", "f(a)") is None


@pytest.mark.long
@given(st.text(max_size=60), st.text(max_size=60))
def test_a_persons_text_never_repeats_what_it_corrected_and_the_rejected_one_always_does(
    rejected: str, chosen: str
) -> None:
    found = find_corrected(rejected, chosen)
    if found is not None:
        assert not found.is_repeated_in(chosen)
        assert found.is_repeated_in(rejected)


@pytest.mark.parametrize(
    ("output", "final_text", "again"),
    [
        ("carts = db.fetch_all('carts', 9)", "carts = lake.read('carts', limit=9)", True),
        ("carts = lake.read('carts', 9)", "carts = lake.read('carts', limit=9)", False),
        ("carts = db.fetch_all('carts', 9)", "carts = db.fetch_all('carts', 9)  # mine", False),
        ("carts = db.fetch_all('carts', 9)", "carts  =  db.fetch_all('carts', 9)", False),
        ("orders = db.fetch_all('orders', 5)", "pass", True),
        ("the whole long explanation of db.fetch_all", "no", False),
    ],
    ids=["the same call", "another fault", "an addition", "spacing", "the rejected text", "mostly something else"],
)
def test_an_edit_corrects_again_where_it_takes_out_what_was_taken_out_before(
    output: str, final_text: str, again: bool
) -> None:
    known = KnownCorrections.collect([("orders = db.fetch_all('orders', 5)", "orders = lake.read('orders', limit=5)")])
    assert known.are_corrected_again(output, final_text) is again
    assert not KnownCorrections.collect([]).are_corrected_again(output, final_text)
