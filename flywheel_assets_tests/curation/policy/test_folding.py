import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.curation.policy._pattern_check import fold


def folded(text: str) -> str:
    return str(fold(pa.array([text])).folded[0].as_py())


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("Ignore All", "ignore all"),
        ("іgnоrе аll", "ignore all"),  # Cyrillic
        ("ｉｇｎｏｒｅ 𝖆𝖑𝖑 ⓐⓛⓛ", "ignore all all"),
        ("ig\u200bno\u00adre\ufe0f a\u0301ll", "ignore all"),
        ("ÍGNÖRE ÄLL", "ignore all"),
        ("1gn0r3 @ll", "ignore all"),
        ("don’t “do” it — now…", 'don\'t "do" it - now.'),
        ("naïve 日本 🙂!", "naive 99  !"),
        ("a\0b", "a b"),
        ("ignore_all", "ignore all"),
        ("", ""),
    ],
)
def test_a_text_is_folded_to_what_a_reader_hears(text: str, heard: str) -> None:
    assert folded(text) == heard


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=1, max_size=8), st.data())
def test_every_folded_character_has_its_place_in_the_original(texts: list[str | None], data: st.DataObject) -> None:
    column = pa.array(texts, pa.string())
    start = data.draw(st.integers(0, len(texts) - 1))
    result = fold(column.slice(start))
    for row, text in enumerate(texts[start:]):
        text, heard, positions = text or "", result.folded[row].as_py(), result.map_positions(row)
        assert heard.isascii()
        assert len(positions) == len(heard) + 1
        assert positions == sorted(set(positions))
        assert positions[-1] == len(text)
        for letter, place in zip(heard, positions, strict=False):
            if text[place].isascii() and text[place].isalpha():
                assert letter == text[place].lower()
