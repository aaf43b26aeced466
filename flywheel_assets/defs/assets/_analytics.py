"""Shows people's reactions to each model version in the UI; no model is ever trained on them."""

from datetime import date, timedelta
from io import BytesIO

import dagster as dg
import pyarrow as pa

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.defs.assets.daily import DayReport, daily_asset, find_seen_inputs, make_stamp, report_days
from flywheel_assets.defs.failures import classify_failures
from flywheel_assets.defs.partitions import list_partition_days
from flywheel_assets.defs.presentation import build_numbers_table, draw_if_possible, embed_png
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily.ledger import list_days
from flywheel_assets.lake.daily.reports import read_summaries, summarize_days
from flywheel_assets.lake.tables.specs import FEEDBACK_SUMMARY, JOINED_FEEDBACK

SUMMARY_CODE_VERSION = "2"
PLOTTED_DAYS = 28
_COUNTS = (
    *("interactions", "edits", "thumbs_up", "thumbs_down", "ratings", "copies", "accepts", "regenerates"),
    *("choices", "demonstrations", "retractions"),
)
_PANELS = {
    "against: edits, thumbs down, regenerations": ("edits", "thumbs_down", "regenerates"),
    "for: thumbs up, copies, accepts": ("thumbs_up", "copies", "accepts"),
}


def build_feedback_summary_asset(application: PreferenceApplication) -> dg.AssetsDefinition:
    """Build `feedback_summary` of one application."""

    @daily_asset(application, FEEDBACK_SUMMARY, "analytics", SUMMARY_CODE_VERSION, reads={JOINED_FEEDBACK.name: None})
    def feedback_summary(context: dg.AssetExecutionContext, stores: Stores, clock: Clock) -> dg.MaterializeResult[None]:
        """Counts the feedback events of day D by signal and model version.

        No model is trained on them.
        """
        with classify_failures(context):
            seen, lake, days = find_seen_inputs(context), stores.lake(application.name), list_partition_days(context)
            entries = summarize_days(lake, days, make_stamp(context, clock, SUMMARY_CODE_VERSION))
            last = max(days)
            rows = read_summaries(lake, list_days(min(*days, last - timedelta(days=PLOTTED_DAYS - 1)), last))
            by_day: dict[date, list[list[object]]] = {day: [] for day in days}
            for row in rows.to_pylist():
                if row["completed_date"] in by_day:
                    version = row["model_version"] or "unknown"
                    by_day[row["completed_date"]].append([version, *(row[name] for name in _COUNTS)])
            reports: dict[date, DayReport] = {}
            for day, versions in by_day.items():
                table = build_numbers_table(["model version", *_COUNTS], versions)
                picture = {"last_weeks": _plot_reactions(rows, last)} if day == last and rows.num_rows else {}
                metadata = {"dagster/partition_row_count": len(versions), "by_model_version": table, **picture}
                entry = entries[day]
                reports[day] = DayReport(entry.content_hash, metadata, entry.input_hashes)
            return report_days(context, seen, reports)

    return feedback_summary


@draw_if_possible
def _plot_reactions(rows: pa.Table, last: date) -> dg.MarkdownMetadataValue:
    """Draw reactions per interaction by day, one line per model version."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    shown = [row for row in rows.to_pylist() if (last - row["completed_date"]).days < PLOTTED_DAYS]
    versions = list(dict.fromkeys(row["model_version"] for row in shown))
    for axes, (title, signals) in zip(figure.subplots(len(_PANELS), sharex=True), _PANELS.items(), strict=True):
        for version in versions:
            of_version = [row for row in shown if row["model_version"] == version]
            rates = [sum(row[name] for name in signals) / row["interactions"] for row in of_version]
            days = [row["completed_date"] for row in of_version]
            axes.plot(days, rates, marker="o", markersize=3, label=version or "unknown")
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_ylabel("per interaction", fontsize=7)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=7, ncols=4)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return embed_png(content.getvalue(), "reactions by model version")
