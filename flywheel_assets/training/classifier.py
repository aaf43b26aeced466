"""Trains one classifier from one pinned export, in a process of its own: `python -m … REQUEST.json`.

    <output_dir>/
        model/                                 the model; of trees LightGBM's text and how it reads features
        reference.json                         how the weighted training rows are distributed, for the drift report
        training.json                          the report

The folder appears by one rename. A finished output of the same request is left as it is.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.lake.storage.files import write_folder
from flywheel_assets.lake.versions.exports import ExportSet, verify_manifest
from flywheel_assets.lake.versions.folders import VersionFolder
from flywheel_assets.measures.drift import build_drift_reference
from flywheel_assets.models.boosting import MODEL_FOLDER
from flywheel_assets.models.model_folder import hash_model
from flywheel_assets.models.own_process import build_main, find_finished_report, read_report, write_report
from flywheel_assets.models.trainers.fitting import fit_model
from flywheel_assets.training.requests import (
    REFERENCE_FILE,
    REPORT_FILE,
    SCORE,
    ClassifierTrainingReport,
    ClassifierTrainingRequest,
)


def train_classifier(request: ClassifierTrainingRequest) -> ClassifierTrainingReport:
    """Train, unless the same request's result is there already.

    Raises:
        ManifestMismatchError: the export is not what was asked for.
        TrainingError: the rows cannot be trained on.
        VersionConflictError: the output holds another request's result.
    """
    output = Path(request.output_dir)
    remedy = "Remove it to train again."
    if finished := find_finished_report(
        output / REPORT_FILE, ClassifierTrainingReport, request.compute_digest(), remedy=remedy
    ):
        return finished
    export = Path(request.export_dir)
    manifest = verify_manifest(export, request.manifest_sha256)
    rows = pq.read_table(export / manifest.files[ExportSet.TRAIN].name)
    features, weights = unpack_features(rows), rows["sample_weight"].to_numpy()
    labels = rows["is_positive"].to_numpy(zero_copy_only=False)
    Path(request.work_dir).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="fit-", dir=request.work_dir) as work, write_folder(output) as building:
        started = time.perf_counter()
        classifier = fit_model(request.recipe, features, labels, weights, Path(work))
        seconds = time.perf_counter() - started
        classifier.save(building / MODEL_FOLDER)
        # Of the model's own scores: the served ones come from the model that it replaces.
        seen = features.append_column(SCORE, pa.array(classifier.predict(features)))
        (building / REFERENCE_FILE).write_bytes(msgspec.json.encode(build_drift_reference(seen, weights)))
        report = ClassifierTrainingReport(
            application=request.application,
            version=request.version,
            request_sha256=request.compute_digest(),
            manifest_sha256=request.manifest_sha256,
            recipe=request.recipe,
            rows=rows.num_rows,
            positives=pc.sum(rows["is_positive"]).as_py(),
            hard_examples=rows.num_rows - rows["discrepancy"].null_count,
            rows_stood_for=float(weights.sum()),
            gains=dict(classifier.compute_gains()),
            model_sha256=hash_model(building / MODEL_FOLDER),
            seconds=seconds,
        )
        write_report(building / REPORT_FILE, report)
    return report


def read_training(output: Path) -> ClassifierTrainingReport:
    """Return the report of a finished training."""
    return read_report(output / REPORT_FILE, ClassifierTrainingReport)


def compute_seconds_per_row(trained: VersionFolder | None) -> float | None:
    """Compute the seconds of fitting per row in a version's training; None without a training."""
    if trained is None:
        return None
    report = read_training(trained.training)
    return report.seconds / report.rows


main = build_main(ClassifierTrainingRequest, train_classifier)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
