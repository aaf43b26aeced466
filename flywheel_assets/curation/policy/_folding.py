"""Folds texts to what a reader hears: undoes look-alike letters, accents, digits for letters, hidden characters.

A folded text is ASCII, in lower case, and one character long for every character of the original that has any width.
The patterns that look for words read this form, so that "ｆｕсk", "fu\u200bck" and "FÜCK" are one word to them. It is
for searching only: "don't 1 2 3" folds to "don't i 2 e", and nothing folded is ever stored.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

FOLDING_REVISION = 1
"""Raised by hand whenever a text could fold differently: part of the version of every check that reads folded text."""

_NO_LETTER = ord(" ")
_FOREIGN_LETTER = ord("9")
"""A letter without a Latin look-alike: a word character that no pattern asks for. The digit 9 itself stays 9."""
_HIDDEN = 0

# Written for the letters that they resemble; other digits are rarely used so.
_DIGITS = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "@": "a", "$": "s"}

# Cyrillic, Greek and a few other letters that a reader takes for Latin ones (Unicode TR 39, confusables).
_LOOK_ALIKES = {
    "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "ё": "e", "һ": "h", "і": "i", "ї": "i", "ј": "j", "к": "k",
    "м": "m", "н": "h", "о": "o", "р": "p", "ԛ": "q", "г": "r", "ѕ": "s", "т": "t", "у": "y", "ү": "y", "ѵ": "v",
    "ԝ": "w", "х": "x", "п": "n", "ь": "b", "α": "a", "β": "b", "ε": "e", "η": "n", "ι": "i", "κ": "k", "ν": "v",
    "ο": "o", "ρ": "p", "τ": "t", "υ": "u", "χ": "x", "ω": "w", "γ": "y", "σ": "o", "ß": "b", "ı": "i", "ł": "l",
    "ø": "o", "đ": "d", "ħ": "h", "æ": "a", "œ": "o", "þ": "p", "ʏ": "y", "ɡ": "g", "ɑ": "a", "ʀ": "r", "ɴ": "n",
    "ʟ": "l", "ʜ": "h", "ɪ": "i", "ʙ": "b", "ɢ": "g", "ꜱ": "s", "ᴀ": "a", "ᴄ": "c", "ᴅ": "d", "ᴇ": "e", "ᴊ": "j",
    "ᴋ": "k", "ᴍ": "m", "ᴏ": "o", "ᴘ": "p", "ᴛ": "t", "ᴜ": "u", "ᴠ": "v", "ᴡ": "w", "ᴢ": "z", "Н": "h", "В": "b",
    "’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‐": "-", "‑": "-", "…": ".",
}  # fmt: skip

# First and last code point of blocks whose characters decompose to Latin letters, or look like them.
_DECOMPOSED = (
    (0x80, 0x24F), (0x1D2C, 0x1D6A), (0x1E00, 0x1EFF), (0x2070, 0x209C), (0x2100, 0x214F), (0x2460, 0x24FF),
    (0xFF00, 0xFF5E), (0x1D400, 0x1D7FF), (0x1F100, 0x1F1FF),
)  # fmt: skip
_SYMBOLS = (
    (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2190, 0x2BFF), (0x3000, 0x303F), (0xE000, 0xF8FF), (0x1F000, 0x1FAFF),
)  # fmt: skip
_WITHOUT_WIDTH = (
    (0xAD, 0xAD), (0x300, 0x36F), (0x483, 0x489), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180E), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F),
    (0x20D0, 0x20FF), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0),
    (0xE0000, 0xE01EF),
)  # fmt: skip


@dataclass(frozen=True)
class FoldedTexts:
    """A folded column and the column that it was made from."""

    original: pa.Array
    folded: pa.Array

    def map_positions(self, row: int) -> list[int]:
        """Return the place in the original of every folded character of the row, and one place behind the last."""
        text = self.original[row].as_py()
        table = _build_table()
        return [*(place for place, character in enumerate(text) if table[ord(character)] != _HIDDEN), len(text)]


def fold(texts: pa.Array) -> FoldedTexts:
    """Fold a column of strings; nulls become empty texts.

    ASCII texts are translated in one go (0.03 s for 19 MB); only the others pass through the table of all code points,
    which takes twenty times as long.
    """
    texts = pc.fill_null(texts, "")
    _, offset_buffer, data = texts.buffers()
    if data is None or len(texts) == 0:
        return FoldedTexts(texts, texts)
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    content = data.slice(offsets[0], offsets[-1] - offsets[0]).to_pybytes()
    folded = _build_strings(content.translate(_build_ascii_table()), offsets - offsets[0])
    if content.isascii():
        return FoldedTexts(texts, folded)
    foreign = pc.invert(pc.string_is_ascii(texts))
    return FoldedTexts(texts, pc.replace_with_mask(folded, foreign, _fold_through_table(texts.filter(foreign))))


def _fold_through_table(texts: pa.Array) -> pa.Array:
    content = "".join(texts.to_pylist()).encode("utf-32-le")
    characters = _build_table()[np.frombuffer(content, np.uint32)]
    starts = np.concatenate(([0], np.cumsum(pc.utf8_length(texts).to_numpy())))
    hidden = np.flatnonzero(characters == _HIDDEN)
    if len(hidden):
        starts = starts - np.searchsorted(hidden, starts)
        characters = np.delete(characters, hidden)
    return _build_strings(characters.tobytes(), starts.astype(np.int32))


def _build_strings(content: bytes, starts: npt.NDArray[np.int32]) -> pa.Array:
    return pa.StringArray.from_buffers(len(starts) - 1, pa.py_buffer(starts), pa.py_buffer(content))


@cache
def _build_table() -> npt.NDArray[np.uint8]:
    """Build the table code point → folded character."""
    table = np.full(0x110000, _FOREIGN_LETTER, np.uint8)
    for first, last in _SYMBOLS:
        table[first : last + 1] = _NO_LETTER
    for first, last in _DECOMPOSED:
        for point in range(first, last + 1):
            table[point] = _decompose(chr(point))
    for point in range(128):
        character = chr(point).lower()
        table[point] = ord(_DIGITS.get(character, character))
    for space in "\t\n\v\f\r":
        table[ord(space)] = _NO_LETTER
    table[ord("_")] = _NO_LETTER  # so that words are words inside names as well
    table[0] = _NO_LETTER  # a real NUL has a place of its own; 0 means hidden
    for character, latin in _LOOK_ALIKES.items():
        table[ord(character)] = ord(latin)
        upper = character.upper()
        if len(upper) == 1 and upper not in _LOOK_ALIKES and ord(upper) > 127:
            table[ord(upper)] = ord(latin)
    for first, last in _WITHOUT_WIDTH:
        table[first : last + 1] = _HIDDEN
    return table


@cache
def _build_ascii_table() -> bytes:
    # Bytes of other texts than ASCII ones are replaced afterwards.
    return _build_table()[:128].tobytes() + b" " * 128


def _decompose(character: str) -> int:
    # Enclosed letters decompose to "(a)".
    plain = next((part for part in unicodedata.normalize("NFKD", character).lower() if part.isalnum()), " ")
    plain = _LOOK_ALIKES.get(plain, plain)
    if plain.isascii():
        return ord(_DIGITS.get(plain, plain))
    return _FOREIGN_LETTER if character.isalpha() else _NO_LETTER
