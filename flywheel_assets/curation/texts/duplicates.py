"""Exact duplicates of normalized texts: hashes of whole columns, and which row of each group stays."""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.texts.trust import source_trust


def text_hashes(prompt: pa.Array, chosen: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(prompt_hash, content_hash) of *normalized* texts: 32 hex characters of BLAKE2b each.

    The content hash covers prompt and chosen; the prompt's digest between the two keeps their border unambiguous.
    """
    prompt_hashes, content_hashes = [], []
    empty = hashlib.blake2b(digest_size=16)
    prompts, texts = prompt.cast(pa.binary()).to_pylist(), chosen.cast(pa.binary()).to_pylist()
    for prompt_bytes, chosen_bytes in zip(prompts, texts, strict=True):
        hashing = empty.copy()  # a third cheaper than a new one each
        hashing.update(prompt_bytes)
        digest = hashing.digest()
        prompt_hashes.append(digest.hex())
        hashing.update(digest + chosen_bytes)
        content_hashes.append(hashing.hexdigest())
    return pa.array(prompt_hashes, pa.string()), pa.array(content_hashes, pa.string())


def repeated_rows(rows: pa.Table, keys: list[str], prefer_low: str | None = None) -> npt.NDArray[np.bool_]:
    """Where a better row with the same keys exists; the row that stays in each group is False.

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
        codes = pc.dictionary_encode(rows[key].combine_chunks())
        groups = groups * max(1, len(codes.dictionary)) + codes.indices.to_numpy()
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    contested = np.flatnonzero(sizes[groups] > 1)
    if len(contested) == 0:
        return repeated
    # The deciding columns only: `take` of a text column of more than 2 GB overflows Arrow's 32-bit offsets.
    deciding = ["source", "feedback_received_at", "feedback_event_id", *([prefer_low] if prefer_low else [])]
    few = rows.select(deciding).take(pa.array(contested))
    ranking = pa.table(
        {
            "group": groups[contested],
            "trust": source_trust(few["source"]),
            "received": few["feedback_received_at"],
            "preferred": few[prefer_low] if prefer_low else np.zeros(len(few), dtype=bool),
            "event": few["feedback_event_id"],
        }
    )
    order = pc.sort_indices(
        ranking,
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
