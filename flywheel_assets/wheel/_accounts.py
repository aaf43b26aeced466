"""Sums the ledger for the page: rows by stage, reasons, days, and a bar per day or week.

The ledger is one small file: a year of days is read in some milliseconds, and no row of a table is.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from flywheel_assets.lake.daily.breaker import find_tripped_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import BREAKER_DAYS, GROUND_TRUTH, LEDGER, ApplicationTables

WEEK_DAYS = 7
MOST_DAILY_BARS = 45
"""Days up to which each has a bar of its own; more are shown by week."""
MOST_WEEKS = 53
LEAST_BARS = 14
"""Days that a chart has at least: the one day of a new flywheel is a bar, not a wall."""
_COLUMNS = ["asset", "day", "is_closed", "rows_in", "rows_kept", "rows_by_reason", "rows_held"]


@dataclass(frozen=True)
class Window:
    """One number today, in the last seven days, and over all days."""

    today: int
    week: int
    total: int


@dataclass(frozen=True)
class Stage:
    """Rows that one stage of the wheel kept."""

    title: str
    says: str
    rows: Window


@dataclass(frozen=True)
class Dropped:
    """Rows that a stage did not keep, for one reason."""

    stage: str
    reason: str
    rows: Window


@dataclass(frozen=True)
class Period:
    """One bar: the gold rows of a day or a week by their fate."""

    first: date
    last: date
    kept: int
    waiting: int
    refused: int

    @property
    def rows(self) -> int:
        """Return all rows."""
        return self.kept + self.waiting + self.refused


@dataclass(frozen=True)
class Days:
    """Counts gold's days by state."""

    closed: int
    open: int
    tripped: tuple[date, ...]
    missing: int
    """Days since the first one that could be closed and are not in gold."""
    last_closed: date | None


@dataclass(frozen=True)
class Accounts:
    """Everything that the page takes from the ledger."""

    stages: tuple[Stage, ...]
    dropped: tuple[Dropped, ...]
    waiting: int
    """Rows in gold that wait for other people's support."""
    days: Days
    periods: tuple[Period, ...]
    unbalanced: tuple[str, ...]
    """Partitions whose rows do not add up: asset and day."""


NO_ACCOUNTS = Accounts((), (), 0, Days(0, 0, (), 0, None), (), ())


@dataclass
class _Day:
    is_closed: bool
    rows_in: int
    kept: int
    held: int
    reasons: Mapping[str, int] = field(default_factory=dict)


def read_accounts(lake: Lake, tables: ApplicationTables, today: date, closable: date) -> Accounts:
    """Read the ledger once and sum it.

    Args:
        lake: the application's tables; the ledger exists.
        tables: of its kind of application.
        today: the UTC day of the page.
        closable: the newest day that may be closed by now.
    """
    days: dict[str, dict[date, _Day]] = {}
    for row in lake.read(LEDGER, columns=_COLUMNS).to_pylist():
        reasons = row["rows_by_reason"]
        days.setdefault(row["asset"], {})[row["day"]] = _Day(
            row["is_closed"],
            row["rows_in"],
            row["rows_kept"],
            row["rows_held"],
            {} if reasons == "{}" else json.loads(reasons),
        )
    gold = days.get(tables.gold.name, {})
    tripped = tuple(each.day for each in find_tripped_days(lake)) if lake.has_table(BREAKER_DAYS) else ()
    return Accounts(
        stages=tuple(_list_stages(days, tables, today)),
        dropped=tuple(_list_dropped(days, tables, today)),
        waiting=sum(each.held for each in gold.values()),
        days=_count_days(gold, tripped, closable),
        periods=tuple(_group(gold, today)),
        unbalanced=tuple(
            f"{asset} {day}"
            for asset, entries in days.items()
            for day, each in entries.items()
            if each.rows_in - each.kept - sum(each.reasons.values())
        ),
    )


def _list_stages(days: Mapping[str, Mapping[date, _Day]], tables: ApplicationTables, today: date) -> Iterable[Stage]:
    what = "answers" if tables.is_text else "scores"
    gold = "pairs and statements" if tables.is_text else "examples"
    for asset, title, says in (
        (tables.predictions.name, "Predictions", f"{what} that the model served"),
        (GROUND_TRUTH.name, "Feedback", "events about them"),
        (tables.joined.name, "Joined", "feedback that met its prediction"),
        (tables.gold.name, "Gold", f"{gold} that passed every check"),
    ):
        kept = {day: each.kept for day, each in days.get(asset, {}).items()}
        yield Stage(title, says, _sum(kept, today))


def _list_dropped(days: Mapping[str, Mapping[date, _Day]], tables: ApplicationTables, today: date) -> Iterable[Dropped]:
    for asset in (tables.predictions.name, GROUND_TRUTH.name, tables.joined.name, tables.gold.name):
        by_reason: dict[str, dict[date, int]] = {}
        for day, each in days.get(asset, {}).items():
            for reason, rows in each.reasons.items():
                by_reason.setdefault(reason, {})[day] = rows
        found = [Dropped(asset, reason, _sum(rows, today)) for reason, rows in by_reason.items()]
        yield from sorted(found, key=lambda each: (-each.rows.total, each.reason))


def _sum(rows: Mapping[date, int], today: date) -> Window:
    since = today - timedelta(days=WEEK_DAYS - 1)
    week = sum(number for day, number in rows.items() if since <= day <= today)
    return Window(rows.get(today, 0), week, sum(rows.values()))


def _count_days(gold: Mapping[date, _Day], tripped: Sequence[date], closable: date) -> Days:
    closed = [day for day, each in gold.items() if each.is_closed]
    missing = 0
    if gold:
        wanted = (closable - min(gold)).days + 1
        missing = max(0, wanted - sum(day <= closable for day in closed))
    return Days(
        closed=len(closed),
        open=len(gold) - len(closed),
        tripped=tuple(tripped),
        missing=missing,
        last_closed=max(closed, default=None),
    )


def _group(gold: Mapping[date, _Day], today: date) -> Iterable[Period]:
    """Yield the bars up to today, ascending; days without rows have one, too."""
    filled = [day for day, each in gold.items() if each.rows_in]
    if not filled:
        return
    last = max(max(filled), min(today, max(gold)))
    first = min(min(filled), last - timedelta(days=LEAST_BARS - 1))
    step = 1
    if (last - first).days >= MOST_DAILY_BARS:
        step = WEEK_DAYS
        first = max(first, last - timedelta(days=MOST_WEEKS * WEEK_DAYS - 1))
        first -= timedelta(days=first.weekday())
    totals: dict[int, Counter[str]] = {}
    for day, each in gold.items():
        if day < first or day > last:
            continue
        total = totals.setdefault((day - first).days // step, Counter())
        total.update(kept=each.kept, waiting=each.held, refused=sum(each.reasons.values()) - each.held)
    for number in range((last - first).days // step + 1):
        begin, total = first + timedelta(days=number * step), totals.get(number, Counter())
        yield Period(begin, begin + timedelta(days=step - 1), total["kept"], total["waiting"], total["refused"])
