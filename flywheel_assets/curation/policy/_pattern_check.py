"""Runs patterns as one RE2 pass over whole columns, then Python for the few rows that it hits.

Patterns that look for words read the *folded* texts: look-alike letters, accents, digits for letters and hidden
characters are undone. A folded text is ASCII, in lower case, and one character long for every character of the
original that has any width, so that "ｆｕсk", "fu\u200bck" and "FÜCK" are one word. It is for searching only: "don't
1 2 3" folds to "don't i 2 e", and nothing folded is ever stored.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, values_of
from flywheel_assets.curation.policy.verdicts import SEVERITY, TRAINED_FIELDS, Evidence, Judgement, Pattern, Verdict

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

    original: Array
    folded: Array

    def map_positions(self, row: int) -> list[int]:
        """Return the place in the original of every folded character of the row, and one place behind the last."""
        text = self.original[row].as_py()
        if text.isascii():
            return list(range(len(text) + 1))
        characters = _build_table()[np.frombuffer(text.encode("utf-32-le"), np.uint32)]
        return [*np.flatnonzero(characters != _HIDDEN).tolist(), len(text)]


def fold(texts: Array) -> FoldedTexts:
    """Fold a column of strings; nulls become empty texts.

    ASCII texts are translated in one go (0.03 s for 19 MB); only the others pass through the table of all code points,
    which takes twenty times as long.
    """
    texts = texts.fill_null("")
    _, offset_buffer, data = texts.buffers()
    if data is None or len(texts) == 0:
        return FoldedTexts(texts, texts)
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]  # type: ignore[call-overload]
    content = data.slice(offsets[0], offsets[-1] - offsets[0]).to_pybytes()
    folded = _build_strings(content.translate(_build_ascii_table()), offsets - offsets[0])
    if content.isascii():
        return FoldedTexts(texts, folded)
    foreign = pc.invert(pc.string_is_ascii(texts))  # type: ignore[arg-type]
    return FoldedTexts(texts, pc.replace_with_mask(folded, foreign, _fold_through_table(texts.filter(foreign))))


def _fold_through_table(texts: Array) -> Array:
    content = "".join(values_of(texts)).encode("utf-32-le")
    characters = _build_table()[np.frombuffer(content, np.uint32)]
    lengths = pc.utf8_length(texts).to_numpy()  # type: ignore[call-overload]
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    hidden = np.flatnonzero(characters == _HIDDEN)
    if len(hidden):
        starts = starts - np.searchsorted(hidden, starts)
        characters = np.delete(characters, hidden)
    return _build_strings(characters.tobytes(), starts.astype(np.int32))


def _build_strings(content: bytes, starts: npt.NDArray[np.int32]) -> Array:
    return pa.StringArray.from_buffers(len(starts) - 1, pa.py_buffer(starts), pa.py_buffer(content))  # type: ignore[arg-type]


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


MOST_FINDINGS = 5
"""Evidence kept per pattern and field: enough for a review, also where a text lists many addresses."""


_LONG_PHRASE = 12
"""Characters from which digits hardly ever spell a phrase by chance, so that a third of letters is enough."""


@dataclass(frozen=True)
class PatternCheck:
    """Finds patterns in the fields they are meant for; the gravest pattern found decides the row's action and reason.

    The filters of all patterns of a field are merged into one RE2 expression, so that a row without any costs one pass
    over its bytes (measured: 45 patterns take 0.044 s for 21 MB, one of them alone 0.035 s). Rows that it hits are
    filtered by each pattern's own expression, and only then does Python look for the exact span.
    """

    name: str
    patterns: tuple[Pattern, ...]
    reads_folded: bool = False
    """Search the folded texts (see `fold`) instead of the texts as they are; spans are those of the original."""
    version: str = field(init=False)

    def __post_init__(self) -> None:
        identity = [pattern.compute_identity() for pattern in self.patterns]
        if self.reads_folded:
            identity.append(("folded", FOLDING_REVISION))
        object.__setattr__(self, "version", hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12])

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row; every row gets an answer."""
        findings: dict[int, list[tuple[Pattern, Evidence]]] = {}
        for name in TRAINED_FIELDS:
            patterns = [pattern for pattern in self.patterns if name in pattern.fields]
            if patterns:
                for row, pattern, evidence in self._find(texts, name, patterns):
                    findings.setdefault(row, []).append((pattern, evidence))
        passed = np.ones(len(texts), dtype=bool)
        passed[list(findings)] = False
        return Judgement(passed, {row: _decide_verdict(found) for row, found in findings.items()})

    def _find(self, texts: pa.Table, name: str, patterns: Sequence[Pattern]) -> Iterator[tuple[int, Pattern, Evidence]]:
        column = texts[name].combine_chunks()
        folded = fold(column) if self.reads_folded else None
        searched = folded.folded if folded else column
        rows = np.flatnonzero(_match_rows(searched, "|".join(f"(?:{pattern.prefilter})" for pattern in patterns)))
        few = searched.take(rows)
        for pattern in patterns if len(rows) else ():
            for number in np.flatnonzero(_match_rows(few, pattern.prefilter)).tolist():
                row = int(rows[number])
                known = [self._read_text(texts, field, row) for field in pattern.known_from]
                output = self._read_text(texts, "rejected", row) if pattern.is_published and name == "chosen" else None
                for start, end in _find_spans(pattern, few[number].as_py(), known, output):
                    if folded:
                        start, end = _map_span(folded, row, start, end)
                        if not _is_spelled(column[row].as_py()[start:end]):
                            continue
                    yield row, pattern, Evidence(pattern.name, pattern.category, pattern.score, name, start, end)

    def _read_text(self, texts: pa.Table, field: str, row: int) -> str:
        if field not in texts.column_names:  # the operator's text, which not every table has
            return ""
        column = texts[field].slice(row, 1).cast(pa.string()).combine_chunks()
        text = fold(column).folded[0].as_py() if self.reads_folded else column[0].as_py()
        return text or ""


