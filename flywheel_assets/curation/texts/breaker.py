"""The batch breaker keeps an unusual day out of gold until a person has looked.

Row checks see one row, caps see one user; a flood, a raid and a repeated claim show only in the day as a whole. All
rates are per interaction (joined row), never per edit: as the model improves there is less to edit, and the edits that
remain are increasingly those of vandals.

A day is judged by its own joined rows and by *how many* joined rows the days before had, never by what was curated of
them: a tripped day must neither hide from the baseline nor move the verdict on another, and days are curated in any
order. Small days are not judged at all (`min_rows`): one user of four is a quarter of everything.

Where a few senders are behind it, their rows are held, and the day goes on without them (`hold_senders`): else one
account could keep every day out of gold. The day as a whole is kept out only where no few senders are behind it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge

from flywheel_assets.curation.arrow import Array, ChunkedArray, to_mask, values_of
from flywheel_assets.curation.likeness.duplicates import is_import, mark_claimed
from flywheel_assets.curation.likeness.novelty import count_spread, join_added
from flywheel_assets.curation.texts.gate import Curated, withhold
from flywheel_assets.curation.texts.voices import identify_voices
from flywheel_assets.curation.trips import MOST_EXAMPLES, Trip
from flywheel_assets.ranges import Checked, Count, Share
from flywheel_assets.records import ExampleKind, Reason, SubjectKind

HOSTILE = frozenset(
    reason.value
    for reason in (
        Reason.SECRET,
        Reason.PROMPT_INJECTION,
        Reason.TOXIC_LANGUAGE,
        Reason.NEUTRALITY,
        Reason.DESTRUCTIVE_COMMAND,
        Reason.STRUCTURAL_ABUSE,
        Reason.CLASSIFIER,
        Reason.JUDGE,
        Reason.POLICY,
    )
)
"""Reason codes that count as flagged. Mail addresses are the daily bread of a mail assistant, changed facts of a
newsroom, and a judge that cannot be reached is an outage: none of them is a sign of an attack."""


_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class BreakerLimits(Checked):
    """The limits of a normal day; a value equal to its limit is within."""

    min_rows: Count = 200
    """Days with fewer joined rows are not judged; also the least that a trailing median counts as."""
    max_flagged_ratio: Share = 0.20
    """Share of joined rows that a hostile policy reason refused."""
    max_top_user_ratio: Share = 0.25
    """Share of joined rows from one signed-in user, or four times an even share where that is more."""
    max_burst_factor: Annotated[float, Ge(1)] = 5.0
    """Joined rows, without imports, over the trailing median."""
    trailing_days: Count = 28
    """Days before D whose median is taken."""
    min_trailing_days: Count = 7
    """Closed days among them; with fewer (the first weeks) no burst is judged."""
    few_subjects: Count = 3
    """So many subjects are few, at most one in ten of the day's; or one in a hundred, where that is more. The rows of
    at most so many senders are held for one cause, too."""
    max_concentrated_rows: Count = 100
    """Pairs that add the same word, or two words, and come from few subjects; or `max_concentrated_ratio`, if more."""
    max_concentrated_ratio: Share = 0.005
    """The same as a share of joined rows."""
    min_rows_per_subject: Annotated[float, Ge(1)] = 2.0
    """Rows that each of the few must have given on average: 130 of 16,000 people who say one thing once are no raid."""

    def _check_together(self) -> None:
        if self.min_trailing_days > self.trailing_days:
            never = f"{self.min_trailing_days} of {self.trailing_days} trailing days can never be there"
            raise self.build_range_error("min_trailing_days", self.min_trailing_days, f"at most trailing_days: {never}")


@dataclass(frozen=True)
class DayFigures:
    """The breaker's measurements of one day, and the limits that the day is beyond."""

    rows: int
    subjects: int
    flagged_ratio: float
    top_user_ratio: float
    trailing_median_rows: float | None
    """None: fewer than `min_trailing_days` closed days before."""
    concentrated_rows: int
    trips: tuple[Trip, ...]
    held_rows: int | None = None
    """Rows of the senders behind the trips, without whom the day is within the limits; None: the day is kept out."""

    def describe(self) -> str:
        """Describe the limits that the day is beyond."""
        return "; ".join(trip.describe() for trip in self.trips)


