"""Claim: a day of 1,000,000 interactions goes from landing to gold in 60 s and 4 GB on 2 cores behind a full window.

Data: predictions of 2 KB (prompt 1 KB, output 1 KB; words drawn at random, zstd makes a third of them), 5 % of them
edited and every thousandth sent twice, as senders that try again do. Ids are random. Of the day's edits 80 % are about
the day itself, the others about the 30 days before it, which lie in the lake at the same size; the 37 days before
those, of which only keys are looked at, have short texts. Edits carry prompt and output, as all our clients send them;
how long the join takes when every text must be looked up is shown as well.
Ours: `ingest_days` twice, `join_days` and `curate_days` of that day, from landed JSON lines to Iceberg tables, with
accounts, quarantine and content hashes. The peer does the core of it as a notebook would: pandas reads the same landed
lines, merges, scores each edit with rapidfuzz, writes Parquet. It is given no days before: it could not hold them.

    python -m benchmarks.day_to_gold [--predictions 1000000] [--behind 30] [--folder EMPTY_FOLDER]
"""

import argparse
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.comparing import alone, compare, timed
from benchmarks.texts import Texts
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily._landed_files import LandedFile
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind, LandingZone
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, JOINED_FEEDBACK, RAW_PREDICTIONS, TableSpec

WINDOW = JoinWindow()
DAY = date(2026, 6, 1)
START = DAY - timedelta(days=WINDOW.account_lookback_days)
EDITED = 0.05
SAME_DAY = 0.8
SENT_TWICE = 0.001
USERS = 20_000
SENTENCES_OF_A_TEXT = 10
SEGMENT_ROWS = 50_000
LANDING, LANDING_WITHOUT_TEXTS = "landing", "landing_without_texts"
STAMP = RunStamp("benchmark", "1", datetime(2026, 6, 2, 1, tzinfo=UTC))


def lake_at(root: Path) -> Lake:
    """The lake of one run."""
    return Lake("assistant", f"sqlite:///{root}/catalog.db", f"file://{root}/warehouse", root / "scratch")


def build(root: Path, predictions: int, behind: int) -> None:
    """Write the days before into the lake as ingestion would have, and the day itself into the landing zone."""
    texts, lake = Texts(), lake_at(root)
    base = root / "base.parquet"
    _write_base(base, texts, predictions)
    with lake.connect() as connection:
        connection.execute("SET preserve_insertion_order = true")
        days = ledger.list_days(START, DAY - timedelta(days=1))
        for day in days:
            is_whole = DAY - day <= timedelta(days=behind)
            prompt, output = ("prompt", "output") if is_whole else ("'short'", "'short'")
            rows = connection.sql(f"SELECT {_prediction_columns(day, prompt, output)} FROM read_parquet('{base}')")
            with LandedFile(lake.make_file_path(RAW_PREDICTIONS, day), RAW_PREDICTIONS, day) as scores:
                for batch in rows.to_arrow_reader(8192):
                    scores.write(batch.select(scores.event.names).cast(scores.event))
            lake.replace_days(RAW_PREDICTIONS, [day], {day: scores.path}, {})
            edits = lake.write_day(connection, GROUND_TRUTH, day, _edits_behind(day, predictions))
            assert edits is not None
            lake.replace_days(GROUND_TRUTH, [day], {day: edits}, {})
        _land(lake, connection, root, base, texts, predictions, behind)
    rows = {RAW_PREDICTIONS.name: predictions, GROUND_TRUTH.name: int(predictions * EDITED)}
    entries = [
        LedgerEntry(name, day, True, f"{day}", {}, count, count, {}) for name, count in rows.items() for day in days
    ]
    joined = int(predictions * EDITED)
    entries += [LedgerEntry(JOINED_FEEDBACK.name, day, True, f"{day}", {}, joined, joined, {}) for day in days]
    ledger.record_entries(lake, entries, STAMP)
    base.unlink()


def _write_base(base: Path, texts: Texts, predictions: int) -> None:
    """Number, prompt and output of every prediction of a day."""
    schema = pa.schema([("i", pa.int64()), ("prompt", pa.string()), ("output", pa.string())])
    with pq.ParquetWriter(base, schema, compression="lz4") as writer:
        for first in range(0, predictions, SEGMENT_ROWS):
            numbers = pa.array(range(first, min(first + SEGMENT_ROWS, predictions)), pa.int64())
            prompts, outputs = (texts.draw(len(numbers), SENTENCES_OF_A_TEXT) for _ in range(2))
            writer.write(pa.table([numbers, prompts, outputs], schema=schema))


