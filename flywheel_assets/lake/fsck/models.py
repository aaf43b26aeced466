"""Checks that every model registered in MLflow has its files, in the versions' folders and among MLflow's artifacts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.lake.fsck.findings import ALTERED, LOST, Finding, Report, Sample


@dataclass(frozen=True)
class StoredModel:
    """One registered model, and where its files should be."""

    model_version: str
    gold_version: str
    model_dir: Path
    """The folder that serves and that later trainings start from."""
    sha256: str | None
    """Of `model_dir`, as `hash_listing` makes it; None: registered before it was recorded."""
    artifact: Path | None
    """MLflow's own copy; None: it is not on this machine."""
    is_copy: bool
    """Whether the artifact is a copy of `model_dir`, file by file."""
    promotion: Path | None = None
    """The decision that must be there, because the model serves; None: it does not."""


def check_models(
    application: str,
    models: Iterable[StoredModel],
    hash_folder: Callable[[Path], str],
    sample: Sample,
    report: Report,
) -> None:
    """Check the files of registered models."""
    for model in models:
        report.count("registered models")
        if model.artifact is None:
            report.not_looked_at.append("MLflow's copies of models: its server is elsewhere")
        report.add(_look_at(application, model, hash_folder, sample))


def _look_at(
    application: str, model: StoredModel, hash_folder: Callable[[Path], str], sample: Sample
) -> Iterator[Finding]:
    place = f"{application} model {model.model_version} in MLflow ({model.gold_version})"
    is_drawn = sample.draws(f"{model.gold_version}/registered")
    if model.promotion is not None and not model.promotion.exists():
        restore = f"restore it from a backup; else `flywheel retry {model.gold_version}` decides again."
        yield Finding(place, str(model.promotion), "is missing, and the model serves", LOST, restore)
    own = _find_problem(model.model_dir, model.sha256 if is_drawn else None, hash_folder)
    copy = None
    if model.artifact is not None:
        copy = _find_problem(model.artifact, model.sha256 if is_drawn and model.is_copy else None, hash_folder)
    if own is not None:
        restore = f"restore the folder from a backup, or train {model.gold_version} again."
        if model.is_copy and copy is None and model.artifact is not None:
            restore = f"`rm -rf {model.model_dir} && cp -a {model.artifact} {model.model_dir}`: MLflow's copy is whole."
        yield Finding(place, str(model.model_dir), own, LOST if "no files" in own else ALTERED, restore)
    if copy is not None:
        restore = "restore the folder from a backup."
        if model.is_copy and own is None:
            restore = (
                f"`rm -rf {model.artifact} && cp -a {model.model_dir} {model.artifact}`: the served folder is whole."
            )
        yield Finding(place, str(model.artifact), copy, LOST if "no files" in copy else ALTERED, restore)


def _find_problem(folder: Path, sha256: str | None, hash_folder: Callable[[Path], str]) -> str | None:
    if not folder.is_dir() or not any(path.is_file() for path in folder.rglob("*")):
        return "has no files"
    if sha256 is not None and hash_folder(folder) != sha256:
        return "has another sha256 than MLflow recorded"
    return None
