"""What the UI shows: row counts, reasons, schemas, tables and small plots. Never user text."""

import base64
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa

from flywheel_assets.lake.ledger import LedgerEntry
from flywheel_assets.records import description_of

_DAGSTER_TYPES = {"date32[day]": "date", "timestamp[us, tz=UTC]": "timestamp (UTC)"}


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """An Arrow schema with its descriptions, for an asset's definition."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=_DAGSTER_TYPES.get(str(column.type), str(column.type)),
                description=description_of(column),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in schema
        ]
    )


def report_days(context: dg.AssetExecutionContext, entries: Mapping[date, LedgerEntry]) -> None:
    """Give every partition of this run its own numbers: metadata returned by a range run would be copied to all."""
    for entry in entries.values():
        context.add_asset_metadata(
            {
                "dagster/partition_row_count": entry.rows_kept,
                "rows_in": entry.rows_in,
                "rows_kept": entry.rows_kept,
                "state": "closed" if entry.is_closed else "open: rows are provisional",
                "content_hash": entry.content_hash,
                "not_kept": reasons_table(entry.rows_by_reason),
            },
            partition_key=entry.day.isoformat(),
        )


def reasons_table(rows_by_reason: Mapping[str, int]) -> dg.TableMetadataValue:
    """Dropped and quarantined rows by reason code, most first."""
    ordered = sorted(rows_by_reason.items(), key=lambda item: (-item[1], item[0]))
    return dg.MetadataValue.table(
        records=[dg.TableRecord({"reason": reason, "rows": rows}) for reason, rows in ordered],
        schema=dg.TableSchema([dg.TableColumn("reason", "string"), dg.TableColumn("rows", "int")]),
    )


def numbers_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.TableMetadataValue:
    """A small table; the first column is text, floats are shown with three decimals."""
    shown = [
        {name: f"{cell:.3f}" if isinstance(cell, float) else str(cell) for name, cell in zip(header, row, strict=True)}
        for row in rows
    ]
    return dg.MetadataValue.table(
        records=[dg.TableRecord(row) for row in shown],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in header]),
    )


def checks_table(checks: Sequence[Mapping[str, object]]) -> dg.TableMetadataValue:
    """A promotion's checks: what was measured against which limit."""
    rows = [[check["name"], check["value"], check["limit"], "ok" if check["ok"] else "FAILED"] for check in checks]
    return numbers_table(["check", "value", "limit", "result"], rows)


def picture(path: Path, title: str) -> dg.MarkdownMetadataValue:
    """A small PNG for one materialization; for single-partition assets only, since range metadata is copied."""
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