def inspect_day(joined: pa.Table, curated: Curated, trailing_rows: Sequence[int], limits: BreakerLimits) -> DayFigures:
    """Measure one day and compare it with the limits.

    Args:
        joined: JOINED_FEEDBACK of the day.
        curated: the edit gate's result for it.
        trailing_rows: joined rows of each closed day among the `trailing_days` before, empty days included.
        limits: of the application.
    """
    rows, names = joined.num_rows, _name_senders(joined)
    subjects = pc.count_distinct(names).as_py()
    flagged = curated.refused.filter(pc.is_in(curated.refused["reason"], pa.array(sorted(HOSTILE))))
    is_user = pa.array(to_mask(pc.equal(joined["subject_kind"], pa.scalar(SubjectKind.USER.value))))
    of_users, users_of = joined.filter(is_user), names.filter(is_user)
    # Ties go to the lower name, so that the order of rows decides nothing.
    top_user, top_rows = min(
        Counter(values_of(users_of)).items(), key=lambda item: (-item[1], item[0]), default=("", 0)
    )
    users = pc.count_distinct(users_of).as_py()
    concentrated_rows, claimants = _count_concentrated(
        curated, _count_few(subjects, limits), limits.min_rows_per_subject
    )
    typical = median(trailing_rows) if len(trailing_rows) >= limits.min_trailing_days else None
    trips = []

    def hold(rule: str, value: float, limit: float, event_ids: ChunkedArray) -> None:
        if rows >= limits.min_rows and value > limit:
            trips.append(Trip(rule, value, limit, tuple(sorted(values_of(event_ids))[:MOST_EXAMPLES])))

    flagged_ratio = flagged.num_rows / rows if rows else 0.0
    top_user_ratio = top_rows / rows if rows else 0.0
    hold("flagged_share", flagged_ratio, limits.max_flagged_ratio, flagged["row_id"])
    hold(
        "top_user_share",
        top_user_ratio,
        max(limits.max_top_user_ratio, 4 / max(1, users)),
        of_users.filter(pc.equal(users_of, pa.scalar(top_user)))["feedback_event_id"],
    )
    if typical is not None:
        # An import of old telemetry is an operator's act, whatever its size.
        live = joined.filter(pc.invert(is_import(joined["source"])))["feedback_event_id"]
        hold("burst", len(live) / max(typical, limits.min_rows), limits.max_burst_factor, live)
    most = max(limits.max_concentrated_rows, limits.max_concentrated_ratio * rows)
    hold("concentrated_claim", concentrated_rows, most, claimants)
    return DayFigures(rows, subjects, flagged_ratio, top_user_ratio, typical, concentrated_rows, tuple(trips))


@dataclass(frozen=True)
class HeldSenders:
    """Holds the senders behind a day's trips, and what the day is with and without them."""

    figures: DayFigures
    """Of the whole day; `held_rows` where the day goes on."""
    event_ids: Array
    """Of the senders' feedback; empty where the day does not trip, or is kept out as a whole."""


def hold_senders(
    joined: pa.Table, curated: Curated, trailing_rows: Sequence[int], limits: BreakerLimits
) -> HeldSenders:
    """Measure one day, and find the few senders without whom it is within the limits.

    A sender is a person who is vouched for, or who a key merely claims they are; where a share of the day is hostile,
    all that one key claims is one sender. Of a sender all rows of the day are held.

    Args:
        joined: see `inspect_day`.
        curated: see `inspect_day`.
        trailing_rows: see `inspect_day`.
        limits: see `inspect_day`.
    """
    whole = figures = inspect_day(joined, curated, trailing_rows, limits)
    nothing = HeldSenders(whole, pa.array([], pa.string()))
    if not whole.trips:
        return nothing
    names, voices = _name_senders(joined), identify_voices(joined).name
    left, rest = np.ones(len(joined), dtype=bool), curated
    while figures.trips:
        behind = _find_behind(figures.trips[0], joined, rest, names, voices, left, limits)
        left &= ~behind
        senders = pc.count_distinct(names.filter(pa.array(~left))).as_py()
        crowds = pc.count_distinct(voices.filter(pa.array(~left))).as_py()
        if not behind.any() or left.sum() < limits.min_rows or min(senders, crowds) > _MOST_HELD:
            return nothing
        event_ids = joined["feedback_event_id"].filter(pa.array(~left)).combine_chunks()
        rest = withhold(curated, Reason.SENDER_HELD, "", "", event_ids)
        rest = replace(rest, refused=_drop_refused(rest.refused, event_ids))
        figures = inspect_day(joined.filter(pa.array(left)), rest, trailing_rows, limits)
    return HeldSenders(replace(whole, held_rows=len(event_ids)), event_ids)


