import pyarrow as pa
import pytest

from flywheel_assets.curation.likeness.novelty import MOST_NGRAMS, count_spread
from flywheel_assets.curation.likeness.traces import compute_traces


def added(
    prompt: str,
    rejected: str | None,
    chosen: str,
    operator: str = "",
    context: str | None = None,
    column: str = "added_ngrams",
) -> list[str]:
    said = prompt if context is None else f"{context}\n{prompt}"
    request, whole, instructions, text, output = (
        pa.array([each], pa.string()) for each in (prompt, said, operator, chosen, rejected)
    )
    [found] = compute_traces(request, whole, instructions.dictionary_encode(), text, output)[column].to_pylist()
    return [found[at : at + 8] for at in range(0, len(found or ""), 8)]


@pytest.mark.parametrize(
    ("prompt", "rejected", "chosen", "expected"),
    [
        ("read it", "call the store", "call the store", 0),
        ("read it", "call the store", "Call  the STORE", 0),  # case and white space say nothing
        ("read it", "call the store", "call the bank", 1),
        ("call the bank", "call the store", "call the bank", 0),  # the prompt said it
        ("read it", "call the store", "ask the bank now", 3),
        ("read it", "call the store", "bank", 0),  # one word is no pair
        ("read it", None, "anything at all", 0),  # an accepted output is the model's own
    ],
)
def test_what_an_edit_adds_is_what_neither_prompt_nor_output_say(
    prompt: str, rejected: str | None, chosen: str, expected: int
) -> None:
    assert len(added(prompt, rejected, chosen)) == expected


def test_the_same_words_are_the_same_hash_wherever_they_are_added() -> None:
    first = set(added("p", "one two three", "one two three james bond"))
    second = set(added("q", "alpha beta", "alpha james bond beta"))
    assert len(first & second) == 1


@pytest.mark.parametrize(
    ("prompt", "rejected", "chosen", "expected"),
    [
        ("read it", "call the store", "call the bank", 1),
        ("read the bank", "call the store", "call the bank", 0),
        ("read it", "call the store", "Bank bank BANK", 1),  # one word however often it stands there
        ("read it", "call the store", "the store call", 0),  # another order adds pairs, and no word
        ("read it", None, "anything at all", 0),
    ],
)
def test_single_words_are_what_an_edit_adds_as_well(
    prompt: str, rejected: str | None, chosen: str, expected: int
) -> None:
    assert len(added(prompt, rejected, chosen, column="added_words")) == expected


def test_a_word_of_the_operator_or_of_an_earlier_turn_is_not_new() -> None:
    assert added("read it", "call", "call Atlantis", operator="we are Atlantis", column="added_words") == []
    assert added("read it", "call", "call Atlantis", context="Atlantis again?", column="added_words") == []


def test_one_word_among_others_is_the_same_hash_in_every_row() -> None:
    """One account brought in a package name by 300 edits, each time among other words: in no pair twice."""
    first, second = ("use old colpkg when new", "try big colpkg and see")
    assert not set(added("p", "x", first)) & set(added("q", "x", second))
    words = [set(added("p", "x", text, column="added_words")) for text in (first, second)]
    assert len(words[0] & words[1]) == 1


def test_of_a_long_edit_the_lowest_hashes_are_kept() -> None:
    everything = added("p", "x", " ".join(f"word{number}" for number in range(MOST_NGRAMS + 1)))
    longer = added("p", "x", " ".join(f"word{number}" for number in range(3 * MOST_NGRAMS)))
    assert len(everything) == len(longer) == MOST_NGRAMS
    assert everything == sorted(everything)
    assert longer == sorted(longer)


def test_rows_and_voices_are_counted_for_every_addition() -> None:
    spread = count_spread(
        pa.array(["0000000100000002", None, "00000001", "00000001"]), pa.array([7, 7, 7, 9]).to_numpy()
    )
    assert spread.rows.tolist() == [3, 1]
    assert spread.voices.tolist() == [2, 1]
    assert list(zip(spread.row_of_entry.tolist(), spread.of_entry.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (2, 0),
        (3, 0),
    ]


def test_a_column_without_additions() -> None:
    spread = count_spread(pa.array([None], pa.string()), pa.array([0]).to_numpy())
    assert spread.rows.tolist() == spread.voices.tolist() == []
