"""Scores rows for the flywheel, in the model's folder: `python score.py ROWS.parquet SCORES.parquet`."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main(rows_file: str, scores_file: str) -> None:
    """Write one probability per row, in the rows' order."""
    model = json.loads(Path("coefficients.json").read_text())
    rows = pq.read_table(rows_file).to_pandas()
    log_odds = np.full(len(rows), model["intercept"])
    for name, slope in model["slopes"].items():
        log_odds += slope * rows[name].fillna(0.0).to_numpy()
    scores = 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
    pq.write_table(pa.table({"score": scores}), scores_file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
