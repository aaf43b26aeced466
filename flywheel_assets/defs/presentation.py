"""Shows row counts, reasons, schemas, tables and small plots in the UI; never user text."""

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import dagster as dg
import pyarrow as pa

from flywheel_assets.curation.texts.operator_findings import OperatorFinding
from flywheel_assets.evaluation.requests import EvaluationReport, Scored, Stratum
from flywheel_assets.extras import find_missing, write_install_command
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.records import read_description

Parameters = ParamSpec("Parameters")

# Okabe and Ito's colours: colour-blind readers can tell them apart.
_MODEL_COLOURS = {
    Scored.BASE: "#999999",
    Scored.SFT: "#56B4E9",
    Scored.CHAMPION: "#E69F00",
    Scored.ANCHOR: "#CC79A7",
    Scored.CHALLENGER: "#009E73",
}
_DAGSTER_TYPES = {"date32[day]": "date", "timestamp[us, tz=UTC]": "timestamp (UTC)"}


def build_column_schema(schema: pa.Schema) -> dg.TableSchema:
    """Turn an Arrow schema with its descriptions into Dagster's, for an asset's definition."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=_DAGSTER_TYPES.get(str(column.type), str(column.type)),
                description=read_description(column),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in schema
        ]
    )


def describe_entry(entry: LedgerEntry) -> dict[str, Any]:
    """Show one day's account in the ledger: row counts, and the rows not kept by reason."""
    return {
        "dagster/partition_row_count": entry.rows_in_partition,
        "rows_in": entry.rows_in,
        "rows_kept": entry.rows_kept,
        "rows_held": entry.rows_held,
        "state": "closed" if entry.is_closed else "open: rows are provisional",
        "content_hash": entry.content_hash,
        "not_kept": build_reasons_table(entry.rows_by_reason),
    }


OPERATOR_FINDINGS = "operator_findings"
"""The metadata by which the check of the team's own prompts finds their number."""


def describe_findings(findings: Sequence[OperatorFinding]) -> dict[str, Any]:
    """Show what the policy says about the team's own prompts of a day: where, never what."""
    header = ["prompt", "rows", "reason", "check", "from character", "to"]
    rows = [
        [each.text_hash, each.rows, " ".join(each.reasons), found.check, str(found.start), str(found.end)]
        for each in findings
        for found in each.evidence
    ]
    return {OPERATOR_FINDINGS: len(findings), "operator_texts": build_numbers_table(header, rows)}


def build_reasons_table(rows_by_reason: Mapping[str, int]) -> dg.TableMetadataValue:
    """Build a table of dropped and quarantined rows by reason code, most first."""
    ordered = sorted(rows_by_reason.items(), key=lambda item: (-item[1], item[0]))
    return dg.MetadataValue.table(
        records=[dg.TableRecord({"reason": reason, "rows": rows}) for reason, rows in ordered],
        schema=dg.TableSchema([dg.TableColumn("reason", "string"), dg.TableColumn("rows", "int")]),
    )


def build_numbers_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.TableMetadataValue:
    """Build a small table; the first column is text, floats are shown with three decimals."""
    shown = [
        {name: f"{cell:.3f}" if isinstance(cell, float) else str(cell) for name, cell in zip(header, row, strict=True)}
        for row in rows
    ]
    return dg.MetadataValue.table(
        records=[dg.TableRecord(row) for row in shown],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in header]),
    )


def build_checks_table(checks: Sequence[Mapping[str, object]]) -> dg.TableMetadataValue:
    """Build a table of a promotion's checks: each measured value against its limit."""
    rows = [[check["name"], check["value"], check["limit"], "ok" if check["ok"] else "FAILED"] for check in checks]
    return build_numbers_table(["check", "value", "limit", "result"], rows)


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


def draw_if_possible(
    draw: Callable[Parameters, dg.MarkdownMetadataValue],
) -> Callable[Parameters, dg.MarkdownMetadataValue]:
    """Let a plot be a sentence where matplotlib is not installed: a picture is no reason to fail a day."""

    @wraps(draw)
    def draw_or_explain(*args: Parameters.args, **kwargs: Parameters.kwargs) -> dg.MarkdownMetadataValue:
        if find_missing("tracking", ("matplotlib",)):
            command = write_install_command("tracking")
            return dg.MetadataValue.md(f"no picture: matplotlib is not installed here; `{command}`")
        return draw(*args, **kwargs)

    return draw_or_explain


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


def embed_picture(path: Path, title: str) -> dg.MarkdownMetadataValue:
    """Embed a small PNG file in the metadata of one materialization."""
    return embed_png(path.read_bytes(), title)


Point = tuple[float, float]
"""Within the unit square."""
INLINE_CHARACTERS = 1_000
"""Dagster 1.13 shows shorter Markdown in the page itself, and all other behind a link; no picture is that small."""


def embed_small_plot(caption: str, *panels: Mapping[str, Sequence[Point]]) -> dg.MarkdownMetadataValue:
    """Draw panels as an SVG of fewer characters than Dagster shows without a click; points are thinned until it fits.

    Args:
        caption: stands under the picture; a long one leaves fewer points.
        panels: from left to right; each has lines by colour.
    """
    for most in range(48, 1, -1):
        encoded = base64.b64encode(_draw_svg(panels, most).encode()).decode("ascii")
        text = f"![plot](data:image/svg+xml;base64,{encoded})\n\n{caption}"
        if len(text) < INLINE_CHARACTERS:
            return dg.MetadataValue.md(text)
    return dg.MetadataValue.md(caption)


def _draw_svg(panels: Sequence[Mapping[str, Sequence[Point]]], most: int) -> str:
    axes = "".join(f"M{1 + 110 * number} 0v99h100" for number in range(len(panels)))
    paths: dict[str, list[str]] = {"#999": [axes]}
    for number, lines in enumerate(panels):
        for colour, points in lines.items():
            chosen = (
                points if len(points) <= most else [points[i * (len(points) - 1) // (most - 1)] for i in range(most)]
            )
            places = " ".join(f"{2 + 110 * number + 98 * x:.0f} {98 - 96 * y:.0f}" for x, y in chosen)
            paths.setdefault(colour, []).append(f"M{places}" if places else "")
    drawn = "".join(f'<path d="{"".join(each)}" stroke="{colour}"/>' for colour, each in paths.items())
    width = 110 * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{1.7 * width:.0f}" height="170" viewBox="0 0 {width} 100" '
        f'fill="none">{drawn}</svg>'
    )


def join_pictures(*pictures: dg.MarkdownMetadataValue) -> dg.MarkdownMetadataValue:
    """Put several pictures behind one link, one below the other."""
    return dg.MetadataValue.md("\n\n".join(str(each.md_str) for each in pictures))


def embed_png(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """Embed a small PNG that is in memory."""
    encoded = base64.b64encode(png).decode("ascii")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
