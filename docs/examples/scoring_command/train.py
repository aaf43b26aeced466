"""Trains a model that is scored by a command: `python train.py EXPORT_FOLDER MODEL_FOLDER`.

Of every number it stores the mean among positives and among negatives, as JSON, and copies score.py next to it.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def main(export: Path, model: Path) -> None:
    """Write coefficients.json, score.py and score.json."""
    request = json.loads((export / "request.json").read_text())
    rows = pq.read_table(export / "train.parquet").to_pandas()
    names = [name for name, kind in request["features"].items() if kind == "number"]
    if not names:
        print("error: this trainer needs at least one number among the features", file=sys.stderr)
        sys.exit(1)
    values = rows[names].fillna(0.0)
    labels, weights = rows["is_positive"].to_numpy(), rows["sample_weight"].to_numpy()
    positive = np.average(values[labels], axis=0, weights=weights[labels])
    negative = np.average(values[~labels], axis=0, weights=weights[~labels])
    slopes = (positive - negative) / (values.std().to_numpy() ** 2 + 1e-9)
    share = np.average(labels, weights=weights)
    intercept = np.log(share / (1 - share)) - float(slopes @ (positive + negative)) / 2
    stored = {"slopes": dict(zip(names, slopes.tolist(), strict=True)), "intercept": float(intercept)}
    (model / "coefficients.json").write_text(json.dumps(stored))
    shutil.copy(Path(__file__).parent / "score.py", model / "score.py")
    (model / "score.json").write_text(json.dumps({"command": ["python", "score.py"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
