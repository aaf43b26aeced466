"""Tells whom each row of feedback counts for: a person who is vouched for, or the crowd behind one key.

Anyone who can send may claim a `user_id`, a `thread_id` and a `source`. So a row is a person's own only where the
sender's key, or a token that the product signed, vouches for the person. All that is merely claimed through one key is
one voice, however many names it uses. See docs/adr/0050.

Rows from before keys vouched, from a service without keys, and from imported files count as they always did: their user
ids are people, and their source is the sender.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, Column, to_mask
from flywheel_assets.curation.likeness.duplicates import is_import, mark_claimed
from flywheel_assets.records import REVIEWER_SOURCE, SubjectKind

VOICE_KEYS = ("subject", "subject_kind", "source", "attested_source", "is_attested")
"""Columns of joined feedback, and of gold, that tell whom a row counts for."""
FEWEST_USERS = 10
"""With fewer people who are vouched for there are too few to compare claims with: claimed user ids then count as
people, and a claim needs no second one. An installation whose pages send no tokens works as before, unprotected."""


@dataclass(frozen=True)
class Voices:
    """Tells whom each row counts for, one value per row."""

    name: Array
    """Of the voice: `u:<subject>` of a person, `c:<sender>` of a crowd."""
    sender: Array
    """By the key; where no key vouched, the event's source."""
    is_person: npt.NDArray[np.bool_]
    """Whether the voice is one person."""

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Return a number for each row's voice."""
        numbers: npt.NDArray[np.int64] = self.name.dictionary_encode().indices.to_numpy().astype(np.int64)
        return numbers


def identify_voices(rows: pa.Table) -> Voices:
    """Identify the voice of every row.

    Args:
        rows: needs VOICE_KEYS.
    """
    is_user = to_mask(pc.equal(rows["subject_kind"], pa.scalar(SubjectKind.USER.value)))
    is_person = is_user & ~mark_claimed(rows)
    if is_user.any() and not is_person.all() and count_people(rows, is_person) < FEWEST_USERS:
        is_person = is_user
    sender = pc.coalesce(rows["attested_source"], rows["source"])
    named, prefix = (
        pc.if_else(pa.array(is_person), rows["subject"], sender),
        pc.if_else(pa.array(is_person), "u:", "c:"),
    )
    name = pc.binary_join_element_wise(prefix, _combine(named), "")
    return Voices(_combine(name), _combine(sender), is_person)


def count_people(rows: pa.Table, is_person: npt.NDArray[np.bool_]) -> int:
    """Count the distinct people of live feedback; imports and reviewers aside."""
    counted = is_person & ~to_mask(is_import(rows["source"]))
    counted &= ~to_mask(pc.equal(rows["source"], pa.scalar(REVIEWER_SOURCE)))
    return int(pc.count_distinct(rows["subject"].filter(pa.array(counted))).as_py())


def _combine(column: Column) -> Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