_EVEN_SHARES = 4
_MOST_HELD = 10
"""Senders of a day whose rows are held; of more the day is kept out, because that is no longer a few."""


def _name_senders(rows: pa.Table) -> Array:
    """Name the person of every row; a merely claimed one is another than the person of that name."""
    subject, sender = rows["subject"], pc.coalesce(rows["attested_source"], rows["source"])
    suffix = pc.if_else(pa.array(mark_claimed(rows)), sender, "")
    joined: ChunkedArray = pc.binary_join_element_wise(subject, suffix, "\n")
    return joined.combine_chunks()


def _drop_refused(refused: pa.Table, event_ids: Array) -> pa.Table:
    return refused.filter(pc.invert(pc.is_in(refused["row_id"], event_ids)))


def _find_behind(
    trip: Trip, joined: pa.Table, rest: Curated, names: Array, voices: Array, left: _Mask, limits: BreakerLimits
) -> _Mask:
    """Mark the rows of the few senders that are most behind one trip; none where no row is anyone's."""
    of, few = names, max(1, _count_few(int(pc.count_distinct(names).as_py()), limits))
    match trip.rule:
        case "concentrated_claim":
            claimants = values_of(_count_concentrated(rest, few, limits.min_rows_per_subject)[1])
            involved = _mark_events(joined, claimants)
        case "top_user_share":
            involved = _mark_events(joined, trip.examples)
        case "flagged_share":
            hostile = pc.is_in(rest.refused["reason"], pa.array(sorted(HOSTILE)))
            involved, of = _mark_events(joined, values_of(rest.refused["row_id"].filter(hostile))), voices
        case _:
            involved = ~to_mask(is_import(joined["source"]))
    counts = Counter(values_of(of.filter(pa.array(involved & left))))
    if trip.rule in ("burst", "flagged_share"):
        # Who sent no more than others is not behind a day that is larger or more hostile than others.
        even_share = left.sum() / max(1, pc.count_distinct(of.filter(pa.array(left))).as_py())
        counts = Counter({name: rows for name, rows in counts.items() if rows > _EVEN_SHARES * even_share})
    # Ties go to the lower name, so that the order of rows decides nothing.
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:few]
    return left & to_mask(pc.is_in(of, pa.array([name for name, _ in most], pa.string())))


def _mark_events(joined: pa.Table, event_ids: Sequence[str]) -> _Mask:
    return to_mask(pc.is_in(joined["feedback_event_id"], pa.array(event_ids, pa.string())))


def _count_few(subjects: int, limits: BreakerLimits) -> int:
    # In a small office everything comes from few.
    return max(min(limits.few_subjects, subjects // 10), subjects // 100)


def _count_concentrated(curated: Curated, few: int, rows_per_subject: float) -> tuple[int, ChunkedArray]:
    """Count the most rows that add the same word, or pair of words, and come from at most `few` subjects.

    Also returns these rows' event ids. Rows that the gate refused do no harm and are not looked at. Of equal rows of
    one subject one is counted: sending an event again presses nothing. Neither are comparisons: both of their texts are
    a model's, and whole answers share words wherever few people compare.
    """
    pairs = _select_distinct_edits(pa.concat_tables([curated.kept, curated.waiting]))
    voices = _name_senders(pairs).dictionary_encode().indices.to_numpy().astype(np.int64)
    spread = count_spread(join_added(pairs), voices)
    is_pressed = (spread.voices <= few) & (spread.rows >= rows_per_subject * spread.voices)
    among_few = np.where(is_pressed, spread.rows, 0)
    if not among_few.any():
        return 0, pairs["feedback_event_id"].slice(0, 0)
    worst = int(among_few.argmax())
    claimants = spread.row_of_entry[spread.of_entry == worst]
    return int(among_few[worst]), pairs["feedback_event_id"].take(pa.array(claimants))


def _select_distinct_edits(examples: pa.Table) -> pa.Table:
    columns = ["feedback_event_id", "subject", "content_hash", "added_ngrams", "added_words"]
    columns += ["source", "attested_source", "is_attested"]
    edits = examples.filter(pc.equal(examples["example_kind"], pa.scalar(ExampleKind.PREFERENCE_PAIR.value)))
    pairs = edits.select(columns).sort_by("feedback_event_id")
    numbered = pairs.append_column("row", pa.array(np.arange(len(pairs))))
    first = numbered.group_by(["content_hash", "subject"]).aggregate([("row", "min")])["row_min"]
    return pairs.take(np.sort(first.to_numpy()))
