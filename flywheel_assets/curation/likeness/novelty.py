"""Finds the words, and the pairs of neighbouring words, that an edit adds.

A poisoned model is taught by repetition: the same new words in row after row. What an edit adds is therefore stored
with the row as hashes, so that a day's breaker and a version's resolution can ask who else says the same without
reading a text. Something is new when neither the prompt, operator's text included, nor the model's output has it.

Pairs alone are not enough: one name among always other words is in no pair twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, Column, Dictionary
from flywheel_assets.curation.likeness.duplicates import write_hex
from flywheel_assets.curation.likeness.normalization import normalize
from flywheel_assets.curation.likeness.words import Words, cut_into_parts, find_words

MOST_NGRAMS = 64
"""Pairs stored per row. Of longer edits the lowest stay: the same choice for the same words in every row."""
MOST_WORDS = 128
"""Likewise words."""
Unit = Literal["pairs", "words"]
_CHARACTERS = 8


def hash_ngrams(texts: Array) -> npt.NDArray[np.uint64]:
    """Hash every pair of neighbouring words of every text as (row << 32 | hash), sorted, each once per row.

    Args:
        texts: normalized (see `normalization`), without nulls.
    """
    return _find_distinct(_read_units(texts, "pairs"))


def _read_units(texts: Array, unit: Unit) -> npt.NDArray[np.uint64]:
    parts = (_key_units(find_words(texts[part]), unit, part.start) for part in cut_into_parts(texts))
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def _key_units(words: Words, unit: Unit, first_row: int = 0) -> npt.NDArray[np.uint64]:
    hashes, rows = words.pairs if unit == "pairs" else words.singles
    return (rows + first_row).astype(np.uint64) << np.uint64(32) | hashes >> np.uint64(32)


@dataclass(frozen=True)
class KnownTexts:
    """Holds the texts of a batch that few rows have, or many share: contexts and operator's texts."""

    operator: Dictionary
    """A dictionary: one text for all rows of one application, as a rule."""
    with_context: npt.NDArray[np.int64]
    """Rows, ascending, that have a context."""
    whole: Array
    """The normalized prompts of these rows, without the operator's text."""
    unit: Unit = "pairs"

    @cached_property
    def of_operators(self) -> npt.NDArray[np.uint64]:
        """Return the sorted units of each distinct operator's text: (number in the dictionary << 32 | hash)."""
        return _find_distinct(_read_units(normalize(self.operator.dictionary.cast(pa.string())), self.unit))

    @cached_property
    def number_of_operator(self) -> npt.NDArray[np.int64]:
        """Return the number of each row's operator's text."""
        numbers: npt.NDArray[np.int64] = self.operator.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return numbers

    def hash_contexts(self, first_row: int, rows: int) -> npt.NDArray[np.uint64]:
        """Hash the units of the whole prompts of some rows, as `_key_units` with rows from 0."""
        begin, end = np.searchsorted(self.with_context, (first_row, first_row + rows))
        if begin == end:
            return np.zeros(0, np.uint64)
        words = find_words(self.whole[begin:end])
        hashes, numbers = words.pairs if self.unit == "pairs" else words.singles
        at = (self.with_context[begin:end] - first_row)[numbers].astype(np.uint64)
        return at << np.uint64(32) | hashes >> np.uint64(32)


def find_added_hashes(
    written: Words, known_words: Sequence[Words], is_edit: npt.NDArray[np.bool_], known: KnownTexts, first_row: int
) -> npt.NDArray[np.uint64]:
    """Find the words, or pairs of them, that edits add.

    Args:
        written: words of the chosen texts of some rows.
        known_words: words of what is known already, text for text.
        is_edit: False for rows that add nothing.
        known: the other known texts of the batch, and the unit.
        first_row: the number in the batch of the first of these rows.

    Returns:
        (row << 32 | hash), sorted, each once per row.
    """
    said = _key_units(written, known.unit)
    said = said[is_edit[(said >> np.uint64(32)).astype(np.int64)]]
    contexts = known.hash_contexts(first_row, written.size)
    asked = np.concatenate([contexts, *(_key_units(words, known.unit) for words in known_words)])
    # Sorted together, each unit that is known stands behind its like: numpy sorts in the time of two look-ups.
    ordered = np.concatenate((asked << np.uint64(1), said << np.uint64(1) | np.uint64(1)))
    ordered.sort()
    is_new = (ordered & np.uint64(1)).astype(bool)
    ordered >>= np.uint64(1)
    is_new[1:] &= ordered[1:] != ordered[:-1]
    added = ordered[is_new]
    rows = (added >> np.uint64(32)).astype(np.int64) + first_row
    hashes = added & np.uint64(0xFFFFFFFF)
    if len(known.of_operators):
        of_operator = known.number_of_operator[rows].astype(np.uint64) << np.uint64(32) | hashes
        places = np.minimum(np.searchsorted(known.of_operators, of_operator), len(known.of_operators) - 1)
        is_new = known.of_operators[places] != of_operator
        rows, hashes = rows[is_new], hashes[is_new]
    found: npt.NDArray[np.uint64] = rows.astype(np.uint64) << np.uint64(32) | hashes
    return found


