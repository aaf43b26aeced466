"""Reduces a text to its anchors: what near duplicates must agree in to be one statement.

"The dose is 5 mg" and "the dose is 50 mg", "vans may use the lane" and "vans may not", "a strong plot" and "a weak
plot" share nearly all words and say opposite things. Anchors are, in the order of the text: numbers by value with
their unit, negations, opinions by their direction, words of opposite pairs (all and some, before and after, months),
identifiers and operators of code. A text that is mostly code is its own anchor, white space and case included.

Opinions are read from VADER's lexicon (Hutto & Gilbert 2014, MIT) for English and from short lists for others.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.arrow import Array, values_of
from flywheel_assets.curation.likeness._lexicon import BAD, GOOD, NEGATIONS, OPPOSABLE, read_opinions
from flywheel_assets.curation.likeness.duplicates import write_hex
from flywheel_assets.curation.likeness.words import Words, compute_powers, find_words

_RANDOM = np.random.default_rng(13).integers(2**62, 2**63, 1021, np.uint64) | np.uint64(1)
_NUMBER, _NEGATIVE, _SIGN, _NOT, _GOOD, _BAD = np.random.default_rng(14).integers(2**62, 2**63, 6, np.uint64)

_CODE_SHARE, _FEWEST_CODE_SIGNS = 0.04, 4
"""Signs of code per byte from which a text is code as a whole; prose has half a percent, brackets and colons."""
_LONGEST_UNIT_BYTES = 3


def _mark_bytes(characters: str) -> npt.NDArray[np.bool_]:
    marks = np.zeros(256, bool)
    marks[[ord(character) for character in characters]] = True
    return marks


_CODE_SIGNS = _mark_bytes("=(){}[]<>;_*+|&\\#@$^~`/%:")
_IS_CODE_SIGN = _CODE_SIGNS.tobytes()
_OPERATORS = _mark_bytes("=<>+/%&|^~[]{}#@$\\")
_DIGITS = _mark_bytes("0123456789")
_WORDS = _mark_bytes("abcdefghijklmnopqrstuvwxyz0123456789_")
_SIGN_WEIGHTS = np.random.default_rng(15).integers(2**62, 2**63, 256, np.uint64)


def compute_anchors(words: Words, chosen: Array) -> npt.NDArray[np.uint64]:
    """Compute each text's anchors as one number; 0 where it has none.

    Args:
        words: of the normalized texts.
        chosen: the same texts as they were written.
    """
    codes = _find_word_codes(words)
    _add_numbers(words, codes)
    code_signs = _add_code(words, codes)
    sums = _sum_in_order(words, codes)
    lengths = np.diff(words.starts)
    is_code = np.flatnonzero((code_signs >= _FEWEST_CODE_SIGNS) & (code_signs >= _CODE_SHARE * lengths))
    for row, text in zip(is_code.tolist(), values_of(chosen.take(is_code)), strict=True):
        sums[row] = int.from_bytes(hashlib.blake2b(text.strip().encode(), digest_size=8).digest(), "big")
    return sums


def write_anchors(anchors: npt.NDArray[np.uint64]) -> Array:
    """Write anchors as a column of 16 hex characters; null where a text has none."""
    found = anchors != 0
    return write_hex(anchors[found].astype(">u8").tobytes(), np.where(found, 8, 0))


def _find_word_codes(words: Words) -> npt.NDArray[np.uint64]:
    """Look every word up, and every two neighbouring characters of scripts without spaces; 0: no anchor."""
    codes = _look_up(words.hashes, _build_lexicon())
    own = words.mark_own_words()
    if own.any():
        joined = np.flatnonzero(own[:-1] & own[1:] & (words.begins[1:] == words.ends[:-1]))
        pairs = _pair(words.hashes[joined], words.hashes[joined + 1])
        found = _look_up(pairs, _build_lexicon_of_pairs())
        codes[joined[found > 0]] = found[found > 0]
    return codes


def _look_up(hashes: npt.NDArray[np.uint64], table: "_Table") -> npt.NDArray[np.uint64]:
    found = np.zeros(len(hashes), np.uint64)
    slots = hashes >> _SLOT_BITS
    perhaps = np.flatnonzero(table.is_filled[slots])  # most words are in no list
    asked, places = hashes[perhaps], table.first[slots[perhaps]]
    for _ in range(table.most_in_a_slot):
        hit = table.keys[places] == asked
        found[perhaps[hit]] = table.codes[places[hit]]
        places = np.minimum(places + 1, len(table.keys) - 1)
    return found


def _pair(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        joined: npt.NDArray[np.uint64] = first * _RANDOM[0] + second * _RANDOM[1]
    return joined


_SLOT_BITS = np.uint64(46)
_SLOTS = 1 << 18


@dataclass(frozen=True)
class _Table:
    """Holds the codes of hashed words by the upper 18 bits of their hashes.

    A binary search took three times as long.
    """

    keys: npt.NDArray[np.uint64]
    """Ascending."""
    codes: npt.NDArray[np.uint64]
    is_filled: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    """The place of the first key of every slot."""
    most_in_a_slot: int


@cache
def _build_lexicon() -> _Table:
    """Build a table of all listed words: sorted hashes, codes, and a filter by the upper 18 bits."""
    codes: dict[str, np.uint64 | None] = dict.fromkeys(OPPOSABLE)
    good, bad = read_opinions()
    codes |= dict.fromkeys(good, _GOOD) | dict.fromkeys(bad, _BAD) | dict.fromkeys(NEGATIONS, _NOT)
    words = find_words(pa.array(list(codes)))
    single = np.flatnonzero(np.bincount(words.row, minlength=len(codes)) == 1)
    hashes = words.hashes[np.searchsorted(words.row, single)]
    return _sort(hashes, _select(codes, single))


@cache
def _build_lexicon_of_pairs() -> _Table:
    """Build the same for listed words of two characters in scripts without spaces."""
    codes: dict[str, np.uint64 | None] = dict.fromkeys(GOOD, _GOOD) | dict.fromkeys(BAD, _BAD)
    codes |= dict.fromkeys(NEGATIONS, _NOT)
    words = find_words(pa.array(list(codes)))
    double = np.flatnonzero(np.bincount(words.row[words.mark_own_words()], minlength=len(codes)) == 2)
    first = np.searchsorted(words.row, double)
    hashes = _pair(words.hashes[first], words.hashes[first + 1])
    return _sort(hashes, _select(codes, double))


def _select(codes: dict[str, np.uint64 | None], rows: npt.NDArray[np.int64]) -> list[np.uint64 | None]:
    values = list(codes.values())
    return [values[row] for row in rows.tolist()]


def _sort(hashes: npt.NDArray[np.uint64], codes: list[np.uint64 | None]) -> _Table:
    order = np.argsort(hashes)
    values = np.array([hashes[place] if code is None else code for place, code in enumerate(codes)], np.uint64)
    slots = hashes[order] >> _SLOT_BITS
    sizes = np.bincount(slots.astype(np.int64), minlength=_SLOTS)
    first = np.minimum(np.searchsorted(slots, np.arange(_SLOTS, dtype=np.uint64)), len(order) - 1)
    return _Table(hashes[order], values[order], sizes > 0, first, int(sizes.max()))


def _add_numbers(words: Words, codes: npt.NDArray[np.uint64]) -> None:
    """Set the codes of numbers by their value, with sign and unit; "1,000" is 1000."""
    content, begins, ends = words.content, words.begins, words.ends
    is_number = _DIGITS[content[begins]]
    numbers = np.flatnonzero(is_number)
    if len(numbers) == 0:
        return
    values = words.hashes.copy()
    lengths = ends - begins
    powers, _ = compute_powers(1 << len(content).bit_length())
    followed = numbers[numbers + 1 < len(begins)]
    joined = followed[
        is_number[followed + 1]
        & (begins[followed + 1] == ends[followed] + 1)
        & (lengths[followed + 1] == 3)
        & (words.row[followed + 1] == words.row[followed])
        & (content[ends[followed]] == ord(","))
    ]
    codes[numbers] = values[numbers]
    # From the right: each group of three joins the number that already holds the groups after it.
    whole = lengths.copy()
    with np.errstate(over="ignore"):
        for place in joined[::-1].tolist():
            values[place] += values[place + 1] * powers[lengths[place]]
            whole[place] += whole[place + 1]
            codes[place + 1] = 0
        codes[numbers] = np.where(codes[numbers] > 0, values[numbers] * _NUMBER, np.uint64(0))
        before = content[np.maximum(begins[numbers] - 1, 0)]
        signed = (begins[numbers] > 0) & (before == ord("-"))
        signed &= ~_WORDS[content[np.maximum(begins[numbers] - 2, 0)]] | (begins[numbers] < 2)
        codes[numbers[signed]] += _NEGATIVE
    units = followed[~is_number[followed + 1] & (lengths[followed + 1] <= _LONGEST_UNIT_BYTES)] + 1
    units = units[(words.row[units] == words.row[units - 1]) & (begins[units] - ends[units - 1] <= 1)]
    codes[units] = np.where(codes[units] > 0, codes[units], words.hashes[units])


def _add_code(words: Words, codes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Add identifiers and operators to the codes; return the signs of code of every text."""
    content, begins, ends = words.content, words.begins, words.ends
    signs = np.flatnonzero(np.frombuffer(content.tobytes().translate(_IS_CODE_SIGN), np.bool_))
    rows = np.searchsorted(words.starts, signs, side="right") - 1
    per_row = np.bincount(rows, minlength=words.size)
    if len(begins) == 0 or len(signs) == 0:
        return per_row
    kinds = content[signs]
    word = np.searchsorted(begins, signs, side="right") - 1
    behind = (word >= 0) & (words.row[word] == rows)
    # The word itself where a sign stands in it or right behind it: an identifier, a call, an operand.
    attached = behind & ((signs < ends[word]) | ((signs == ends[word]) & (kinds != ord(":")) & (kinds != ord(";"))))
    attached &= ~np.isin(kinds, _QUIET)
    with np.errstate(over="ignore"):
        identifiers = np.unique(word[attached])
        codes[identifiers] = np.where(codes[identifiers] > 0, codes[identifiers], words.hashes[identifiers])
        operators = behind & _OPERATORS[kinds]
        np.add.at(codes, word[operators], _SIGN_WEIGHTS[kinds[operators]] * _SIGN)
    return per_row


_QUIET = np.array([ord(character) for character in "*`)]"], np.uint8)
"""Marks of emphasis and closing brackets say nothing about the word before them."""


def _sum_in_order(words: Words, codes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    places = np.flatnonzero(codes)
    rows = words.row[places]
    firsts = np.searchsorted(rows, np.arange(words.size + 1))
    rank = np.arange(len(places)) - firsts[:-1][rows]
    with np.errstate(over="ignore"):
        sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(codes[places] * _RANDOM[rank % len(_RANDOM)])))
        found: npt.NDArray[np.uint64] = sums[firsts[1:]] - sums[firsts[:-1]]
    return found
