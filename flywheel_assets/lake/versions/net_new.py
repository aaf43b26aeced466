"""How much is new since the last successful training: what the training trigger counts.

The truth is in the lake, never in events: materializing a day twice, backfilling a past one or losing a sensor tick
changes nothing here. A pair is new when a version cut now would train on it and the last trained version did not.

Rows are read only where the accounts of the days leave it open. A pair that the last version did not train on is on a
day that is new or changed since, or was dropped by that version; whatever else it held out or accepted stays so while
the rules do. So the rows of those days plus those dropped are an upper bound, and below the threshold it is enough.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import ClosedDay
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS, LEDGER, TableSpec
from flywheel_assets.lake.versions.exclusions import in_force
from flywheel_assets.lake.versions.exports import Manifest, read_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import pair_ids_to_train_now, trained_pair_ids
from flywheel_assets.records import Reason

_NEVER_TRAINED_ON = (Reason.NOT_SAMPLED.value, Reason.EXCLUDED.value)
"""Dropped for good, while rules and exclusions are the same: accepted outputs, and what people took out."""


@dataclass(frozen=True)
class NetNew:
    """What a training now would add to the last successful one."""

    pairs: int
    partitions: int
    """Closed gold days that the last trained version did not cover."""
    since: str | None
    """The last successfully trained version."""
    is_exact: bool
    """False: the accounts of the days alone said that `pairs`, an upper bound, is too few."""


def lake_state(lake: Lake, versions: Versions, gold: TableSpec) -> str:
    """A word that changes whenever the count could: the snapshots of gold, ledger and exclusions, the last training."""
    return "/".join([*(_head(lake, spec) for spec in (gold, LEDGER, EXCLUSIONS)), _last_trained(versions)])


def lake_content(lake: Lake, versions: Versions, gold: TableSpec) -> str:
    """What the count is a function of, and nothing else: closed days, exclusions, the last training.

    A daily run moves the snapshots six times, and a day materialized again to the same content does, too; neither
    changes this, so that rows are read once.
    """
    return "/".join([ledger.closed_content(lake, gold.name), _head(lake, EXCLUSIONS), _last_trained(versions)])


def _head(lake: Lake, spec: TableSpec) -> str:
    snapshot = lake.load_table(spec).current_snapshot()
    return str(snapshot.snapshot_id) if snapshot else "empty"


def _last_trained(versions: Versions) -> str:
    trained = versions.last_trained()
    return trained.version if trained else "never"


def count_net_new(lake: Lake, versions: Versions, rules: ResolutionRules, enough_pairs: int) -> NetNew:
    """Count new training pairs and new closed partitions.

    While the upper bound at the top of this module is below `enough_pairs`, no row is read and `pairs` is that bound.
    """
    trained = versions.last_trained()
    manifest = read_manifest(trained.export) if trained else None
    closed = ledger.closed_accounts(lake, CURATED_DPO_PAIRS.name)
    covered = manifest.days if manifest else {}
    # A day without a row is no partition of the table, however closed it is.
    partitions = sum(1 for day, each in closed.items() if each.rows_kept and day.isoformat() not in covered)
    since = trained.version if trained else None
    at_most = _pairs_at_most(lake, manifest, rules, closed)
    if at_most < enough_pairs:
        return NetNew(at_most, partitions, since, is_exact=False)
    known = trained_pair_ids(trained) if trained else set()
    return NetNew(len(pair_ids_to_train_now(lake, rules, closed) - known), partitions, since, is_exact=True)


def _pairs_at_most(
    lake: Lake, trained: Manifest | None, rules: ResolutionRules, closed: Mapping[date, ClosedDay]
) -> int:
    fresh = fresh_days(lake, trained, asdict(rules), closed)
    dropped = trained.dropped if trained else {}
    return sum(each.rows_kept + each.rows_held for each in fresh.values()) + sum(
        rows for reason, rows in dropped.items() if reason not in _NEVER_TRAINED_ON
    )


def fresh_days(
    lake: Lake, trained: Manifest | None, rules: Mapping[str, Any], closed: Mapping[date, ClosedDay]
) -> dict[date, ClosedDay]:
    """The days that are new or hold something else since; all of them when rules or exclusions have changed.

    Args:
        lake: the application's tables.
        trained: of the last trained version; None: there is none.
        rules: by which a version cut now would resolve, as it would record them.
        closed: every closed gold day.
    """
    if trained is None or not _decides_as_now(lake, trained, rules):
        return dict(closed)
    return {day: each for day, each in closed.items() if trained.days.get(day.isoformat()) != each.content_hash}


def _decides_as_now(lake: Lake, trained: Manifest, rules: Mapping[str, Any]) -> bool:
    # A manifest's rules went through JSON, which knows no tuples.
    as_recorded = json.loads(json.dumps(rules))
    return trained.rules == as_recorded and set(trained.exclusions) == {each.id for each in in_force(lake)}
