"""Gold days written directly, for tests of what comes after curation."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import make_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp, write_day


def write_gold(bench: Workbench, day: date, pairs: int, *, is_closed: bool = True, text: str = "") -> None:
    """One gold day with its ledger entry; a day written again with the same `text` holds the same pairs."""
    write_gold_days(bench.lake, {day: pairs}, is_closed=is_closed, text=text)


def write_gold_days(lake: Lake, pairs: Mapping[date, int], *, is_closed: bool = True, text: str = "") -> None:
    """Several gold days with their ledger entries, each day by itself."""
    for day, number in pairs.items():
        write_day(lake, CURATED_DPO_PAIRS, day, [gold_row(day, each, text) for each in range(number)])
        content = f"{day} {number} {text}"
        entry = LedgerEntry(CURATED_DPO_PAIRS.name, day, is_closed, content, {}, number, number, {})
        ledger.record_entries(lake, [entry], stamp())


def gold_row(day: date, number: int, text: str = "") -> dict[str, Any]:
    """The pair of this number on this day, of a user of its own."""
    return make_gold(
        completed_date=day,
        prediction_id=f"{day} {number}",
        feedback_event_id=f"{day} {number}",
        subject=f"user {day} {number}",
        prompt=f"prompt {day} {number}",
        chosen=f"chosen {day} {number} {text}",
        rejected=f"rejected {day} {number}",
    )


def gold(on: date, number: int = 1) -> list[dict[str, Any]]:
    """Rows of a gold day, each of another prediction."""
    return [make_gold(completed_date=on) for _ in range(number)]
