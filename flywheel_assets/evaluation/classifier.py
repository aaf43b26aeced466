"""Scores challenger and incumbent on a version's evaluation rows, in a process of its own: `python -m … REQUEST.json`.

    <output_dir>/
        evaluation.json   the report

The incumbent is the champion's judged model, scored again on the features as they were logged: its deployed one may
have been fitted on these very rows. Before the first promotion the scores that were served stand for it: the model that
made them is not here.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.evaluation.requests import (
    CHALLENGER,
    INCUMBENT,
    REPORT_FILE,
    ClassifierEvaluationReport,
    ClassifierEvaluationRequest,
    ModelScores,
)
from flywheel_assets.extras import require_extra
from flywheel_assets.lake.storage.files import write_folder
from flywheel_assets.lake.versions.exports import ExportSet, Manifest, verify_manifest
from flywheel_assets.lake.versions.folders import TRAINING_REPORT
from flywheel_assets.measures.classifiers import (
    compute_precision_recall_points,
    compute_reliability_bins,
    count_alerts,
    precision_at_k,
    score_groups,
    score_rows,
)
from flywheel_assets.measures.folds import FOLDS, assign_folds
from flywheel_assets.models.model_folder import find_judged, hash_model, name_stand_in
from flywheel_assets.models.own_process import build_main, read_report, write_report
from flywheel_assets.models.trainers.fitting import load_model, predict_classes
from flywheel_assets.models.trainers.model import FittedModel
from flywheel_assets.promotion.classifier_evidence import (
    CHAMPION,
    ClassColumns,
    ClassifierEvidence,
    EvaluationRows,
    measure_evidence,
)
from flywheel_assets.promotion.refit import RefitEvidence, measure_score_shift

Floats = npt.NDArray[np.float64]


class _Trained(msgspec.Struct):
    """The part of the trainer's report that evaluation reads."""

    blocks: dict[str, str] = {}
    schema_version: int = 1


def evaluate_classifier(request: ClassifierEvaluationRequest) -> ClassifierEvaluationReport:
    """Score both models; keep a finished evaluation of the same request, replace another champion's.

    Raises:
        ManifestMismatchError: the export is not what was asked for.
        TrainingError: a model cannot be read, or the rows lack one of its features.
    """
    require_extra("classifier", "evaluating a classifier", ("scipy", "sklearn"))
    output, challenger_dir = Path(request.output_dir), Path(request.challenger_dir)
    challenger_sha256 = hash_model(find_judged(challenger_dir))
    if output.exists():
        report = read_evaluation(output)
        if (report.request_sha256, report.challenger_sha256) == (request.compute_digest(), challenger_sha256):
            return report
    export = Path(request.export_dir)
    manifest = verify_manifest(export, request.manifest_sha256)
    started = time.perf_counter()
    Path(request.work_dir).mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(export / manifest.files[ExportSet.EVALUATION].name)
    champion_dir = Path(request.champion_dir) if request.champion_dir else None
    classes = _Classes.read(manifest)
    incumbent = _score_by_blocks(champion_dir, rows, request, classes) if champion_dir else classes.read_served(rows)
    # Before its oldest week the champion's models have seen the outcomes.
    can_judge = np.asarray(np.isfinite(incumbent).all(axis=1))
    rows, incumbent = rows.filter(pa.array(can_judge)), incumbent[can_judge]
    challenger = _score_by_blocks(challenger_dir, rows, request, classes)
    weeks = _name_weeks(rows, manifest)
    name = CHAMPION if champion_dir else "deployed model"
    measured = _build_evaluation_rows(rows, weeks, incumbent, challenger, classes)
    evidence = measure_evidence(
        measured,
        incumbent=name,
        threshold=request.threshold,
        alert_budget=_compute_alert_budget(request, rows),
        min_segment_positives=request.min_segment_positives,
        draws=request.bootstrap_draws,
    )
    evidence = replace(evidence, feature_problem=manifest.details.get("feature_problem"))
    report = ClassifierEvaluationReport(
        request_sha256=request.compute_digest(),
        manifest_sha256=request.manifest_sha256,
        challenger_sha256=challenger_sha256,
        champion_version=request.champion_version,
        champion_sha256=hash_model(find_judged(champion_dir)) if champion_dir else None,
        incumbent=name,
        rows=rows.num_rows,
        scores={
            model: _compute_model_scores(request, rows, measured, classes.compute_score(found))
            for model, found in ((CHALLENGER, challenger), (INCUMBENT, incumbent))
        },
        evidence=evidence,
        refit=_measure_refit(request, rows, measured, challenger, evidence, manifest),
        seconds=time.perf_counter() - started,
    )
    with write_folder(output, replaces=True) as building:
        write_report(building / REPORT_FILE, report)
    return report


