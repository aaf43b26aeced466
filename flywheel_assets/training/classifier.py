"""Trains the classifiers of one pinned export, in a process of its own: `python -m … REQUEST.json`.

    <output_dir>/
        model/model.txt, model/features.json   the refit, which is deployed: the trees in LightGBM's text, and how they
                                               read features
        judged/                                the model that the gate tests on the evaluation weeks
        stand_in_0/, stand_in_1/               the refit without the recent rows of one half of the entities each
        reference.json                         how the refit's weighted rows are distributed, for the drift report
        training.json                          the report

The folder appears by one rename. A finished output of the same request is left as it is.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.lake.storage.files import hash_file, write_folder
from flywheel_assets.lake.versions.exports import ExportSet, verify_manifest
from flywheel_assets.lake.versions.folders import VersionFolder
from flywheel_assets.measures.drift import build_drift_reference
from flywheel_assets.measures.folds import FOLDS, assign_folds
from flywheel_assets.models.boosting import (
    JUDGED_FOLDER,
    MODEL_FILE,
    MODEL_FOLDER,
    TrainedClassifier,
    fit_classifier,
    name_stand_in,
)
from flywheel_assets.models.own_process import build_main, find_finished_report, read_report, write_report
from flywheel_assets.training.requests import (
    REFERENCE_FILE,
    REPORT_FILE,
    SCORE,
    ClassifierTrainingReport,
    ClassifierTrainingRequest,
    FitReport,
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
    with write_folder(output) as building:
        judged, stand_ins = None, []
        if ExportSet.REFIT in manifest.files:
            judged = _fit(rows, request, building / JUDGED_FOLDER).report
            rows = pq.read_table(export / manifest.files[ExportSet.REFIT].name)
            stand_ins = [
                _fit(rows.filter(pa.array(chosen)), request, building / name_stand_in(fold)).report
                for fold, chosen in enumerate(_choose_rows(rows, str(manifest.details["evaluate_from"])))
            ]
        fitted = _fit(rows, request, building / MODEL_FOLDER)
        weights = rows["sample_weight"].to_numpy()
        # Of the model's own scores: the served ones come from the model that it replaces.
        features = unpack_features(rows)
        seen = features.append_column(SCORE, pa.array(fitted.classifier.predict(features)))
        (building / REFERENCE_FILE).write_bytes(msgspec.json.encode(build_drift_reference(seen, weights)))
        report = ClassifierTrainingReport(
            application=request.application,
            version=request.version,
            request_sha256=request.compute_digest(),
            manifest_sha256=request.manifest_sha256,
            recipe=request.recipe,
            rows=fitted.report.rows,
            positives=fitted.report.positives,
            hard_examples=rows.num_rows - rows["discrepancy"].null_count,
            rows_stood_for=float(weights.sum()),
            gains=dict(fitted.classifier.compute_gains()),
            model_sha256=fitted.report.model_sha256,
            seconds=fitted.report.seconds,
            judged=judged,
            stand_ins=stand_ins,
        )
        write_report(building / REPORT_FILE, report)
    return report


@dataclass(frozen=True)
class _Fitted:
    classifier: TrainedClassifier
    report: FitReport


def _fit(rows: pa.Table, request: ClassifierTrainingRequest, folder: Path) -> _Fitted:
    started = time.perf_counter()
    labels = rows["is_positive"].to_numpy(zero_copy_only=False)
    classifier = fit_classifier(unpack_features(rows), labels, rows["sample_weight"].to_numpy(), request.recipe)
    seconds = time.perf_counter() - started
    classifier.save(folder)
    report = FitReport(
        rows=rows.num_rows,
        positives=int(labels.sum()),
        model_sha256=hash_file(folder / MODEL_FILE),
        seconds=seconds,
    )
    return _Fitted(classifier, report)


def _choose_rows(rows: pa.Table, evaluate_from: str) -> Iterator[npt.NDArray[np.bool_]]:
    """Choose the rows of each stand-in: all older ones, and the recent ones of the other folds' entities."""
    first = date.fromisoformat(evaluate_from)
    recent = np.array([day >= first for day in values_of(rows["prediction_received_date"])])
    folds = assign_folds(values_of(rows["subject"]))
    for fold in range(FOLDS):
        yield ~recent | (folds != fold)


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
