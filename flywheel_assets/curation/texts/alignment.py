"""Aligns two texts, first in lines and then in characters, with memory that grows with their length only.

A whole-text similarity of long texts is a bound: blocks are aligned, and only the blocks that differ are compared in
characters. Its distance is never below Levenshtein's, so its similarity is never above.
"""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein, Postfix, Prefix

EXACT_PRODUCT = 50_000**2
"""Lengths multiplied, up to which Levenshtein is exact: 0.06 s of CPU for two random texts of 50,000 characters."""
_PIECE_CHARACTERS = 10_000
"""Of two unlike blocks that are longer, pieces of this size are compared in order: time is linear in their length."""
_SMALL_DISTANCE = 64
_MOST_UNITS = 20_000
_MOST_LINES = 100_000
_LONG_LINE = 2_000
_WORDS_A_STRETCH = 16
_UNIT = re.compile(r"\S{1,64}\s*|\s+")

Lengths = npt.NDArray[np.int64]


class Hunk(NamedTuple):
    """Holds neighbouring lines that differ, and where each side begins."""

    old: list[str]
    new: list[str]
    old_at: int
    """Number of the first line in the rejected text; where `old` is empty, of the line behind."""
    new_at: int


def measure_similarities(
    rejected: list[str], chosen: list[str], rejected_length: Lengths, chosen_length: Lengths
) -> npt.NDArray[np.float64]:
    """Measure 1 − distance / length of the longer text per pair; 1.0 when both are empty.

    Exact up to a product of lengths of 50,000², and wherever what is left without the common beginning and end is so
    small. Beyond that a lower bound, see the module.

    Args:
        rejected: the model's texts.
        chosen: the users' texts, same number.
        rejected_length: their characters.
        chosen_length: likewise.
    """
    long = rejected_length * chosen_length > EXACT_PRODUCT
    if not long.any():
        return _measure_columns(rejected, chosen, chosen_length)
    similarities = np.empty(len(chosen))
    short = np.flatnonzero(~long).tolist()
    similarities[~long] = _measure_columns(
        [rejected[row] for row in short], [chosen[row] for row in short], chosen_length[~long]
    )
    for row in np.flatnonzero(long).tolist():
        longer = max(len(rejected[row]), len(chosen[row]))
        similarities[row] = 1 - measure_distance(rejected[row], chosen[row]) / longer
    return similarities


def _measure_columns(rejected: list[str], chosen: list[str], lengths: Lengths) -> npt.NDArray[np.float64]:
    # A hint saves a third of 1 KB texts' time; of real post-edits of 100 characters it cost a third more.
    hint = _USUAL_SIMILARITY if len(lengths) and lengths.mean() > _SHORT_TEXT else None
    scores: npt.NDArray[np.float64] = process.cpdist(
        rejected,
        chosen,
        scorer=Levenshtein.normalized_similarity,
        score_hint=hint,
        dtype=np.float64,
        workers=-1,
    )
    return scores


_USUAL_SIMILARITY, _SHORT_TEXT = 0.95, 500


def measure_distance(rejected: str, chosen: str) -> int:
    """Measure Levenshtein's distance, or an upper bound where both texts stay long without what they share."""
    begin, end = count_common(rejected, chosen)
    rejected, chosen = rejected[begin : len(rejected) - end], chosen[begin : len(chosen) - end]
    if len(rejected) * len(chosen) <= EXACT_PRODUCT:
        # An edit of a long text is small as a rule: with the hint only a band of the table is computed.
        return Levenshtein.distance(rejected, chosen, score_hint=_SMALL_DISTANCE)
    old, new = _cut_units(rejected), _cut_units(chosen)
    every = max(1, -(-max(len(old), len(new)) // _MOST_UNITS)) * 2
    if every > 2:
        old, new = _join_units(old, every), _join_units(new, every)
    aligned = sum(
        _measure_block("".join(old[code.src_start : code.src_end]), "".join(new[code.dest_start : code.dest_end]))
        for code in Levenshtein.opcodes(old, new)
        if code.tag != "equal"
    )
    return min(aligned, _measure_block(rejected, chosen))


def _measure_block(old: str, new: str) -> int:
    pieces = -(-max(len(old), len(new)) // _PIECE_CHARACTERS)
    if pieces <= 1:
        return Levenshtein.distance(old, new)
    cuts = [(number * len(old) // pieces, number * len(new) // pieces) for number in range(pieces + 1)]
    return sum(Levenshtein.distance(old[begin[0] : end[0]], new[begin[1] : end[1]]) for begin, end in pairwise(cuts))


def count_common(old: str, new: str) -> tuple[int, int]:
    """Count the equal characters at the beginning and, of the rest, at the end."""
    begin = Prefix.similarity(old, new)
    return begin, min(Postfix.similarity(old, new), min(len(old), len(new)) - begin)


def _cut_units(text: str) -> list[str]:
    """Cut a text into lines, and lines that are very long into words."""
    return [
        unit
        for line in text.splitlines(keepends=True)
        for unit in ([line] if len(line) <= _LONG_LINE else _UNIT.findall(line))
    ]


def _join_units(units: list[str], every: int) -> list[str]:
    """Join units to blocks; a block ends at a unit whose content says so, so that equal stretches cut alike."""
    blocks: list[str] = []
    block: list[str] = []
    for unit in units:
        block.append(unit)
        if zlib.crc32(unit.strip().lower().encode("utf-8", "surrogatepass")) % every == 0:
            blocks.append("".join(block))
            block = []
    return [*blocks, "".join(block)]


def cut_lines(text: str) -> list[str]:
    """Cut a text into its lines, and a line of more than 2,000 characters into stretches of some 16 words.

    A stretch ends at a word whose hash says so, so that a word more or less moves no other stretch.
    """
    lines = text.split("\n")
    if len(text) <= _LONG_LINE or max(map(len, lines)) <= _LONG_LINE:
        return lines
    return [
        piece
        for line in lines
        for piece in ([line] if len(line) <= _LONG_LINE else _join_units(_UNIT.findall(line), _WORDS_A_STRETCH))
    ]


def count_shared(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """Count the equal elements at the beginning and, of the rest, at the end."""
    shorter = min(len(old), len(new))
    begin = 0
    while begin < shorter and old[begin] == new[begin]:
        begin += 1
    end = 0
    while end < shorter - begin and old[-1 - end] == new[-1 - end]:
        end += 1
    return begin, end


def find_hunks(rejected: Sequence[str], chosen: Sequence[str]) -> list[Hunk]:
    """Find the lines that differ, as few as the alignment allows; texts come as lines.

    More than 100,000 differing lines on one side are one hunk.
    """
    begin, end = count_shared(rejected, chosen)
    old, new = list(rejected[begin : len(rejected) - end]), list(chosen[begin : len(chosen) - end])
    if not old and not new:
        return []
    if len(old) <= 1 or len(new) <= 1 or max(len(old), len(new)) > _MOST_LINES:
        return [Hunk(old, new, begin, begin)]
    return [
        Hunk(
            old[code.src_start : code.src_end],
            new[code.dest_start : code.dest_end],
            begin + code.src_start,
            begin + code.dest_start,
        )
        for code in Levenshtein.opcodes(old, new)
        if code.tag != "equal"
    ]