def read_evaluation(output: Path) -> ClassifierEvaluationReport:
    """Return the report of a finished evaluation."""
    return read_report(output / REPORT_FILE, ClassifierEvaluationReport)


@dataclass(frozen=True)
class _Classes:
    """The classes of a version; no names: two classes, of which a model says one score."""

    names: tuple[str, ...]
    negative_label: str

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """Read them from a version's manifest."""
        return cls(tuple(manifest.details.get("classes", ())), manifest.details.get("negative_label", ""))

    @property
    def columns(self) -> int:
        """Return how many numbers a model says of a row."""
        return len(self.names) or 1

    def read_served(self, rows: pa.Table) -> Floats:
        """Read what was served, rows × columns; NaN where a prediction is older than the classes."""
        if not self.names:
            return rows["score_at_decision"].to_numpy()[:, None]
        unknown = [None] * self.columns
        served = [unknown if each is None else each for each in rows["scores_at_decision"].to_pylist()]
        return np.array(served, dtype=np.float64).reshape(rows.num_rows, self.columns)

    def predict(self, model: FittedModel, features: pa.Table) -> Floats:
        """Score features, rows × columns."""
        if not self.names:
            return model.predict(features)[:, None]
        return predict_classes(model, features, self.names)

    def compute_score(self, found: Floats) -> Floats:
        """Compute the probability of a positive, one per row."""
        if not self.names:
            return found[:, 0]
        return np.asarray(np.clip(1 - found[:, self.names.index(self.negative_label)], 0.0, 1.0))

    def build_columns(self, rows: pa.Table, incumbent: Floats, challenger: Floats) -> ClassColumns | None:
        """Build the columns of several classes; None of two."""
        if not self.names:
            return None
        number = {name: place for place, name in enumerate(self.names)}
        labels = np.array([number[word] for word in values_of(rows["label_class"])], dtype=np.int64)
        return ClassColumns(names=self.names, labels=labels, incumbent=incumbent, challenger=challenger)


def _build_evaluation_rows(
    rows: pa.Table, weeks: Sequence[str], incumbent: Floats, challenger: Floats, classes: _Classes
) -> EvaluationRows:
    return EvaluationRows(
        labels=rows["is_positive"].to_numpy(zero_copy_only=False),
        incumbent_scores=classes.compute_score(incumbent),
        challenger_scores=classes.compute_score(challenger),
        classes=classes.build_columns(rows, incumbent, challenger),
        weeks=weeks,
        entities=values_of(rows["subject"]),
        segments=_name_segments(rows),
        weights=rows["sample_weight"].to_numpy(),
        known_shares=rows["known_share"].to_numpy(),
        amounts=rows["amount"].to_numpy() if rows["amount"].null_count < rows.num_rows else None,
    )


def _name_segments(rows: pa.Table) -> list[str] | None:
    """Name each row's segment; None where no row has one."""
    if rows["segment"].null_count == rows.num_rows:
        return None
    return ["none" if segment is None else segment for segment in rows["segment"].to_pylist()]


def _read_days(rows: pa.Table) -> npt.NDArray[np.datetime64]:
    return np.array(values_of(rows["prediction_received_date"]), dtype="datetime64[D]")


def _score(model: Path, features: pa.Table, request: ClassifierEvaluationRequest, classes: _Classes) -> Floats:
    return classes.predict(load_model(model, Path(request.work_dir)), features)


