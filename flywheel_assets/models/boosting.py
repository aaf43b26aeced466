"""Fits gradient-boosted trees to sampled, weighted rows, and stores them without pickle.

Always from scratch: continuing an earlier model gains nothing on all rows, and on hard rows alone it destroys it
(AP .741 → .168). LightGBM is imported inside the functions, so that an application's file may name the recipe.

Defaults that differ from LightGBM's, and why:

- `trees` 120, `leaves` 15, `learning_rate` .08 (100, 31, .1): positives are rare, and small leaves remember them.
- `min_leaf_hessian` 5 (.001) with `min_data_in_leaf`, `min_data_in_bin` 1 (20, 3): the hessian adds up *weights*, the
  others count rows. Only the former asks the same of 40,000 sampled rows as of the 1,200,000 that they stand for.
- `max_bins` 4095 (255): bins are made of the rows that were kept, so sampling moved them towards the hard rows and
  seemed to beat all rows (AP .722 against .700); with fine bins both see the same.
- `deterministic`, `force_row_wise` and one thread (none): otherwise timing chooses the algorithm and sums differ in
  their last digits; the same rows, recipe and seed must give the same text.
- No bagging, no column sampling, no `is_unbalance` or `scale_pos_weight`: they would undo the calibration that the
  sample weights give.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.errors import TrainingError
from flywheel_assets.extras import require_extra
from flywheel_assets.models.trainer_recipe import RecalibrationMethod, TrainerRecipe
from flywheel_assets.ranges import Count, NotNegative, PositiveShare
from flywheel_assets.records import is_text

if TYPE_CHECKING:
    import lightgbm

Floats = npt.NDArray[np.float64]

MODEL_FILE, ENCODING_FILE = "model.txt", "features.json"
# LightGBM refuses JSON's own characters in a feature's name, and replaces white space behind one's back.
_FEATURE_NAME = re.compile(r'[^\s",:\[\]{}]+')


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(TrainerRecipe):
    """Everything that decides boosted trees besides their rows."""

    trees: Count = 120
    """Boosting rounds; there is no early stopping, which would need rows that are better trained on."""
    leaves: Annotated[int, Ge(2)] = 15
    """Most leaves of one tree."""
    learning_rate: PositiveShare = 0.08
    """Factor on each tree's answer."""
    min_leaf_hessian: NotNegative = 5.0
    """Least Σ weight · p (1 − p) in a leaf: about so many rows' worth of doubt."""
    max_bins: Annotated[int, Ge(2)] = 4095
    """Most distinct values that a feature is rounded to."""
    l2: NotNegative = 0.0
    """Ridge penalty on the leaves' values."""
    seed: int = 0
    """Of the few ties that LightGBM breaks at random."""
    threads: Count = 1
    """In the recipe because sums in another order give another model."""
    recalibration: RecalibrationMethod = "none"
    """Last step, fitted on out-of-sample scores; see `models.recalibration`."""

    def to_parameters(self) -> dict[str, Any]:
        """Return the parameters under LightGBM's names."""
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_sum_hessian_in_leaf": self.min_leaf_hessian,
            "min_data_in_leaf": 1,
            "min_data_in_bin": 1,
            "max_bin": self.max_bins,
            "lambda_l2": self.l2,
            "seed": self.seed,
            "num_threads": self.threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }


