"""Claim: a day of 1,000,000 predictions and 20,000 late labels is joined and mined in half of pandas' memory.

Data: 30 earlier days with 20,000 predictions each that the day's labels are about, the day's own 1,000,000 predictions
with 15 features, and the day that matures on it, of the same size; all synthetic. Ours: `join_days` and `mine_days` of
that day, from and to Iceberg tables, with accounts, quarantine and content hashes. The peer does the core of it as a
notebook would: it reads the same files, merges labels with predictions, takes silence for negative, samples, writes.

    python -m benchmarks.label_join_throughput [--predictions 1000000]
"""

import argparse
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from benchmarks.comparing import compare
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.daily.mine_days import mine_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, GROUND_TRUTH, JOINED_LABELS, RAW_SCORES

START = date(2026, 3, 1)
EARLIER_DAYS, MATURITY_DAYS = 30, 7
DAY = START + timedelta(days=EARLIER_DAYS)
LABELS = 20_000
FEATURES = [f"feature_{number}" for number in range(15)]
CONTRACT = ScoreContract(features=dict.fromkeys(FEATURES, FeatureType.NUMBER))
STAMP = RunStamp("benchmark", "1", datetime(2027, 1, 1, tzinfo=UTC))


def lake_at(root: Path) -> Lake:
    """The lake of one run."""
    return Lake("fraud", f"sqlite:///{root}/catalog.db", f"file://{root}/warehouse", root / "scratch")


def build(root: Path, predictions: int) -> None:
    """Write the raw tables, as ingestion would have."""
    lake = lake_at(root)
    features = ", ".join(f"'{name}': round(random() * 100, 4)" for name in FEATURES)
    days = ledger.list_days(START, DAY)
    sizes = {day: predictions if day in (DAY, DAY - timedelta(days=MATURITY_DAYS)) else 20_000 for day in days}
    files: dict[str, dict[date, Path]] = {RAW_SCORES.name: {}, GROUND_TRUTH.name: {}}
    with lake.connect() as connection:
        for day, rows in sizes.items():
            scores = f"""
SELECT DATE '{day}' AS received_date, md5('{day}' || i) AS event_id, TIMESTAMPTZ '{day} 12:00:00+00' AS received_at,
       TIMESTAMPTZ '{day} 11:59:59+00' AS occurred_at, 'app' AS source, '{day}-' || i AS prediction_id,
       'm1' AS model_version, 'card-' || (i % 50000) AS user_id, NULL::VARCHAR AS thread_id, false AS do_not_train,
       CAST(to_json({{{features}}}) AS VARCHAR) AS features, pow(random(), 80) AS score, 1e1 AS amount,
       'web' AS segment, 'allow' AS action, NULL::DOUBLE AS allow_propensity
FROM range({rows}) t(i)"""
            files[RAW_SCORES.name][day] = lake.write_day(connection, RAW_SCORES, day, scores) or Path()
        labels = f"""
SELECT DATE '{DAY}' AS received_date, md5('label' || i) AS event_id, TIMESTAMPTZ '{DAY} 13:00:00+00' AS received_at,
       TIMESTAMPTZ '{DAY} 13:00:00+00' AS occurred_at, 'claims' AS source,
       CAST(DATE '{START}' + CAST(i % {EARLIER_DAYS} AS INTEGER) AS VARCHAR) || '-' || (i // {EARLIER_DAYS})
           AS prediction_id,
       'label' AS signal, NULL::VARCHAR AS model_version, NULL::VARCHAR AS user_id, NULL::VARCHAR AS thread_id,
       false AS do_not_train, NULL::VARCHAR AS prompt, NULL::VARCHAR AS prompt_format, NULL::VARCHAR AS original_output,
       NULL::VARCHAR AS final_text, NULL::DOUBLE AS value, CASE WHEN i % 3 = 0 THEN 'false' ELSE 'true' END AS label,
       'analyst' AS labeling_source, NULL::TIMESTAMPTZ AS known_at, NULL::VARCHAR AS comment,
       1e0 AS sampling_probability
FROM range({LABELS}) t(i)"""
        files[GROUND_TRUTH.name][DAY] = lake.write_day(connection, GROUND_TRUTH, DAY, labels) or Path()
    entries = []
    for spec, kept in ((RAW_SCORES, sizes), (GROUND_TRUTH, {DAY: LABELS})):
        lake.replace_days(spec, days, files[spec.name], {})
        for day in days:
            rows = kept.get(day, 0)
            entries.append(LedgerEntry(spec.name, day, True, f"{day}", {}, rows, rows, {}))
    # The days before were joined long ago, and had no labels.
    entries += [LedgerEntry(JOINED_LABELS.name, day, True, f"{day}", {}, 0, 0, {}) for day in days[:-1]]
    ledger.record_entries(lake, entries, STAMP)


def ours(root: Path) -> int:
    """Join and mine the day."""
    lake, window = lake_at(root), JoinWindow()
    join_days(lake, [DAY], START, window, STAMP, CLASSIFICATION_TABLES)
    entry = mine_days(lake, [DAY], START, window, CONTRACT, MiningRules(maturity_days=MATURITY_DAYS), STAMP)[DAY]
    assert entry.balance == 0
    return entry.rows_kept


def pandas_merge(root: Path) -> int:
    """The core of it in pandas, from the same files."""
    import numpy as np
    import pandas as pd

    files = sorted((root / "warehouse").rglob("raw_predictions-*.parquet"))
    columns = ["prediction_id", "received_date", "features", "score", "amount", "segment", "action", "user_id"]
    predictions = pd.concat([pd.read_parquet(file, columns=columns) for file in files], ignore_index=True)
    [labelled] = (root / "warehouse").rglob("ground_truth-*.parquet")
    labels = pd.read_parquet(labelled, columns=["prediction_id", "label", "labeling_source", "received_at"])
    matched = labels.merge(predictions, on="prediction_id", how="inner")
    matured = predictions[pd.to_datetime(predictions["received_date"]).dt.date == DAY - timedelta(days=MATURITY_DAYS)]
    silent = matured[~matured["prediction_id"].isin(labels["prediction_id"])]
    probability = (10 * silent["score"]).clip(0.01, 1)
    drawn = silent[np.random.default_rng(0).random(len(silent)) < probability]
    result = pd.concat([matched.assign(y=matched["label"] == "true"), drawn.assign(y=False)], ignore_index=True)
    result.to_parquet(root / "pandas.parquet")
    return len(result)


def main() -> None:
    """Build the lake, then run both over it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root, arguments.predictions)
        compare(root, ours, pandas_merge, "examples")


if __name__ == "__main__":
    main()
