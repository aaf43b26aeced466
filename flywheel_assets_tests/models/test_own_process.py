"""A result folder answers one request: the same one again finds it, any other is refused."""

from pathlib import Path

import msgspec
import pytest

from flywheel_assets.errors import VersionConflictError
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.own_process import find_finished_report, read_report, write_report
from flywheel_assets.training.requests import ClassifierTrainingReport, ClassifierTrainingRequest

REQUEST = ClassifierTrainingRequest(
    application="fraud",
    version="fraud_gold_v1",
    export_dir="export",
    manifest_sha256="4f" * 32,
    recipe=ClassifierRecipe(),
    output_dir="training",
    work_dir="work",
)
REPORT = ClassifierTrainingReport(
    application="fraud",
    version="fraud_gold_v1",
    request_sha256=REQUEST.compute_digest(),
    manifest_sha256=REQUEST.manifest_sha256,
    recipe=REQUEST.recipe,
    rows=2,
    positives=1,
    hard_examples=0,
    rows_stood_for=2.0,
    gains={},
    model_sha256="00",
    seconds=0.5,
)


def finished(folder: Path, request: ClassifierTrainingRequest = REQUEST) -> ClassifierTrainingReport | None:
    path = folder / "training.json"
    return find_finished_report(
        path, ClassifierTrainingReport, request.compute_digest(), remedy="Remove it to train again."
    )


def test_a_finished_training_is_found_by_the_same_request_from_another_home(tmp_path: Path) -> None:
    assert finished(tmp_path / "training") is None
    write_report(tmp_path / "training.json", REPORT)
    assert finished(tmp_path, msgspec.structs.replace(REQUEST, export_dir="elsewhere", work_dir="too")) == REPORT


def test_another_export_is_another_request(tmp_path: Path) -> None:
    write_report(tmp_path / "training.json", REPORT)
    other = msgspec.structs.replace(REQUEST, manifest_sha256="5e" * 32)
    with pytest.raises(VersionConflictError, match=r"answers another request.* Remove it to train again"):
        finished(tmp_path, other)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(VersionConflictError, match="no process of ours made it"):
        finished(tmp_path)
    assert (tmp_path / "notes.txt").exists()


def test_reports_of_earlier_releases_are_still_read(tmp_path: Path) -> None:
    """They call the digest of a classifier's request by its old name."""
    path = tmp_path / "training.json"
    write_report(path, REPORT)
    assert b'"request_digest"' in path.read_bytes()
    assert read_report(path, ClassifierTrainingReport) == REPORT