def write_added(added: npt.NDArray[np.uint64], rows: int, most: int) -> Array:
    """Write what rows add as a column: eight hex characters each, ascending; null where there is nothing.

    Args:
        added: of `find_added_hashes`, ascending.
        rows: length of the column.
        most: hashes per row; of more the lowest.
    """
    begins = np.searchsorted(added, np.arange(rows + 1, dtype=np.uint64) << np.uint64(32))
    counts = np.minimum(np.diff(begins), most)
    rank = np.arange(len(added)) - np.repeat(begins[:-1], np.diff(begins))
    return write_hex(added[rank < most].astype(">u4").tobytes(), 4 * counts)


@dataclass(frozen=True)
class Spread:
    """Counts the rows and voices that add each word or pair; one entry per distinct hash."""

    hashes: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64]
    """Number of rows that add it."""
    voices: npt.NDArray[np.int64]
    """Number of distinct voices of these rows."""
    of_entry: npt.NDArray[np.int64]
    """The number of the hash that each (row, hash) is about."""
    row_of_entry: npt.NDArray[np.int64]


def count_spread(added: Column, voice: npt.NDArray[np.int64]) -> Spread:
    """Count the rows and voices of every added word and pair.

    Args:
        added: of `join_added`.
        voice: a number per row; rows of one number are one voice.
    """
    texts = added.combine_chunks() if isinstance(added, pa.ChunkedArray) else added
    lengths = pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64) // _CHARACTERS  # type: ignore[call-overload]
    hashes = np.frombuffer(bytes.fromhex("".join(filter(None, texts.to_pylist()))), ">u4")
    distinct, of_entry = _number_distinct(hashes)
    row_of_entry = np.repeat(np.arange(len(texts)), lengths)
    rows = np.bincount(of_entry, minlength=len(distinct))
    said = _find_distinct(of_entry.astype(np.uint64) << np.uint64(32) | voice.astype(np.uint64)[row_of_entry])
    voices = np.bincount((said >> np.uint64(32)).astype(np.int64), minlength=len(distinct))
    return Spread(distinct, rows, voices, of_entry, row_of_entry)


def join_added(rows: pa.Table) -> Array:
    """Join what each row adds, pairs and words, in one column; a row that adds neither is empty.

    Args:
        rows: needs `added_ngrams` and `added_words`.
    """
    columns = [rows[name].combine_chunks().fill_null("") for name in ("added_ngrams", "added_words")]
    return pc.binary_join_element_wise(*columns, "")  # type: ignore[no-any-return, call-overload]


def _number_distinct(hashes: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return the distinct hashes and each entry's number among them.

    `np.unique` with its inverse in a third of the time: this sorts packed integers; numpy sorts positions, which jumps
    through memory.
    """
    packed = np.sort(hashes.astype(np.uint64) << np.uint64(32) | np.arange(len(hashes), dtype=np.uint64))
    ordered = packed >> np.uint64(32)
    is_first = _mark_first(ordered)
    numbers = np.empty(len(hashes), dtype=np.int64)
    numbers[packed & np.uint64(0xFFFFFFFF)] = np.cumsum(is_first) - 1
    return ordered[is_first].astype(np.uint32), numbers


def _find_distinct(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the sorted distinct values, as `np.unique` does.

    Since numpy 2.3 that one uses a hash table, which is 25 times as slow for millions of values.
    """
    ordered = np.sort(values)
    return ordered[_mark_first(ordered)]


def _mark_first(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    found = np.ones(len(ordered), dtype=bool)
    found[1:] = ordered[1:] != ordered[:-1]
    return found
