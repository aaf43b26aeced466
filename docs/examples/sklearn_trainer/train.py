"""Trains a scikit-learn classifier for the flywheel: `python train.py EXPORT_FOLDER MODEL_FOLDER`.

It reads train.parquet and request.json, and writes model.onnx. docs/own_trainer.md describes every file.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def main(export: Path, model: Path) -> None:
    """Fit a logistic regression to the weighted rows and export it."""
    request = json.loads((export / "request.json").read_text())
    rows = pq.read_table(export / "train.parquet").to_pandas()
    texts = [name for name, kind in request["features"].items() if kind == "text"]
    others = [name for name in request["features"] if name not in texts]
    rows[texts] = rows[texts].astype(object).where(rows[texts].notna(), "")
    rows[others] = rows[others].astype(np.float64)

    inputs = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
            ("others", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), others),
        ]
    )
    pipeline = make_pipeline(inputs, LogisticRegression(C=request["options"].get("C", 1.0), max_iter=1000))
    pipeline.fit(
        rows[texts + others], rows["is_positive"].astype(int), logisticregression__sample_weight=rows["sample_weight"]
    )

    types = [(name, StringTensorType([None, 1])) for name in texts]
    types += [(name, FloatTensorType([None, 1])) for name in others]
    # Without zipmap=False the probabilities would be a list of dictionaries, one per row.
    graph = to_onnx(pipeline, initial_types=types, options={"zipmap": False})
    (model / "model.onnx").write_bytes(graph.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