class FeatureEncoding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Maps a table of features to a model's inputs, and its outputs to classes.

    Stored as JSON, because the model's text only knows numbers.
    """

    names: tuple[str, ...]
    """Columns in the order of the model's inputs."""
    categories: dict[str, tuple[str, ...]]
    """Of each text feature the values it was trained with; a value's position is its code."""
    classes: tuple[str, ...] = ()
    """In the order of the model's outputs; empty: two classes, one output."""
    negative_label: str = ""
    """The one of the classes whose rows are negatives; empty: two classes."""

    @classmethod
    def derive(cls, features: pa.Table) -> "FeatureEncoding":
        """Derive the encoding of a table: numbers and booleans as they are, texts as categories in sorted order.

        Raises:
            TrainingError: no columns, a column of another type, or a name that LightGBM cannot store.
        """
        if not features.num_columns:
            raise TrainingError("the training rows have no features; declare at least one in the application's schema")
        categories = {}
        for field in features.schema:
            if not _FEATURE_NAME.fullmatch(field.name):
                raise TrainingError(
                    f"feature {field.name!r} cannot be stored in a model: rename it without white space and without "
                    'any of " , : [ ] { }'
                )
            if is_text(field.type):
                texts = features[field.name].combine_chunks().cast(pa.string())
                categories[field.name] = tuple(sorted(values_of(pc.unique(texts).drop_null())))
            elif not _is_number(field.type):
                raise TrainingError(
                    f"feature {field.name!r} has type {field.type}; valid are numbers, booleans and texts: derive one "
                    "of these where the features are made"
                )
        return cls(tuple(features.column_names), categories)

    def encode(self, features: pa.Table) -> Floats:
        """Encode features as one column each; missing values and categories never trained with are NaN.

        Columns are found by name: their order and further columns do not matter.

        Raises:
            TrainingError: a column is missing, or of another kind than at training.
        """
        if absent := [name for name in self.names if name not in features.column_names]:
            raise TrainingError(
                f"the model needs the features {', '.join(absent)}, which the rows lack; they have "
                f"{', '.join(features.column_names) or 'none'}. Features that the contract had once belong into its "
                "retired_features while such a model may serve"
            )
        matrix = np.empty((features.num_rows, len(self.names)))
        for position, name in enumerate(self.names):
            column = features[name].combine_chunks()
            trained_as_text = name in self.categories
            if is_text(column.type) != trained_as_text or not (trained_as_text or _is_number(column.type)):
                raise TrainingError(
                    f"feature {name!r} has type {column.type}, but the model was trained with "
                    f"{'texts' if trained_as_text else 'numbers'}; give what the application's schema declares"
                )
            if trained_as_text:
                column = pc.index_in(column.cast(pa.string()), pa.array(self.categories[name], pa.string()))
            matrix[:, position] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return matrix


