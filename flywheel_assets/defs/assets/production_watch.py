"""Watches an assistant's model in production against its predecessor, and fails a check where it is worse."""

from collections import defaultdict
from datetime import date

import dagster as dg

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.defs.failures import classify_failures
from flywheel_assets.defs.partitions import GROUP
from flywheel_assets.defs.presentation import Point, build_numbers_table, embed_small_plot
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily.arm_users import WatchReport, find_versions_on_last_day, watch_versions
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import JOINED_FEEDBACK, RAW_PREDICTIONS
from flywheel_assets.measures.live_arms import ArmVerdict, WatchLimits

PRODUCTION_WATCH = "production_watch"
_CHECK = "current_model_is_not_worse"
_ALONE = "one model version serves: without a share of people on its predecessor there is nothing to compare"
_HEADER = ("rate", "current less predecessor", "at least", "at most", "verdict", "decides")


def build_production_watch_asset(application: PreferenceApplication, limits: WatchLimits) -> dg.AssetsDefinition:
    """Build `production_watch`: the two models that serve, compared on the same days. The daily report job makes it.

    Its check fails where the current model is proven to be worse than its predecessor.
    """

    @dg.asset(
        name=PRODUCTION_WATCH,
        key_prefix=application.name,
        group_name=GROUP.format(application.name, "analytics"),
        owners=application.owners,
        tags=application.tags,
        kinds={"duckdb"},
        deps=[dg.AssetDep([application.name, spec.name]) for spec in (RAW_PREDICTIONS, JOINED_FEEDBACK)],
        check_specs=[
            dg.AssetCheckSpec(
                _CHECK,
                asset=[application.name, PRODUCTION_WATCH],
                description="The model that serves is not proven worse than its predecessor on the same days' people. "
                f"An equal model fails this check, ever, with probability {limits.alpha:g} at most.",
            )
        ],
    )
    def production_watch(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Compares the model version that began last with the one that serves at the same time, person by person.

        It may be looked at every day without end.
        """
        with classify_failures(context):
            report = watch_production(stores.lake(application.name), limits)
            if report is None:
                return dg.MaterializeResult(
                    metadata={"verdict": ArmVerdict.UNDECIDED.value, "state": _ALONE},
                    check_results=[_judge(ArmVerdict.UNDECIDED, _ALONE)],
                )
            return dg.MaterializeResult(
                check_results=[_judge(report.verdict, report.describe(limits))],
                metadata={
                    "verdict": report.verdict.value,
                    "summary": report.describe(limits),
                    "current": report.versions.current,
                    "predecessor": report.versions.predecessor,
                    "since": report.versions.since.isoformat(),
                    "people_in_both": report.in_both,
                    "rates": build_numbers_table(_HEADER, _list_rates(report, limits)),
                    "edited": _plot_rates(report),
                },
            )

    return production_watch


def watch_production(lake: Lake, limits: WatchLimits) -> WatchReport | None:
    """Compare the two versions that serve, up to the last closed day; None: there is only one."""
    found = find_versions_on_last_day(lake)
    return watch_versions(lake, *found, limits) if found else None


def _judge(verdict: ArmVerdict, sentence: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=_CHECK,
        passed=verdict != ArmVerdict.WORSE,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence,
        metadata={"verdict": verdict.value},
    )


def _list_rates(report: WatchReport, limits: WatchLimits) -> list[list[object]]:
    return [
        [name, each.difference, each.low, each.high, each.verdict.value, "yes" if name in limits.measures else "no"]
        for name, each in report.comparisons.items()
        if each.difference is not None
    ]


def _plot_rates(report: WatchReport) -> dg.MarkdownMetadataValue:
    """Draw the mean over people of the share of answers that were edited, by day and version."""
    shares: dict[str, dict[date, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in report.users.to_pylist():
        shares[row["model_version"]][row["day"]].append(row["edited"] / row["interactions"])
    days = max(1, (report.until - report.versions.since).days)
    colours = {"#D55E00": report.versions.current, "#0072B2": report.versions.predecessor}
    lines: dict[str, list[Point]] = {
        colour: [
            ((day - report.versions.since).days / days, sum(found) / len(found))
            for day, found in sorted(shares[version].items())
        ]
        for colour, version in colours.items()
    }
    caption = (
        f"share of answers edited, 0 to 1, mean over people, {report.versions.since} to {report.until}; red: current"
    )
    return embed_small_plot(caption, lines)
