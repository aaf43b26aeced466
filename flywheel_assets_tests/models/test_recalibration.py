"""Recalibrations move levels and never the order; few positives teach nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.errors import TrainingError
from flywheel_assets.models.boosting import ClassifierRecipe, fit_classifier
from flywheel_assets.models.recalibration import (
    IDENTITY,
    LEAST_POSITIVES,
    Recalibration,
    fit_recalibration,
    read_recalibration,
    write_recalibration,
)
from flywheel_assets.models.trainers.fitting import RecalibratedModel, load_model
from flywheel_assets_tests.models.test_boosting import world

Array = np.ndarray[Any, Any]


def wrong_by_a_factor(rows: int = 40_000, seed: int = 0) -> tuple[Array, Array, Array]:
    """Scores whose log odds are 1.5 · the true ones + 1, labels, and the truth."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(-3, 1.5, rows)
    truth = 1 / (1 + np.exp(-log_odds))
    return 1 / (1 + np.exp(-(1.5 * log_odds + 1))), (generator.random(rows) < truth).astype(float), truth


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_the_truth_is_found_on_rows_that_were_not_fitted(method: Any) -> None:
    scores, labels, _ = wrong_by_a_factor()
    fresh, _, truth = wrong_by_a_factor(seed=1)
    found = fit_recalibration(method, scores, labels).apply(fresh)
    assert found.sum() == pytest.approx(truth.sum(), rel=0.05)
    assert np.abs(found - truth).mean() < 0.15 * np.abs(fresh - truth).mean()


def test_platt_finds_the_line_that_made_the_scores() -> None:
    scores, labels, _ = wrong_by_a_factor()
    found = fit_recalibration("platt", scores, labels)
    assert (found.slope, found.intercept) == (pytest.approx(1 / 1.5, abs=0.03), pytest.approx(-1 / 1.5, abs=0.08))


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_weight_stands_for_as_many_rows(method: Any) -> None:
    scores, labels, _ = wrong_by_a_factor(4000)
    times = np.random.default_rng(2).integers(1, 4, len(scores))
    weighted = fit_recalibration(method, scores, labels, times)
    repeated = fit_recalibration(method, np.repeat(scores, times), np.repeat(labels, times))
    grid = np.linspace(0, 1, 101)
    assert weighted.apply(grid) == pytest.approx(repeated.apply(grid), abs=1e-9)


@given(seed=st.integers(0, 10_000), method=st.sampled_from(["isotonic", "platt"]), places=st.integers(3, 400))
@settings(max_examples=40, deadline=None)
def test_the_order_of_scores_stays_and_ties_stay_ties(seed: int, method: Any, places: int) -> None:
    """Labels may even be noise or run against the scores."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, places, 1200) / places
    labels = (generator.random(1200) < generator.choice([0.3, 0.7]) * np.abs(generator.choice([0, 1]) - scores)) * 1.0
    recalibration = fit_recalibration(method, scores, labels, generator.exponential(2.0, 1200) + 0.1)
    distinct = np.unique(np.concatenate([scores, [0.0, 1.0]]))
    found = recalibration.apply(distinct)
    assert (np.diff(found) > 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_rows_of_one_score_are_one_point() -> None:
    """Sorting ties by label, as a naive pooling does, would find order where there is none."""
    labels = np.array([0.0, 1.0] * 400)
    found = fit_recalibration("isotonic", np.full(800, 0.2), labels)
    assert (found.scores, found.probabilities) == ((0.2,), (0.5,))


def test_few_positives_get_a_simpler_method_or_none() -> None:
    scores, labels, _ = wrong_by_a_factor()
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def method_at(count: int) -> str:
        rows = np.concatenate([positives[:count], negatives])
        return fit_recalibration("isotonic", scores[rows], labels[rows]).method

    assert method_at(LEAST_POSITIVES["isotonic"]) == "isotonic"
    assert method_at(LEAST_POSITIVES["isotonic"] - 1) == "platt"
    assert method_at(LEAST_POSITIVES["platt"] - 1) == "none"
    assert method_at(0) == "none"
    assert fit_recalibration("none", scores, labels) == IDENTITY
    assert fit_recalibration("platt", [], []) == IDENTITY


def test_separate_classes_keep_a_finite_line() -> None:
    found = fit_recalibration("platt", np.repeat([0.1, 0.9], 50), np.repeat([0.0, 1.0], 50))
    assert np.isfinite([found.slope, found.intercept]).all()
    assert found.apply(np.array([0.1]))[0] < 0.02


def test_scores_at_both_ends_are_taken() -> None:
    scores = np.array([0.0, 1.0, 0.5, 0.2] * 100)
    for method in ("isotonic", "platt"):
        found = fit_recalibration(method, scores, np.array([0.0, 1.0, 1.0, 0.0] * 100)).apply(scores)
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(
    ("scores", "labels", "weights", "named"),
    [
        ([0.5], [1, 0], None, "1 scores, 2 labels"),
        ([0.5, 1.5], [1, 0], None, "a score is 1.5"),
        ([0.5, float("nan")], [1, 0], None, "a score is nan"),
        ([0.5, 0.5], [1, 2], None, "neither 0 nor 1"),
        ([0.5, 0.5], [1, 0], [1, 0], "a weight"),
    ],
)
def test_rows_that_say_nothing_are_refused(scores: Any, labels: Any, weights: Any, named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        fit_recalibration("platt", scores, labels, weights)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_stored_model_keeps_its_recalibration_as_text(tmp_path: Path, method: Any) -> None:
    features, labels, _ = world(4000)
    model = fit_classifier(features, labels, None, ClassifierRecipe(trees=5))
    recalibration = fit_recalibration(method, model.predict(features), labels)
    assert recalibration.method == method
    RecalibratedModel(model, recalibration).save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, RecalibratedModel)
    assert loaded.recalibration == recalibration
    assert loaded.predict(features).tolist() == recalibration.apply(model.predict(features)).tolist()
    assert loaded.compute_gains() == dict(model.compute_gains())


def test_a_file_that_is_no_recalibration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recalibration.json"
    write_recalibration(path, Recalibration(method="platt", slope=2.0))
    assert read_recalibration(path).slope == 2.0
    path.write_text("{}")
    with pytest.raises(TrainingError, match="is no recalibration"):
        read_recalibration(path)
