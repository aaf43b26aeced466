"""Shows row counts, reasons, schemas, tables and small plots in the UI; never user text."""

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import dagster as dg
import pyarrow as pa

from flywheel_assets.curation.texts.operator_findings import OperatorFinding
from flywheel_assets.extras import find_missing, write_install_command
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.measures.texts import Interval
from flywheel_assets.records import read_description

Parameters = ParamSpec("Parameters")

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


def compare_measure(
    name: str, old: float | None, new: float | None, gain: Interval | None = None, *, less_is_better: bool = False
) -> list[object]:
    """Build the row of one measure for a table of two models: name, both values, Δ, verdict, 95 % interval.

    Args:
        name: the measure.
        old: of the model that serves.
        new: of the challenger.
        gain: new − old with its interval; without one there is no verdict, and Δ is the difference of both values.
        less_is_better: whether a lower value is the better one.
    """
    difference = gain.mean if gain is not None else None if old is None or new is None else new - old
    verdict = ""
    if gain is not None and gain.low is not None and gain.high is not None:
        better, worse = (gain.high < 0, gain.low > 0) if less_is_better else (gain.low > 0, gain.high < 0)
        verdict = "better" if better else "worse" if worse else "unproven"
    shown = "" if difference is None else f"{difference:+.3f}"
    return [name, fill_missing(old), fill_missing(new), shown, verdict, "" if gain is None else format_interval(gain)]


def format_interval(interval: Interval, sign: str = "+") -> str:
    """Format both bounds with three decimals; empty where one is not known."""
    if interval.low is None or interval.high is None:
        return ""
    return f"[{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def fill_missing(value: float | None) -> object:
    """Return an empty cell in the place of an unknown number."""
    return "" if value is None else value


def build_checks_table(checks: Sequence[Mapping[str, object]]) -> dg.TableMetadataValue:
    """Build a table of a promotion's checks: each measured value against its limit."""
    rows = [[check["name"], check["value"], check["limit"], "ok" if check["ok"] else "FAILED"] for check in checks]
    return build_numbers_table(["check", "value", "limit", "result"], rows)


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
