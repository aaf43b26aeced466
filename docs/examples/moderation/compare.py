"""Scores the last two weeks, whose verdicts no model has seen: `FLYWHEEL_HOME=replayed python compare.py`.

The truth about every comment comes from truth.csv. The flywheel's champion knows the verdicts of those comments of the
first seven weeks that a moderator looked at.
"""

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from moderation import APPLICATION
from sklearn.metrics import average_precision_score

from flywheel_assets.models.trainers.fitting import fit_model, load_model
from flywheel_assets.stores import Stores

FIRST_UNSEEN_WEEK = 8
DRAWS = 1000


def main() -> None:
    """Print average precision and calibration of every model on the unseen weeks."""
    predictions, labels = (_read_lines(Path(f"{name}.jsonl")) for name in ("predictions", "labels"))
    with open("truth.csv", encoding="utf-8", newline="") as file:
        truth = list(csv.DictReader(file))
    looked_at = {each["comment_id"] for each in labels}
    texts = np.array([each["features"]["text"] for each in predictions], dtype=object)
    is_toxic = np.array([each["verdict"] == "Toxic" for each in truth])
    unseen = np.array([int(each["week"]) >= FIRST_UNSEEN_WEEK for each in truth])
    labelled = np.array([each["comment_id"] in looked_at for each in predictions]) & ~unseen

    champion = Stores().registry("moderation").find_champion()
    scores = {"word list (serves first)": np.array([each["toxicity"] for each in predictions])[unseen]}
    if champion is not None:
        table = pa.table({"text": texts[unseen].tolist()})
        scores[f"champion, {champion.gold_version}"] = load_model(champion.model_dir).predict(table)
    scores["TF-IDF, all looked at, no weights"] = _fit_and_score(texts, is_toxic, labelled, unseen)
    scores["TF-IDF, if all had been looked at"] = _fit_and_score(texts, is_toxic, ~unseen, unseen)

    print(f"{unseen.sum()} comments, {is_toxic[unseen].sum()} toxic; {labelled.sum()} looked at before")
    print(f"{'model':36}{'AP':>6}  {'against the word list':24}{'Σp/Σy':>6}")
    first = next(iter(scores.values()))
    for name, found in scores.items():
        precision = average_precision_score(is_toxic[unseen], found)
        gain = "" if found is first else _bootstrap_gain(is_toxic[unseen], first, found)
        print(f"{name:36}{precision:6.3f}  {gain:24}{found.sum() / is_toxic[unseen].sum():6.2f}")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _fit_and_score(texts: np.ndarray, is_toxic: np.ndarray, trained: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Run the application's own trainer, with weights of 1."""
    with tempfile.TemporaryDirectory() as folder:
        rows = pa.table({"text": texts[trained].tolist()})
        model = fit_model(APPLICATION.recipe, rows, is_toxic[trained], None, Path(folder))
        return model.predict(pa.table({"text": texts[scored].tolist()}))


def _bootstrap_gain(is_toxic: np.ndarray, first: np.ndarray, other: np.ndarray) -> str:
    draw = np.random.default_rng(0)
    gains = []
    for _ in range(DRAWS):
        rows = draw.integers(0, len(is_toxic), len(is_toxic))
        gains.append(
            average_precision_score(is_toxic[rows], other[rows]) - average_precision_score(is_toxic[rows], first[rows])
        )
    low, high = np.quantile(gains, [0.025, 0.975])
    return f"{np.mean(gains):+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
