"""Gold days written directly, for tests of what comes after curation."""

from datetime import date

from flywheel_assets.lake import ledger
from flywheel_assets.lake.ledger import LedgerEntry
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import make_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp


def write_gold(bench: Workbench, day: date, pairs: int, *, is_closed: bool = True, text: str = "") -> None:
    """One gold day with its ledger entry; a day written again with the same `text` holds the same pairs."""
    rows = [
        make_gold(
            completed_date=day,
            prediction_id=f"{day} {number}",
            feedback_event_id=f"{day} {number}",
            subject=f"user {day} {number}",
            prompt=f"prompt {day} {number}",
            chosen=f"chosen {day} {number} {text}",
            rejected=f"rejected {day} {number}",
        )
        for number in range(pairs)
    ]
    bench.write(CURATED_DPO_PAIRS, day, rows)
    entry = LedgerEntry(CURATED_DPO_PAIRS.name, day, is_closed, f"{day} {pairs} {text}", {}, pairs, pairs, {})
    ledger.record(bench.lake, [entry], stamp())
