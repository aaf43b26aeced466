"""Names the packages that only a part of the work needs, by the extra that installs them.

`pip install flywheel_assets` brings what captures, joins, curates, reviews and shows. Every other package is asked for
where it is needed, by `require_extra`: an ImportError names a module, and a person needs the command.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from flywheel_assets.errors import SettingsError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "tracking": ("matplotlib", "mlflow"),
    "classifier": ("lightgbm", "scipy", "sklearn"),
    "train": ("datasets", "huggingface_hub", "peft", "tokenizers", "torch", "transformers", "trl"),
    "s3": ("boto3", "dagster_aws"),
    "onnx": ("onnxruntime",),
    "gpu": ("bitsandbytes",),
}
"""Modules that an extra of pyproject.toml brings, by the extra; those that are imported somewhere in this package."""


def find_missing(extra: str, only: Sequence[str] = ()) -> list[str]:
    """Find the modules of an extra that are not installed, without importing any.

    Args:
        extra: a key of `EXTRAS`.
        only: the modules to look for; none: all of the extra.
    """
    return [name for name in only or EXTRAS[extra] if find_spec(name) is None]


def write_install_command(extra: str) -> str:
    """Write the command that installs an extra, as it can be pasted."""
    return f"pip install 'flywheel_assets[{extra}]'"


def require_extra(extra: str, work: str, only: Sequence[str] = ()) -> None:
    """Refuse work whose packages are not installed.

    Args:
        extra: a key of `EXTRAS`.
        work: what needs them, for the message.
        only: the modules that are needed; none: all of the extra.

    Raises:
        SettingsError: one is not installed; the message holds the command that installs it.
    """
    if missing := find_missing(extra, only):
        raise SettingsError(f"{work} needs {', '.join(missing)}, not installed here: {write_install_command(extra)}")
