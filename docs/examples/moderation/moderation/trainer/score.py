"""Scores comments, in the model's folder: `python score.py ROWS.parquet SCORES.parquet`."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer


def main(rows_file: str, scores_file: str) -> None:
    """Write one probability per row, in the rows' order."""
    model = json.loads(Path("tfidf.json").read_text())
    settings = {**model["settings"], "ngram_range": tuple(model["settings"]["ngram_range"])}
    vectorizer = TfidfVectorizer(**settings, vocabulary=model["vocabulary"])
    vectorizer.idf_ = np.array(model["idf"])
    texts = [text or "" for text in pq.read_table(rows_file)["text"].to_pylist()]
    log_odds = vectorizer.transform(texts) @ np.array(model["coefficients"]) + model["intercept"]
    pq.write_table(pa.table({"score": 1 / (1 + np.exp(-log_odds))}), scores_file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
