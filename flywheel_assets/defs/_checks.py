"""Checks the assets: no row vanishes, no day is stale, every version agrees with its manifest."""

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.presentation import OPERATOR_FINDINGS, build_numbers_table
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.breaker import JudgedDay, find_tripped_days
from flywheel_assets.lake.daily.ledger import audit_accounts, describe_discrepancies
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, TableSpec
from flywheel_assets.lake.versions.verification import verify_versions


def build_daily_checks(application: FlywheelApplication) -> Sequence[dg.AssetChecksDefinition]:
    """Build the checks of the four daily tables.

    Each covers all days, since a check in a range run has no partition.
    """
    tables = (application.tables.predictions, GROUND_TRUTH, application.tables.joined, application.tables.gold)
    return [
        *(_build_accounts_check(application.name, spec) for spec in tables),
        *(
            _build_freshness_check(application.name, application.start_date, asset, lookback)
            for asset, lookback in application.staleness_lookback_days.items()
        ),
    ]


def _build_accounts_check(application: str, spec: TableSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[application, spec.name],
        name=f"{spec.name}_rows_are_accounted_for",
        description="On every partition kept and dropped rows add up to the input, in the ledger and in the tables.",
        blocking=True,
    )
    def rows_are_accounted_for(stores: Stores) -> dg.AssetCheckResult:
        accounts = audit_accounts(stores.lake(application), spec)
        return dg.AssetCheckResult(
            passed=not accounts.discrepancies,
            description=describe_discrepancies(accounts.discrepancies) or f"{accounts.days} days add up",
            metadata={"days": accounts.days, "rows_in": accounts.rows_in, "rows_kept": accounts.rows_kept},
        )

    return rows_are_accounted_for


def _build_freshness_check(
    application: str, start: date, asset: str, lookback_days: Mapping[str, int]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[application, asset],
        name=f"{asset}_days_are_fresh",
        description="No input of a materialized day has changed since. `flywheel stale` lists the stale days.",
    )
    def days_are_fresh(stores: Stores) -> dg.AssetCheckResult:
        stale = ledger.find_stale_days(stores.lake(application), asset, lookback_days, start)
        shown = ", ".join(f"{day} ({', '.join(names)})" for day, names in list(stale.items())[:5])
        return dg.AssetCheckResult(
            passed=not stale,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(stale)} days to materialize again: {shown}" if stale else "every day is fresh",
            metadata={"stale_days": len(stale)},
        )

    return days_are_fresh


def build_breaker_check(application: FlywheelApplication) -> dg.AssetChecksDefinition:
    """Build the check of the batch breaker over all days."""

    @dg.asset_check(
        asset=[application.name, application.tables.gold.name],
        # Not blocking: a tripped day has no rows in gold, and must not stop the days that have some.
        description="Every closed day is within the limits. `flywheel breaker reset DAY` admits a tripped day.",
    )
    def no_day_tripped_the_breaker(stores: Stores) -> dg.AssetCheckResult:
        tripped = find_tripped_days(stores.lake(application.name))
        rows = [
            [each.day.isoformat(), trip.rule, trip.value, trip.limit, each.figures.rows, " ".join(trip.examples)]
            for each in tripped
            for trip in each.figures.trips
        ]
        header = ["day", "rule", "value", "limit", "joined rows", "feedback events, for instance"]
        shown = "; ".join(f"{each.day}: {each.figures.describe()}" for each in tripped[:3])
        if tripped and not application.tables.is_text:
            shown += f". {_advise_reset(application.name, tripped[0])}"
        return dg.AssetCheckResult(
            passed=not tripped,
            description=f"{len(tripped)} days kept out of gold: {shown}" if tripped else "every day is within bounds",
            metadata={"tripped_days": len(tripped), "figures": build_numbers_table(header, rows)},
        )

    return no_day_tripped_the_breaker


def _advise_reset(application: str, tripped: JudgedDay) -> str:
    """Write the commands that show one of the day's labels, and that let the day in if they are right."""
    event = next((event for trip in tripped.figures.trips for event in trip.examples), "EVENT")
    return (
        f"Look: `flywheel trace {event} --application {application}`; if its labels are right: `flywheel breaker reset "
        f'{tripped.day} --application {application} --reason "…" --yes`, then `flywheel backfill {tripped.day} '
        f"{tripped.day} --application {application}`"
    )


def build_operator_text_check(application: FlywheelApplication) -> dg.AssetChecksDefinition:
    """Build the check of the team's own prompts, on the day that was curated last."""
    gold = dg.AssetKey([application.name, application.tables.gold.name])

    @dg.asset_check(
        asset=gold,
        description="The policy has no objection to the team's own system prompts. No row is refused for one.",
    )
    def operator_texts_are_clean(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        event = context.instance.get_latest_materialization_event(gold)
        materialization = event.asset_materialization if event else None
        metadata = materialization.metadata if materialization else {}
        value = metadata[OPERATOR_FINDINGS].value if OPERATOR_FINDINGS in metadata else 0
        findings = value if isinstance(value, int) else 0
        shown = f"{findings} system prompts have findings: see `operator_texts` of the day's materialization"
        return dg.AssetCheckResult(
            passed=not findings,
            severity=dg.AssetCheckSeverity.WARN,
            description=shown if findings else "no finding",
            metadata={OPERATOR_FINDINGS: findings},
        )

    return operator_texts_are_clean


def build_version_checks(application: FlywheelApplication) -> Sequence[dg.AssetChecksDefinition]:
    """Build the checks of the gold versions."""

    @dg.asset_check(
        asset=[application.name, "gold_snapshot"],
        # Not blocking: trainer and evaluation verify their inputs, and a damaged old version must not stop a new one.
        description="Every gold version's files, tag and rows agree with its manifest, as `flywheel verify` checks.",
    )
    def exports_match_their_manifests(stores: Stores) -> dg.AssetCheckResult:
        lake, versions = stores.lake(application.name), stores.versions(application.name)
        found = verify_versions(lake, versions, application.tables.gold)
        return dg.AssetCheckResult(
            passed=not found.differences,
            description="; ".join(found.differences[:3]),
            metadata={"versions": found.versions, "differences": len(found.differences)},
        )

    return [exports_match_their_manifests]
