"""Finds near duplicates by MinHash: rows that say nearly the same become one row, and its supporters are counted.

Two rows are one where their chosen texts are nearly equal, their requests are nearly equal, *and* their anchors are
equal (see `_anchors`): what the team or a document says to everybody is in neither text, and what denies or doubles a
statement is in the anchors. Nothing follows from similar requests alone, because a preamble written as plain text is
part of every request.

A signature is 128 bytes, the low byte of the minimum hash of each of 128 bins (one permutation hashing, Li, Owen &
Zhang 2012; empty bins by rotation, Shrivastava & Li 2014; b-bit, Li & König 2010) over the pairs of neighbouring words.
Every pair is hashed four times: with that the estimate of a short text is as good as that of 128 permutations, at an
eighth of the time. It is stored with the row when a day is curated, so that resolution over all of gold reads no text.
Sixteen bands of eight bytes are compared as they are: two rows that share a band are candidates, and the share of equal
bytes, less what chance gives, estimates their Jaccard similarity with a standard error of 0.035 at 0.8.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, Column, to_mask, values_of
from flywheel_assets.curation.likeness.words import Words, find_words_by_part
from flywheel_assets.records import IMPORT_PREFIX, REVIEWER_SOURCE

SIMILARITY = 0.8
"""Jaccard similarity from which two texts are one: at 0.5 single linkage merged 286 valid pairs into 126."""
SHORTEST_CHARACTERS = 50
"""Shorter texts have too few words for a signature: they are near only when they are equal."""

_HASHES, _BANDS = 128, 16
# Changing anything below makes stored signatures incomparable: curate all days again.
_REPEATS = 4
_SEED = 42
_MULTIPLIERS = np.random.default_rng(_SEED).integers(2**62, 2**63, 2 * _REPEATS, np.uint64) | np.uint64(1)
# Bins next to each other often hold the same minimum, from the rotation: a band takes bins far apart.
_ORDER = np.random.default_rng(_SEED).permutation(_HASHES)
_EMPTY = np.uint32(0xFFFFFFFF)
_CHANCE = 1 / 256
"""The chance that two unrelated bytes are equal."""
_EQUAL_BYTES = (_CHANCE + SIMILARITY * (1 - _CHANCE)) * _HASHES
_BEST_OF_BUCKET = 3
_PAIRS_AT_ONCE = 65_536


def compute_signatures(texts: Array) -> Array:
    """Compute each normalized text's signature as 256 hex characters; null below `SHORTEST_CHARACTERS`."""
    parts = [sign_words(words) for words in find_words_by_part(texts)]
    return write_signatures(np.concatenate([np.zeros((0, _HASHES), np.uint8), *parts]), texts)


def sign_words(words: Words) -> npt.NDArray[np.uint8]:
    """Compute the signature of every text, (texts, 128); 255 where it has no two neighbouring words."""
    hashes, rows = words.pairs
    lowest = np.full(words.size * _HASHES, _EMPTY, np.uint32)
    first_bins = rows * _HASHES
    with np.errstate(over="ignore"):
        for number in range(_REPEATS):
            mixed = hashes * _MULTIPLIERS[2 * number]
            mixed ^= mixed >> np.uint64(32)
            mixed *= _MULTIPLIERS[2 * number + 1]
            bins = first_bins + (mixed >> np.uint64(57)).astype(np.int64)
            np.minimum.at(lowest, bins, (mixed >> np.uint64(25)).astype(np.uint32))
    signatures: npt.NDArray[np.uint8] = _rotate(lowest.reshape(-1, _HASHES)).take(_ORDER, axis=1)
    return signatures


