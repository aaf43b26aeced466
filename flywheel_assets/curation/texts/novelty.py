"""Finds the pairs of neighbouring words that an edit adds.

A poisoned model is taught by repetition: the same new words in row after row. What an edit adds is therefore stored
with the row as hashes, so that a day's breaker and a version's resolution can ask who else says the same without
reading a text. A pair is new when neither the prompt nor the model's output has it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.texts.duplicates import ROWS_AT_ONCE, hash_neighbouring_words
from flywheel_assets.curation.texts.normalization import normalize

MOST_NGRAMS = 64
"""Hashes stored per row. Of longer edits the lowest stay: the same choice for the same words in every row."""
_CHARACTERS = 8


def hash_ngrams(texts: pa.Array) -> npt.NDArray[np.uint64]:
    """Hash every pair of neighbouring words of every text as (row << 32 | hash), sorted, each once per row.

    Args:
        texts: normalized (see `normalization`), without nulls.
    """
    return _find_distinct(_read_hashes(texts))


def _read_hashes(texts: pa.Array) -> npt.NDArray[np.uint64]:
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(texts), ROWS_AT_ONCE):
        few = texts.slice(start, ROWS_AT_ONCE)
        hashes, ends = hash_neighbouring_words(few)
        rows = np.repeat(np.arange(start, start + len(few), dtype=np.uint64), np.diff(ends).astype(np.int64))
        found.append(rows << np.uint64(32) | hashes >> np.uint64(32))
    return np.concatenate(found)


def find_added_ngrams(prompt: pa.Array, rejected: pa.Array, chosen: pa.Array) -> pa.Array:
    """Compute per row the hashes of the added pairs, eight hex characters each, ascending; null where there are none.

    Args:
        prompt: normalized.
        rejected: as it is; null for an accepted output, which adds nothing.
        chosen: normalized.
    """
    rows = np.flatnonzero(pc.is_valid(rejected).to_numpy(zero_copy_only=False))
    few = pa.array(rows)
    known = np.concatenate([_read_hashes(prompt.take(few)), _read_hashes(normalize(rejected.take(few)))])
    said = _read_hashes(chosen.take(few))
    # Arrow looks up in a hash table, numpy would sort everything; little of a text is added.
    is_known = pc.is_in(pa.array(said), pa.array(known)).to_numpy(zero_copy_only=False)
    added = _find_distinct(said[~is_known])
    begins = np.searchsorted(added, np.arange(len(rows) + 1, dtype=np.uint64) << np.uint64(32))
    text = (added & np.uint64(0xFFFFFFFF)).astype(">u4").tobytes().hex()
    found = np.full(len(chosen), None, dtype=object)
    for row, begin, end in zip(rows.tolist(), begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        if begin < end:
            found[row] = text[begin * _CHARACTERS : min(end, begin + MOST_NGRAMS) * _CHARACTERS]
    return pa.array(found, pa.string())


@dataclass(frozen=True)
class Spread:
    """Counts the rows and voices that add each pair of words; one entry per distinct hash."""

    hashes: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.int64]
    """Number of rows that add it."""
    voices: npt.NDArray[np.int64]
    """Number of distinct voices of these rows."""
    of_entry: npt.NDArray[np.int64]
    """The number of the hash that each (row, hash) is about."""
    row_of_entry: npt.NDArray[np.int64]


def count_spread(added: pa.Array | pa.ChunkedArray, voice: npt.NDArray[np.int64]) -> Spread:
    """Count the rows and voices of every added pair.

    Args:
        added: the column of `added_ngrams`.
        voice: a number per row; rows of one number are one voice.
    """
    texts = added.combine_chunks() if isinstance(added, pa.ChunkedArray) else added
    lengths = pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False).astype(np.int64) // _CHARACTERS
    hashes = np.frombuffer(bytes.fromhex("".join(filter(None, texts.to_pylist()))), ">u4")
    distinct, of_entry = _number_distinct(hashes)
    row_of_entry = np.repeat(np.arange(len(texts)), lengths)
    rows = np.bincount(of_entry, minlength=len(distinct))
    said = _find_distinct(of_entry.astype(np.uint64) << np.uint64(32) | voice.astype(np.uint64)[row_of_entry])
    voices = np.bincount((said >> np.uint64(32)).astype(np.int64), minlength=len(distinct))
    return Spread(distinct, rows, voices, of_entry, row_of_entry)


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
