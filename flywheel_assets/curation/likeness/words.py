"""Finds the words of whole columns as hashes: what signatures, anchors and added words are made of.

A word's hash is a polynomial in its bytes, taken from running sums modulo 2^64 over all texts at once: a third of the
time of splitting and pairing words in Python. Writing without spaces has one word per character.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from flywheel_assets.curation.arrow import Array, view_bytes

_MOST_ROWS, _FEWEST_ROWS, _BYTES_AT_ONCE = 512, 8, 2**16

# Changing one of these makes stored signatures and added words incomparable: curate all days again.
BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE_BASE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)

# Byte → 1 inside a word, 2 where a word of its own begins: writing without spaces (UTF-8 of U+2000 and above).
_WORD_BYTES = np.zeros(256, np.uint8)
_WORD_BYTES[[byte for byte in range(256) if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_")]] = 1
_WORD_BYTES[0xE2:0xF8] = 2
_KINDS = _WORD_BYTES.tobytes()


@dataclass(frozen=True)
class Words:
    """The words of some texts, one entry per word, text after text."""

    content: npt.NDArray[np.uint8]
    """The UTF-8 bytes of all texts."""
    starts: npt.NDArray[np.int64]
    """Where each text begins in `content`, and one place behind the last."""
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    row: npt.NDArray[np.int64]
    """The number of the text that holds the word, ascending."""

    @property
    def size(self) -> int:
        """Return the number of texts."""
        return len(self.starts) - 1

    @cached_property
    def pairs(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Return the hash of every two neighbouring words of a text, and the number of its text."""
        with np.errstate(over="ignore"):
            pairs = self.hashes[:-1] * _PAIR + self.hashes[1:]
        pairs ^= pairs >> np.uint64(29)
        together = self.row[:-1] == self.row[1:]
        return pairs[together], self.row[:-1][together]

    @cached_property
    def singles(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Return a hash of every word, mixed as those of pairs are, and the number of its text."""
        return self.hashes ^ self.hashes >> np.uint64(29), self.row

    def mark_own_words(self) -> npt.NDArray[np.bool_]:
        """Mark words of scripts without spaces, which are one character long."""
        is_own: npt.NDArray[np.bool_] = _WORD_BYTES[self.content[self.begins]] == 2
        return is_own


def find_words(texts: Array) -> Words:
    """Find the words of normalized texts (see `normalization`), without nulls."""
    starts, content = view_bytes(texts)
    # `translate` reads a byte in a third of the time of numpy's indexing.
    kinds = np.frombuffer(content.tobytes().translate(_KINDS), np.uint8)
    inside = kinds > 0
    breaks = kinds == 2
    first_bytes = starts[:-1]
    breaks[first_bytes[first_bytes < len(content)]] = True
    begins_here = inside.copy()
    begins_here[1:] &= ~inside[:-1] | breaks[1:]
    ends_here = inside
    ends_here[:-1] &= ~ends_here[1:] | breaks[1:]
    begins = np.flatnonzero(begins_here)
    ends = np.flatnonzero(ends_here) + 1
    powers, inverse = compute_powers(1 << len(content).bit_length())
    with np.errstate(over="ignore"):
        sums = np.zeros(len(content) + 1, np.uint64)
        weights = content.astype(np.uint64)
        weights += np.uint64(1)
        weights *= powers[: len(content)]
        np.cumsum(weights, out=sums[1:])
        hashes = (sums[ends] - sums[begins]) * inverse[begins]
    row = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(begins, starts)))
    return Words(content, starts, begins, ends, hashes, row)


def cut_into_parts(texts: Array) -> Iterator[slice]:
    """Cut a column into parts of some 64 KB.

    The arrays of one number per byte then stay in the processor's cache; of a day of long texts they were 3 GB.
    """
    rows = max(_FEWEST_ROWS, min(_MOST_ROWS, _BYTES_AT_ONCE * len(texts) // max(1, texts.nbytes)))
    return (slice(start, start + rows) for start in range(0, len(texts), rows))


def find_words_by_part(texts: Array) -> Iterator[Words]:
    """Find the words of a column, part by part."""
    return (find_words(texts[part]) for part in cut_into_parts(texts))


@lru_cache(maxsize=4)
def compute_powers(size: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Compute the first `size` powers of the base, and of its inverse, modulo 2^64."""
    with np.errstate(over="ignore"):
        return tuple(  # type: ignore[return-value]
            np.cumprod(np.concatenate((np.ones(1, np.uint64), np.full(size, base)))) for base in (BASE, _INVERSE_BASE)
        )
