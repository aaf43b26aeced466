"""Nothing vanishes: kept + dropped = input for every partition, checked against the tables themselves.

The ledger says what each asset believes it did. Here its word is compared with what Iceberg holds, by metadata alone,
so that the check of all partitions costs about as much as the check of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from flywheel_assets.lake.daily.ledger import entries_of
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    CURATED_DPO_PAIRS,
    GROUND_TRUTH,
    HARD_EXAMPLES,
    JOINED_FEEDBACK,
    QUARANTINE,
    RAW_PREDICTIONS,
    TableSpec,
)
from flywheel_assets.records import CURATION_STAGE, Reason

# Counted in the ledger only: a duplicate's first receipt is kept, a waiting row is still in the raw table, what was
# rolled back is under the tag of the old head.
NOT_QUARANTINED = {
    Reason.DUPLICATE_EVENT.value,
    Reason.ERASED.value,
    Reason.TRIMMED.value,
    Reason.WAITING_FOR_PREDICTION.value,
    Reason.ROLLED_BACK.value,
    Reason.LABELLED.value,
    Reason.BLOCKED.value,
    Reason.NOT_SAMPLED.value,
}
STAGE_OF = {
    RAW_PREDICTIONS.name: RAW_PREDICTIONS.name,
    GROUND_TRUTH.name: GROUND_TRUTH.name,
    JOINED_FEEDBACK.name: JOINED_FEEDBACK.name,
    CURATED_DPO_PAIRS.name: CURATION_STAGE,
    HARD_EXAMPLES.name: HARD_EXAMPLES.name,
}


@dataclass(frozen=True)
class Discrepancy:
    """One partition whose rows do not add up."""

    day: date
    what: str


@dataclass(frozen=True)
class Accounts:
    """The accounts of one asset over all its days."""

    days: int
    rows_in: int
    rows_kept: int
    discrepancies: tuple[Discrepancy, ...]


def audit_accounts(lake: Lake, spec: TableSpec) -> Accounts:
    """Compare each day's ledger entry with the rows in its partition and in quarantine, and with itself."""
    entries = entries_of(lake, spec.name)
    kept = lake.count_rows_per_day(spec)
    refused = lake.count_rows_per_day(QUARANTINE, STAGE_OF[spec.name])
    found: list[Discrepancy] = []
    for day, entry in entries.items():
        quarantined = sum(rows for reason, rows in entry.rows_by_reason.items() if reason not in NOT_QUARANTINED)
        in_table, in_quarantine = kept.get(day, 0), refused.get(day, 0)
        if entry.balance:
            not_kept = sum(entry.rows_by_reason.values())
            found.append(Discrepancy(day, f"{entry.rows_in} in, {entry.rows_kept} kept, {not_kept} not kept"))
        if in_table != entry.rows_kept + entry.rows_held:
            held = f" and {entry.rows_held} held" if entry.rows_held else ""
            found.append(Discrepancy(day, f"the ledger says {entry.rows_kept} kept{held}, the table holds {in_table}"))
        if in_quarantine != quarantined:
            found.append(Discrepancy(day, f"the ledger says {quarantined} refused, quarantine holds {in_quarantine}"))
    unknown = sorted(set(kept) - set(entries))
    found.extend(Discrepancy(day, f"{kept[day]} rows without a ledger entry") for day in unknown)
    return Accounts(
        days=len(entries),
        rows_in=sum(entry.rows_in for entry in entries.values()),
        rows_kept=sum(entry.rows_kept for entry in entries.values()),
        discrepancies=tuple(found),
    )


def describe(discrepancies: Sequence[Discrepancy], limit: int = 5) -> str:
    """The first few discrepancies in one sentence."""
    shown = "; ".join(f"{each.day}: {each.what}" for each in discrepancies[:limit])
    more = len(discrepancies) - limit
    return shown + (f"; and {more} more" if more > 0 else "")
