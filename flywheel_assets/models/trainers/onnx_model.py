"""Scores rows with an ONNX model that a team's trainer exported; needs the extra `onnx` (onnxruntime).

Inputs are one per feature, by name, of shape [rows, 1] or [rows]; or a single matrix of numbers, [rows, features] in
the order of the training. The output `score`, else the last column of `probabilities`, is the score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.models.model_folder import KIND_FILE, copy_model
from flywheel_assets.models.trainers.model import FeatureKind, check_scores, select_features

Floats = npt.NDArray[np.float64]

ONNX = "onnx"
ONNX_FILE = "model.onnx"
_ROWS_AT_ONCE = 65_536
_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class _OnnxKind(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["onnx"] = "onnx"
    features: dict[str, FeatureKind]


@dataclass(frozen=True)
class OnnxModel:
    """A folder with `model.onnx`, and the features that it was trained with."""

    folder: Path
    features: Mapping[str, FeatureKind]

    @cached_property
    def _session(self) -> Any:
        if find_spec("onnxruntime") is None:
            raise SettingsError(
                f"{ONNX_FILE} needs onnxruntime, not installed here: pip install 'flywheel_assets[onnx]'"
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread, as everywhere: sums in another order would give other scores.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(
                self.folder / ONNX_FILE, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as refused:
            # onnxruntime has a class of its own for each status, with no common one that it exports.
            raise TrainingError(
                f"{ONNX_FILE} cannot be loaded ({type(refused).__name__}); export it with operators that onnxruntime "
                f"{onnxruntime.__version__} has"
            ) from None

    def predict(self, features: pa.Table) -> Floats:
        """Compute the probability of the positive class, one per row, on one thread.

        Raises:
            TrainingError: the rows lack a feature, the graph's inputs are others, or a score is no probability.
            SettingsError: onnxruntime is not installed.
        """
        rows = select_features(features, self.features)
        output = self._find_output()
        parts = [self._score(rows.slice(start, _ROWS_AT_ONCE), output) for start in range(0, len(rows), _ROWS_AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def compute_gains(self) -> Mapping[str, float]:
        """Return nothing: a graph does not say it."""
        return {}

    def save(self, folder: Path) -> None:
        """Copy the model's files into `folder`."""
        copy_model(self.folder, folder)

    def _score(self, rows: pa.Table, output: str) -> Floats:
        try:
            [scored] = self._session.run([output], self._build_inputs(rows))
        except TrainingError:
            raise
        except Exception as refused:
            # Its message may quote a category of the rows.
            raise TrainingError(
                f"{ONNX_FILE} cannot score rows ({type(refused).__name__}); run it with onnxruntime where it was "
                "exported"
            ) from None
        found = np.asarray(scored)
        return check_scores(found[:, -1] if found.ndim == 2 and found.shape[1] == 2 else found, len(rows), ONNX_FILE)

    def _find_output(self) -> str:
        names = [output.name for output in self._session.get_outputs()]
        for wanted in ("score", "probabilities"):
            if wanted in names:
                return wanted
        raise TrainingError(
            f"{ONNX_FILE} has the outputs {', '.join(names)}; it needs one that is named score, or probabilities as "
            'skl2onnx writes it with options={"zipmap": False}'
        )

    def _build_inputs(self, rows: pa.Table) -> dict[str, npt.NDArray[Any]]:
        asked = self._session.get_inputs()
        if {each.name for each in asked} <= set(self.features):
            return {each.name: _build_input(rows[each.name], each) for each in asked}
        if len(asked) == 1 and "text" not in self.features.values():
            matrix = [pc.cast(rows[name], pa.float64()).to_numpy() for name in rows.column_names]
            return {asked[0].name: np.column_stack(matrix).astype(_find_numpy_type(asked[0]))}
        raise TrainingError(
            f"{ONNX_FILE} has the inputs {', '.join(each.name for each in asked)}; it needs one per feature, with the "
            f"names {', '.join(self.features)}, or where no feature is a text a single matrix of all of them"
        )


def save_onnx_kind(folder: Path, features: dict[str, FeatureKind]) -> None:
    """Write `model.json` next to `model.onnx`."""
    (folder / KIND_FILE).write_bytes(msgspec.json.encode(_OnnxKind(features=features)))


def load_onnx_model(folder: Path) -> OnnxModel:
    """Load a folder with `model.onnx`; the graph itself is read at the first row.

    Raises:
        TrainingError: one of the two files is missing or is not what it should be.
    """
    if not (folder / ONNX_FILE).is_file():
        raise TrainingError(f"{folder} holds no {ONNX_FILE}; train the version again")
    try:
        return OnnxModel(folder, msgspec.json.decode((folder / KIND_FILE).read_bytes(), type=_OnnxKind).features)
    except msgspec.DecodeError as unreadable:
        raise TrainingError(f"{folder / KIND_FILE} is unreadable: {unreadable}; train the version again") from None


def _build_input(column: Any, asked: Any) -> npt.NDArray[Any]:
    kind = _find_numpy_type(asked)
    if pa.types.is_string(column.type):
        if kind is not np.object_:
            raise TrainingError(f"{ONNX_FILE}'s input {asked.name} is {asked.type}, but the feature is a text")
        values: npt.NDArray[Any] = np.array(pc.fill_null(column, "").to_pylist(), dtype=object)
    elif kind is np.object_:
        raise TrainingError(f"{ONNX_FILE}'s input {asked.name} is a text, but the feature is a {column.type}")
    else:
        if column.null_count and kind not in (np.float32, np.float64):
            raise TrainingError(
                f"feature {asked.name!r} is missing in {column.null_count:,} rows, and {ONNX_FILE}'s input is "
                f"{asked.type}; export it as a float, where a missing value is NaN"
            )
        values = column.cast(pa.float64()).to_numpy().astype(kind)
    return values.reshape(-1, 1) if len(asked.shape) == 2 else values


def _find_numpy_type(asked: Any) -> Any:
    if asked.type not in _NUMPY_TYPES:
        raise TrainingError(f"{ONNX_FILE}'s input {asked.name} is {asked.type}; valid are {', '.join(_NUMPY_TYPES)}")
    return _NUMPY_TYPES[asked.type]
