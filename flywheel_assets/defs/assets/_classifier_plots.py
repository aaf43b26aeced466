"""Plots a classifier for the UI: curves of champion and challenger, calibration, weeks, drift, levers."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from flywheel_assets.defs.presentation import (
    Point,
    build_numbers_table,
    compare_measure,
    draw_if_possible,
    embed_picture,
    embed_small_plot,
    fill_missing,
    format_interval,
)
from flywheel_assets.evaluation.floor_costs import FloorCosts
from flywheel_assets.evaluation.requests import CHALLENGER, INCUMBENT, ClassifierEvaluationReport
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS
from flywheel_assets.lake.versions.label_delay import LabelDelay
from flywheel_assets.lake.whatif.levers import LeversReport, SamplingLever
from flywheel_assets.measures.drift import DriftLimits
from flywheel_assets.measures.texts import Interval
from flywheel_assets.promotion.classifier_evidence import MultiClassEvidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, as in the plots of text models.
_COLOURS = {INCUMBENT: "#E69F00", CHALLENGER: "#009E73"}
_DRIFT_DAYS = 60
_DRIFT_COLOURS = {"blue": "#0072B2", "red": "#D55E00", "green": "#009E73"}
_MOST_WRITTEN_CLASSES = 12
"""Classes up to which the cells of the confusion plot hold their numbers."""


def build_comparison_table(report: ClassifierEvaluationReport) -> dg.TableMetadataValue:
    """Build a table with a row per measure: both models side by side, the difference, its interval and a verdict."""
    evidence, old, new = report.evidence, report.scores[INCUMBENT], report.scores[CHALLENGER]
    ratio = evidence.calibration
    ratios = (old.overall.calibration_ratio, new.overall.calibration_ratio)
    rows = [
        compare_measure("AP", evidence.incumbent_average_precision, evidence.average_precision, evidence.ap_gain),
        ["Σp/Σy", *map(fill_missing, ratios), "", _judge_ratio(ratio), format_interval(ratio, "")],
        compare_measure(f"precision@{new.precision_at_k.k}", old.precision_at_k.mean, new.precision_at_k.mean),
    ]
    if (alerts := evidence.alerts) is not None:
        before, after = alerts.incumbent, alerts.challenger
        caught = f"at {alerts.budget:,.0f} alerts"
        rows.append(compare_measure(f"captured {caught}", before.share, after.share, alerts.capture_gain))
        if alerts.value_gain is not None:
            rows.append(
                compare_measure(f"value captured {caught}", before.value_share, after.value_share, alerts.value_gain)
            )
        rows.append(compare_measure(f"threshold {caught}", before.threshold, after.threshold))
    if evidence.value_ap_gain is not None:
        rows.append(compare_measure("AP by value", None, None, evidence.value_ap_gain))
    if old.alerts is not None and new.alerts is not None:
        counts = [f"{each:,}" for each in (old.alerts, new.alerts)]
        rows.append(["alerts, live threshold", *counts, f"{new.alerts - old.alerts:+,}", "", ""])
    for week, each in new.by_week.items():
        rows.append(
            compare_measure(f"AP, week {week[5:]}", old.by_week[week].average_precision, each.average_precision)
        )
    for part in evidence.segments:
        aps = (part.incumbent_average_precision, part.average_precision)
        rows.append(compare_measure(f"AP, segment {part.segment}", *aps, part.ap_gain))
    if (classes := evidence.classes) is not None:
        macro = (classes.incumbent_macro_average_precision, classes.macro_average_precision)
        rows.insert(0, compare_measure("macro AP", *macro, classes.macro_ap_gain))
        for part in classes.by_class:
            aps = (part.incumbent_average_precision, part.average_precision)
            rows.append(compare_measure(f"AP, class {part.segment}", *aps, part.ap_gain))
    rows += [
        compare_measure("ROC AUC", old.overall.roc_auc, new.overall.roc_auc),
        compare_measure("log loss", old.overall.log_loss, new.overall.log_loss),
    ]
    header = ["measure", report.incumbent, CHALLENGER, "Δ", "verdict", "95 % interval"]
    return build_numbers_table(header, rows)


def _judge_ratio(ratio: Interval) -> str:
    if ratio.low is None or ratio.high is None:
        return ""
    return "predicts too few" if ratio.high < 1 else "predicts too many" if ratio.low > 1 else "calibrated"


def draw_small_plots(report: ClassifierEvaluationReport) -> dg.MarkdownMetadataValue:
    """Draw both models' curves so small that the page's first view shows them; the large plots lie behind a link."""
    curves: dict[str, list[Point]] = {}
    bins: dict[str, list[Point]] = {"#999": [(0, 0), (1, 1)]}
    weeks: dict[str, list[Point]] = {}
    for model, scores in report.scores.items():
        colour = _COLOURS[model]
        curves[colour] = [(each.recall, each.precision) for each in scores.curve]
        known = [each for each in scores.reliability if each.positive_share > 0 and each.mean_score > 0]
        bins[colour] = [(_place(each.mean_score), _place(each.positive_share)) for each in known]
        last = max(1, len(scores.by_week) - 1)
        weeks[colour] = [
            (number / last, each.average_precision or 0.0) for number, each in enumerate(scores.by_week.values())
        ]
    caption = f"{report.incumbent} orange, {CHALLENGER} green: precision/recall; calibration from 1e-4; AP by week"
    return embed_small_plot(caption, curves, bins, weeks)


def _place(share: float) -> float:
    """Return the place of a share on a logarithmic axis from 0.0001 to 1."""
    return float(np.clip(1 + np.log10(share) / 4, 0, 1))


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


def build_confusion_table(found: MultiClassEvidence) -> dg.TableMetadataValue:
    """Build a table of the challenger's confusions: a row for each true class, a column for each predicted one."""
    rows = [[name, *map(round, counts)] for name, counts in zip(found.names, found.confusion, strict=True)]
    return build_numbers_table(["true \\ predicted", *found.names], rows)


