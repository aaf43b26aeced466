"""Shows how late positive labels come: a report with its curve, and a check of `maturity_days`."""

import dagster as dg

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.defs.assets._classifier_plots import plot_label_delay
from flywheel_assets.defs.assets.example_reports import example_report
from flywheel_assets.defs.failures import classify_failures
from flywheel_assets.defs.presentation import build_numbers_table, embed_small_plot
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES
from flywheel_assets.lake.versions.label_delay import ENOUGH_KNOWN, LabelDelay, measure_label_delay
from flywheel_assets.measures.label_delay import MIN_POSITIVES


def build_label_delay_asset(application: ClassificationApplication) -> dg.AssetsDefinition:
    """Build `label_delay`: how late positive labels come. The daily report job makes it."""

    @example_report(
        application,
        "Estimates the share of positives that is known at each age, overall and by labeling source, and "
        "compares it with `maturity_days`. Versions weigh known positives by it.",
    )
    def label_delay(context: dg.AssetExecutionContext, stores: Stores) -> dg.MaterializeResult[None]:
        with classify_failures(context):
            delay = measure_label_delay(stores.lake(application.name), application.mining.maturity_days)
            if delay is None:
                return dg.MaterializeResult(metadata={"state": f"fewer than {MIN_POSITIVES} positives are known"})
            plot = stores.scratch("plots", f"{application.name}_label_delay.png")
            rows = [
                [
                    curve.source or "all",
                    curve.positives,
                    *(curve.find_age(share) for share in (0.5, 0.8, 0.95)),
                    curve.share_known(delay.maturity_days),
                    curve.horizon_days,
                ]
                for curve in delay.curves
            ]
            header = ["source", "positives", "50 % by day", "80 %", "95 %", "known at maturity", "days seen"]
            return dg.MaterializeResult(
                metadata={
                    "summary": describe_label_delay(delay),
                    "curve": _draw_small_curve(delay),
                    "curve, large": plot_label_delay(delay, plot),
                    "known_at_maturity": round(delay.known_at_maturity, 3),
                    "proposed_maturity_days": delay.proposed_days,
                    "sources": build_numbers_table(header, rows),
                }
            )

    return label_delay


def _draw_small_curve(delay: LabelDelay) -> dg.MarkdownMetadataValue:
    # The days until nearly all is known fill the picture: behind them the curve is flat.
    last = max(2 * delay.curves[0].find_age(ENOUGH_KNOWN), delay.maturity_days, 1)
    shares = delay.curves[0].known_shares[: last + 1]
    matures = delay.maturity_days / last
    lines = {
        "#0072B2": [(age / last, share) for age, share in enumerate(shares)],
        "#D55E00": [(matures, 0.0), (matures, 1.0)],
    }
    return embed_small_plot(f"share of positives known, 0 to 1; day 0 to {last}, red: maturity_days", lines)


def build_label_delay_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    """Build the check that most positives are known once silence is taken for a negative."""

    @dg.asset_check(
        asset=[application.name, HARD_EXAMPLES.name],
        description=f"At `maturity_days` at least {ENOUGH_KNOWN:.0%} of the positives are known, so that silence "
        "means a negative.",
    )
    def labels_come_before_maturity(stores: Stores) -> dg.AssetCheckResult:
        if not application.mining.is_silence_negative:
            return dg.AssetCheckResult(passed=True, description='silence is "unknown" here: no label is waited for')
        delay = measure_label_delay(stores.lake(application.name), application.mining.maturity_days)
        if delay is None:
            return dg.AssetCheckResult(passed=True, description=f"fewer than {MIN_POSITIVES} positives are known")
        return dg.AssetCheckResult(
            passed=delay.known_at_maturity >= ENOUGH_KNOWN,
            severity=dg.AssetCheckSeverity.WARN,
            description=describe_label_delay(delay),
            metadata={"known_at_maturity": delay.known_at_maturity, "proposed_maturity_days": delay.proposed_days},
        )

    return labels_come_before_maturity


def describe_label_delay(delay: LabelDelay) -> str:
    """Describe in one sentence how many positives come after `maturity_days`, and which value would miss fewer."""
    missed, days = 1 - delay.known_at_maturity, delay.maturity_days
    found = f"{missed:.0%} of positives come after maturity_days = {days}"
    if delay.known_at_maturity >= ENOUGH_KNOWN:
        return found
    return f"{found}: {delay.proposed_days} would miss {1 - delay.curves[0].share_known(delay.proposed_days):.0%}"
