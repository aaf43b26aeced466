"""Exact duplicates of normalized texts: hashes of whole columns, and which row of each group stays."""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.trust import source_trust


def text_hashes(prompt: pa.Array, chosen: pa.Array) -> tuple[pa.Array, pa.Array]:
    """(prompt_hash, content_hash) of *normalized* texts: 32 hex characters of BLAKE2b each.

    The content hash covers prompt and chosen; the prompt's digest in front of the chosen text keeps the border between
    the two unambiguous.
    """
    prompt_hashes, content_hashes = [], []
    for prompt_text, chosen_text in zip(prompt.to_pylist(), chosen.to_pylist(), strict=True):
        digest = hashlib.blake2b(prompt_text.encode(), digest_size=16)
        prompt_hashes.append(digest.hexdigest())
        content_hashes.append(hashlib.blake2b(digest.digest() + chosen_text.encode(), digest_size=16).hexdigest())
    return pa.array(prompt_hashes, pa.string()), pa.array(content_hashes, pa.string())


def repeated_rows(rows: pa.Table, keys: list[str]) -> npt.NDArray[np.bool_]:
    """Where a better row with the same keys exists; the row that stays in each group is False.

    The best is of the most trusted source, then the newest (`feedback_received_at`), then the highest
    `feedback_event_id`, so that the answer does not depend on the order of the rows.

    Args:
        rows: needs the keys and `source`, `feedback_received_at`, `feedback_event_id`.
        keys: columns without nulls that make two rows the same.
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
    few = rows.take(pa.array(contested))
    ranking = pa.table(
        {
            "group": groups[contested],
            "trust": source_trust(few["source"]),
            "received": few["feedback_received_at"],
            "event": few["feedback_event_id"],
        }
    )
    order = pc.sort_indices(
        ranking,
        sort_keys=[
            ("group", "ascending"),
            ("trust", "descending"),
            ("received", "descending"),
            ("event", "descending"),
        ],
    ).to_numpy()
    ranked_groups = groups[contested][order]
    is_first = np.concatenate(([True], ranked_groups[1:] != ranked_groups[:-1]))
    repeated[contested[order]] = ~is_first
    return repeated