def plot_confusion(found: MultiClassEvidence, path: Path) -> dg.MarkdownMetadataValue:
    """Plot the challenger's confusions, shaded by the share of each true class."""
    counts = np.array(found.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)

    def draw(axes: "Axes") -> None:
        axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
        places = range(len(found.names))
        axes.set_xticks(places, found.names, rotation=30, ha="right", fontsize=8)
        axes.set_yticks(places, found.names, fontsize=8)
        if len(found.names) <= _MOST_WRITTEN_CLASSES:
            for true in places:
                for said in places:
                    colour = "white" if shares[true, said] > 0.5 else "black"
                    text = f"{counts[true, said]:,.0f}"
                    axes.text(said, true, text, ha="center", va="center", color=colour, fontsize=8)
        axes.set(xlabel="most probable class", ylabel="true class")

    return _save_plot(draw, path, "confusion matrix")


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


def read_most_drifted(lake: Lake, last: date) -> dict[str, dict[date, float]]:
    """Read the PSI by day of the fields that moved most in the last weeks, most first."""
    days = [last - timedelta(days=offset) for offset in reversed(range(_DRIFT_DAYS))]
    rows = lake.read(DRIFT_REPORTS, days, ["day", "field", "psi"]).to_pylist()
    by_field: dict[str, dict[date, float]] = {}
    for row in sorted(rows, key=lambda row: row["day"]):
        if row["psi"] is not None:
            by_field.setdefault(row["field"], {})[row["day"]] = row["psi"]
    return {name: by_field[name] for name in sorted(by_field, key=lambda name: -max(by_field[name].values()))[:6]}


def draw_small_drift(most: Mapping[str, Mapping[date, float]], limits: DriftLimits) -> dg.MarkdownMetadataValue:
    """Draw the PSI of the three fields that moved most, without a click; grey is the limit."""
    shown = dict(list(most.items())[: len(_DRIFT_COLOURS)])
    days = sorted({day for by_day in shown.values() for day in by_day})
    span = max(1, (days[-1] - days[0]).days) if days else 1
    top = max([2 * limits.max_psi, *(psi for by_day in shown.values() for psi in by_day.values())])
    limit = limits.max_psi / top
    lines: dict[str, list[Point]] = {"#999": [(0, limit), (1, limit)]}
    for colour, by_day in zip(_DRIFT_COLOURS.values(), shown.values(), strict=False):
        lines[colour] = [((day - days[0]).days / span, psi / top) for day, psi in sorted(by_day.items())]
    names = ", ".join(f"{name} {colour}" for name, colour in zip(shown, _DRIFT_COLOURS, strict=False))
    return embed_small_plot(f"PSI by day, 0 to {top:.2g}, grey {limits.max_psi:g} is the limit: {names}", lines)


