"""Fits and loads a classifier of any kind: the interface that training and evaluation call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.errors import TrainingError
from flywheel_assets.models.boosting import ClassifierRecipe, TrainedClassifier, fit_classifier, load_classifier
from flywheel_assets.models.model_folder import LIGHTGBM, RECALIBRATION_FILE, read_model_kind
from flywheel_assets.models.recalibration import Recalibration, read_recalibration, write_recalibration
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.command import COMMAND, CommandRecipe, fit_with_command, load_command_model
from flywheel_assets.models.trainers.model import FittedModel
from flywheel_assets.models.trainers.onnx_model import ONNX, load_onnx_model
from flywheel_assets.models.trainers.text_classifier import (
    TEXT_CLASSIFIER,
    TextClassifierRecipe,
    fit_text_classifier,
    load_text_classifier,
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RecalibratedModel:
    """Passes the scores of another model through a recalibration; it is stored in that model's folder."""

    model: FittedModel
    recalibration: Recalibration

    def predict(self, features: pa.Table) -> Floats:
        """Compute the recalibrated probability of the positive class, one per row."""
        return self.recalibration.apply(self.model.predict(features))

    def compute_gains(self) -> dict[str, float]:
        """Compute what the model itself says of its features."""
        return dict(self.model.compute_gains())

    def save(self, folder: Path) -> None:
        """Write the model's files and `recalibration.json` into `folder`."""
        self.model.save(folder)
        write_recalibration(folder / RECALIBRATION_FILE, self.recalibration)


def fit_model(
    recipe: TrainerRecipe,
    features: pa.Table,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    work_dir: Path,
    classes: Sequence[str] = (),
    negative_label: str = "",
) -> FittedModel:
    """Fit a model of the recipe's kind to weighted rows; the recipe's recalibration is the caller's step.

    Args:
        recipe: of any kind.
        features: one column per feature, of numbers, booleans or texts; nulls are missing values.
        labels: 1 or True for positives, 0 or False for negatives; of several classes their words.
        weights: how many rows each one stands for, above 0; without them each stands for itself.
        work_dir: exists, and outlives the model; a command's files lie in it until the caller removes it.
        classes: three or more, which only boosted trees learn; empty: two.
        negative_label: which of them is negative.

    Raises:
        TrainingError: the rows cannot be trained on, or the trainer's result is none.
        SettingsError: a library that the recipe needs is not installed, or its base model is none.
        ProcessDiedError: a command was killed, for instance for memory; to run it again may help.
    """
    if classes and not isinstance(recipe, ClassifierRecipe):
        raise TrainingError(f"a {type(recipe).__name__} learns two classes; of {len(classes)} use a ClassifierRecipe")
    match recipe:
        case ClassifierRecipe():
            return fit_classifier(features, labels, weights, recipe, classes, negative_label)
        case TextClassifierRecipe():
            return fit_text_classifier(recipe, features, labels, weights)
        case CommandRecipe():
            return fit_with_command(recipe, features, labels, weights, work_dir)
    raise TypeError(f"{type(recipe).__name__} is no recipe that has a trainer")


def predict_classes(model: FittedModel, features: pa.Table, classes: Sequence[str]) -> Floats:
    """Compute the probability of each class, rows × classes; of a class that the model never knew it is 0.

    Args:
        model: of several classes.
        features: one column per feature.
        classes: in the order that is wanted.

    Raises:
        TrainingError: the model knows two classes, or the rows do not fit.
    """
    if not isinstance(model, TrainedClassifier) or not model.encoding.classes:
        raise TrainingError(
            f"the application declares the classes {', '.join(classes)}, and a model of two classes says nothing of "
            "them: an application that had two begins with several under another name"
        )
    known = model.predict_classes(features)
    found = np.zeros((features.num_rows, len(classes)))
    for place, name in enumerate(classes):
        if name in model.encoding.classes:
            found[:, place] = known[:, model.encoding.classes.index(name)]
    return found


def load_model(folder: Path, work_dir: Path | None = None) -> FittedModel:
    """Load the model that `save` wrote into `folder`, with its recalibration if it has one.

    Args:
        folder: `model` in a trainer's result.
        work_dir: where a command's rows and scores lie while it scores; the system's temporary folder where None.

    Raises:
        TrainingError: a file is missing or is not what it should be.
        SettingsError: a library that the model needs is not installed.
    """
    model = _load(folder, work_dir)
    path = folder / RECALIBRATION_FILE
    return RecalibratedModel(model, read_recalibration(path)) if path.exists() else model


def _load(folder: Path, work_dir: Path | None) -> FittedModel:
    kind = read_model_kind(folder)
    if kind == LIGHTGBM:
        return load_classifier(folder)
    if kind == ONNX:
        return load_onnx_model(folder)
    if kind == COMMAND:
        return load_command_model(folder, work_dir)
    if kind == TEXT_CLASSIFIER:
        return load_text_classifier(folder)
    valid = ", ".join((LIGHTGBM, ONNX, COMMAND, TEXT_CLASSIFIER))
    raise TrainingError(f"{folder} holds a model of kind {kind!r}; this release knows {valid}")