@dataclass(frozen=True)
class TrainedClassifier:  # type: ignore[no-any-unimported]
    """A booster and its feature encoding."""

    booster: "lightgbm.Booster"  # type: ignore[no-any-unimported]
    encoding: FeatureEncoding

    def predict(self, features: pa.Table) -> Floats:
        """Compute the probability of the positive class, one per row, on one thread.

        Of several classes: 1 − the probability of the negative label.

        Raises:
            TrainingError: the rows lack a feature, or one is of another kind than at training.
        """
        if self.encoding.classes:
            negative = self.encoding.classes.index(self.encoding.negative_label)
            return np.asarray(np.clip(1 - self.predict_classes(features)[:, negative], 0.0, 1.0))
        return self._predict(features)

    def predict_classes(self, features: pa.Table) -> Floats:
        """Compute the probability of each class, rows × classes in the order of `encoding.classes`.

        Raises:
            TrainingError: the model knows two classes, the rows lack a feature, or one is of another kind.
        """
        if not self.encoding.classes:
            raise TrainingError("the model was trained with two classes; its score is all that it says: use predict")
        return self._predict(features).reshape(features.num_rows, len(self.encoding.classes))

    def _predict(self, features: pa.Table) -> Floats:
        if not features.num_rows:
            return np.zeros(0)
        return np.asarray(self.booster.predict(self.encoding.encode(features), num_threads=1), dtype=np.float64)

    def compute_gains(self) -> Mapping[str, float]:
        """Compute each feature's share in the fall of the training loss, largest first; they sum to 1."""
        gains = self.booster.feature_importance(importance_type="gain")
        total = float(gains.sum()) or 1.0
        order = np.argsort(-gains, kind="stable")
        return {self.encoding.names[position]: float(gains[position]) / total for position in order}

    def save(self, folder: Path) -> None:
        """Write `model.txt` (LightGBM's own text) and `features.json` into `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        self.booster.save_model(folder / MODEL_FILE)
        (folder / ENCODING_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self.encoding), indent=1) + b"\n")


def fit_classifier(
    features: pa.Table,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    recipe: ClassifierRecipe | None = None,
    classes: Sequence[str] = (),
    negative_label: str = "",
) -> TrainedClassifier:
    """Fit trees to weighted rows; the same rows in the same order and the same recipe give the same text.

    Args:
        features: one column per feature, of numbers, booleans or texts; nulls are missing values.
        labels: 1 or True for positives, 0 or False for negatives; of several classes their words.
        weights: how many rows each one stands for, above 0; without them each stands for itself. They are not
            normalised: `min_leaf_hessian` counts in their unit.
        recipe: the default recipe where none is given.
        classes: three or more, in the order of the model's outputs; one without rows gets next to no probability.
        negative_label: which of them is negative.

    Raises:
        TrainingError: lengths differ, a label is none, one class is missing, a weight is not above 0, or a
            feature cannot be used.
        SettingsError: LightGBM is not installed.
    """
    require_extra("classifier", "fitting boosted trees", ("lightgbm",))
    import lightgbm

    recipe = recipe or ClassifierRecipe()
    targets = _number_classes(labels, classes) if classes else np.asarray(labels, dtype=np.float64)
    row_weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    negative = float(classes.index(negative_label)) if classes else 0.0
    check_training_rows(features.num_rows, (targets != negative) * 1.0 if classes else targets, row_weights)
    encoding = FeatureEncoding.derive(features)
    parameters = recipe.to_parameters()
    if classes:
        encoding = msgspec.structs.replace(encoding, classes=tuple(classes), negative_label=negative_label)
        parameters |= {"objective": "multiclass", "num_class": len(classes)}
    data = lightgbm.Dataset(
        encoding.encode(features),
        label=targets,
        weight=row_weights,
        feature_name=list(encoding.names),
        categorical_feature=[encoding.names.index(name) for name in encoding.categories],
        params=parameters,
    )
    return TrainedClassifier(lightgbm.train(parameters, data, num_boost_round=recipe.trees), encoding)


def _number_classes(labels: npt.ArrayLike, classes: Sequence[str]) -> Floats:
    """Number labels by their places among the classes."""
    words = np.asarray(labels, dtype=object)
    numbers = np.full(len(words), np.nan)
    for number, name in enumerate(classes):
        numbers[words == name] = number
    if np.isnan(numbers).any():
        odd = words[np.isnan(numbers)][0]
        raise TrainingError(f"a label is {str(odd)[:80]!r}; valid are {', '.join(classes)}: cut the version again")
    return numbers


def load_classifier(folder: Path) -> TrainedClassifier:
    """Read a classifier that `TrainedClassifier.save` wrote.

    Raises:
        TrainingError: one of the two files is missing or is not what it should be.
        SettingsError: LightGBM is not installed.
    """
    require_extra("classifier", "loading boosted trees", ("lightgbm",))
    import lightgbm

    for name in (MODEL_FILE, ENCODING_FILE):
        if not (folder / name).is_file():
            raise TrainingError(f"{folder} holds no {name}; a classifier is {MODEL_FILE} and {ENCODING_FILE} together")
    try:
        encoding = msgspec.json.decode((folder / ENCODING_FILE).read_bytes(), type=FeatureEncoding)
        booster = lightgbm.Booster(model_file=folder / MODEL_FILE)
    except (msgspec.DecodeError, lightgbm.basic.LightGBMError) as unreadable:
        raise TrainingError(f"{folder} holds no readable classifier: {unreadable}; train the version again") from None
    if booster.num_feature() != len(encoding.names):
        raise TrainingError(
            f"{folder}: the model reads {booster.num_feature()} features, {ENCODING_FILE} names {len(encoding.names)}; "
            "the two files are not of one training"
        )
    return TrainedClassifier(booster, encoding)


def check_training_rows(rows: int, targets: Floats, weights: Floats) -> None:
    """Check that labels and weights fit the rows of features, and that there is something to learn.

    Raises:
        TrainingError: lengths differ, a label is neither 0 nor 1, one class is missing, or a weight is not above 0.
    """
    if not rows == len(targets) == len(weights):
        raise TrainingError(f"{rows} rows of features, {len(targets)} labels and {len(weights)} weights; need as many")
    if not np.isin(targets, (0.0, 1.0)).all():
        odd = targets[~np.isin(targets, (0.0, 1.0))][0]
        raise TrainingError(f"a label is {odd}; valid are 1 for positives and 0 for negatives, unknown rows stay out")
    positives = int(targets.sum())
    if positives in (0, rows):
        raise TrainingError(
            f"{positives} of {rows} training rows are positive; a classifier needs both classes: wait for labels, or "
            "widen the days of the version"
        )
    # Not "weights <= 0": a weight that is not a number is refused too.
    if not (weights > 0).all() or np.isinf(weights).any():
        odd = weights[~(weights > 0) | np.isinf(weights)][0]
        raise TrainingError(f"a sample weight is {odd}; it must be 1 / inclusion probability, a number above 0")


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )
