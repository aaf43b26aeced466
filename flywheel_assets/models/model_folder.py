"""Says what kind of model a folder holds, and identifies it, without a model library.

In `<version>/training/model/` lie:

- `model.json`, {"kind": …}; absent where LightGBM made the model;
- `recalibration.json`, the last step of its scores (see `models.recalibration`); absent where there is none;
- the files of its kind.
"""

import hashlib
import shutil
from pathlib import Path

import msgspec

from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.storage.files import hash_file

MODEL_FOLDER = "model"
"""Folder within a trainer's result: of the model that may be deployed."""
JUDGED_FOLDER = "judged"
"""Folder of the model that is tested in its place; without one the model itself is."""
KIND_FILE, RECALIBRATION_FILE = "model.json", "recalibration.json"
LIGHTGBM = "lightgbm"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_LIGHTGBM_FILE = "model.txt"
_PICKLES = ("*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth", "pytorch_model*.bin")


class _Kind(msgspec.Struct, frozen=True):
    kind: str


def name_judged(week: int) -> str:
    """Name the folder of the model that is tested on an evaluation week; 0 is the newest."""
    return JUDGED_FOLDER if week == 0 else f"{JUDGED_FOLDER}_{week}"


def name_stand_in(fold: int) -> str:
    """Name the folder of the model that stands for the refit on a fold's recent rows."""
    return f"stand_in_{fold}"


def find_judged(trained: Path) -> Path:
    """Return the folder of the model that is tested, within a trainer's result."""
    judged = trained / JUDGED_FOLDER
    return judged if judged.is_dir() else trained / MODEL_FOLDER


def read_model_kind(folder: Path) -> str:
    """Read the kind of a model's folder; a folder without `model.json` holds LightGBM's.

    Raises:
        TrainingError: the file says no kind.
    """
    path = folder / KIND_FILE
    if not path.exists():
        return LIGHTGBM
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kind).kind
    except msgspec.DecodeError as unreadable:
        raise TrainingError(f"{path} says no kind of model: {unreadable}; train the version again") from None


def hash_weights(folder: Path) -> str:
    """Hash a trained model as its trainer's report does: an adapter by its weights, a classifier by `hash_model`.

    Raises:
        TrainingError: the folder holds no model.
    """
    weights = folder / ADAPTER_WEIGHTS
    return hash_file(weights) if weights.is_file() else hash_model(folder)


def is_plain_lightgbm(folder: Path) -> bool:
    """Return whether LightGBM's own text is all of the model."""
    return read_model_kind(folder) == LIGHTGBM and not (folder / RECALIBRATION_FILE).exists()


def hash_model(folder: Path) -> str:
    """Hash a model with sha256: the text of plain trees, else the name and content of each file.

    Raises:
        TrainingError: the folder holds no model.
    """
    if is_plain_lightgbm(folder):
        if not (folder / _LIGHTGBM_FILE).is_file():
            raise TrainingError(f"{folder} holds neither {_LIGHTGBM_FILE} nor {KIND_FILE}; train the version again")
        return hash_file(folder / _LIGHTGBM_FILE)
    lines = "".join(f"{path.relative_to(folder)} {hash_file(path)}\n" for path in list_model_files(folder))
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_listing(folder: Path) -> str:
    """Hash a folder as a shell can: sha256 of the lines that `sha256sum` prints for its files, sorted by path."""
    files = {path.relative_to(folder).as_posix(): path for path in list_model_files(folder)}
    lines = "".join(f"{hash_file(files[name])}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def list_model_files(folder: Path) -> list[Path]:
    """List the files of a model; the bytecode that Python leaves there is none of them."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def copy_model(source: Path, folder: Path) -> None:
    """Copy a model's files into `folder`, which is created."""
    for path in list_model_files(source):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def refuse_unsafe_files(folder: Path) -> None:
    """Refuse a folder whose files lead out of it, or whose names are those of pickles.

    To read a pickle runs the code that it names, on every machine that the model is brought to.

    Raises:
        TrainingError: there is such a file.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink():
            raise TrainingError(f"{name} is a link; a model's folder is moved as a whole: write the file itself there")
        if any(path.match(pattern) for pattern in _PICKLES):
            raise TrainingError(
                f"{name} looks like a pickle, and no model is stored as one; write model.onnx, or coefficients as JSON "
                "or safetensors that the scoring command reads"
            )
