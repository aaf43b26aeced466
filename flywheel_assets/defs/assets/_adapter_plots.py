"""Shows a text application's evaluation in the UI: models side by side, a small picture, a large one."""

from dataclasses import replace
from pathlib import Path

import dagster as dg

from flywheel_assets.defs.presentation import (
    Point,
    build_numbers_table,
    compare_measure,
    draw_if_possible,
    embed_picture,
    embed_small_plot,
)
from flywheel_assets.evaluation.requests import EvaluationReport, Scored, Scores, Stratum
from flywheel_assets.measures.texts import Interval

# Okabe and Ito's colours: colour-blind readers can tell them apart.
_MODEL_COLOURS = {
    Scored.BASE: "#999999",
    Scored.SFT: "#56B4E9",
    Scored.CHAMPION: "#E69F00",
    Scored.ANCHOR: "#CC79A7",
    Scored.CHALLENGER: "#009E73",
}
_PLOTTED = (Stratum.PRIMARY, Stratum.OLDER, Stratum.REGRESSION)


def build_comparison_table(report: EvaluationReport) -> dg.TableMetadataValue:
    """Build a table with a row per measure: both models, Δ, a verdict, and the interval by person.

    Every measure is better where it is lower, but for the share of texts without an edit.
    """
    incumbent = Scored(report.evidence.incumbent)
    before, after = (report.scores.get(model, {}) for model in (incumbent, Scored.CHALLENGER))
    rows: list[list[object]] = []
    for stratum in Stratum:
        if stratum not in after:
            continue
        old, new = before[stratum], after[stratum]
        is_primary = stratum is Stratum.PRIMARY
        fall = _turn(report.evidence.ned_gain) if is_primary else None
        rows.append(compare_measure(f"NED, {stratum.value}", old.ned, new.ned, fall, less_is_better=True))
        rows.append(compare_measure(f"no edit needed, {stratum.value}", old.zero_edit, new.zero_edit))
        if is_primary and new.wrong_answer_rate is not None:
            wrong = None if report.wrong_answer_fall is None else _turn(report.wrong_answer_fall)
            rates = (old.wrong_answer_rate, new.wrong_answer_rate)
            rows.append(compare_measure("wrong answers, sampled", *rates, wrong, less_is_better=True))
    rows.append(compare_measure("texts that never end", _average_missing_end(before), _average_missing_end(after)))
    header = ["measure", incumbent.value, Scored.CHALLENGER.value, "Δ", "verdict", "95 % interval, by person"]
    return build_numbers_table(header, rows)


def _turn(gain: Interval) -> Interval:
    """Turn a gain, old − new, into a difference of new − old."""
    mean, low, high = (None if value is None else -value for value in (gain.mean, gain.high, gain.low))
    return replace(gain, mean=mean, low=low, high=high)


def _average_missing_end(strata: dict[Stratum, Scores]) -> float | None:
    rows = sum(each.rows for each in strata.values())
    return sum(each.missing_end * each.rows for each in strata.values()) / rows if rows else None


def draw_small_plot(report: EvaluationReport) -> dg.MarkdownMetadataValue:
    """Draw a bar of NED for each model and stratum, so small that it needs no click."""
    panels: list[dict[str, list[Point]]] = []
    for stratum in _PLOTTED:
        heights = {model: by[stratum].ned for model, by in report.scores.items() if stratum in by}
        width = 1 / max(1, len(heights))
        panels.append(
            {
                _MODEL_COLOURS[model]: _outline_bar(number * width, width, height)
                for number, (model, height) in enumerate(heights.items())
            }
        )
    shown = ", ".join(stratum.value for stratum in _PLOTTED)
    models = ", ".join(model.value for model in report.scores)
    # The page does not wrap a long line.
    return embed_small_plot(f"NED, 0 to 1, lower is better: {shown}\n\nbars: {models}", *panels)


def _outline_bar(left: float, width: float, height: float) -> list[Point]:
    edges = (left + 0.15 * width, left + 0.85 * width)
    return [(edges[0], 0), (edges[0], height), (edges[1], height), (edges[1], 0)]


def build_scores_table(report: EvaluationReport) -> dg.TableMetadataValue:
    """Build a table of every model on every stratum; lower NED is better."""
    rows: list[list[object]] = []
    for model, strata in report.scores.items():
        for stratum, each in strata.items():
            shares = (each.ned, each.zero_edit, each.missing_end, each.chosen_fallen)
            wrong = "" if each.wrong_answer_rate is None else each.wrong_answer_rate
            rows.append([model.value, stratum.value, each.rows, each.subjects, *shares, wrong])
    header = ["model", "stratum", "rows", "subjects", "NED", "zero edit", "missing end", "chosen fallen"]
    header.append("wrong answers, sampled")
    return build_numbers_table(header, rows)


@draw_if_possible
def plot_evaluation(report: EvaluationReport, path: Path) -> dg.MarkdownMetadataValue:
    """Draw NED by stratum and model into `path` and show it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(report.scores)
    strata = [each for each in Stratum if any(each in report.scores[model] for model in models)]
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(models)
    for position, model in enumerate(models):
        heights = [report.scores[model][stratum].ned if stratum in report.scores[model] else 0.0 for stratum in strata]
        offsets = [index + (position - (len(models) - 1) / 2) * width for index in range(len(strata))]
        bars = axes.bar(offsets, heights, width * 0.9, label=model.value, color=_MODEL_COLOURS[model])
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    counts = {stratum: max(by[stratum].rows for by in report.scores.values() if stratum in by) for stratum in strata}
    axes.set_xticks(range(len(strata)), [f"{stratum.value}\n{counts[stratum]} rows" for stratum in strata])
    axes.set_ylabel("NED (0 = the user's text)")
    axes.legend(frameon=False, ncols=len(models), fontsize=8)
    axes.margins(y=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    return embed_picture(path, "NED by model")
