"""Trains TF-IDF and a logistic regression: `python train.py EXPORT_FOLDER MODEL_FOLDER`.

It stores the vocabulary and the coefficients as JSON. score.py, which scores with them, is copied next to them.
"""

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

# Pieces of words find insults that are misspelt on purpose; 1,000 comments are too few for whole words.
SETTINGS = {"analyzer": "char_wb", "ngram_range": [2, 5], "sublinear_tf": True, "min_df": 2}


def main(export: Path, model: Path) -> None:
    """Fit the weighted rows, and write tfidf.json, score.py and score.json."""
    rows = pq.read_table(export / "train.parquet")
    texts = [text or "" for text in rows["text"].to_pylist()]
    vectorizer = TfidfVectorizer(**{**SETTINGS, "ngram_range": tuple(SETTINGS["ngram_range"])})
    counted = vectorizer.fit_transform(texts)
    regression = LogisticRegression(max_iter=1000)
    regression.fit(counted, rows["is_positive"].to_numpy(), sample_weight=rows["sample_weight"].to_numpy())
    stored = {
        "settings": SETTINGS,
        "vocabulary": vectorizer.get_feature_names_out().tolist(),
        "idf": vectorizer.idf_.tolist(),
        "coefficients": regression.coef_[0].tolist(),
        "intercept": float(regression.intercept_[0]),
    }
    (model / "tfidf.json").write_text(json.dumps(stored))
    shutil.copy(Path(__file__).parent / "score.py", model / "score.py")
    (model / "score.json").write_text(json.dumps({"command": ["python", "score.py"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
