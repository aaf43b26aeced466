"""Finds near duplicates by MinHash: rows that say nearly the same become one row, and its supporters are counted.

A row's signature is 128 bytes, the low byte of each of 128 minimum hashes (b-bit minwise hashing, Li & König 2010) over
the pairs of neighbouring words of prompt and chosen text. It is stored with the row when a day is curated, so that
resolution over all of gold reads no text. Sixteen bands of eight bytes are compared as they are: two rows that share a
band are candidates, and the share of equal bytes, less what chance gives, estimates their Jaccard similarity with a
standard error of 0.035 at 0.8. Of rows that disagree about the same output the most trusted source wins.
"""

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rensa import RMinHash

from flywheel_assets.curation.arrow import Array, Column, values_of, view_bytes
from flywheel_assets.records import IMPORT_PREFIX, REVIEWER_SOURCE

SIMILARITY = 0.8
"""Jaccard similarity from which two rows are one: at 0.5 single linkage merged 286 valid pairs into 126."""
SHORTEST_CHARACTERS = 50
"""Of prompt and chosen together; shorter texts have too few words, and only equal ones are duplicates."""

_HASHES, _BANDS = 128, 16
# Changing either, or the words, makes stored signatures incomparable: curate all days again.
_SEED = 42
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE_BASE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
ROWS_AT_ONCE = 256
"""So that the arrays of one word per byte stay in the processor's cache; of a day of long texts they were 3 GB."""
_CHANCE = 1 / 256
"""The chance that two unrelated bytes are equal."""

