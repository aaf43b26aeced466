"""Scores challenger and incumbent on a version's evaluation rows, in a process of its own: `python -m … REQUEST.json`.

    <output_dir>/
        evaluation.json   the report

The incumbent is the champion's model, scored again on the features as they were logged. Before the first promotion the
scores that were served stand for it: the model that made them is not here.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

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
from flywheel_assets.lake.storage.files import hash_file, write_folder
from flywheel_assets.lake.versions.exports import ExportSet, Manifest, verify_manifest
from flywheel_assets.measures.classifiers import (
    compute_precision_recall_points,
    compute_reliability_bins,
    count_alerts,
    precision_at_k,
    score_groups,
    score_rows,
)
from flywheel_assets.models.boosting import MODEL_FILE, MODEL_FOLDER, load_classifier
from flywheel_assets.models.own_process import build_main, read_report, write_report
from flywheel_assets.promotion.classifier_evidence import EvaluationRows, measure_evidence

Floats = npt.NDArray[np.float64]


def evaluate_classifier(request: ClassifierEvaluationRequest) -> ClassifierEvaluationReport:
    """Score both models; keep a finished evaluation of the same request, replace another champion's.

    Raises:
        ManifestMismatchError: the export is not what was asked for.
        TrainingError: a model cannot be read, or the rows lack one of its features.
    """
    output, challenger_dir = Path(request.output_dir), Path(request.challenger_dir)
    challenger_sha256 = hash_file(challenger_dir / MODEL_FOLDER / MODEL_FILE)
    if output.exists():
        report = read_evaluation(output)
        if (report.request_sha256, report.challenger_sha256) == (request.compute_digest(), challenger_sha256):
            return report
    export = Path(request.export_dir)
    manifest = verify_manifest(export, request.manifest_sha256)
    started = time.perf_counter()
    rows = pq.read_table(export / manifest.files[ExportSet.EVALUATION].name)
    challenger = _score(challenger_dir, rows)
    champion_dir = Path(request.champion_dir) if request.champion_dir else None
    incumbent = _score(champion_dir, rows) if champion_dir else rows["score_at_decision"].to_numpy()
    labels = rows["is_positive"].to_numpy(zero_copy_only=False)
    weeks = _name_weeks(rows, manifest)
    has_segments = rows["segment"].null_count < rows.num_rows
    segments = ["none" if segment is None else segment for segment in rows["segment"].to_pylist()]
    name = "champion" if champion_dir else "deployed model"
    report = ClassifierEvaluationReport(
        request_sha256=request.compute_digest(),
        manifest_sha256=request.manifest_sha256,
        challenger_sha256=challenger_sha256,
        champion_version=request.champion_version,
        champion_sha256=hash_file(champion_dir / MODEL_FOLDER / MODEL_FILE) if champion_dir else None,
        incumbent=name,
        rows=rows.num_rows,
        scores={
            model: _compute_model_scores(request, rows, labels, scores, weeks, segments if has_segments else None)
            for model, scores in ((CHALLENGER, challenger), (INCUMBENT, incumbent))
        },
        evidence=replace(
            measure_evidence(
                EvaluationRows(
                    labels=labels,
                    incumbent_scores=incumbent,
                    challenger_scores=challenger,
                    weeks=weeks,
                    entities=values_of(rows["subject"]),
                    segments=segments if has_segments else None,
                    weights=rows["sample_weight"].to_numpy(),
                    known_shares=rows["known_share"].to_numpy(),
                    amounts=rows["amount"].to_numpy() if rows["amount"].null_count < rows.num_rows else None,
                ),
                incumbent=name,
                threshold=request.threshold,
                alert_budget=_compute_alert_budget(request, rows),
                min_segment_positives=request.min_segment_positives,
                draws=request.bootstrap_draws,
            ),
            feature_problem=manifest.details.get("feature_problem"),
        ),
        seconds=time.perf_counter() - started,
    )
    with write_folder(output, replaces=True) as building:
        write_report(building / REPORT_FILE, report)
    return report


def read_evaluation(output: Path) -> ClassifierEvaluationReport:
    """Return the report of a finished evaluation."""
    return read_report(output / REPORT_FILE, ClassifierEvaluationReport)


def _score(trained: Path, rows: pa.Table) -> Floats:
    return load_classifier(trained / MODEL_FOLDER).predict(unpack_features(rows))


def _compute_model_scores(
    request: ClassifierEvaluationRequest,
    rows: pa.Table,
    labels: npt.NDArray[np.bool_],
    scores: Floats,
    weeks: Sequence[str],
    segments: Sequence[str] | None,
) -> ModelScores:
    weights = rows["sample_weight"].to_numpy()
    hits = weights / rows["known_share"].to_numpy()
    days = [day.isoformat() for day in values_of(rows["prediction_received_date"])]
    return ModelScores(
        overall=score_rows(labels, scores, weights, hits),
        by_week=score_groups(weeks, labels, scores, weights, hits),
        by_segment=score_groups(segments, labels, scores, weights, hits) if segments is not None else {},
        precision_at_k=precision_at_k(days, values_of(rows["subject"]), labels, scores, request.cards_per_day),
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
    first = date.fromisoformat(str(manifest.details["evaluate_from"]))
    return [(first + timedelta(days=7 * week)).isoformat() for week in values_of(rows["week"])]


main = build_main(ClassifierEvaluationRequest, evaluate_classifier)
"""Runs the request file that is the only argument; returns the exit code."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
