"""Loads a classifier for `mlflow.pyfunc`: the loader module of every kind but plain LightGBM.

MLflow imports it by the name that `registry` wrote into the stored model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.models.trainers.fitting import load_model
from flywheel_assets.models.trainers.model import FittedModel


@dataclass(frozen=True)
class ScoringFunction:
    """Scores data frames."""

    model: FittedModel

    def predict(self, model_input: Any, params: object = None) -> npt.NDArray[np.float64]:
        """Compute the probability of the positive class, one per row.

        Args:
            model_input: a pandas DataFrame with a column per feature.
            params: MLflow's; there are none.
        """
        return self.model.predict(pa.Table.from_pandas(model_input, preserve_index=False))


def _load_pyfunc(path: str) -> ScoringFunction:
    """Load the folder that the model was stored as: MLflow asks for a function of this name."""
    return ScoringFunction(load_model(Path(path)))
