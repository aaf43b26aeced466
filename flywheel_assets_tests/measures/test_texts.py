import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.measures.texts import (
    Interval,
    bootstrap_clustered_mean,
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
