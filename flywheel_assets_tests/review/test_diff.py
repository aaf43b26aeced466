"""What a reviewer is shown of a text: every character once, differences marked, nothing invisible left so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.review import _diff as words
from flywheel_assets.review._diff import Mark, Piece, compare_words, cut_excerpt, cut_pieces, remove_unseen


def marked(text: str, marks: list[Mark]) -> list[str]:
    return [text[mark.start : mark.end] for mark in marks]


@pytest.mark.parametrize(
    ("before", "after", "gone", "come"),
    [
        ("the same", "the same", [], []),
        ("Call fetch() now.", "Call read() now.", ["fetch"], ["read"]),
        ("one two three four", "one four", ["two three "], []),
        ("a b c", "x y z", ["a b c"], ["x y z"]),
        ("", "new", [], ["new"]),
        ("Привет мир", "Привет всем", ["мир"], ["всем"]),
        ("f(1)", "f(2)", ["1"], ["2"]),
    ],
)
def test_whole_words_are_compared(before: str, after: str, gone: list[str], come: list[str]) -> None:
    diff = compare_words(before, after)
    assert diff is not None
    assert (marked(before, diff[0]), marked(after, diff[1])) == (gone, come)


def test_texts_too_long_to_compare_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST_WORD_PAIRS", 8)
    assert compare_words("a b", "a c") is None
    assert compare_words("a", "b c") is not None


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_not_marked_is_the_same_in_both(before: str, after: str) -> None:
    diff = compare_words(before, after)
    assert diff is not None
    kept = [
        "".join("" if any(m.start <= at < m.end for m in marks) else c for at, c in enumerate(text))
        for text, marks in zip((before, after), diff, strict=True)
    ]
    # White space between two changed words is marked as changed though it may be the same.
    assert "".join(kept[0].split()) == "".join(kept[1].split())


def test_marks_overlap_and_tell_why() -> None:
    found = cut_pieces("call me idiot", [Mark(5, 13, "changed"), Mark(8, 13, "evidence", "insult (hate)")], 100)
    assert found == [
        Piece("call "),
        Piece("me ", ("changed",)),
        Piece("idiot", ("changed", "evidence"), "insult (hate)"),
    ]


def test_marks_reach_no_further_than_the_text() -> None:
    assert cut_pieces("abc", [Mark(2, 90, "evidence"), Mark(50, 90, "evidence"), Mark(3, 3, "evidence")], 100) == [
        Piece("ab"),
        Piece("c", ("evidence",)),
    ]
    assert cut_pieces("abcdef", [], 4) == [Piece("abcd")]
    assert cut_pieces("", [Mark(0, 1, "changed")], 4) == []


@pytest.mark.parametrize(
    "unseen", ["\u200b", "\u202e", "\u2066", "\ufeff", "\x00", "\x1b", "\u00ad", "\U000e0041", "\u3164"]
)
def test_what_cannot_be_seen_is_named(unseen: str) -> None:
    assert [piece.text for piece in cut_pieces(f"a{unseen}b", [], 100)] == ["a", f"U+{ord(unseen):04X}", "b"]


def test_a_reviewer_signs_no_character_that_the_field_does_not_show() -> None:
    assert remove_unseen("a\u200b\u202eb\x00\n\tc می\u200cخواهم") == "ab\n\tc می\u200cخواهم"


@given(st.text(max_size=80), st.lists(st.tuples(st.integers(-5, 90), st.integers(-5, 90)), max_size=6))
def test_every_character_is_shown_once(text: str, spans: list[tuple[int, int]]) -> None:
    found = cut_pieces(text, [Mark(start, end, "evidence") for start, end in spans], 80)
    rebuilt = "".join(chr(int(piece.text[2:], 16)) if "unseen" in piece.names else piece.text for piece in found)
    assert rebuilt == text


def test_an_excerpt_shows_the_first_finding_else_the_first_change_on_one_line() -> None:
    text = "same " * 40 + "old words\nthen " + "same " * 40 + "idiot " + "same " * 40
    changed = Mark(200, 203, "changed")
    pieces = cut_excerpt(text, [changed], 40)
    assert [piece.text for piece in pieces if piece.names] == ["old"]
    assert pieces[0].text == pieces[-1].text == "…"
    assert "\n" not in "".join(piece.text for piece in pieces)
    assert len("".join(piece.text for piece in pieces)) == 42
    at = text.index("idiot")
    pieces = cut_excerpt(text, [changed, Mark(at, at + 5, "evidence", "toxicity")], 40)
    assert [(piece.text, piece.title) for piece in pieces if piece.names] == [("idiot", "toxicity")]


def test_an_excerpt_of_a_short_text_is_all_of_it() -> None:
    assert [piece.text for piece in cut_excerpt("short", [], 40)] == ["short"]
    assert cut_excerpt("", [], 40) == []
    whole = cut_excerpt("a\u202eb", [], 40)
    assert [piece.text for piece in whole] == ["a", "U+202E", "b"]
