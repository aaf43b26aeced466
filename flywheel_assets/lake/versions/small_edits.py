"""The small edits that wait in gold, by what they replace: which of them people keep making."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.texts.waiting import compute_delta
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.records import Reason


@dataclass(frozen=True)
class RecurringDelta:
    """One change that small edits made, and by how many."""

    key: str
    rows: int
    subjects: int
    days: int
    example: str
    """Feedback event id of one row that made it."""


def most_frequent_deltas(lake: Lake, days: Iterable[date] | None = None, limit: int = 20) -> list[RecurringDelta]:
    """The deltas of gold that most subjects made, without any text."""
    columns = ["feedback_event_id", "completed_date", "subject", "held_reason", "support_key"]
    return ranked_deltas(lake.read(CURATED_DPO_PAIRS, days, columns), limit)


def ranked_deltas(gold: pa.Table, limit: int) -> list[RecurringDelta]:
    """The same for gold rows that were read already."""
    held = gold.filter(pc.fill_null(pc.equal(gold["held_reason"], Reason.TRIVIAL_EDIT.value), False))
    grouped = held.group_by("support_key").aggregate(
        [
            ("feedback_event_id", "count"),
            ("subject", "count_distinct"),
            ("completed_date", "count_distinct"),
            ("feedback_event_id", "min"),
        ]
    )
    found = [
        RecurringDelta(
            key=row["support_key"],
            rows=row["feedback_event_id_count"],
            subjects=row["subject_count_distinct"],
            days=row["completed_date_count_distinct"],
            example=row["feedback_event_id_min"],
        )
        for row in grouped.to_pylist()
    ]
    return sorted(found, key=lambda each: (-each.subjects, -each.rows, each.key))[:limit]


def replacements(lake: Lake, feedback_event_id: str) -> str:
    """What one held row replaced by what, for people: user text, so for terminals only."""
    gold = lake.read(CURATED_DPO_PAIRS, None, ["feedback_event_id", "held_reason", "chosen", "rejected"])
    mask = pc.and_(pc.equal(gold["feedback_event_id"], feedback_event_id), pc.is_valid(gold["held_reason"]))
    [row] = gold.filter(mask).slice(0, 1).to_pylist()
    return "; ".join(f"{' '.join(old)} → {' '.join(new)}" for old, new in compute_delta(row["rejected"], row["chosen"]))
