"""Records imports of history, and finds the days whose landed events have changed since they were ingested."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from flywheel_assets.lake.daily.ingest import select_raw_table
from flywheel_assets.lake.daily.ledger import find_stale_days, read_entries
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.tables.decisions import list_decisions, record_decision
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import HISTORY_IMPORTS, ApplicationTables


@dataclass(frozen=True)
class HistoryImport:
    """Records one audited decision to let history in: who, when, why, which file, which days."""

    id: str
    decided_at: datetime
    decided_by: str
    reason: str
    file: str
    events: int
    days: Mapping[EventKind, list[date]]
    reopened: Mapping[EventKind, list[date]]
    """Those of the days that were closed before."""

    def list_days(self) -> list[date]:
        """List the days of both kinds, ascending."""
        return sorted({day for days in self.days.values() for day in days})

    def list_reopened(self) -> list[date]:
        """List the days of which one kind or both were closed before, ascending."""
        return sorted({day for days in self.reopened.values() for day in days})


def record_history_import(lake: Lake, planned: HistoryImport) -> None:
    """Record an import before the first day changes.

    If the import is killed, the closings of the days say which of them have changed.
    """
    facts = {
        "file": planned.file,
        "events": planned.events,
        "days": _encode_days(planned.days),
        "reopened": _encode_days(planned.reopened),
    }
    who, reason = planned.decided_by, planned.reason
    record_decision(lake, HISTORY_IMPORTS, planned.id, who=who, reason=reason, now=planned.decided_at, **facts)


def list_history_imports(lake: Lake) -> list[HistoryImport]:
    """List every import of history there ever was, oldest first."""
    return [
        HistoryImport(**{**row, "days": _decode_days(row["days"]), "reopened": _decode_days(row["reopened"])})
        for row in list_decisions(lake, HISTORY_IMPORTS)
    ]


def clear_killed_imports(lake: Lake, landing: LandingPlace) -> None:
    """Delete what killed imports have left hidden in any day: it holds people's texts.

    The caller keeps imports and erasures away (`Lake.pause_daily_steps`).

    Raises:
        LandingError: S3 does not answer, or we may not delete there.
    """
    imports = list_history_imports(lake)
    for kind in EventKind:
        days = {day for each in imports for day in each.days.get(kind, [])}
        landing.open_zone(lake.application, kind).clear_unfinished(sorted(days))


def find_changed_days(lake: Lake, landing: LandingPlace, tables: ApplicationTables) -> dict[str, dict[date, str]]:
    """Find the closed days of the raw tables that hold something else than landing does now.

    Only an import of history or an erasure changes a closed day, and an erasure settles the accounts itself: so the
    days of imports are compared, and on S3 no other costs a request. An open day is provisional, and never among them.

    Returns:
        By raw table the days, ascending, with the content hash that landing has now.
    """
    imports = list_history_imports(lake)
    changed: dict[str, dict[date, str]] = {}
    for kind in EventKind:
        days = {day for each in imports for day in each.days.get(kind, [])}
        spec, zone = select_raw_table(kind, tables), landing.open_zone(lake.application, kind)
        found = {day: zone.look(day).content_hash for day in sorted(days)} if days else {}
        entries = read_entries(lake, spec.name, found) if found else {}
        changed[spec.name] = {
            day: content_hash
            for day, content_hash in found.items()
            if day in entries and entries[day].is_closed and entries[day].content_hash != content_hash
        }
    return changed


def find_days_to_redo(
    lake: Lake,
    landing: LandingPlace,
    tables: ApplicationTables,
    lookback_days: Mapping[str, Mapping[str, int]],
    start: date,
) -> dict[str, dict[date, list[str]]]:
    """Find the stale days of every daily table, with what has changed since they were made.

    Days of a raw table are stale when landing has changed. What reads them is stale with them, before they are redone.

    Args:
        lake: the application's tables.
        landing: of all applications.
        tables: of the application's kind.
        lookback_days: per derived table its inputs, with the days before D that its partition D reads; in data order.
        start: the application's first day.
    """
    changed: dict[str, Collection[date]] = {**find_changed_days(lake, landing, tables)}
    found = {name: {day: ["landing"] for day in days} for name, days in changed.items()}
    for asset, inputs in lookback_days.items():
        stale = find_stale_days(lake, asset, inputs, start)
        behind: list[date] = []
        if any(changed.get(name) for name in inputs):
            for day in read_entries(lake, asset):
                names = [
                    name
                    for name, reach in inputs.items()
                    if any(day - timedelta(days=reach) <= each <= day for each in changed.get(name, ()))
                ]
                if names:
                    stale[day] = sorted({*stale.get(day, []), *names})
                    behind.append(day)
        changed[asset] = behind
        found[asset] = dict(sorted(stale.items()))
    return found


def find_first_changed_day(changed: Mapping[str, Iterable[date]], last: date) -> date | None:
    """Find the first changed day up to `last`; None: there is none."""
    return min((day for days in changed.values() for day in days if day <= last), default=None)


def _encode_days(days: Mapping[EventKind, list[date]]) -> str:
    return json.dumps({kind.value: [day.isoformat() for day in found] for kind, found in days.items()})


def _decode_days(stored: str) -> dict[EventKind, list[date]]:
    return {EventKind(kind): [date.fromisoformat(day) for day in days] for kind, days in json.loads(stored).items()}