_WEIGHTS = np.arange(1, 257, dtype=np.uint64)
# Byte → 1 inside a word, 2 where a word of its own begins: writing without spaces (UTF-8 of U+2000 and above).
_WORD_BYTES = np.zeros(256, np.uint8)
_WORD_BYTES[[byte for byte in range(256) if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_")]] = 1
_WORD_BYTES[0xE2:0xF8] = 2


def compute_signatures(prompt: Array, chosen: Array) -> Array:
    """Compute each row's signature as 256 hex characters; null for texts below `SHORTEST_CHARACTERS`.

    Args:
        prompt: normalized texts (see `normalization`).
        chosen: the same.
    """
    texts = pc.binary_join_element_wise(prompt, chosen, "\n")  # type: ignore[call-overload]
    long_enough = pc.greater_equal(pc.utf8_length(texts), SHORTEST_CHARACTERS)  # type: ignore[call-overload]
    candidates = texts.filter(long_enough)
    found: list[str] = []
    for start in range(0, len(candidates), ROWS_AT_ONCE):
        hashes, ends = hash_neighbouring_words(candidates.slice(start, ROWS_AT_ONCE))
        sketch = RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, _HASHES, _SEED)
        digests = np.array(sketch.to_rows(), np.uint32).astype(np.uint8).tobytes().hex()
        found += [digests[at : at + 2 * _HASHES] for at in range(0, len(digests), 2 * _HASHES)]
    return pc.replace_with_mask(pa.nulls(len(texts), pa.string()), long_enough, pa.array(found, pa.string()))  # type: ignore[no-any-return]


def find_clusters(content_hash: Column, signature: Column, group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the cluster of every row: rows of one group with equal contents, or chained by near-equal signatures.

    Does not depend on the order of the rows, which is that of files and thus of how often a day was written: within a
    band not every two rows are compared, and which ones are decides what is chained.

    Args:
        content_hash: equal for equal contents, without nulls.
        signature: of `signatures`, or null.
        group: rows of different groups are never one cluster.
    """
    encoded = _combine_chunks(content_hash).dictionary_encode()
    by_hash = np.empty(len(encoded.dictionary), np.int64)
    by_hash[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(by_hash))
    contents = by_hash[encoded.indices.to_numpy()]
    _, first_row, labels = np.unique(
        group * (contents.max(initial=0) + 1) + contents, return_index=True, return_inverse=True
    )
    signed = np.flatnonzero(_combine_chunks(signature).take(first_row).is_valid().to_numpy(zero_copy_only=False))
    texts = values_of(_combine_chunks(signature).take(first_row[signed]))
    matrix = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, _HASHES)
    edges = _find_near_pairs(matrix, group[first_row][signed])
    merged: npt.NDArray[np.int64] = _find_components(len(first_row), signed[edges])[labels]
    return merged


def hash_supporter(subject: str) -> str:
    """Compute a subject's entry in the column `supporters`: sixteen hex characters of its hash."""
    return hashlib.blake2b(subject.encode(), digest_size=8).hexdigest()


def hash_neighbouring_words(texts: Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Hash all pairs of neighbouring words, row after row; also return the offsets of the rows.

    A word's hash is a polynomial in its bytes, taken from running sums modulo 2^64 over all texts at once: a third of
    the time of splitting and pairing words in Python.
    """
    starts, content = view_bytes(texts)
    kinds = _WORD_BYTES[content]
    inside = kinds > 0
    row_begins = np.zeros(len(content) + 1, dtype=bool)
    row_begins[starts] = True
    before = np.concatenate(([False], inside[:-1]))
    begins = np.flatnonzero(inside & (~before | row_begins[:-1] | (kinds == 2)))
    after = np.concatenate((inside[1:], [False]))
    next_begins = np.concatenate(((row_begins[:-1] | (kinds == 2))[1:], [True]))
    ends = np.flatnonzero(inside & (~after | next_begins)) + 1
    powers, inverse = _compute_powers(1 << len(content).bit_length())
    with np.errstate(over="ignore"):
        sums = np.zeros(len(content) + 1, np.uint64)
        np.cumsum(powers[: len(content)] * _WEIGHTS[content], out=sums[1:])
        words = (sums[ends] - sums[begins]) * inverse[begins]
        pairs = words[:-1] * _PAIR + words[1:]
        pairs ^= pairs >> np.uint64(29)
    row_of_word = np.searchsorted(starts, begins, side="right") - 1
    together = row_of_word[:-1] == row_of_word[1:]
    per_row = np.bincount(row_of_word[:-1][together], minlength=len(texts))
    return pairs[together], np.concatenate(([0], np.cumsum(per_row))).astype(np.uint64)


@lru_cache(maxsize=2)
def _compute_powers(size: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Compute the first `size` powers of the base, and of its inverse, modulo 2^64."""
    with np.errstate(over="ignore"):
        return tuple(  # type: ignore[return-value]
            np.cumprod(np.concatenate((np.ones(1, np.uint64), np.full(size, base)))) for base in (_BASE, _INVERSE_BASE)
        )


def _find_near_pairs(matrix: npt.NDArray[np.uint8], group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find pairs of rows of one group that share a band and are similar enough, as (pairs, 2)."""
    bands = np.ascontiguousarray(matrix).view(np.uint64) if len(matrix) else np.zeros((0, _BANDS), np.uint64)
    needed = (_CHANCE + SIMILARITY * (1 - _CHANCE)) * _HASHES
    found = [np.zeros((0, 2), np.int64)]
    for band in range(_BANDS):
        order = np.lexsort((bands[:, band], group))
        same = (bands[order[1:], band] == bands[order[:-1], band]) & (group[order[1:]] == group[order[:-1]])
        positions = np.arange(len(order))
        begins = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), positions, 0))[: len(order)]
        members = np.flatnonzero(np.concatenate(([False], same))[: len(order)])
        # With the one before and with the first of the bucket: all pairs of a large bucket would be its square.
        for other in (members - 1, begins[members]):
            edges = np.stack((order[members], order[other]), axis=1)
            equal = (matrix[edges[:, 0]] == matrix[edges[:, 1]]).sum(axis=1)
            found.append(edges[equal >= needed])
    return np.concatenate(found)


def _find_components(size: int, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the smallest member of every node's component."""
    labels = np.arange(size)
    while len(edges):
        lowest = np.minimum(labels[edges[:, 0]], labels[edges[:, 1]])
        before = labels.copy()
        np.minimum.at(labels, labels[edges[:, 0]], lowest)
        np.minimum.at(labels, labels[edges[:, 1]], lowest)
        labels = labels[labels]
        if (labels == before).all():
            break
    return labels


def _combine_chunks(column: Column) -> Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def hash_texts(prompt: Array, chosen: Array) -> tuple[Array, Array]:
    """Compute (prompt_hash, content_hash) of *normalized* texts: 32 hex characters of BLAKE2b each.

    The content hash covers prompt and chosen; the prompt's digest between the two keeps their border unambiguous.
    """
    prompt_hashes, content_hashes = [], []
    empty = hashlib.blake2b(digest_size=16)
    prompts, texts = values_of(prompt.cast(pa.binary())), values_of(chosen.cast(pa.binary()))
    for prompt_bytes, chosen_bytes in zip(prompts, texts, strict=True):
        hashing = empty.copy()  # a third cheaper than a new one each
        hashing.update(prompt_bytes)
        digest = hashing.digest()
        prompt_hashes.append(digest.hex())
        hashing.update(digest + chosen_bytes)
        content_hashes.append(hashing.hexdigest())
    return pa.array(prompt_hashes, pa.string()), pa.array(content_hashes, pa.string())


def mark_repeated_rows(rows: pa.Table, keys: list[str], prefer_low: str | None = None) -> npt.NDArray[np.bool_]:
    """Mark rows with the same keys as a better row; the row that stays in each group is False.

    The best is of the most trusted source, then has the lowest `prefer_low`, then is the newest
    (`feedback_received_at`), then has the highest `feedback_event_id`: the order of the rows decides nothing.

    Args:
        rows: needs the keys and `source`, `feedback_received_at`, `feedback_event_id`.
        keys: columns without nulls that make two rows the same.
        prefer_low: a column that decides between rows of equal trust, before their age does.
    """
    repeated = np.zeros(len(rows), dtype=bool)
    groups = np.zeros(len(rows), dtype=np.int64)
    for key in keys:
        codes = rows[key].combine_chunks().dictionary_encode()
        groups = groups * max(1, len(codes.dictionary)) + codes.indices.to_numpy()
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    contested = np.flatnonzero(sizes[groups] > 1)
    if len(contested) == 0:
        return repeated
    # The deciding columns only: `take` of a text column of more than 2 GB overflows Arrow's 32-bit offsets.
    deciding = ["source", "feedback_received_at", "feedback_event_id", *([prefer_low] if prefer_low else [])]
    few = rows.select(deciding).take(contested)
    columns: dict[str, Any] = {
        "group": groups[contested],
        "trust": rank_sources(few["source"]),
        "received": few["feedback_received_at"],
        "preferred": few[prefer_low] if prefer_low else np.zeros(len(few), dtype=bool),
        "event": few["feedback_event_id"],
    }
    order = pc.sort_indices(
        pa.table(columns),
        sort_keys=[
            ("group", "ascending"),
            ("trust", "descending"),
            ("preferred", "ascending"),
            ("received", "descending"),
            ("event", "descending"),
        ],
    ).to_numpy()
    ranked_groups = groups[contested][order]
    is_first = np.concatenate(([True], ranked_groups[1:] != ranked_groups[:-1]))
    repeated[contested[order]] = ~is_first
    return repeated


def rank_sources(sources: Column) -> npt.NDArray[np.int8]:
    """Return 2 for a reviewer, 0 for an import of old telemetry, 1 for all others; one value per row."""
    trust = pc.if_else(pc.equal(sources, pa.scalar(REVIEWER_SOURCE)), 2, pc.if_else(is_import(sources), 0, 1))
    return trust.to_numpy(zero_copy_only=False).astype(np.int8)  # type: ignore[no-any-return]


def is_import(sources: Column) -> Column:
    """Return whether each row came from an imported file and not from people using the application."""
    return pc.starts_with(sources, IMPORT_PREFIX)
