"""The ledger's sums are those of the days."""

from datetime import timedelta
from pathlib import Path

from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, PREFERENCE_TABLES
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets.wheel._accounts import LEAST_BARS, MOST_DAILY_BARS, Accounts, Window, read_accounts
from flywheel_assets_tests.lake.workbench import stamp
from flywheel_assets_tests.wheel.homes import FIRST

GOLD = PREFERENCE_TABLES.gold.name


def entry(day: int, rows_in: int, kept: int, reasons: dict[str, int], held: int = 0, **more: object) -> LedgerEntry:
    given = {"asset": GOLD, "is_closed": True, **more}
    return LedgerEntry(  # type: ignore[arg-type]
        day=FIRST + timedelta(days=day),
        content_hash=f"{day}",
        input_hashes={},
        rows_in=rows_in,
        rows_kept=kept,
        rows_by_reason=reasons,
        rows_held=held,
        **given,
    )


def read(tmp_path: Path, entries: list[LedgerEntry], today: int, closable: int) -> Accounts:
    lake = Stores(isolate_settings(tmp_path)).lake("assistant")
    ledger.record_entries(lake, entries, stamp())
    first = FIRST
    return read_accounts(lake, PREFERENCE_TABLES, first + timedelta(days=today), first + timedelta(days=closable))


def test_rows_days_and_reasons_add_up(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        [
            entry(0, 10, 6, {"duplicate": 3, "unsupported_fact": 1}, held=1),
            entry(8, 5, 5, {}),
            entry(9, 4, 2, {"duplicate": 1}, is_closed=False),
            entry(9, 7, 7, {}, asset=GROUND_TRUTH.name, is_closed=False),
        ],
        today=9,
        closable=8,
    )
    assert [(each.title, each.rows) for each in found.stages if each.rows.total] == [
        ("Feedback", Window(7, 7, 7)),
        ("Gold", Window(2, 7, 13)),
    ]
    assert [(each.reason, each.rows) for each in found.dropped] == [
        ("duplicate", Window(1, 1, 4)),
        ("unsupported_fact", Window(0, 0, 1)),
    ]
    assert (found.days.closed, found.days.open, found.days.missing) == (2, 1, 7)
    assert found.waiting == 1
    assert found.unbalanced == (f"{GOLD} 2026-01-10",)
    assert [(bar.kept, bar.waiting, bar.refused) for bar in found.periods if bar.rows] == [
        (6, 1, 3),
        (5, 0, 0),
        (2, 0, 1),
    ]
    assert len(found.periods) == LEAST_BARS


def test_many_days_are_shown_by_week_from_a_monday(tmp_path: Path) -> None:
    days = MOST_DAILY_BARS + 1
    found = read(tmp_path, [entry(day, 2, 2, {}) for day in range(days)], today=days - 1, closable=days - 2)
    assert {(bar.last - bar.first).days for bar in found.periods} == {6}
    assert {bar.first.weekday() for bar in found.periods} == {0}
    assert sum(bar.kept for bar in found.periods) == 2 * days