def plot_drift(most: Mapping[str, Mapping[date, float]], limits: DriftLimits, path: Path) -> dg.MarkdownMetadataValue:
    """Plot the PSI by day of these fields."""

    def draw(axes: "Axes") -> None:
        for name in most:
            days_of_field = np.array(list(most[name]), dtype="datetime64[D]")
            axes.plot(days_of_field, list(most[name].values()), label=name, linewidth=1.2)
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


def plot_floor_costs(costs: FloorCosts, path: Path) -> dg.MarkdownMetadataValue:
    """Plot what each sampling floor costs in average precision over the rows that it trains on, with intervals."""

    def draw(axes: "Axes") -> None:
        for each in costs.floors:
            interval = each.cost
            if interval.mean is None or interval.low is None or interval.high is None:
                continue
            axes.plot([each.rows, each.rows], [interval.low, interval.high], color="#0072B2", linewidth=1)
            axes.plot(each.rows, interval.mean, "o", color="#0072B2", markersize=5)
            label = f"{each.floor:g}, {each.fit_seconds:.1f} s"
            axes.annotate(label, (each.rows, interval.mean), (5, 5), textcoords="offset points", fontsize=8)
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.set(xlabel="training rows (floor, CPU seconds of the fit)", ylabel="AP lost", xscale="log")
        axes.margins(x=0.2)

    return _save_plot(draw, path, "what a sampling floor costs")


def build_levers_tables(report: LeversReport, costs: FloorCosts | None) -> Mapping[str, dg.TableMetadataValue]:
    """Build the tables of a levers report; what was not measured by fitting is left empty."""
    thresholds = [
        [
            each.threshold,
            each.alerts,
            each.alerts_per_day,
            fill_missing(each.positive_share),
            fill_missing(each.caught),
        ]
        for each in report.thresholds
    ]
    counted = ["rows", "of all", "positive", "effective rows", "fit seconds"]

    def describe(each: SamplingLever) -> list[object]:
        return [
            each.rows,
            each.row_share,
            fill_missing(each.positive_share),
            round(each.effective_rows),
            "" if costs is None else costs.estimate_fit_seconds(each.rows),
        ]

    samplings = [[each.surprise_factor, each.floor, *describe(each)] for each in report.samplings]
    others = [[each.lever, *describe(each)] for each in report.others]
    tables = {
        "thresholds": build_numbers_table(["alert from", "alerts", "a day", "precision", "recall"], thresholds),
        "samplings": build_numbers_table(["surprise factor", "floor", *counted], samplings),
        "other_levers": build_numbers_table(["lever", *counted], others),
    }
    if costs is not None:
        floors: list[list[object]] = [
            [
                each.floor,
                each.rows,
                each.fit_seconds,
                *(fill_missing(value) for value in (each.average_precision, *_list_ends(each.cost))),
            ]
            for each in costs.floors
        ]
        names = ["floor", "training rows", "fit seconds", "AP", "AP lost", "low", "high"]
        tables["floors"] = build_numbers_table(names, floors)
    return tables


def _list_ends(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return interval.mean, interval.low, interval.high


def draw_levers(report: LeversReport) -> dg.MarkdownMetadataValue:
    """Draw precision by recall of the thresholds, and effective rows by rows of the samplings, without a click."""
    alerts = [(each.caught, each.positive_share) for each in report.thresholds]
    rows = sorted((each.row_share, min(1.0, each.effective_rows / report.rows)) for each in report.samplings)
    caption = "left: precision by recall of the thresholds; right: effective rows by rows, shares of all"
    curve = [(x, y) for x, y in alerts if x is not None and y is not None]
    return embed_small_plot(caption, {"#0072B2": curve}, {"#D55E00": rows})


@draw_if_possible
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