def _score_by_blocks(trained: Path, rows: pa.Table, request: ClassifierEvaluationRequest, classes: _Classes) -> Floats:
    """Score each row by the newest judged model that knew nothing of its day; NaN where every one did."""
    blocks = read_report(trained / TRAINING_REPORT, _Trained).blocks
    features = unpack_features(rows)
    if not blocks:
        return _score(find_judged(trained), features, request, classes)
    days = _read_days(rows)
    scores = np.full((rows.num_rows, classes.columns), np.nan)
    for first_day, folder in sorted(blocks.items(), reverse=True):
        chosen = (days >= np.datetime64(first_day)) & np.isnan(scores).any(axis=1)
        if chosen.any():
            scores[chosen] = _score(trained / folder, features.filter(pa.array(chosen)), request, classes)
    return scores


def _measure_refit(
    request: ClassifierEvaluationRequest,
    rows: pa.Table,
    measured: EvaluationRows,
    challenger: Floats,
    evidence: ClassifierEvidence,
    manifest: Manifest,
) -> RefitEvidence | None:
    """Measure the refit's stand-ins against the judged models on the recent weeks; None where the trainer made none."""
    trained = Path(request.challenger_dir)
    if not (trained / name_stand_in(0)).is_dir():
        return None
    classes = _Classes.read(manifest)
    is_recent = _read_days(rows) >= np.datetime64(str(manifest.details["cross_fitted_from"]))
    judged = challenger[is_recent]
    weeks = [week for week, chosen in zip(measured.weeks, is_recent, strict=True) if chosen]
    rows = rows.filter(pa.array(is_recent))
    features, folds = unpack_features(rows), assign_folds(values_of(rows["subject"]))
    scores = np.zeros((rows.num_rows, classes.columns))
    for fold in range(FOLDS):
        chosen = folds == fold
        scores[chosen] = _score(trained / name_stand_in(fold), features.filter(pa.array(chosen)), request, classes)
    share = rows.num_rows / max(1, len(is_recent))
    against_judged = measure_evidence(
        replace(_build_evaluation_rows(rows, weeks, judged, scores, classes), segments=None),
        incumbent="judged model",
        alert_budget=evidence.alerts.budget * share if evidence.alerts else None,
        min_segment_positives=request.min_segment_positives,
        draws=request.bootstrap_draws,
    )
    sums = classes.compute_score(judged), classes.compute_score(scores)
    shift = measure_score_shift(*sums, rows["sample_weight"].to_numpy())
    return RefitEvidence(against_judged=against_judged, score_shift=shift)


def _compute_model_scores(
    request: ClassifierEvaluationRequest, rows: pa.Table, measured: EvaluationRows, scores: Floats
) -> ModelScores:
    weights, labels = rows["sample_weight"].to_numpy(), np.asarray(measured.labels)
    hits = weights / rows["known_share"].to_numpy()
    days = [day.isoformat() for day in values_of(rows["prediction_received_date"])]
    segments = measured.segments
    return ModelScores(
        overall=score_rows(labels, scores, weights, hits),
        by_week=score_groups(measured.weeks, labels, scores, weights, hits),
        by_segment=score_groups(segments, labels, scores, weights, hits) if segments is not None else {},
        precision_at_k=precision_at_k(days, measured.entities, labels, scores, request.cards_per_day),
        alerts=None if request.threshold is None else count_alerts(scores, request.threshold, weights),
        curve=compute_precision_recall_points(labels, scores),
        reliability=compute_reliability_bins(labels, scores),
    )


def _compute_alert_budget(request: ClassifierEvaluationRequest, rows: pa.Table) -> float | None:
    """Compute the alerts that people can handle on all days of the rows; None where the application does not say."""
    if request.alerts_per_day is None:
        return None
    return request.alerts_per_day * len(set(values_of(rows["prediction_received_date"])))


def _name_weeks(rows: pa.Table, manifest: Manifest) -> list[str]:
    """Name each row's week by its first day."""
    details = manifest.details
    first = date.fromisoformat(str(details.get("evaluated_from", details["evaluate_from"])))
    return [(first + timedelta(days=7 * week)).isoformat() for week in values_of(rows["week"])]


main = build_main(ClassifierEvaluationRequest, evaluate_classifier)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
