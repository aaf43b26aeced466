import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.models.boosting import (
    ENCODING_FILE,
    MODEL_FILE,
    ClassifierRecipe,
    FeatureEncoding,
    fit_classifier,
    load_classifier,
)

FEW_TREES = ClassifierRecipe(trees=20, min_leaf_hessian=1.0)


def world(rows: int = 4000, seed: int = 0) -> tuple[pa.Table, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features, labels and the true probability: an amount, a text and a flag decide, noise does not."""
    generator = np.random.default_rng(seed)
    amount = generator.exponential(50, rows)
    country = generator.choice(["AT", "DE", "FR"], rows)
    weekend = generator.random(rows) < 2 / 7
    truth = 1 / (1 + np.exp(-(-4 + amount / 40 + 2.0 * (country == "FR") + 0.5 * weekend)))
    missing = generator.random(rows) < 0.05
    features = pa.table(
        {
            "amount": pa.array(amount, mask=missing),
            "country": pa.array(country.tolist(), pa.string()),
            "weekend": weekend,
            "noise": generator.normal(size=rows),
        }
    )
    return features, (generator.random(rows) < truth).astype(int), truth


def test_the_same_rows_and_seed_give_the_same_text() -> None:
    features, labels, _ = world()
    first, second = (fit_classifier(features, labels, None, FEW_TREES).booster.model_to_string() for _ in range(2))
    assert first == second
    other = fit_classifier(features, 1 - labels, None, FEW_TREES).booster.model_to_string()
    assert other != first


def test_what_decides_is_learnt_from_numbers_texts_and_flags() -> None:
    features, labels, truth = world(20_000)
    model = fit_classifier(features, labels)
    scores = model.predict(features)
    assert ((scores > 0) & (scores < 1)).all()
    assert np.corrcoef(scores, truth)[0, 1] > 0.95
    gains = model.compute_gains()
    assert next(iter(gains)) == "amount"
    assert sum(gains.values()) == pytest.approx(1)
    french = features.set_column(1, "country", pa.array(["FR"] * features.num_rows))
    german = features.set_column(1, "country", pa.array(["DE"] * features.num_rows))
    assert model.predict(french).mean() > 2 * model.predict(german).mean()


def test_a_saved_model_scores_the_same_and_is_text(tmp_path: Path) -> None:
    features, labels, _ = world()
    model = fit_classifier(features, labels, None, FEW_TREES)
    model.save(tmp_path / "model")
    loaded = load_classifier(tmp_path / "model")
    assert loaded.encoding == model.encoding
    assert loaded.predict(features).tolist() == model.predict(features).tolist()
    assert (tmp_path / "model" / MODEL_FILE).read_text().startswith("tree\n")
    assert '"country"' in (tmp_path / "model" / ENCODING_FILE).read_text()


def test_weights_restore_what_sampling_left_out() -> None:
    """Nine tenths of the negatives removed: weighted the scores stay calibrated, unweighted they are far too high."""
    features, labels, _ = world(40_000)
    kept = (labels == 1) | (np.random.default_rng(1).random(len(labels)) < 0.1)
    weights = np.where(labels == 1, 1.0, 10.0)[kept]
    sampled, sampled_labels = features.filter(pa.array(kept)), labels[kept]
    weighted = fit_classifier(sampled, sampled_labels, weights).predict(features).sum() / labels.sum()
    unweighted = fit_classifier(sampled, sampled_labels).predict(features).sum() / labels.sum()
    assert 0.9 < weighted < 1.1
    assert unweighted > 2


@pytest.mark.parametrize(("weight", "is_learnt"), [(100.0, True), (1.0, False)])
def test_a_leaf_needs_weight_not_rows(weight: float, is_learnt: bool) -> None:
    """Six rows that stand for 600 are enough for a leaf of their own; six that stand for themselves are not."""
    features = pa.table({"amount": [0.0] * 1000 + [1.0] * 6})
    labels, weights = [0] * 999 + [1] + [1] * 6, [1.0] * 1000 + [weight] * 6
    usual, rare = fit_classifier(features, labels, weights).predict(pa.table({"amount": [0.0, 1.0]}))
    assert (rare > 0.9) == (rare > 2 * usual) == is_learnt


def test_missing_values_and_new_categories_are_scored() -> None:
    features, labels, _ = world()
    model = fit_classifier(features, labels, None, FEW_TREES)
    unknown = pa.table(
        {
            "surplus": [1, 2, 3],
            "noise": [0.0, None, math.nan],
            "country": pa.array(["XX", None, "FR"]).dictionary_encode(),
            "amount": pa.array([None, 3, 10], pa.int32()),
            "weekend": [True, None, False],
        }
    )
    assert np.isfinite(model.predict(unknown)).all()
    assert np.isnan(model.encoding.encode(unknown)[:2, 1]).all()
    assert model.predict(unknown.slice(0, 0)).tolist() == []


def test_a_category_keeps_its_code_wherever_it_stands() -> None:
    encoding = FeatureEncoding.derive(pa.table({"country": ["FR", "AT", None, "FR"]}))
    assert encoding.categories == {"country": ("AT", "FR")}
    assert encoding.encode(pa.table({"country": ["FR", "AT"]})).tolist() == [[1.0], [0.0]]
    assert encoding.encode(pa.table({"country": ["AT", "FR"]})).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ({"noise": [1.0], "country": ["FR"], "weekend": [True]}, "needs the features amount"),
        ({"noise": [1.0], "country": [3], "weekend": [True], "amount": [1.0]}, "'country' has type int64"),
        ({"noise": [1.0], "country": ["FR"], "weekend": [True], "amount": ["much"]}, "'amount' has type string"),
    ],
)
def test_rows_that_do_not_fit_the_model_are_named(rows: dict[str, list[Any]], named: str) -> None:
    features, labels, _ = world()
    model = fit_classifier(features, labels, None, ClassifierRecipe(trees=1))
    with pytest.raises(TrainingError, match=named):
        model.predict(pa.table(rows))


@pytest.mark.parametrize(
    ("labels", "weights", "named"),
    [
        ([1, 1, 1], None, "3 of 3 training rows are positive"),
        ([0, 0, 0], None, "0 of 3 training rows are positive"),
        ([0, 1, 2], None, "a label is 2.0"),
        ([0, 1, math.nan], None, "a label is nan"),
        ([0, 1], None, "3 rows of features, 2 labels"),
        ([0, 1, 0], [1, 1], "2 weights"),
        ([0, 1, 0], [1, 0, 1], "weight is 0.0"),
        ([0, 1, 0], [1, math.nan, 1], "weight is nan"),
        ([0, 1, 0], [1, math.inf, 1], "weight is inf"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(
    labels: list[float], weights: list[float] | None, named: str
) -> None:
    with pytest.raises(TrainingError, match=named):
        fit_classifier(pa.table({"amount": [1.0, 2.0, 3.0]}), labels, weights)


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (pa.table({"when": pa.array([1, 2], pa.timestamp("us"))}), "'when' has type timestamp"),
        (pa.table({"last amount": [1.0, 2.0]}), "'last amount' cannot be stored"),
        (pa.table({"a:b": [1.0, 2.0]}), "'a:b' cannot be stored"),
        (pa.table({"a": [1.0, 2.0]}).select([]), "no features"),
    ],
)
def test_features_that_no_model_can_read_are_refused(features: pa.Table, named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        FeatureEncoding.derive(features)


def test_files_that_are_no_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=MODEL_FILE):
        load_classifier(tmp_path)
    features, labels, _ = world(500)
    fit_classifier(features, labels, None, ClassifierRecipe(trees=1)).save(tmp_path)
    (tmp_path / ENCODING_FILE).write_text('{"names": ["amount"], "categories": {}}')
    with pytest.raises(TrainingError, match="reads 4 features"):
        load_classifier(tmp_path)
    (tmp_path / ENCODING_FILE).write_text("{}")
    with pytest.raises(TrainingError, match="no readable classifier"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [{"trees": 0}, {"leaves": 1}, {"max_bins": 1}, {"threads": 0}, {"learning_rate": 0.0}, {"min_leaf_hessian": -1.0}],
)
def test_recipes_that_train_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        ClassifierRecipe(**settings)