def _prediction_id(day: str, number: str) -> str:
    return f"md5({number} || {day})"


def _prediction_columns(day: date, prompt: str, output: str) -> str:
    columns = {
        "received_date": f"DATE '{day}'",
        "event_id": f"md5('{day}' || i)",
        "received_at": f"TIMESTAMPTZ '{day} 12:00:00+00'",
        "occurred_at": f"TIMESTAMPTZ '{day} 11:59:59+00'",
        "source": "'app'",
        "prediction_id": _prediction_id(f"'{day}'", "i"),
        "model_version": "'m1'",
        "user_id": f"'user-' || (i % {USERS})",
        "do_not_train": "false",
        "prompt": prompt,
        "prompt_format": "'text'",
        "output": output,
    }
    return _typed(RAW_PREDICTIONS, columns)


def _edit_columns(day: str, prediction_day: str, final_text: str, **carried: str) -> str:
    columns = {
        "received_date": f"CAST({day} AS DATE)",
        "event_id": f"md5({day} || 'edit' || i)",
        "received_at": f"CAST({day} || ' 13:00:00+00' AS TIMESTAMPTZ)",
        "occurred_at": f"CAST({day} || ' 13:00:00+00' AS TIMESTAMPTZ)",
        "source": "'app'",
        "prediction_id": _prediction_id(prediction_day, "i"),
        "signal": "'edit'",
        "user_id": f"'user-' || (i % {USERS})",
        "do_not_train": "false",
        "final_text": final_text,
        "sampling_probability": "1e0",
        **carried,
    }
    return _typed(GROUND_TRUTH, columns)


def _typed(spec: TableSpec, columns: Mapping[str, str]) -> str:
    absent = {
        column.name: "NULL::" + {"string": "VARCHAR", "double": "DOUBLE"}.get(str(column.type), "TIMESTAMPTZ")
        for column in spec.schema
    }
    return ", ".join(f"{columns.get(name, absent[name])} AS {name}" for name in spec.schema.names)


def _edits_behind(day: date, predictions: int) -> str:
    """The edits of a day before: about its own predictions, each twentieth."""
    edits = f"SELECT range * {round(1 / EDITED)} AS i FROM range({int(predictions * EDITED)})"
    texts_shown = {"prompt": "'short'", "prompt_format": "'text'", "original_output": "'short'"}
    columns = _edit_columns(f"'{day}'", f"'{day}'", "'edited ' || i", **texts_shown)
    return f"SELECT {columns} FROM ({edits})"


