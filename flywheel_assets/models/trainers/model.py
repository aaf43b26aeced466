"""Defines what every fitted model can do, how its inputs are named and typed, and when its scores are refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.errors import TrainingError
from flywheel_assets.records import is_text

Floats = npt.NDArray[np.float64]
FeatureKind = Literal["number", "boolean", "text"]

_ARROW_TYPES: dict[FeatureKind, pa.DataType] = {"number": pa.float64(), "boolean": pa.bool_(), "text": pa.string()}


class FittedModel(Protocol):
    """Scores rows of features."""

    def predict(self, features: pa.Table) -> Floats:
        """Compute the probability of the positive class, one per row; columns are found by name.

        Raises:
            TrainingError: the rows lack a feature, one is of another kind than at training, or a score is none.
        """

    def compute_gains(self) -> Mapping[str, float]:
        """Compute each feature's share in what was learnt, largest first; empty where the kind cannot say it."""

    def save(self, folder: Path) -> None:
        """Write the model into `folder`, which is created; `load_model` reads it."""


def derive_kinds(features: pa.Table) -> dict[str, FeatureKind]:
    """Derive the kind of each column, in the columns' order.

    Raises:
        TrainingError: no columns, or one of another type.
    """
    if not features.num_columns:
        raise TrainingError("the training rows have no features; declare at least one in the application's schema")
    return {field.name: _find_kind(field) for field in features.schema}


def select_features(features: pa.Table, kinds: Mapping[str, FeatureKind]) -> pa.Table:
    """Select the columns that a model was trained with, in its order: numbers as float64, texts as strings.

    Raises:
        TrainingError: a column is missing, or of another kind than at training.
    """
    if absent := [name for name in kinds if name not in features.column_names]:
        raise TrainingError(
            f"the model needs the features {', '.join(absent)}, which the rows lack; they have "
            f"{', '.join(features.column_names) or 'none'}"
        )
    columns = []
    for name, trained in kinds.items():
        column = features[name]
        # A column without any value has the type null: it is as missing as it would be in the trained type.
        if not pa.types.is_null(column.type) and _find_kind(features.schema.field(name)) != trained:
            raise TrainingError(
                f"feature {name!r} has type {column.type}, but the model was trained with a {trained}; give what the "
                "application's schema declares"
            )
        columns.append(column.cast(_ARROW_TYPES[trained]))
    return pa.table(columns, names=list(kinds))


def check_scores(scores: npt.NDArray[np.generic], rows: int, source: str) -> Floats:
    """Return scores as float64, one per row, each a probability.

    Args:
        scores: of any shape that one value per row can have.
        rows: how many were asked for.
        source: who scored, for the message.

    Raises:
        TrainingError: the count is another, or a score is no number from 0 to 1.
    """
    if scores.size != rows:
        raise TrainingError(f"{source} gave {scores.size:,} scores for {rows:,} rows; it must give one for each row")
    try:
        found = np.asarray(scores, dtype=np.float64).reshape(rows)
    except (TypeError, ValueError):
        raise TrainingError(f"{source} gave scores of type {scores.dtype}; a score is a number from 0 to 1") from None
    # Not "outside 0 to 1": a score that is not a number is refused too.
    refused = ~((found >= 0) & (found <= 1))
    if refused.any():
        row = int(refused.argmax())
        raise TrainingError(
            f"{source} scored {int(refused.sum()):,} of {rows:,} rows outside 0 to 1, row {row} with {found[row]}; a "
            "score is the probability of the positive class"
        )
    return found


def _find_kind(field: "pa.Field[Any]") -> FeatureKind:
    kind = field.type
    if is_text(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    raise TrainingError(
        f"feature {field.name!r} has type {kind}; valid are numbers, booleans and texts: derive one of these where the "
        "features are made"
    )
