"""Declares every table: its columns, partitions, order of rows, and the kind of application that fills it."""

from dataclasses import dataclass, replace

import pyarrow as pa

from flywheel_assets import records


@dataclass(frozen=True)
class TableSpec:
    """One table: its columns, partition columns, and the order of rows within a file.

    `lake.daily._landed_files` writes the files of raw tables in landed order; a query that rewrites them sorts.
    """

    name: str
    schema: pa.Schema
    day_column: str | None = None
    stage_column: str | None = None
    order_by: tuple[str, ...] = ()
    row_group_rows: int = 50_000
    schema_version: int = 1
    """Of the columns that there must be; a column that old rows may lack does not raise it. See docs/adr/0052."""


# With small row groups a join that needs some texts reads few others, but it reads all ids more slowly: see
# docs/experiments.md for 256 to 2,048 rows.
RAW_PREDICTIONS = TableSpec(
    "raw_predictions",
    records.RAW_PREDICTIONS,
    "received_date",
    order_by=("prediction_id", "event_id"),
    row_group_rows=1024,
)
GROUND_TRUTH = TableSpec(
    "ground_truth", records.GROUND_TRUTH, "received_date", order_by=("prediction_id", "event_id"), row_group_rows=8192
)
JOINED_FEEDBACK = TableSpec(
    "joined_feedback", records.JOINED_FEEDBACK, "completed_date", order_by=("feedback_event_id",)
)
CURATED_DPO_PAIRS = TableSpec(
    "curated_dpo_pairs", records.CURATED_DPO_PAIRS, "completed_date", order_by=("pair_id", "feedback_event_id")
)
FEEDBACK_SUMMARY = TableSpec(
    "feedback_summary", records.FEEDBACK_SUMMARY, "completed_date", order_by=("model_version",)
)
RAW_SCORES = replace(RAW_PREDICTIONS, schema=records.RAW_SCORES)
JOINED_LABELS = replace(JOINED_FEEDBACK, schema=records.JOINED_LABELS)
HARD_EXAMPLES = TableSpec(
    "hard_examples", records.HARD_EXAMPLES, "completed_date", order_by=("prediction_id", "label_received_at")
)
DRIFT_REPORTS = TableSpec("drift_reports", records.DRIFT_REPORTS, "day", order_by=("field",))
QUARANTINE = TableSpec("quarantine", records.QUARANTINE, "day", "stage", order_by=("row_id", "reason"))


# One small file, rewritten whole: (days × assets) rows stay in the tens of thousands for a decade, and a partition
# per day would cost a file per day and asset. See docs/adr/0002.
LEDGER = TableSpec("ledger", records.LEDGER, order_by=("asset", "day"))
BREAKER_DAYS = TableSpec("breaker_days", records.BREAKER_DAYS, order_by=("day",))


# Decisions of people are append-only tables: a snapshot's summary would vanish with the snapshot.
EXCLUSIONS = TableSpec("exclusions", records.EXCLUSIONS, order_by=("decided_at", "id"))
BREAKER_RESETS = TableSpec("breaker_resets", records.BREAKER_RESETS, order_by=("decided_at", "id"))
ROLLBACKS = TableSpec("rollbacks", records.ROLLBACKS, order_by=("decided_at", "id"))
ERASURES = TableSpec("erasures", records.ERASURES, order_by=("decided_at", "id"))
HISTORY_IMPORTS = TableSpec("history_imports", records.HISTORY_IMPORTS, order_by=("decided_at", "id"))


# Files and bytes of every stage after each maintenance.
STORAGE = TableSpec("storage", records.STORAGE, order_by=("measured_at", "stage"))


@dataclass(frozen=True)
class PlannedFile:
    """One data file of a partition."""

    uri: str
    bytes: int
    is_complete: bool = True
    """False: it may lack columns, because it was written before the table had them."""


@dataclass(frozen=True)
class ApplicationTables:
    """The tables that the daily assets of one kind of application fill, besides the shared `ground_truth`."""

    predictions: TableSpec
    joined: TableSpec
    gold: TableSpec
    """Versions are tags on this table."""
    is_text: bool
    """Predictions are texts, which an edit may repeat; otherwise they are scores of features."""


PREFERENCE_TABLES = ApplicationTables(RAW_PREDICTIONS, JOINED_FEEDBACK, CURATED_DPO_PAIRS, is_text=True)
CLASSIFICATION_TABLES = ApplicationTables(RAW_SCORES, JOINED_LABELS, HARD_EXAMPLES, is_text=False)


def list_columns(schema: pa.Schema) -> str:
    """List a schema's columns for a SELECT."""
    return ", ".join(schema.names)


def make_nullable(schema: pa.Schema) -> pa.Schema:
    """Make every column nullable and drop its metadata, as DuckDB and Iceberg exchange them."""
    # Parquet written by DuckDB has optional columns only, and Iceberg refuses those for a required field.
    return pa.schema([column.with_nullable(True).remove_metadata() for column in schema])


def list_tables(tables: ApplicationTables) -> list[TableSpec]:
    """List every table that one application may have."""
    daily = [tables.predictions, GROUND_TRUTH, tables.joined, tables.gold, QUARANTINE, LEDGER]
    reports = [FEEDBACK_SUMMARY if tables.is_text else DRIFT_REPORTS, BREAKER_DAYS]
    return [*daily, *reports, EXCLUSIONS, BREAKER_RESETS, ROLLBACKS, ERASURES, HISTORY_IMPORTS, STORAGE]
