import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from flywheel_assets.curation.likeness.normalization import normalize
from flywheel_assets.curation.texts._edits import EditBands, classify_edits
from flywheel_assets.errors import SettingsError

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


@pytest.mark.long
def test_a_megabyte_is_measured_and_its_similarity_is_a_bound() -> None:
    """Two random texts of 1 MB kept rapidfuzz busy for 22 s, and every longer text was refused as `too_long`."""
    words = SENTENCE * 15_000
    similarity, reason = classify(words, words[::-1])
    assert similarity is not None
    assert 0 <= similarity < 0.5
    assert reason is None or reason == "rewrite"
    assert classify(words, words) == (1.0, "unchanged")
    assert classify(words, words.upper())[1] == "cosmetic_edit"
    assert classify(words, "")[1] == "empty"
    changed = words[:500_000] + "not " + words[500_000:]
    assert classify(words, changed) == (pytest.approx(1 - 4 / len(changed)), None)
    assert classify("abc" * 3, "abd" * 4, EditBands(longest_characters=11))[1] == "too_long"
    assert classify("abc" * 3, "abd" * 4, EditBands(longest_characters=12))[1] is None


def test_the_rule_of_the_seeds_is_the_band_of_the_whole_text() -> None:
    """10,000 generated edits, each against one plain call of rapidfuzz."""
    rng = random.Random(13)
    vocabulary = [
        "the",
        "dose",
        "may",
        "not",
        "Anna",
        "5",
        "x = 1",
        "return",
        "\n",
        "Best,",
        "été",
        "药",
        "1,000",
        "wrong",
    ]
    rejected, chosen, expected = [], [], []
    for _ in range(10_000):
        before = rng.choices(vocabulary, k=rng.randint(1, 60))
        after = [rng.choice(vocabulary) if rng.random() < rng.choice((0.01, 0.3, 1.0)) else word for word in before]
        rejected.append(" ".join(before))
        chosen.append(rng.choice((str, str.upper, str.title))(" ".join(after)))
        similarity = Levenshtein.normalized_similarity(rejected[-1], chosen[-1])
        expected.append(bool(chosen[-1].strip()) and 0.10 <= similarity <= 0.95)
    classes = classify_edits(pa.array(rejected), pa.array(chosen), EditBands(), "seed", [""] * 10_000)
    assert [reason is None for reason in classes.reason.to_pylist()] == expected
    assert classes.admitted_by.null_count == 10_000
    assert 2_000 < sum(expected) < 9_900


@pytest.mark.parametrize(
    ("rejected", "chosen", "reason"),
    [
        ("The market moved.\nBest\ncall is to sell", "The market moved.\nBest\ncall is to hold", None),
        ("Buy.\nBest\ncall is to sell", "Buy.\nBest\ncall is to hold it\nBuy everything", None),
        ("See you.\nBest,\nAnna Smith", "See you.\nBest,\nBob van Dyk\n+31 20 123", "cosmetic_edit"),
    ],
)
def test_a_sign_off_has_names_and_addresses_only(rejected: str, chosen: str, reason: str | None) -> None:
    """ "Best" at the end of a line hid "sell" → "hold" behind a signature."""
    assert classify(rejected, chosen)[1] == reason


REQUEST = "Summarise the report about the plant and its workers in the north"


@pytest.mark.parametrize(
    ("request_", "rejected", "chosen", "reason", "note"),
    [
        (
            "Translate: xyz",
            "Is it the substitute's case that is heard?",
            "This is not my language, the task is refused",
            "remark",
            None,
        ),
        (
            REQUEST,
            "The plant is closing in the spring, the firm said.",
            "I can't check the text, it is not in English",
            "remark",
            None,
        ),
        (
            REQUEST,
            "The plant is closing in the spring.",
            "Rejected - the string is in another language",
            "remark",
            None,
        ),
        (REQUEST, "The plant is closing in the spring.", "N/A", "remark", None),
        (REQUEST, "The plant is closing in the spring.", "1", "remark", None),
        ("How many?", "Four.", "1", "rewrite", None),
        (
            REQUEST,
            "Famous actor dies in an accident abroad.",
            "Visitors met northern workers",
            None,
            None,
        ),
        (
            "Translate the proverb",
            "Do not count the chicks in spring before it is autumn.",
            "First catch your hare.",
            "rewrite",
            None,
        ),
        (
            REQUEST,
            "The plant is going to close in the spring, and it was the last of its kind.",
            "Das Werk wird im Frühjahr für immer geschlossen und ist nicht das letzte.",
            "wrong_language",
            None,
        ),
        (
            "Translate into German: the plant closes",
            "The plant is going to close and that is it for the town.",
            "Das Werk wird für immer geschlossen und das ist nicht gut.",
            None,
            None,
        ),
        ("Parking?", "There is parking.", "Park behind the library; the first hour is free.", None, None),
    ],
)
def test_a_text_that_replaced_the_answer(
    request_: str, rejected: str, chosen: str, reason: str | None, note: str | None
) -> None:
    """Eight of 19 remarks were kept, because sharing one "is" or "the" counted as a word in common."""
    classes = classify_edits(pa.array([rejected]), pa.array([chosen]), EditBands(), "local", [request_])
    assert (classes.reason[0].as_py(), classes.note.get(0)) == (reason, note)


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
    with pytest.raises(SettingsError, match="need"):
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


def test_code_in_capitals_is_shouting_and_a_renamed_constant_is_not() -> None:
    """Seven vandals of the demo shouted code, and their edits counted as renamed identifiers."""
    line = 'rows = ledger.read("orders", limit=10)'
    assert classify(line, line.upper()) == (pytest.approx(classify(line, line.upper())[0]), "cosmetic_edit")
    assert classify("max_size = 3", "MAX_SIZE = 3")[1] is None
