"""Plots a classifier for the UI: curves of champion and challenger, calibration, weeks, drift, levers."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from flywheel_assets.defs.presentation import build_numbers_table, embed_picture
from flywheel_assets.evaluation.requests import CHALLENGER, INCUMBENT, ClassifierEvaluationReport
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS
from flywheel_assets.lake.versions.label_delay import LabelDelay
from flywheel_assets.lake.whatif.levers import LeversReport
from flywheel_assets.measures.drift import DriftLimits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, as in the plots of text models.
_COLOURS = {INCUMBENT: "#E69F00", CHALLENGER: "#009E73"}
_DRIFT_DAYS = 60


def build_classifier_scores_table(report: ClassifierEvaluationReport) -> dg.TableMetadataValue:
    """Build a table of both models overall, by week and by segment."""
    rows: list[list[object]] = []
    for model, scores in report.scores.items():
        name = report.incumbent if model == INCUMBENT else model
        parts = {"all": scores.overall, **{f"week of {week}": each for week, each in scores.by_week.items()}}
        parts |= {f"segment {segment}": each for segment, each in scores.by_segment.items()}
        for part, each in parts.items():
            measures = (each.average_precision, each.roc_auc, each.calibration_ratio, each.log_loss)
            rows.append([name, part, each.rows, each.positives, *("" if m is None else m for m in measures)])
    return build_numbers_table(["model", "rows of", "rows", "positives", "AP", "ROC AUC", "Σp/Σy", "log loss"], rows)


def plot_precision_recall(report: ClassifierEvaluationReport, path: Path) -> dg.MarkdownMetadataValue:
    """Plot precision over recall of both models."""

    def draw(axes: "Axes") -> None:
        for model, scores in report.scores.items():
            ap = scores.overall.average_precision
            label = f"{report.incumbent if model == INCUMBENT else model}, AP {'–' if ap is None else f'{ap:.3f}'}"
            points = scores.curve
            axes.plot([p.recall for p in points], [p.precision for p in points], color=_COLOURS[model], label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))

    return _save_plot(draw, path, "precision and recall")


def plot_calibration(report: ClassifierEvaluationReport, path: Path) -> dg.MarkdownMetadataValue:
    """Plot predicted against observed shares of both models, on logarithmic axes: positives are rare."""

    def draw(axes: "Axes") -> None:
        for model, scores in report.scores.items():
            bins = [each for each in scores.reliability if each.positive_share > 0 and each.mean_score > 0]
            ratio = scores.overall.calibration_ratio
            name = report.incumbent if model == INCUMBENT else model
            label = f"{name}, Σp/Σy {'–' if ratio is None else f'{ratio:.2f}'}"
            predicted, observed = [b.mean_score for b in bins], [b.positive_share for b in bins]
            axes.plot(predicted, observed, "o-", color=_COLOURS[model], label=label, markersize=4)
        axes.plot([1e-4, 1], [1e-4, 1], color="#999999", linewidth=0.8)
        axes.set(xlabel="mean score", ylabel="share of positives", xscale="log", yscale="log")

    return _save_plot(draw, path, "calibration")


def plot_ap_by_week(report: ClassifierEvaluationReport, path: Path) -> dg.MarkdownMetadataValue:
    """Plot the average precision of both models, each week by itself."""

    def draw(axes: "Axes") -> None:
        for model, scores in report.scores.items():
            weeks = list(scores.by_week)
            heights = [each.average_precision or 0.0 for each in scores.by_week.values()]
            label = report.incumbent if model == INCUMBENT else model
            axes.plot(weeks, heights, "o-", color=_COLOURS[model], label=label)
        axes.set(xlabel="week of", ylabel="average precision", ylim=(0, 1))

    return _save_plot(draw, path, "average precision by week")


def plot_drift(lake: Lake, last: date, limits: DriftLimits, path: Path) -> dg.MarkdownMetadataValue:
    """Plot the PSI by day of the fields that moved most in the last weeks."""
    days = [last - timedelta(days=offset) for offset in reversed(range(_DRIFT_DAYS))]
    rows = lake.read(DRIFT_REPORTS, days, ["day", "field", "psi"]).to_pylist()
    by_field: dict[str, dict[date, float]] = {}
    for row in sorted(rows, key=lambda row: row["day"]):
        if row["psi"] is not None:
            by_field.setdefault(row["field"], {})[row["day"]] = row["psi"]
    most = sorted(by_field, key=lambda name: -max(by_field[name].values()))[:6]

    def draw(axes: "Axes") -> None:
        for name in most:
            days_of_field = np.array(list(by_field[name]), dtype="datetime64[D]")
            axes.plot(days_of_field, list(by_field[name].values()), label=name, linewidth=1.2)
        axes.axhline(limits.max_psi, color="#999999", linewidth=0.8, linestyle="--")
        axes.set(ylabel="PSI")
        axes.tick_params(axis="x", rotation=30)

    return _save_plot(draw, path, "PSI by day")


def plot_label_delay(delay: LabelDelay, path: Path) -> dg.MarkdownMetadataValue:
    """Plot the share of positives that is known at each age, overall with its interval and by source."""

    def draw(axes: "Axes") -> None:
        for curve in delay.curves:
            ages = range(len(curve.known_shares))
            if curve.source is None:
                axes.fill_between(ages, curve.low, curve.high, color="#0072B2", alpha=0.2, step="post", linewidth=0)
                axes.step(ages, curve.known_shares, where="post", color="#0072B2", label="all sources")
            elif len(delay.curves) > 2:
                axes.step(ages, curve.known_shares, where="post", linewidth=0.9, label=curve.source)
        axes.axvline(delay.maturity_days, color="#D55E00", linestyle="--", linewidth=1, label="maturity_days")
        axes.set(xlabel="days since the prediction", ylabel="share of positives known", ylim=(0, 1.02))

    return _save_plot(draw, path, "label delay")


def build_levers_tables(report: LeversReport) -> Mapping[str, dg.TableMetadataValue]:
    """Build both tables of a levers report."""
    thresholds = [
        [
            each.threshold,
            each.alerts,
            each.alerts_per_day,
            _fill_missing(each.positive_share),
            _fill_missing(each.caught),
        ]
        for each in report.thresholds
    ]
    samplings = [
        [
            each.surprise_factor,
            each.floor,
            each.rows,
            each.row_share,
            _fill_missing(each.positive_share),
            round(each.effective_rows),
            _fill_missing(each.fit_seconds),
        ]
        for each in report.samplings
    ]
    return {
        "thresholds": build_numbers_table(["alert from", "alerts", "a day", "precision", "recall"], thresholds),
        "samplings": build_numbers_table(
            ["surprise factor", "floor", "rows", "of all", "positive", "effective rows", "fit seconds"], samplings
        ),
    }


def _fill_missing(value: float | None) -> object:
    return "" if value is None else value


def _save_plot(draw: "Callable[[Axes], None]", path: Path, title: str) -> dg.MarkdownMetadataValue:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return embed_picture(path, title)
