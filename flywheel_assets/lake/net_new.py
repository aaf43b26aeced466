"""How much is new since the last successful training: what the training trigger counts.

The truth is in the lake, never in events: materializing a day twice, backfilling a past one or losing a sensor tick
changes nothing here. A pair is new when a version cut now would train on it and the last trained version did not.
"""

from dataclasses import dataclass
from datetime import date

from flywheel_assets.curation.resolution import ResolutionRules
from flywheel_assets.lake import ledger
from flywheel_assets.lake.exports import read_manifest
from flywheel_assets.lake.pair_versions import pair_ids_to_train_now, trained_pair_ids
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, EXCLUSIONS, LEDGER, Lake, TableSpec
from flywheel_assets.lake.versions import Versions


@dataclass(frozen=True)
class NetNew:
    """What a training now would add to the last successful one."""

    pairs: int
    partitions: int
    """Closed gold days that the last trained version did not cover."""
    since: str | None
    """The last successfully trained version."""
    is_exact: bool
    """False: Iceberg's metadata alone said that `pairs`, an upper bound, is too few."""


def lake_state(lake: Lake, versions: Versions, gold: TableSpec) -> str:
    """A word that changes whenever the count could: the snapshots of gold, ledger and exclusions, the last training."""
    snapshots = [lake.table(spec).current_snapshot() for spec in (gold, LEDGER, EXCLUSIONS)]
    trained = versions.last_trained()
    parts = [str(snapshot.snapshot_id) if snapshot else "empty" for snapshot in snapshots]
    return "/".join([*parts, trained.version if trained else "never"])


def count_net_new(lake: Lake, versions: Versions, rules: ResolutionRules, enough_pairs: int) -> NetNew:
    """Count new training pairs and new closed partitions.

    Iceberg's metadata is asked first: while gold has fewer rows than `enough_pairs` in all, no row is read and `pairs`
    is that upper bound.
    """
    trained = versions.last_trained()
    entries = ledger.entries_of(lake, CURATED_DPO_PAIRS.name)
    closed = {day: entry.content_hash for day, entry in entries.items() if entry.is_closed}
    covered = set(map(date.fromisoformat, read_manifest(trained.export).days)) if trained else set()
    # A day without a row is no partition of the table, however closed it is.
    partitions = sum(1 for day in closed if day not in covered and entries[day].rows_kept)
    since = trained.version if trained else None
    rows_at_most = _total_rows(lake)
    if rows_at_most < enough_pairs:
        return NetNew(rows_at_most, partitions, since, is_exact=False)
    known = trained_pair_ids(trained) if trained else set()
    return NetNew(len(pair_ids_to_train_now(lake, rules, closed) - known), partitions, since, is_exact=True)


def _total_rows(lake: Lake) -> int:
    snapshot = lake.table(CURATED_DPO_PAIRS).current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return 0
    return int(snapshot.summary["total-records"] or 0)
