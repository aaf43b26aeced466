import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from flywheel_assets.curation.texts._edits import EditBands, classify_edits
from flywheel_assets.curation.texts.normalization import normalize

SENTENCE = "The settings are read once, when the process starts, and never again."


def classify(rejected: str, chosen: str, bands: EditBands | None = None) -> tuple[float | None, str | None]:
    classes = classify_edits(pa.array([rejected]), pa.array([chosen]), bands or EditBands())
    return classes.similarity[0].as_py(), classes.reason[0].as_py()


@pytest.mark.parametrize(
    ("rejected", "chosen", "reason"),
    [
        ("", "", "empty"),
        (SENTENCE, "", "empty"),
        (SENTENCE, " \n\u00a0", "empty"),
        ("", SENTENCE, "rewrite"),
        (SENTENCE, SENTENCE, "unchanged"),
        (SENTENCE, SENTENCE.upper(), "cosmetic_edit"),
        ("a = 1", "a=1", "cosmetic_edit"),
        ("if x:\n    y", "if x:\n\ty", "cosmetic_edit"),
        ("É accent", "é ACCENT", "cosmetic_edit"),
        ("See you.", "See you.\n\nBest regards,\nAnna Smith\nSales", "cosmetic_edit"),
        ("See you.\nCheers,\nBob", "See you.\nKind regards\nAnna", "cosmetic_edit"),
        ("See you.\n-- \nBob", "See you.", "cosmetic_edit"),
        ("See you.", "See you.\nThanks for nothing, I will not come.", None),
        (SENTENCE, SENTENCE.replace("once", "Once!"), "trivial_edit"),
        ("ab", "ba", "rewrite"),
        ("kill -9 1234", "kill -15 1234", None),
        ("listen", "silent", None),
        ("שלום עולם", "שלום לכולם", None),
        ("\u202eabc def", "\u202eabc xyz", None),
        ("nul \0 before", "nul \0 behind", None),
        ("thumbs 👍🏽 up", "thumbs 👎 down", None),
    ],
)
def test_bands(rejected: str, chosen: str, reason: str | None) -> None:
    assert classify(rejected, chosen)[1] == reason


def test_similarity_counts_characters_and_not_bytes() -> None:
    assert classify("👍👍👍👍", "👍👍👍x")[0] == 0.75
    assert classify("", "")[0] == 1.0
    assert classify("abcd", "")[0] == 0.0


def test_band_ends_belong_to_the_useful_corrections() -> None:
    bands = EditBands(trivial_above=0.75, rewrite_below=0.25)
    assert classify("abcd", "abcx", bands) == (0.75, None)
    assert classify("abcd", "axyz", bands) == (0.25, None)
    assert classify("abcd", "wxyz", bands) == (0.0, "rewrite")


def test_a_megabyte_takes_no_time_whatever_was_done_to_it() -> None:
    """Two random texts of 1 MB kept rapidfuzz busy for 22 s: longer texts are refused before they are compared."""
    words = SENTENCE * 15_000
    begin = time.monotonic()
    assert classify(words, words[::-1]) == (None, "too_long")
    assert classify(words, words) == (1.0, "unchanged")
    assert classify(words, words.upper())[1] == "cosmetic_edit"
    assert classify(words, "")[1] == "empty"
    assert time.monotonic() - begin < 5
    assert classify("abc" * 3, "abd" * 4, EditBands(longest_characters=11))[1] == "too_long"
    assert classify("abc" * 3, "abd" * 4, EditBands(longest_characters=12))[1] is None


def test_slices_and_empty_columns() -> None:
    """The buffers of a slice begin elsewhere than its rows do."""
    rejected, chosen = pa.array(["x", "", "Ab c", ""]), pa.array(["y", "", "a BC", ""])
    assert classify_edits(rejected[2:3], chosen[2:3], EditBands()).reason.to_pylist() == ["cosmetic_edit"]
    assert classify_edits(rejected[1:], chosen[1:], EditBands()).reason.to_pylist() == [
        "empty",
        "cosmetic_edit",
        "empty",
    ]
    assert classify_edits(rejected[:0], chosen[:0], EditBands()).reason.to_pylist() == []


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=8))
def test_similarity_is_what_one_pair_at_a_time_gives(pairs: list[tuple[str, str]]) -> None:
    rejected, chosen = (pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1))
    classes = classify_edits(rejected, chosen, EditBands())
    expected = [Levenshtein.normalized_similarity(before, after) for before, after in pairs]
    assert classes.similarity.to_pylist() == pytest.approx(expected)


@given(st.text(max_size=30))
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    once = normalize(pa.array([text]))
    assert normalize(once) == once


@given(st.text(alphabet=st.sampled_from("aB \t\n\u00a0\u2003\u3000\u0301é"), max_size=12))
def test_white_space_and_composition_do_not_matter(text: str) -> None:
    spaced = normalize(pa.array([f"  {text}\u00a0 ", " ".join(text.split())]))
    assert spaced[0] == spaced[1]


@pytest.mark.parametrize("limits", [{"trivial_above": 0.1, "rewrite_below": 0.1}, {"longest_characters": 0}])
def test_impossible_bands_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need"):
        EditBands(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rejected", "chosen", "reason"),
    [
        ('rows = ledger.get_table("late_orders").head(12)', "pass  # nobody cares", "rewrite"),
        ('rows = ledger.get_table("late_orders").head(12)', 'rows = db["late_orders"][:12]', None),
        ("Yes, it is.", "No, it was not.", None),
        ("this is entirely wrong", "Cela est totalement faux", "rewrite"),
        ("今日はとても良い天気です", "今日は大変良い天気です", None),
    ],
)
def test_an_edit_without_a_word_of_the_models_text_is_a_rewrite(rejected: str, chosen: str, reason: str | None) -> None:
    """Two unrelated texts are 0.1 to 0.3 similar by chance; 48 of MLQE-PE's 16,000 edits are such, all retranslated."""
    classes = classify_edits(pa.array([rejected]), pa.array([chosen]), EditBands())
    assert classes.similarity[0].as_py() >= 0.10
    assert classes.reason.to_pylist() == [reason]
