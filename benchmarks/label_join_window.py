"""Measures what a join over 180 days, late labels included, costs against one of 30 days. Goal: twice; found: 3.1.

Data: every day before, as far as the window reads, has `--predictions` predictions under random ids and `--labels`
labels, which come by an exponential delay of mean 30 days, cut at the window; one label in a hundred is about no
prediction. Only the columns that a join reads of old days are filled, and the days that it reads whole are small.
Measured: `join_days` of the last day in a process of its own, from and to Iceberg tables.

    python -m benchmarks.label_join_window [--predictions 200000] [--labels 4000] [--days 392]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.label_join_throughput import STAMP, lake_at
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, GROUND_TRUTH, RAW_SCORES, TableSpec

START = date(2025, 1, 1)
WINDOWS = {
    "30 days": JoinWindow(late_days=0),
    "180 days": JoinWindow(join_days=180, late_days=0),
    "180 days, late labels": JoinWindow(join_days=180),
    "180 days, as before": JoinWindow(join_days=180, wait_days=180, late_days=0),
}


def build(root: Path, days: int, predictions: int, labels: int) -> None:
    """Write the raw tables, as ingestion would have."""
    lake, every_day = lake_at(root), ledger.list_days(START, START + timedelta(days=days - 1))
    files: dict[str, dict[date, Path]] = {RAW_SCORES.name: {}, GROUND_TRUTH.name: {}}
    with lake.connect() as connection:
        connection.execute("CREATE TEMP TABLE ids AS SELECT '' AS id, 0 AS day WHERE false")
        for number, day in enumerate(every_day):
            scores = f"""
SELECT DATE '{day}' AS received_date, 'e' AS event_id, TIMESTAMPTZ '{day} 12:00:00+00' AS received_at,
       TIMESTAMPTZ '{day} 11:59:59+00' AS occurred_at, 'app' AS source, md5('{day}' || i) AS prediction_id,
       'm1' AS model_version, 'card' AS user_id, NULL::VARCHAR AS thread_id, false AS do_not_train,
       '{{}}' AS features, 5e-1 AS score, 1e1 AS amount, 'web' AS segment, 'allow' AS action,
       NULL::DOUBLE AS allow_propensity, NULL::DOUBLE AS label_propensity
FROM range({predictions}) t(i)"""
            scores = _add_nulls(connection, scores, RAW_SCORES)
            files[RAW_SCORES.name][day] = lake.write_day(connection, RAW_SCORES, day, scores) or Path()
            # The draw of a label's delay and prediction is a hash, so that every run builds the same.
            truth = f"""
SELECT DATE '{day}' AS received_date, md5('label {day}' || i) AS event_id,
       TIMESTAMPTZ '{day} 13:00:00+00' AS received_at, TIMESTAMPTZ '{day} 13:00:00+00' AS occurred_at,
       'claims' AS source,
       CASE WHEN i % 100 = 0 THEN 'unknown-{day}-' || i ELSE md5(CAST(DATE '{day}' - CAST(least(
           {number}, 180, floor(-30 * ln((hash(i, {number}) % 1000000 + 1) / 1000001e0))) AS INTEGER) AS VARCHAR)
           || (hash({number}, i) % {predictions})) END AS prediction_id,
       'label' AS signal, NULL::VARCHAR AS model_version, NULL::VARCHAR AS user_id, NULL::VARCHAR AS thread_id,
       false AS do_not_train, NULL::VARCHAR AS prompt, NULL::VARCHAR AS prompt_format,
       NULL::VARCHAR AS original_output, NULL::VARCHAR AS final_text, NULL::DOUBLE AS value, 'true' AS label,
       'analyst' AS labeling_source, NULL::TIMESTAMPTZ AS known_at, NULL::VARCHAR AS comment,
       1e0 AS sampling_probability
FROM range({labels}) t(i)"""
            truth = _add_nulls(connection, truth, GROUND_TRUTH)
            files[GROUND_TRUTH.name][day] = lake.write_day(connection, GROUND_TRUTH, day, truth) or Path()
    entries = []
    for spec, rows in ((RAW_SCORES, predictions), (GROUND_TRUTH, labels)):
        lake.replace_days(spec, every_day, files[spec.name], {})
        entries += [LedgerEntry(spec.name, day, True, f"{day}", {}, rows, rows, {}) for day in every_day]
    ledger.record_entries(lake, entries, STAMP)


def _add_nulls(connection: duckdb.DuckDBPyConnection, rows: str, spec: TableSpec) -> str:
    """Give a query the nullable columns of its table that it does not name."""
    named = {name for name, *_ in connection.execute(f"DESCRIBE {rows}").fetchall()}
    missing = [column for column in spec.schema if column.nullable and column.name not in named]
    connection.register("nulls", pa.schema(missing).empty_table())
    return f"SELECT * FROM ({rows}) LEFT JOIN nulls ON false" if missing else rows


def measure(root: Path, window: str) -> None:
    """Join the last day and print the figures as JSON."""
    lake = lake_at(root)
    day = max(ledger.read_entries(lake, RAW_SCORES.name))
    began, used = time.perf_counter(), time.process_time()
    entry = join_days(lake, [day], START, WINDOWS[window], STAMP, CLASSIFICATION_TABLES)[day]
    figures = {
        "cpu_s": round(time.process_time() - used, 1),
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "rows_in": entry.rows_in,
        "joined": entry.rows_kept,
        "by_reason": entry.rows_by_reason,
    }
    assert entry.balance == 0
    print(json.dumps(figures))


def main() -> None:
    """Build the lake, then join its last day under each window."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=200_000)
    parser.add_argument("--labels", type=int, default=4_000)
    parser.add_argument("--days", type=int, default=392)
    parser.add_argument("--root", type=Path, help="a lake that was built here before is measured again")
    parser.add_argument("--window", choices=WINDOWS, help="measure one of them, in this process")
    arguments = parser.parse_args()
    if arguments.window:
        measure(arguments.root, arguments.window)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or Path(folder)
        if not (root / "catalog.db").exists():
            root.mkdir(parents=True, exist_ok=True)
            build(root, arguments.days, arguments.predictions, arguments.labels)
        for window in WINDOWS:
            command = [sys.executable, "-m", "benchmarks.label_join_window", "--root", str(root), "--window", window]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{window:>24}: {found.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
