"""Counts the pairs that are new since the last successful training, for the training trigger.

The count comes from the lake, never from events: to materialize a day twice, to backfill a past one or to lose a
sensor tick changes nothing here. A pair is new when a version cut now would train on it and the last trained version
did not.

Rows are read only where the accounts of the days do not decide. A pair that the last version did not train on is on a
day that is new or changed since, or was dropped by that version; its other held-out or accepted rows stay so while the
rules do. So the rows of those days plus those dropped are an upper bound, and below the threshold it is enough. Mere
statements are in neither number: they change which examples count, and every example is in one of the two.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import ClosedDay
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS, LEDGER, TableSpec
from flywheel_assets.lake.versions.exclusions import list_exclusions_in_force
from flywheel_assets.lake.versions.exports import Manifest, read_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import (
    JUDGED_BY,
    find_pair_ids_to_train,
    read_trained_pair_ids,
    read_untrainable_pair_ids,
)
from flywheel_assets.lake.versions.trainability import UNTRAINABLE_REASONS
from flywheel_assets.records import Reason

_NEVER_TRAINED_ON = (Reason.NOT_SAMPLED.value, Reason.EXCLUDED.value, Reason.STATEMENT.value)
"""Dropped for good, while rules and exclusions are the same: accepted outputs, excluded rows, and rows without an
example. Rows that the tokenizer refused are that too, while the same tokenizer and settings judge them."""


@dataclass(frozen=True)
class NetNew:
    """Counts the pairs that a training now would add to the last successful one."""

    pairs: int
    partitions: int
    """Closed gold days that the last trained version did not cover."""
    since: str | None
    """The last successfully trained version."""
    is_exact: bool
    """False: `pairs` is an upper bound, from the accounts of the days alone, and too few."""


def fingerprint_state(lake: Lake, versions: Versions, gold: TableSpec) -> str:
    """Return a fingerprint that changes whenever the count may have changed.

    It names the snapshots of gold, ledger and exclusions, and the last training.
    """
    return "/".join([*(_read_head(lake, spec) for spec in (gold, LEDGER, EXCLUSIONS)), _name_last_trained(versions)])


def fingerprint_content(lake: Lake, versions: Versions, gold: TableSpec) -> str:
    """Return a fingerprint of everything that the count reads: closed days, exclusions, the last training.

    A daily run moves the snapshots six times, and so does a day that is materialized again with equal rows. Neither
    changes this fingerprint, so that rows are read once.
    """
    return "/".join(
        [ledger.hash_closed_days(lake, gold.name), _read_head(lake, EXCLUSIONS), _name_last_trained(versions)]
    )


def _read_head(lake: Lake, spec: TableSpec) -> str:
    snapshot = lake.load_table(spec).current_snapshot()
    return str(snapshot.snapshot_id) if snapshot else "empty"


def _name_last_trained(versions: Versions) -> str:
    trained = versions.find_last_trained()
    return trained.version if trained else "never"


def count_net_new(
    lake: Lake,
    versions: Versions,
    rules: ResolutionRules,
    enough_pairs: int,
    judged_by: Mapping[str, Any] | None = None,
) -> NetNew:
    """Count new training pairs and new closed partitions.

    While the upper bound at the top of this module is below `enough_pairs`, no row is read and `pairs` is that bound.
    Rows that the tokenizer refused count as new once `judged_by` is not what judged them: another base model, or a
    mended chat template, may take them.
    """
    trained = versions.find_last_trained()
    manifest = read_manifest(trained.export) if trained else None
    closed = ledger.read_closed_accounts(lake, CURATED_DPO_PAIRS.name)
    covered = manifest.days if manifest else {}
    # A day without a row is no partition of the table, however closed it is.
    partitions = sum(1 for day, each in closed.items() if each.rows_kept and day.isoformat() not in covered)
    since = trained.version if trained else None
    is_judged = manifest is not None and manifest.details.get(JUDGED_BY) == judged_by
    at_most = _bound_pairs(lake, manifest, rules, closed, UNTRAINABLE_REASONS if is_judged else ())
    if at_most < enough_pairs:
        return NetNew(at_most, partitions, since, is_exact=False)
    known = read_trained_pair_ids(trained) if trained else set()
    if trained and is_judged:
        known |= read_untrainable_pair_ids(trained)
    return NetNew(len(find_pair_ids_to_train(lake, rules, closed) - known), partitions, since, is_exact=True)


def _bound_pairs(
    lake: Lake,
    trained: Manifest | None,
    rules: ResolutionRules,
    closed: Mapping[date, ClosedDay],
    refused: Sequence[str],
) -> int:
    fresh = find_fresh_days(lake, trained, rules.describe(), closed)
    dropped = trained.dropped if trained else {}
    return sum(each.rows_kept + each.rows_held for each in fresh.values()) + sum(
        rows for reason, rows in dropped.items() if reason not in (*_NEVER_TRAINED_ON, *refused)
    )


def find_fresh_days(
    lake: Lake, trained: Manifest | None, rules: Mapping[str, Any], closed: Mapping[date, ClosedDay]
) -> dict[date, ClosedDay]:
    """Find the days that are new or changed since; all of them when rules or exclusions have changed.

    Args:
        lake: the application's tables.
        trained: the manifest of the last trained version; None: there is none.
        rules: of a version that is cut now, as its manifest would record them.
        closed: every closed gold day.
    """
    if trained is None or not _has_same_rules(lake, trained, rules):
        return dict(closed)
    return {day: each for day, each in closed.items() if trained.days.get(day.isoformat()) != each.content_hash}


def _has_same_rules(lake: Lake, trained: Manifest, rules: Mapping[str, Any]) -> bool:
    # A manifest's rules were written as JSON, which has no tuples.
    as_recorded = json.loads(json.dumps(rules))
    return trained.rules == as_recorded and set(trained.exclusions) == {
        each.id for each in list_exclusions_in_force(lake)
    }