def _rotate(minima: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Give every empty bin the low byte of the nearest filled one before it, around the end.

    Seven steps of 1, 2, 4 … 64 bins for all texts at once, without any look-up of each
    bin's nearest. A text without any hash gets 255.
    """
    found = minima.astype(np.uint16) & np.uint16(0xFF)
    found |= (minima == _EMPTY) * np.uint16(0xFF00)
    before = np.empty_like(found)
    for step in (1, 2, 4, 8, 16, 32, 64):
        before[:, step:], before[:, :step] = found[:, :-step], found[:, -step:]
        # All bits where the bin is filled, which leaves its value; none where it is empty, all bits itself.
        before |= (found >> np.uint16(15)) - np.uint16(1)
        found &= before
    return found.astype(np.uint8)


def write_signatures(signatures: npt.NDArray[np.uint8], texts: Array) -> Array:
    """Write signatures as a column of hex characters; null for texts below `SHORTEST_CHARACTERS`."""
    long_enough = pc.greater_equal(pc.utf8_length(texts), SHORTEST_CHARACTERS)  # type: ignore[call-overload]
    signed = to_mask(long_enough)
    return write_hex(signatures[signed].tobytes(), np.where(signed, _HASHES, 0))


def write_hex(content: bytes, lengths: npt.NDArray[np.int64]) -> Array:
    """Write bytes, cut into rows of these lengths, as a column of hex characters; null where there are none."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(2 * lengths, out=offsets[1:])
    has_any = lengths > 0
    bits = None if has_any.all() else pa.py_buffer(np.packbits(has_any, bitorder="little"))  # type: ignore[arg-type]
    digits = pa.py_buffer(content.hex().encode())
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), digits, bits)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Likeness:
    """Holds the columns that decide whether two rows say the same; one entry per row."""

    content_hash: Column
    """Equal for equal contents, without nulls."""
    signature: Column
    """Of the chosen text; null: too short."""
    request_hash: Column
    request_signature: Column
    """Of the request; null: too short."""
    anchors: Column
    """Null: the chosen text has none."""

    @classmethod
    def read(cls, rows: pa.Table) -> Self:
        """Read the columns of gold that have these names."""
        return cls(*(rows[field.name] for field in fields(cls)))


