"""Trains one classifier from one pinned export, in a process of its own: `python -m … REQUEST.json`.

    <output_dir>/
        model/model.txt, model/features.json   the trees in LightGBM's text, and how they read features
        reference.json                         how the weighted training rows are distributed, for the drift report
        training.json                          the report

The folder appears by one rename. A finished output of the same request is left as it is.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.storage.files import file_sha256
from flywheel_assets.lake.versions.exports import ExportSet, verify_manifest
from flywheel_assets.lake.versions.folders import VersionFolder
from flywheel_assets.measures.drift import build_drift_reference
from flywheel_assets.models.boosting import MODEL_FILE, MODEL_FOLDER, ClassifierRecipe, fit_classifier
from flywheel_assets.models.own_process import run_process, whole_folder
from flywheel_assets.records import make_stable_id

REFERENCE_FILE, REPORT_FILE = "reference.json", "training.json"
SCORE = "score"
"""The name of the score among the drift reference's fields."""


class ClassifierTrainingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One training."""

    application: str
    version: str
    export_dir: str
    manifest_sha256: str
    recipe: ClassifierRecipe
    output_dir: str
    """Appears by one rename."""
    work_dir: str
    """Only error.json is written there."""

    def compute_digest(self) -> str:
        """Hash everything that decides the result."""
        return make_stable_id("classifier", self.manifest_sha256, msgspec.to_builtins(self.recipe))


class ClassifierTrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a finished training and its rows."""

    application: str
    version: str
    request_digest: str
    manifest_sha256: str
    recipe: ClassifierRecipe
    rows: int
    positives: int
    hard_examples: int
    """Rows with a discrepancy, of either class."""
    rows_stood_for: float
    """Sum of the sample weights: the rows that the sample represents."""
    gains: dict[str, float]
    """Share of each feature's splits in the fall of the training loss, largest first."""
    model_sha256: str
    seconds: float
    """Of fitting, wall time."""

    def to_parameters(self) -> dict[str, str | int | float]:
        """Return the run's parameters for a tracking server."""
        return {
            **vars(self.recipe),
            "rows": self.rows,
            "positives": self.positives,
            "hard_examples": self.hard_examples,
        }


def train_classifier(request: ClassifierTrainingRequest) -> ClassifierTrainingReport:
    """Train, unless the same request's result is there already.

    Raises:
        ManifestMismatchError: the export is not what was asked for.
        TrainingError: the rows cannot be trained on, or the output holds another request's result.
    """
    output = Path(request.output_dir)
    if output.exists():
        report = read_report(output)
        if report.request_digest == request.compute_digest():
            return report
        raise TrainingError(f"{output} holds another training of {report.version}; remove it to train again")
    export = Path(request.export_dir)
    manifest = verify_manifest(export, request.manifest_sha256)
    rows = pq.read_table(export / manifest.files[ExportSet.TRAIN].name)
    features, weights = unpack_features(rows), rows["sample_weight"].to_numpy()
    started = time.perf_counter()
    classifier = fit_classifier(features, rows["is_positive"].to_numpy(zero_copy_only=False), weights, request.recipe)
    seconds = time.perf_counter() - started
    with whole_folder(output) as building:
        classifier.save(building / MODEL_FOLDER)
        # Of the model's own scores: the served ones come from the model that it replaces.
        seen = features.append_column(SCORE, pa.array(classifier.predict(features)))
        (building / REFERENCE_FILE).write_bytes(msgspec.json.encode(build_drift_reference(seen, weights)))
        report = ClassifierTrainingReport(
            application=request.application,
            version=request.version,
            request_digest=request.compute_digest(),
            manifest_sha256=request.manifest_sha256,
            recipe=request.recipe,
            rows=rows.num_rows,
            positives=pc.sum(rows["is_positive"]).as_py(),
            hard_examples=rows.num_rows - rows["discrepancy"].null_count,
            rows_stood_for=float(weights.sum()),
            gains=dict(classifier.compute_gains()),
            model_sha256=file_sha256(building / MODEL_FOLDER / MODEL_FILE),
            seconds=seconds,
        )
        (building / REPORT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return report


def read_report(output: Path) -> ClassifierTrainingReport:
    """Read the report of a finished training."""
    return msgspec.json.decode((output / REPORT_FILE).read_bytes(), type=ClassifierTrainingReport)


def compute_seconds_per_row(trained: VersionFolder | None) -> float | None:
    """Compute the seconds of fitting per row in a version's training; None without a training."""
    if trained is None:
        return None
    report = read_report(trained.training)
    return report.seconds / report.rows


def main(arguments: Sequence[str]) -> int:
    """Run the request file that is the only argument; return the exit code."""
    return run_process(arguments, ClassifierTrainingRequest, train_classifier)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
