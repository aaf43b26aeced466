"""Records the breaker's findings on every day, and the days that people let in again.

A reset is a decision about rows that a person looked at: it names the content of the day's joined rows, and holds for
no other. It changes no table by itself; an ordinary backfill curates the day again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets import records
from flywheel_assets.curation.labels.label_breaker import LabelFigures
from flywheel_assets.curation.texts.breaker import BreakerLimits, DayFigures
from flywheel_assets.curation.trips import Trip
from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.decisions import list_decisions, make_decision_id, record_decision
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import BREAKER_DAYS, BREAKER_RESETS


@dataclass(frozen=True)
class JudgedDay:
    """Holds the breaker's judgement on one closed day."""

    day: date
    joined_hash: str
    figures: DayFigures | LabelFigures
    is_reset: bool
    """A person had let these rows in when the day was curated."""
    recorded_at: datetime

    @property
    def is_tripped(self) -> bool:
        """Nothing of the day is in gold."""
        return self.is_kept_out and not self.held_rows

    @property
    def is_kept_out(self) -> bool:
        """Rows of the day are kept out of gold: all, or those of the senders behind its trips."""
        return bool(self.figures.trips) and not self.is_reset

    @property
    def held_rows(self) -> int:
        """Rows of the senders behind the trips of a day that goes on without them."""
        return (self.figures.held_rows or 0) if isinstance(self.figures, DayFigures) else 0


@dataclass(frozen=True)
class Reset:
    """Records one audited decision to let a tripped day in."""

    id: str
    day: date
    joined_hash: str
    decided_at: datetime
    decided_by: str
    reason: str


_NOT_OF_LABELS = {"subjects": 0, "flagged_ratio": 0.0, "top_user_ratio": 0.0, "concentrated_rows": 0}
"""Columns that were there before labels were judged, and hold a number."""


def list_trailing_rows(joined: dict[date, LedgerEntry], day: date, limits: BreakerLimits) -> list[int]:
    """List the joined rows of each closed day among the `trailing_days` before `day`, from the ledger alone."""
    before = (joined.get(day - timedelta(days=number)) for number in range(limits.trailing_days, 0, -1))
    return [entry.rows_kept for entry in before if entry is not None and entry.is_closed]


def record_judged_days(lake: Lake, days: Sequence[JudgedDay], forgotten: Sequence[date], stamp: RunStamp) -> None:
    """Write judgements in place of those of the same days; `forgotten` days were not judged this time."""
    fresh = pa.Table.from_pylist(
        [
            {
                "day": each.day,
                "joined_hash": each.joined_hash,
                **_NOT_OF_LABELS,
                **{name: value for name, value in asdict(each.figures).items() if name != "trips"},
                "trips": json.dumps([asdict(trip) for trip in each.figures.trips]),
                "is_reset": each.is_reset,
                "recorded_at": each.recorded_at,
            }
            for each in days
        ],
        schema=records.BREAKER_DAYS,
    )
    replaced = pa.array([*(each.day for each in days), *forgotten], pa.date32())

    def merge(existing: pa.Table) -> pa.Table:
        others = existing.filter(pc.invert(pc.is_in(existing["day"], replaced)))
        return pa.concat_tables([others, fresh.cast(others.schema)]).sort_by("day")

    lake.replace_all(BREAKER_DAYS, merge, stamp.properties)


def read_judged_days(lake: Lake, where: str = "true", snapshot_id: int | None = None) -> list[JudgedDay]:
    """Read every judged day, oldest first; `where` is SQL over the table."""
    return [
        JudgedDay(
            day=row["day"],
            joined_hash=row["joined_hash"],
            figures=_read_figures(row),
            is_reset=row["is_reset"],
            recorded_at=row["recorded_at"],
        )
        for row in lake.read(BREAKER_DAYS, where=where, snapshot_id=snapshot_id).sort_by("day").to_pylist()
    ]


def _read_figures(row: Mapping[str, Any]) -> DayFigures | LabelFigures:
    trips = tuple(
        Trip(trip["rule"], trip["value"], trip["limit"], tuple(trip["examples"])) for trip in json.loads(row["trips"])
    )
    kind: type[DayFigures | LabelFigures] = DayFigures if row["positives"] is None else LabelFigures
    return kind(**{each.name: row[each.name] for each in fields(kind) if each.name != "trips"}, trips=trips)


def find_tripped_days(lake: Lake, snapshot_id: int | None = None) -> list[JudgedDay]:
    """Find the days that are kept out of gold, oldest first, now or as of a snapshot of `breaker_days`."""
    # A sensor asks every minute: only the few that tripped are read, of however many days.
    judged = read_judged_days(lake, "trips <> '[]' AND NOT is_reset", snapshot_id)
    return [each for each in judged if each.is_tripped]


def find_kept_out_days(lake: Lake) -> list[JudgedDay]:
    """Find the days of which all rows, or those of some senders, are kept out of gold, oldest first."""
    return [each for each in read_judged_days(lake, "trips <> '[]' AND NOT is_reset") if each.is_kept_out]


def reset_day(lake: Lake, day: date, *, who: str, reason: str, now: datetime) -> Reset:
    """Let the rows of a tripped day in, or those of its held senders, from its next curation on.

    Raises:
        UnknownNameError: the breaker keeps nothing of such a day out.
        InvalidRuleError: the person or the reason is missing: a decision that cannot be audited is none.
    """
    if not who.strip() or not reason.strip():
        raise InvalidRuleError(f"a reset is kept for the audit: it needs who decides and why, got {who!r}, {reason!r}")
    tripped = {each.day.isoformat(): each for each in find_kept_out_days(lake)}
    if day.isoformat() not in tripped:
        raise UnknownNameError("tripped day", day.isoformat(), tripped, "`flywheel breaker list` shows all of them.")
    found = tripped[day.isoformat()]
    decision = make_decision_id(lake, "breaker reset", day.isoformat(), found.joined_hash)
    facts = {"day": day, "joined_hash": found.joined_hash}
    record_decision(lake, BREAKER_RESETS, decision, who=who, reason=reason, now=now, **facts)
    return next(each for each in list_resets(lake) if each.id == decision)


def list_resets(lake: Lake) -> list[Reset]:
    """List every reset there ever was, oldest first."""
    return [Reset(**row) for row in list_decisions(lake, BREAKER_RESETS)]
