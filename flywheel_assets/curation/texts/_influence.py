"""Limits the share of one voice, sender or prompt in a version, and of claims that few people repeat.

About 250 poisoned rows plant a behaviour whatever the size of the training set, so that a share alone does not protect;
and a fixed number alone would be most of a small set. Every cap is both. A relative cap is a share of the rows *or four
even shares*, whichever is more: in an office of three each brings a third.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import to_mask
from flywheel_assets.curation.likeness.duplicates import is_import
from flywheel_assets.curation.likeness.novelty import count_spread, join_added
from flywheel_assets.curation.texts.voices import FEWEST_USERS
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind

EVEN_SHARES = 4
"""This many times an even share, the rows that each would bring if all brought the same."""

_Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.int64]


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


@dataclass(frozen=True)
class ClaimLimits:
    """Limits the rows that say the same new words, by who says them."""

    pairs_of_one: int
    """So many pairs of one voice with the same new words need a second one."""
    newcomer_days: int
    """A person is new for so long after their first row."""
    ratio_of_person: float
    """Share of all pairs that the repetitions of one person may have in one claim."""
    ratio_of_newcomers: float
    """The same for all newcomers of one time together, as for what a crowd says and people do not."""
    most_of_person: int
    """Pairs of one person that count for the whole of which these are shares."""


_WIDE_SHARE = 0.25
"""What so many of all people say is the house's language, and no claim."""
_LEAST_REPETITIONS, _LEAST_OF_NEWCOMERS = 3, 20
"""In small sets the shares are of nearly nothing."""
_CROWD_FACTOR = 2.0
"""A crowd may say something so many times as often as people who are vouched for."""


