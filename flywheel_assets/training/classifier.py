"""Trains the classifiers of one pinned export, in a process of its own: `python -m … REQUEST.json`.

    <output_dir>/
        model/                                 the refit, which is deployed; of trees LightGBM's text and how it reads
                                               features
        judged/, judged_1/, …                  the models that the gate tests, each on the week after its day
        stand_in_0/, stand_in_1/               the refit without the recent rows of one half of the entities each
        reference.json                         how the refit's weighted rows are distributed, for the drift report
        training.json                          the report

The folder appears by one rename. A finished output of the same request is left as it is.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.lake.storage.files import write_folder
from flywheel_assets.lake.versions.exports import EARLIER, ExportedFile, ExportSet, Manifest, verify_manifest
from flywheel_assets.measures.drift import build_drift_reference
from flywheel_assets.measures.folds import FOLDS, assign_folds
from flywheel_assets.models.model_folder import (
    JUDGED_FOLDER,
    MODEL_FOLDER,
    copy_model,
    hash_model,
    name_judged,
    name_stand_in,
)
from flywheel_assets.models.own_process import build_main, find_finished_report, read_report, write_report
from flywheel_assets.models.recalibration import fit_recalibration
from flywheel_assets.models.trainer_recipe import TrainerRecipe
from flywheel_assets.models.trainers.fitting import RecalibratedModel, fit_model
from flywheel_assets.models.trainers.model import FittedModel
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
    fitted_set = ExportSet.REFIT if ExportSet.REFIT in manifest.files else ExportSet.TRAIN
    rows = pq.read_table(export / manifest.files[fitted_set].name)
    Path(request.work_dir).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="fit-", dir=request.work_dir) as work, write_folder(output) as building:
        classes = tuple(manifest.details.get("classes", ()))
        fit = partial(_fit, request.recipe, Path(work), classes, manifest.details.get("negative_label", ""))
        judged: dict[str, FitReport] = {}
        stand_ins, blocks = [], {}
        if ExportSet.REFIT in manifest.files:
            earlier = _find_earlier_fits(request)
            for first_day, (folder, file) in zip(manifest.details["judged_from"], _list_judged(manifest), strict=True):
                blocks[str(first_day)] = folder
                taken = _take_over(earlier.get(file.sha256), building / folder)
                found = taken or fit(pq.read_table(export / file.name), building / folder).report
                judged[folder] = msgspec.structs.replace(found, rows_sha256=file.sha256)
            stand_ins = [
                fit(rows.filter(pa.array(chosen)), building / name_stand_in(fold)).report
                for fold, chosen in enumerate(_choose_rows(rows, str(manifest.details["cross_fitted_from"])))
            ]
        fitted = fit(rows, building / MODEL_FOLDER)
        weights = rows["sample_weight"].to_numpy()
        # Of the model's own scores: the served ones come from the model that it replaces.
        features = unpack_features(rows)
        seen = features.append_column(SCORE, pa.array(fitted.model.predict(features)))
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
            gains=dict(fitted.model.compute_gains()),
            model_sha256=fitted.report.model_sha256,
            seconds=fitted.report.seconds,
            judged=judged.get(JUDGED_FOLDER),
            blocks=blocks,
            judged_fits=judged,
            stand_ins=stand_ins,
        )
        write_report(building / REPORT_FILE, report)
    return report


def _list_judged(manifest: Manifest) -> Iterator[tuple[str, ExportedFile]]:
    """List the judged models' folders, that of the newest week first, each with the file of its rows."""
    for week, which in enumerate((ExportSet.TRAIN, *EARLIER)):
        if which in manifest.files:
            yield name_judged(week), manifest.files[which]


def _find_earlier_fits(request: ClassifierTrainingRequest) -> dict[str, tuple[Path, FitReport]]:
    """Find the judged models of the training before, by the sha256 of their rows; none of another recipe."""
    if request.earlier_dir is None:
        return {}
    earlier = Path(request.earlier_dir)
    report = read_training(earlier)
    if report.recipe.describe() != request.recipe.describe():
        return {}
    return {fit.rows_sha256: (earlier / folder, fit) for folder, fit in report.judged_fits.items() if fit.rows_sha256}


def _take_over(earlier: tuple[Path, FitReport] | None, folder: Path) -> FitReport | None:
    """Copy an earlier training's model into `folder`; None where there is none, or it is not as it was written."""
    if earlier is None or not earlier[0].is_dir() or hash_model(earlier[0]) != earlier[1].model_sha256:
        return None
    copy_model(earlier[0], folder)
    return earlier[1]


@dataclass(frozen=True)
class _Fitted:
    model: FittedModel
    report: FitReport


def _fit(
    recipe: TrainerRecipe, work: Path, classes: Sequence[str], negative_label: str, rows: pa.Table, folder: Path
) -> _Fitted:
    """Fit one model, with its recalibration, and store it in `folder`."""
    started = time.perf_counter()
    features, labels = unpack_features(rows), rows["is_positive"].to_numpy(zero_copy_only=False)
    weights = rows["sample_weight"].to_numpy()
    said = values_of(rows["label_class"]) if classes else labels
    model = fit_model(recipe, features, said, weights, work, classes, negative_label)
    if recipe.recalibration != "none":
        unseen, folds = np.zeros(rows.num_rows), assign_folds(values_of(rows["subject"]))
        for fold in range(FOLDS):
            known, chosen = folds != fold, pa.array(folds == fold)
            half = fit_model(recipe, features.filter(pa.array(known)), labels[known], weights[known], work)
            unseen[~known] = half.predict(features.filter(chosen))
        step = fit_recalibration(recipe.recalibration, unseen, labels, weights)
        if step.method != "none":
            model = RecalibratedModel(model, step)
    seconds = time.perf_counter() - started
    model.save(folder)
    report = FitReport(
        rows=rows.num_rows, positives=int(labels.sum()), model_sha256=hash_model(folder), seconds=seconds
    )
    return _Fitted(model, report)


def _choose_rows(rows: pa.Table, recent_from: str) -> Iterator[npt.NDArray[np.bool_]]:
    """Choose the rows of each stand-in: all before the recent weeks, and those weeks' of the other folds' entities."""
    first = date.fromisoformat(recent_from)
    recent = np.array([day >= first for day in values_of(rows["prediction_received_date"])])
    folds = assign_folds(values_of(rows["subject"]))
    for fold in range(FOLDS):
        yield ~recent | (folds != fold)


def read_training(output: Path) -> ClassifierTrainingReport:
    """Return the report of a finished training."""
    return read_report(output / REPORT_FILE, ClassifierTrainingReport)


main = build_main(ClassifierTrainingRequest, train_classifier)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
