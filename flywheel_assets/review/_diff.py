"""Marks texts for a reviewer: differences, findings of checks, and invisible characters.

Everything here gives positions and plain strings. Escaping is the templates' part alone.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rapidfuzz.distance import Levenshtein

MOST_WORD_PAIRS = 25_000_000
"""Largest product of both texts' words for which differences are marked: the alignment takes a bit for each
pair in memory, and two texts of 5,000 words need 3 MB."""

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters to Unicode, blank to the eye."""
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Mark:
    """A part of a text, in characters, and its meaning."""

    start: int
    end: int
    name: str
    """`changed`, `evidence` or `unseen`."""
    title: str = ""


@dataclass(frozen=True)
class Piece:
    """A run of characters under the same marks."""

    text: str
    names: tuple[str, ...] = ()
    title: str = ""


def compare_words(before: str, after: str) -> tuple[list[Mark], list[Mark]] | None:
    """Mark the words that differ between two texts; None where they are too long to compare.

    White space between two changed words counts as changed, so that a rewritten sentence is one mark and not twenty.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    if len(old) * len(new) > MOST_WORD_PAIRS:
        return None
    changed_old, changed_new = [False] * len(old), [False] * len(new)
    for code in Levenshtein.opcodes(old, new):
        if code.tag != "equal":
            changed_old[code.src_start : code.src_end] = [True] * (code.src_end - code.src_start)
            changed_new[code.dest_start : code.dest_end] = [True] * (code.dest_end - code.dest_start)
    return _mark_changed(old, changed_old), _mark_changed(new, changed_new)


def _mark_changed(words: Sequence[str], changed: list[bool]) -> list[Mark]:
    for number in range(1, len(words) - 1):
        if words[number].isspace() and changed[number - 1] and changed[number + 1]:
            changed[number] = True
    marks: list[Mark] = []
    position = 0
    for word, is_changed in zip(words, changed, strict=True):
        end = position + len(word)
        if is_changed and marks and marks[-1].end == position:
            marks[-1] = Mark(marks[-1].start, end, "changed")
        elif is_changed:
            marks.append(Mark(position, end, "changed"))
        position = end
    return marks


def cut_pieces(text: str, marks: Iterable[Mark], longest: int) -> list[Piece]:
    """Cut `text` where a mark begins or ends, at most `longest` characters of it.

    A character that is invisible, or that would reorder visible ones, becomes a piece that names it: `U+202E`.
    Marks that reach outside the text are cut to it; evidence may be older than the text's display.
    """
    shown = text[:longest]
    all_marks = [mark for mark in marks if mark.start < min(mark.end, len(shown))]
    all_marks += [
        Mark(at, at + 1, "unseen", unicodedata.name(character, "control character").lower())
        for at, character in enumerate(shown)
        if _is_unseen(character)
    ]
    cuts = sorted({0, len(shown), *(max(0, m.start) for m in all_marks), *(min(m.end, len(shown)) for m in all_marks)})
    starting = sorted(all_marks, key=lambda mark: mark.start)
    active: list[Mark] = []
    following = 0
    found: list[Piece] = []
    for start, end in pairwise(cuts):
        while following < len(starting) and starting[following].start <= start:
            active.append(starting[following])
            following += 1
        active = [mark for mark in active if mark.end > start]
        names = tuple(sorted({mark.name for mark in active}))
        title = ", ".join(dict.fromkeys(mark.title for mark in active if mark.title))
        part = f"U+{ord(shown[start]):04X}" if "unseen" in names else shown[start:end]
        found.append(Piece(part, names, title))
    return found


def cut_excerpt(text: str, marks: Iterable[Mark], longest: int) -> list[Piece]:
    """Cut the part of `text` that holds the first finding, else the first change, on one line of `longest` characters.

    What is left out at either end becomes a piece `…`.
    """
    found = list(marks)
    shown = min(found, key=lambda mark: (mark.name != "evidence", mark.start), default=None)
    start = 0 if shown is None else max(0, shown.start - longest // 4)
    if start and len(text) - start < longest:
        start = max(0, len(text) - longest)
    end = min(len(text), start + longest)
    # A line feed in a row of a table would be a line of its own.
    line = re.sub(r"[\r\n\t]", " ", text[start:end])
    moved = [Mark(max(0, mark.start - start), mark.end - start, mark.name, mark.title) for mark in found]
    pieces = cut_pieces(line, [mark for mark in moved if mark.end > 0], longest)
    return [*([Piece("…")] if start else []), *pieces, *([Piece("…")] if end < len(text) else [])]


def remove_unseen(text: str) -> str:
    """Remove from `text` every character that the answer's field would not show.

    The joiners stay: Persian words and family emoji need them.
    """
    return "".join(character for character in text if character in _JOINERS or not _is_unseen(character))


def _is_unseen(character: str) -> bool:
    if character in "\n\r\t" or " " <= character <= "~":
        return False
    return character in _FILLERS or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Zl", "Zp")