def find_clusters(rows: Likeness, group: npt.NDArray[np.int64], rank: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the cluster of every row, by the number of the row that leads it.

    Every row of a cluster is near its leader, the member of the lowest rank: no chain of rows, each near the one
    before, ever makes two rows one that are not near each other's leader. Depends on no order of the rows.

    Args:
        rows: what is compared.
        group: rows of different groups are never one cluster.
        rank: a different number for every row; of rows that say the same the lowest leads.
    """
    anchors, requests = _number(rows.anchors), _number(rows.request_hash)
    agreeing = group * (1 + anchors.max(initial=0)) + anchors
    contents = _number(rows.content_hash)
    by_rank = np.argsort(rank)
    # Texts that differ in case or white space alone have equal hashes; of code the anchors tell them apart.
    _, first, content = np.unique(
        (agreeing * (1 + contents.max(initial=0)) + contents)[by_rank], return_index=True, return_inverse=True
    )
    best = by_rank[first]
    signed = best[_is_signed(rows.signature)[best]]
    signed = signed[np.argsort(rank[signed])]
    edges = _find_near_pairs(read_signatures(rows.signature, signed), agreeing[signed], requests[signed])
    edges = edges[_are_requests_near(rows.request_signature, signed, requests[signed], edges)]
    leader = np.arange(len(group))
    for member, leading in _choose_leaders(edges).items():
        leader[signed[member]] = signed[leading]
    found = np.empty(len(group), np.int64)
    found[by_rank] = leader[best[content]]
    return found


def find_nearest(
    rows: Likeness, prompt_hash: Column, asked: npt.NDArray[np.int64], known: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Find for each row of `asked` the similarity to the nearest prompt among the rows `known`.

    1 where an equal prompt is known (without the operator's text); else the similarity of the requests, from
    `SIMILARITY` on. A request that is near to more than a twentieth of the known rows says no more than a preamble
    does, or "summarise this": there the chosen texts must be near as well.

    Returns:
        One value per row of `asked`, NaN where no known prompt is near.
    """
    found = np.full(len(asked), np.nan)
    if len(asked) == 0 or len(known) == 0:
        return found
    prompts, requests = _number(prompt_hash), _number(rows.request_hash)
    most = max(_FEWEST_RECURRING, _RECURRING_SHARE * len(known))
    signed = [part[_is_signed(rows.request_signature)[part]] for part in (asked, known)]
    asks, knows = (read_signatures(rows.request_signature, part) for part in signed)
    place = np.full(len(requests), -1)
    place[asked] = np.arange(len(asked))
    one, other, recurs = _match(requests[asked], requests[known], most)
    near = [(asked[one], known[other], np.ones(len(one)), recurs)]
    bands = [np.ascontiguousarray(each).view(np.uint64).reshape(-1, _BANDS) for each in (asks, knows)]
    for band in range(_BANDS):
        one, other, recurs = _match(bands[0][:, band], bands[1][:, band], most)
        similarity = estimate_similarity(count_equal_bytes(asks, one, knows, other))
        similar = similarity >= SIMILARITY
        near.append((signed[0][one[similar]], signed[1][other[similar]], similarity[similar], recurs[similar]))
    one, other, similarity, recurs = (np.concatenate(each) for each in zip(*near, strict=True))
    counts = np.flatnonzero(~recurs | _are_chosen_near(rows, one, other))
    np.fmax.at(found, place[one[counts]], similarity[counts])
    found[np.isin(prompts[asked], prompts[known])] = 1.0
    return found


_RECURRING_SHARE, _FEWEST_RECURRING = 0.05, 10
_MOST_COMPARED = 4


def _match(
    asked: npt.NDArray[Any], known: npt.NDArray[Any], most: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Pair every entry of `asked` with entries of `known` that are equal, at most `_MOST_COMPARED`.

    Also marks the pairs whose value more than `most` known entries have.
    """
    order = np.argsort(known, kind="stable")
    begin, end = (np.searchsorted(known[order], asked, side=side) for side in ("left", "right"))
    one = np.repeat(np.arange(len(asked)), np.minimum(end - begin, _MOST_COMPARED))
    firsts = np.cumsum(np.minimum(end - begin, _MOST_COMPARED)) - np.minimum(end - begin, _MOST_COMPARED)
    other = order[begin[one] + np.arange(len(one)) - firsts[one]]
    return one, other, (end - begin)[one] > most


def _are_chosen_near(rows: Likeness, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    contents, is_signed = _number(rows.content_hash), _is_signed(rows.signature)
    near: npt.NDArray[np.bool_] = contents[one] == contents[other]
    compared = np.flatnonzero(~near & is_signed[one] & is_signed[other])
    numbers, places = np.unique(np.concatenate((one[compared], other[compared])), return_inverse=True)
    matrix = read_signatures(rows.signature, numbers)
    near[compared] = are_near(matrix, places[: len(compared)], matrix, places[len(compared) :])
    return near


def _is_signed(column: Column) -> npt.NDArray[np.bool_]:
    return to_mask(_combine_chunks(column).is_valid())


def read_signatures(column: Column, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Read the signatures of some rows, none of them null, as (rows, 128)."""
    texts = values_of(_combine_chunks(column).take(rows))
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, _HASHES)


def _number(column: Column) -> npt.NDArray[np.int64]:
    """Number the values of a column by their order, nulls as 0."""
    encoded = _combine_chunks(column).dictionary_encode()
    by_value = np.empty(len(encoded.dictionary) + 1, np.int64)
    by_value[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(1, len(by_value))
    by_value[-1] = 0
    numbers: npt.NDArray[np.int64] = by_value[encoded.indices.fill_null(-1).to_numpy()]
    return numbers


def hash_supporter(subject: str) -> str:
    """Compute a subject's entry in the column `supporters`: sixteen hex characters of its hash."""
    return hashlib.blake2b(subject.encode(), digest_size=8).hexdigest()


def _find_near_pairs(
    matrix: npt.NDArray[np.uint8], agreeing: npt.NDArray[np.int64], requests: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Find pairs (later, earlier) of rows that agree and whose signatures are similar enough, as (pairs, 2), sorted.

    Compared are the rows that share a band, and those that share a request: among thousands with one canned answer the
    few that also have one question must find each other.

    Args:
        matrix: signatures, the best row first.
        agreeing: rows with different numbers are never near.
        requests: equal for equal requests.
    """
    bands = np.ascontiguousarray(matrix).view(np.uint64) if len(matrix) else np.zeros((0, _BANDS), np.uint64)
    salt = agreeing.astype(np.uint64) * _MULTIPLIERS[0]
    found = [np.zeros(0, np.int64)]
    for bucket in (*bands.T, requests.astype(np.uint64) * _MULTIPLIERS[1]):
        for later, earlier in _list_candidates(bucket ^ salt):
            near = are_near(matrix, later, matrix, earlier) & (agreeing[later] == agreeing[earlier])
            found.append(later[near] * len(matrix) + earlier[near])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, len(matrix))), axis=1)


def _list_candidates(bucket: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """List pairs (later, earlier) of rows with equal numbers.

    Each row with the one before and with the first of its bucket: all pairs of a large bucket would be its square.
    """
    order = np.argsort(bucket, kind="stable")
    same = bucket[order[1:]] == bucket[order[:-1]]
    members = np.flatnonzero(same) + 1
    begins = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(len(same) + 1), 0))[members]
    yield order[members], order[members - 1]
    for place in range(_BEST_OF_BUCKET):
        others = members[members - 1 > begins + place], begins[members - 1 > begins + place] + place
        yield order[others[0]], order[others[1]]


def are_near(
    one: npt.NDArray[np.uint8],
    rows_of_one: npt.NDArray[np.int64],
    other: npt.NDArray[np.uint8],
    rows_of_other: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Mark the pairs of rows whose signatures are similar enough."""
    return count_equal_bytes(one, rows_of_one, other, rows_of_other) >= _EQUAL_BYTES


def count_equal_bytes(
    one: npt.NDArray[np.uint8],
    rows_of_one: npt.NDArray[np.int64],
    other: npt.NDArray[np.uint8],
    rows_of_other: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Count the equal bytes of the signatures of each pair of rows."""
    counts = np.zeros(len(rows_of_one), np.int64)
    for start in range(0, len(counts), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        counts[part] = (one[rows_of_one[part]] == other[rows_of_other[part]]).sum(axis=1)
    return counts


def estimate_similarity(equal_bytes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Estimate the Jaccard similarity of two texts from the equal bytes of their signatures."""
    return np.maximum(0.0, (equal_bytes / _HASHES - _CHANCE) / (1 - _CHANCE))


def _are_requests_near(
    signatures: Column,
    signed: npt.NDArray[np.int64],
    requests: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Mark the edges whose rows have equal requests, or long ones that are nearly equal."""
    near: npt.NDArray[np.bool_] = requests[edges[:, 0]] == requests[edges[:, 1]]
    long_enough = _is_signed(signatures)[signed[edges]].all(axis=1)
    compared = np.flatnonzero(~near & long_enough)
    rows, numbers = np.unique(signed[edges[compared]], return_inverse=True)
    matrix, numbers = read_signatures(signatures, rows), numbers.reshape(-1, 2)
    near[compared] = are_near(matrix, numbers[:, 0], matrix, numbers[:, 1])
    return near


def _choose_leaders(edges: npt.NDArray[np.int64]) -> dict[int, int]:
    """Choose a leader for every row that has one: the best near row that is itself led by none."""
    leads: dict[int, int] = {}
    # In ascending order of the later row, then of the earlier: every possible leader is decided before its members.
    for member, leader in edges.tolist():
        if member not in leads and leader not in leads:
            leads[member] = leader
    return leads


def _combine_chunks(column: Column) -> Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def hash_texts(texts: Array) -> list[bytes]:
    """Compute the digest of each *normalized* text: 16 bytes of BLAKE2b."""
    empty, digests = hashlib.blake2b(digest_size=16), []
    for text in values_of(texts.cast(pa.binary())):
        hashing = empty.copy()  # a third cheaper than a new one each
        hashing.update(text)
        digests.append(hashing.digest())
    return digests


def mark_repeated_rows(rows: pa.Table, keys: list[str], prefer_low: str | None = None) -> npt.NDArray[np.bool_]:
    """Mark rows with the same keys as a better row; the row that stays in each group is False.

    The best is of the most trusted source, then has the lowest `prefer_low`, then is the newest
    (`feedback_received_at`), then has the highest `feedback_event_id`: the order of the rows decides nothing.

    Args:
        rows: needs the keys and `source`, `is_attested`, `feedback_received_at`, `feedback_event_id`.
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
    deciding = [
        "source",
        "is_attested",
        "feedback_received_at",
        "feedback_event_id",
        *([prefer_low] if prefer_low else []),
    ]
    few = rows.select(deciding).take(contested)
    columns: dict[str, Any] = {
        "group": groups[contested],
        "trust": rank_senders(few),
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


def rank_by_trust(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Rank all rows, from 0, in the order by which `mark_repeated_rows` prefers them.

    Args:
        rows: needs `source`, `is_attested`, `feedback_received_at`, `feedback_event_id`.
    """
    columns: dict[str, Any] = {
        "trust": rank_senders(rows),
        "received": rows["feedback_received_at"],
        "event": rows["feedback_event_id"],
    }
    order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "descending") for name in columns])
    rank = np.empty(len(rows), np.int64)
    rank[order.to_numpy()] = np.arange(len(rows))
    return rank


REVIEWERS, PEOPLE, CLAIMED, IMPORTS = 3, 2, 1, 0
"""Ranks of trust: people are those whom a key or a token vouches for, or who came before keys did."""


def rank_senders(rows: pa.Table) -> npt.NDArray[np.int8]:
    """Return each row's rank of trust.

    Args:
        rows: needs `source` and `is_attested`.
    """
    trust = np.where(mark_claimed(rows), CLAIMED, PEOPLE).astype(np.int8)
    trust[to_mask(is_import(rows["source"]))] = IMPORTS
    trust[to_mask(pc.equal(rows["source"], pa.scalar(REVIEWER_SOURCE)))] = REVIEWERS
    return trust


def mark_claimed(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Mark the rows whose user and thread a key brought and does not vouch for."""
    claimed: npt.NDArray[np.bool_] = to_mask(pc.equal(rows["is_attested"], pa.scalar(False)).fill_null(False))
    return claimed


def is_import(sources: Column) -> Column:
    """Return whether each row came from an imported file and not from people using the application."""
    return pc.starts_with(sources, IMPORT_PREFIX)
