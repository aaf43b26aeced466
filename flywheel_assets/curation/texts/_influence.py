"""Limits the share of one user, source or prompt in a version, and finds claims of one user only.

About 250 poisoned rows plant a behaviour whatever the size of the training set, so that a share alone does not protect;
and a fixed number alone would be most of a small set. Every cap is both. A relative cap is a share of the rows *or four
even shares*, whichever is more: in an office of three each brings a third.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import to_mask
from flywheel_assets.curation.likeness.duplicates import is_import
from flywheel_assets.curation.likeness.novelty import count_spread
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind, SubjectKind

EVEN_SHARES = 4
"""This many times an even share, the rows that each would bring if all brought the same."""
FEWEST_USERS = 10
"""With fewer signed-in users in gold a claim needs no second user: there may be no other user to make it."""

_Mask = npt.NDArray[np.bool_]


def rank_by_pair_id(keys: pa.Table, group_by: list[str], members: _Mask) -> npt.NDArray[np.int64]:
    """Rank each member within its group by `pair_id`, from 0; rows that are no members get 0.

    `pair_id` is a hash, so this order is as good as random, and a higher cap keeps everything that a lower one kept.
    """
    ranks = np.zeros(len(keys), dtype=np.int64)
    rows = np.flatnonzero(members)
    if len(rows) == 0:
        return ranks
    columns = [*group_by, "pair_id"]
    few = keys.select(columns).take(rows)
    order = pc.sort_indices(few, sort_keys=[(name, "ascending") for name in columns]).to_numpy()
    ordered = few.select(group_by).take(pa.array(order))
    begins = np.zeros(len(rows), dtype=bool)
    begins[0] = True
    for name in group_by:
        column = ordered[name].combine_chunks()
        begins[1:] |= to_mask(pc.not_equal(column[1:], column[:-1]))
    positions = np.arange(len(rows))
    ranks[rows[order]] = positions - np.maximum.accumulate(np.where(begins, positions, 0))
    return ranks


def mark_beyond_share(keys: pa.Table, group: str, members: _Mask, ratio: float, least: int) -> _Mask:
    """Mark members beyond their group's share, per kind of example; `pair_id` decides which ones.

    Args:
        keys: needs `is_accepted`, `pair_id` and the column `group`.
        group: whose rows are one share.
        members: the rows that are capped; only they make the whole.
        ratio: the share; four even shares where that is more.
        least: rows that every group may bring whatever its share.
    """
    is_accepted, ranks = to_mask(keys["is_accepted"]), rank_by_pair_id(keys, ["is_accepted", group], members)
    limits = np.zeros(len(keys))
    for kind in (members & is_accepted, members & ~is_accepted):
        rows = int(kind.sum())
        groups = max(1, pc.count_distinct(keys[group].filter(pa.array(kind))).as_py())
        limits[kind] = max(least, ratio * rows, EVEN_SHARES * rows / groups)
    return members & (ranks >= limits)


def mark_unsupported_claims(keys: pa.Table, pairs_of_one_user: int) -> _Mask:
    """Mark pairs of users that add words which only their own user adds, in that many pairs or more.

    Two users who add the same two neighbouring words support each other, wherever in the text they are. A row of a
    reviewer is support enough. Rows of people who are not signed in neither give support, since a thread costs nothing
    to open, nor do they need it: `anonymous_cap_per_source` is for them. Imports likewise.

    Args:
        keys: needs `example_kind`, `subject`, `subject_kind`, `source`, `added_ngrams`.
        pairs_of_one_user: so many pairs of one user with the same new words need a second user.
    """
    is_reviewer = to_mask(pc.equal(keys["source"], pa.scalar(REVIEWER_SOURCE)))
    is_user = to_mask(pc.equal(keys["subject_kind"], pa.scalar(SubjectKind.USER.value))) & ~to_mask(
        is_import(keys["source"])
    )
    users = is_user & ~is_reviewer
    found = np.zeros(len(keys), dtype=bool)
    if pc.count_distinct(keys["subject"].filter(pa.array(users))).as_py() < FEWEST_USERS:
        return found
    speaking = users & to_mask(pc.equal(keys["example_kind"], pa.scalar(ExampleKind.PREFERENCE_PAIR.value)))
    voices = keys["subject"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    said = count_spread(pc.if_else(pa.array(speaking), keys["added_ngrams"].combine_chunks(), None), voices)
    reviewed = count_spread(pc.if_else(pa.array(is_reviewer), keys["added_ngrams"].combine_chunks(), None), voices)
    alone = (said.rows >= pairs_of_one_user) & (said.voices < 2) & ~np.isin(said.hashes, reviewed.hashes)
    found[said.row_of_entry[alone[said.of_entry]]] = True
    return found
