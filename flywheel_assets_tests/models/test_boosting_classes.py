"""Trees of several classes: probabilities that sum to 1, text that is read again, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.models.boosting import ENCODING_FILE, ClassifierRecipe, fit_classifier, load_classifier
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.models.trainers.fitting import fit_model, predict_classes
from flywheel_assets_tests.builders import DAY
from flywheel_assets_tests.curation.labels.test_several_classes import contract

CLASSES = ("legit", "stolen", "friendly")
FEW = ClassifierRecipe(trees=15, min_leaf_hessian=1.0)


def world(rows: int = 1500) -> tuple[pa.Table, list[str]]:
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, rows, p=[0.7, 0.2, 0.1])
    features = pa.table({"amount": rng.normal(size=rows) + 3 * (labels == "stolen"), "age": rng.random(rows)})
    return features, labels.tolist()


def test_probabilities_sum_to_one_and_the_score_is_that_of_no_negative(tmp_path: Path) -> None:
    features, labels = world()
    fit_classifier(features, labels, None, FEW, CLASSES, "legit").save(tmp_path)
    model = load_classifier(tmp_path)
    found = model.predict_classes(features)
    assert found.shape == (features.num_rows, 3)
    assert found.sum(axis=1) == pytest.approx(1)
    assert model.predict(features) == pytest.approx(1 - found[:, 0])
    stolen = np.array(labels) == "stolen"
    assert found[stolen, 1].mean() > 2 * found[~stolen, 1].mean()


def test_classes_are_found_by_name_and_an_unknown_one_has_no_probability() -> None:
    features, labels = world()
    model = fit_classifier(features, labels, None, FEW, CLASSES, "legit")
    found = predict_classes(model, features, ("new", "stolen", "legit", "friendly"))
    assert not found[:, 0].any()
    assert (found[:, 1] == model.predict_classes(features)[:, 1]).all()


def test_a_class_without_rows_is_next_to_impossible() -> None:
    features, labels = world()
    model = fit_classifier(features, labels, None, FEW, (*CLASSES, "chargeback_abuse"), "legit")
    assert model.predict_classes(features)[:, 3].max() < 1e-6


def test_the_file_of_two_classes_is_what_it_was(tmp_path: Path) -> None:
    features, labels = world()
    model = fit_classifier(features, [label != "legit" for label in labels], None, FEW)
    model.save(tmp_path)
    assert json.loads((tmp_path / ENCODING_FILE).read_bytes()).keys() == {"names", "categories"}
    with pytest.raises(TrainingError, match="trained with two classes"):
        model.predict_classes(features)
    with pytest.raises(TrainingError, match="begins with several under another name"):
        predict_classes(model, features, CLASSES)


def test_labels_and_trainers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    features, labels = world()
    with pytest.raises(TrainingError, match="a label is 'lost'; valid are legit"):
        fit_classifier(features, ["lost", *labels[1:]], None, FEW, CLASSES, "legit")
    with pytest.raises(TrainingError, match="0 of 1500 training rows are positive"):
        fit_classifier(features, ["legit"] * 1500, None, FEW, CLASSES, "legit")
    with pytest.raises(TrainingError, match="a CommandRecipe learns two classes"):
        fit_model(CommandRecipe(command=("python",)), features, labels, None, tmp_path, CLASSES, "legit")


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        (CommandRecipe(command=("python",)), "a ClassifierRecipe where contract.classes are declared"),
        (ClassifierRecipe(recalibration="isotonic"), '"none" where contract.classes are declared'),
    ],
)
def test_a_recipe_of_two_classes_is_refused_when_the_application_is_loaded(
    recipe: TrainerRecipe, complaint: str
) -> None:
    settings: dict[str, Any] = {"name": "disputes", "description": "test", "start_date": DAY, "contract": contract()}
    with pytest.raises(SettingsError, match=complaint):
        ClassificationApplication(**settings, recipe=recipe)