def _map_span(folded: FoldedTexts, row: int, start: int, end: int) -> tuple[int, int]:
    positions = folded.map_positions(row)
    return positions[start], positions[end - 1] + 1


def _is_spelled(text: str) -> bool:
    """Return whether enough of the folded phrase was letters: "455" is a number, whatever else it looks like."""
    letters, signs = sum(map(str.isalpha, text)), sum(map(str.isalnum, text))
    return (3 if signs >= _LONG_PHRASE else 2) * letters >= signs


def _find_spans(pattern: Pattern, text: str, known: Sequence[str], output: str | None) -> list[tuple[int, int]]:
    """Find what counts of a pattern's matches in a text: the first five.

    Args:
        pattern: what to look for.
        text: where.
        known: texts whose matches do not count here.
        output: the model's text, where `text` is the edit; None where it is not.
    """
    # Of a number behind "call us at", the number: known texts may announce it in other words.
    named = "number" if "number" in pattern.expression.groupindex else 0

    def counts(match: re.Match[str]) -> bool:
        if not pattern.accepts(match) or any(match[named] in each for each in known):
            return False
        is_published = pattern.is_published is not None and pattern.is_published(match)
        return not is_published or (output is not None and match[named] not in output)

    return [match.span() for match in islice(filter(counts, pattern.expression.finditer(text)), MOST_FINDINGS)]


def _match_rows(column: Array, expression: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        pc.match_substring_regex(column, expression).fill_null(False).to_numpy(zero_copy_only=False)
    )
    return mask


def _decide_verdict(found: list[tuple[Pattern, Evidence]]) -> Verdict:
    gravest = max((pattern for pattern, _ in found), key=lambda pattern: SEVERITY[pattern.action])
    places = sorted({f"{evidence.check} in {evidence.field}" for pattern, evidence in found})
    return Verdict(gravest.action, gravest.reason, ", ".join(places), tuple(evidence for _, evidence in found))