def _land(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    base: Path,
    texts: Texts,
    predictions: int,
    behind: int,
) -> None:
    """The day's segments. Edits are about predictions that the edits of earlier days were not about."""
    predicted, carried, bare = (
        LandingZone(root / name, lake.application, kind).find_day_folder(DAY)
        for name, kind in (
            (LANDING, EventKind.PREDICTION),
            (LANDING, EventKind.FEEDBACK),
            (LANDING_WITHOUT_TEXTS, EventKind.FEEDBACK),
        )
    )
    for folder in (predicted, carried, bare):
        folder.mkdir(parents=True)
    events = f"SELECT {_prediction_columns(DAY, 'prompt', 'output')} FROM read_parquet('{base}')"
    for number, first in enumerate(range(0, predictions, SEGMENT_ROWS)):
        rows = f"WHERE i >= {first} AND i < {first + SEGMENT_ROWS}"
        again = f"{rows} AND i % {round(1 / SENT_TWICE)} = 0"
        _write_segment(connection, f"{events} {rows} UNION ALL {events} {again}", predicted / f"{number:04d}.jsonl")
    edits = int(predictions * EDITED)
    numbers = np.sort(np.random.default_rng(1).choice(predictions // 2, edits, replace=False)) * 2 + 1
    chosen = f"SELECT prompt, output FROM read_parquet('{base}') WHERE i IN (SELECT unnest(?)) ORDER BY i"
    edited = connection.sql(chosen, params=[numbers.tolist()]).to_arrow_table()
    ages = np.random.default_rng(2).integers(1, behind + 1, edits) if behind else np.zeros(edits, int)
    ages[np.random.default_rng(3).random(edits) < SAME_DAY] = 0
    about = pa.array([str(DAY - timedelta(days=age)) for age in ages.tolist()])
    finals = pc.binary_join_element_wise(edited["output"].combine_chunks(), texts.draw(edits, 2), " ")
    for name, values in (("i", pa.array(numbers)), ("about", about), ("final", finals)):
        edited = edited.append_column(name, values)
    connection.register("edits", edited)
    texts_shown = {"prompt": "prompt", "prompt_format": "'text'", "original_output": "output"}
    columns = _edit_columns(f"'{DAY}'", "about", "final", **texts_shown)
    _write_segment(connection, f"SELECT {columns} FROM edits", carried / "0000.jsonl")
    columns = _edit_columns(f"'{DAY}'", "about", "final")
    _write_segment(connection, f"SELECT {columns} FROM edits", bare / "0000.jsonl")


def _write_segment(connection: duckdb.DuckDBPyConnection, rows: str, path: Path) -> None:
    times = ", ".join(f"strftime({name}, '%Y-%m-%dT%H:%M:%SZ') AS {name}" for name in ("received_at", "occurred_at"))
    connection.execute(
        f"COPY (SELECT * EXCLUDE received_date REPLACE ({times}) FROM ({rows})) TO '{path}' (FORMAT json)"
    )


def ours(root: Path) -> int:
    """From landing to gold."""
    lake, landing = lake_at(root), DiskLanding(root / LANDING)
    with timed("raw_predictions"):
        ingest_days(lake, landing, EventKind.PREDICTION, [DAY], STAMP)
    with timed("ground_truth"):
        ingest_days(lake, landing, EventKind.FEEDBACK, [DAY], STAMP)
    with timed("joined_feedback"):
        joined = join_days(lake, [DAY], START, WINDOW, STAMP)[DAY]
    with timed("curated_dpo_pairs"):
        curated = curate_days(lake, [DAY], START, GateRules(), BreakerLimits(), STAMP)[DAY]
    assert joined.balance == curated.balance == 0
    return curated.rows_kept


def looked_up(root: Path) -> int:
    """The steps that take longer where the day's edits do not carry their texts."""
    lake = lake_at(root)
    with timed("ground_truth"):
        ingest_days(lake, DiskLanding(root / LANDING_WITHOUT_TEXTS), EventKind.FEEDBACK, [DAY], STAMP)
    with timed("joined_feedback"):
        return join_days(lake, [DAY], START, WINDOW, STAMP)[DAY].rows_kept


def pandas_notebook(root: Path) -> int:
    """The core of it in pandas, for the day alone."""
    import pandas as pd
    from rapidfuzz.distance import Levenshtein

    def landed(kind: EventKind) -> pd.DataFrame:
        folder = LandingZone(root / LANDING, "assistant", kind).find_day_folder(DAY)
        return pd.concat([pd.read_json(file, lines=True) for file in sorted(folder.glob("*.jsonl"))])

    predictions = landed(EventKind.PREDICTION).drop_duplicates("event_id")
    predictions.to_parquet(root / "pandas_predictions.parquet")
    edits = landed(EventKind.FEEDBACK).drop_duplicates("event_id")
    joined = edits.merge(predictions, on="prediction_id", suffixes=("", "_p"))
    similarity = [
        Levenshtein.normalized_similarity(before, after)
        for before, after in zip(joined["output"], joined["final_text"], strict=True)
    ]
    kept = joined[[0.1 <= each <= 0.95 for each in similarity]]
    kept.to_parquet(root / "pandas_pairs.parquet")
    return len(kept)


def main() -> None:
    """Print wall and CPU seconds by stage, peak memory, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--behind", type=int, default=WINDOW.join_days, help="days before with texts of full size")
    parser.add_argument("--folder", type=Path, help="build here and keep it; measured again where it was built")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        if not (root / LANDING).exists():
            root.mkdir(parents=True, exist_ok=True)
            build(root, arguments.predictions, arguments.behind)
        compare(root, ours, pandas_notebook, "pairs")
        print("edits that carry no text:")
        alone(root, looked_up, "joined rows")


if __name__ == "__main__":
    main()
