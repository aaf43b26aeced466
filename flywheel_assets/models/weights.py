"""Identifies a model's weights by the hash of their files."""

import hashlib
from pathlib import Path

from flywheel_assets.errors import ManifestMismatchError, TrainingError
from flywheel_assets.lake.storage.files import hash_file

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def hash_base_weights(base_model: str) -> str:
    """Hash the names and contents of a base model's safetensors files.

    Args:
        base_model: folder, or hub id, which is looked up in the local cache or fetched (without any pickle).

    Raises:
        TrainingError: there are no such weights.
    """
    folder = Path(base_model) if Path(base_model).is_dir() else _fetch(base_model)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise TrainingError(f"{folder} holds no safetensors weights; pickled weights are not loaded")
    lines = "".join(f"{file.name} {hash_file(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_adapter(folder: Path) -> str:
    """Hash an adapter's weights with sha256.

    Raises:
        ManifestMismatchError: they are missing.
    """
    path = folder / _ADAPTER_WEIGHTS
    if not path.is_file():
        raise ManifestMismatchError(f"{folder} holds no {_ADAPTER_WEIGHTS}; train this version again")
    return hash_file(path)


def _fetch(base_model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base_model, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, FileNotFoundError) as error:
        raise TrainingError(
            f"base model {base_model!r} is neither a folder nor available from the hub: {error}"
        ) from error