def mark_claims(keys: pa.Table, limits: ClaimLimits) -> _Mask:
    """Mark pairs that repeat new words more than those who say them account for.

    A claim is a word, or two neighbouring words, that edits add. In this order, for each:

    - What a reviewer said too, or a quarter of all people, is no claim.
    - People support it: each who has been here for `newcomer_days` as one, and all who first came within so many days
      of each other and said it at once as one together. (Each person of the first `newcomer_days` counts, and each new
      one where nearly all are new.) With one supporter, `pairs_of_one` pairs or more leave, all of them.
    - Else the first pair of each person stays, and of the repetitions `ratio_of_person` of all pairs for each person,
      `ratio_of_newcomers` for newcomers of one time together.
    - A crowd gives no support. Its pairs stay up to `ratio_of_newcomers`, or twice as often as people say the same.

    Args:
        keys: needs `example_kind`, `source`, `pair_id`, `added_ngrams`, `added_words`, and of `resolution` `voice`,
            `is_person`, `received_day`, `first_day`, `last_day` and `reputation`.
        limits: see there.
    """
    found = np.zeros(len(keys), dtype=bool)
    is_reviewer = to_mask(pc.equal(keys["source"], pa.scalar(REVIEWER_SOURCE)))
    is_person = to_mask(keys["is_person"])
    live = ~is_reviewer & ~to_mask(is_import(keys["source"]))
    voice = keys["voice"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    people = np.unique(voice[is_person & live])
    if len(people) < FEWEST_USERS:
        return found
    speaking = live & to_mask(pc.equal(keys["example_kind"], pa.scalar(ExampleKind.PREFERENCE_PAIR.value)))
    added = join_added(keys)
    said = count_spread(pc.if_else(pa.array(speaking), added, None), voice)
    reviewed = count_spread(pc.if_else(pa.array(is_reviewer), added, None), voice).hashes
    are_new, crowds = _are_new(keys, live, limits), len(np.unique(voice[~is_person & live]))
    heavy = (said.rows >= limits.pairs_of_one) & ~np.isin(said.hashes, reviewed)
    # Most words are everyone's, or seldom repeated: to group these as well would be half of the time.
    heavy &= said.voices < _WIDE_SHARE * len(people) + 2 + crowds
    if are_new:
        heavy &= (said.voices < 2) | (said.rows - said.voices > _LEAST_REPETITIONS)
    entries = heavy[said.of_entry]
    if not entries.any():
        return found
    claim, row = said.of_entry[entries], said.row_of_entry[entries]
    spoken = _Spoken.group_entries(claim, row, voice, keys, limits.newcomer_days)
    whole = int(np.minimum(np.bincount(voice[speaking & is_person]), limits.most_of_person).sum())
    of_crowds = int((speaking & ~is_person).sum())
    spoken.mark_beyond(found, limits, whole, of_crowds, len(people), are_new)
    return found


def _are_new(keys: pa.Table, live: _Mask, limits: ClaimLimits) -> bool:
    """Return whether fewer than `FEWEST_USERS` people have been here for longer than a newcomer is new."""
    days = keys["last_day"].to_numpy() - keys["first_day"].to_numpy()
    stayed = live & to_mask(keys["is_person"]) & (days >= limits.newcomer_days)
    return int(pc.count_distinct(keys["voice"].filter(pa.array(stayed))).as_py()) < FEWEST_USERS


@dataclass(frozen=True)
class _Spoken:
    """Holds the rows that make claims, as entries grouped by claim and voice."""

    row: _Numbers
    """Of each entry; the entries of a group are together, the lowest `pair_id` first."""
    group: _Numbers
    """Of each entry."""
    place: _Numbers
    """Of each entry: its row's place by `pair_id`."""
    claim: _Numbers
    """Of each group, from 0 without gaps, ascending."""
    pairs: _Numbers
    """Of each group: its entries."""
    is_person: _Mask
    """Of each group."""
    is_new: _Mask
    """Of each group: a person who said it soon after their first row."""
    is_early: _Mask
    """Of each group: one of those, who was there in the first `newcomer_days` of all.

    What an office corrects in its first week is its language, although it knew no person of its own before.
    """
    first_day: _Numbers
    """Of each group: the day of its voice's first row."""
    reputation: npt.NDArray[np.float64]
    """Of each group."""

    @classmethod
    def group_entries(cls, claim: _Numbers, row: _Numbers, voice: _Numbers, keys: pa.Table, newcomer_days: int) -> Self:
        """Group entries by claim and voice."""
        place = np.empty(len(keys), np.int64)
        place[pc.sort_indices(keys["pair_id"].combine_chunks()).to_numpy()] = np.arange(len(keys))
        order = np.lexsort((place[row], voice[row], claim))
        claim, row = claim[order], row[order]
        begins = np.ones(len(row), dtype=bool)
        begins[1:] = (claim[1:] != claim[:-1]) | (voice[row[1:]] != voice[row[:-1]])
        starts = np.flatnonzero(begins)
        lead = row[starts]
        is_person, first_day = to_mask(keys["is_person"])[lead], keys["first_day"].to_numpy()[lead]
        said_on = np.minimum.reduceat(keys["received_day"].to_numpy()[row], starts)
        is_new = is_person & (said_on - first_day < newcomer_days)
        return cls(
            row=row,
            group=np.cumsum(begins) - 1,
            place=place[row],
            claim=np.unique(claim[starts], return_inverse=True)[1].reshape(-1),
            pairs=np.diff(np.append(starts, len(row))),
            is_person=is_person,
            is_new=is_new,
            is_early=is_new & (first_day - keys["first_day"].to_numpy().min() < newcomer_days),
            first_day=first_day,
            reputation=keys["reputation"].to_numpy()[lead],
        )

    def mark_beyond(
        self, found: _Mask, limits: ClaimLimits, whole: int, of_crowds: int, people: int, are_new: bool
    ) -> None:
        """Mark in `found` the rows that leave.

        Args:
            found: of all rows.
            limits: see `mark_claims`.
            whole: pairs of people, of which the limits are shares.
            of_crowds: pairs of crowds.
            people: distinct people of any row.
            are_new: nearly all people are newcomers.
        """
        settled = self.is_person & ~self.is_new
        old, new = self._sum(settled), self._sum(self.is_new)
        times = self._count_times(limits.newcomer_days)
        early = self._sum(self.is_early)
        supporters = old + (new if are_new else early + np.where(new > early, times, 0))
        by_people = self._sum(self.is_person, self.pairs)
        is_wide = old + new >= max(_WIDE_SHARE * people, 2)
        alone = ~is_wide & (supporters < 2) & (by_people >= limits.pairs_of_one)
        found[self.row[(alone[self.claim] & self.is_person)[self.group]]] = True

        # Of the other pairs: who sends more of a claim must not get a larger share for it.
        others = whole - np.minimum(by_people, whole)
        of_person = np.maximum(_LEAST_REPETITIONS, limits.ratio_of_person * others)
        of_newcomers = np.maximum(_LEAST_OF_NEWCOMERS, limits.ratio_of_newcomers * others)
        first = np.ones(len(self.row), dtype=bool)
        first[1:] = self.group[1:] != self.group[:-1]
        for members, most in (
            (settled, of_person * self._sum(settled, self.reputation)),
            (self.is_new, np.minimum(of_person * self._sum(self.is_new, self.reputation), of_newcomers) * times),
        ):
            beyond = ~is_wide & (self._sum(members, self.pairs - 1) > most)
            self._mark_last(found, ~first & (beyond[self.claim] & members)[self.group], most)
        share = by_people / max(1, whole)
        most = np.maximum(np.maximum(limits.pairs_of_one - 1, of_newcomers / 2), _CROWD_FACTOR * share * of_crowds)
        beyond = self._sum(~self.is_person, self.pairs) > most
        self._mark_last(found, (beyond[self.claim] & ~self.is_person)[self.group], most)

    def _sum(self, members: _Mask, values: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float64]:
        """Sum up, or count, the member groups of each claim."""
        weights = members.astype(np.float64) if values is None else np.where(members, values, 0).astype(np.float64)
        sums: npt.NDArray[np.float64] = np.bincount(self.claim, weights=weights).astype(np.float64)
        return sums

    def _count_times(self, newcomer_days: int) -> npt.NDArray[np.float64]:
        """Count for each claim the times in which its newcomers first came, each of `newcomer_days`."""
        claims = int(self.claim[-1]) + 1
        earliest, latest = np.full(claims, np.iinfo(np.int64).max), np.full(claims, np.iinfo(np.int64).min)
        np.minimum.at(earliest, self.claim[self.is_new], self.first_day[self.is_new])
        np.maximum.at(latest, self.claim[self.is_new], self.first_day[self.is_new])
        span = np.where(latest >= earliest, latest - np.minimum(earliest, latest), 0)
        return 1.0 + span // newcomer_days

    def _mark_last(self, found: _Mask, entries: _Mask, most: npt.NDArray[np.float64]) -> None:
        """Mark the rows of entries beyond the `most` of their claim with the lowest `pair_id`."""
        chosen = np.flatnonzero(entries)
        if not len(chosen):
            return
        claim = self.claim[self.group[chosen]]
        order = np.lexsort((self.place[chosen], claim))
        ordered = claim[order]
        starts = np.concatenate(([0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1))
        rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
        found[self.row[chosen[order[rank >= np.floor(most[ordered])]]]] = True
