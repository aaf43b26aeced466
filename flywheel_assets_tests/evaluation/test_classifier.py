"""The models of one version: what each may know, which one scores which day, and what stands for the refit."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.evaluation.classifier import evaluate_classifier
from flywheel_assets.evaluation.requests import ClassifierEvaluationReport, ClassifierEvaluationRequest
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.versions.exports import ExportedFile, ExportSet, hash_manifest, write_export
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.models.model_folder import hash_model
from flywheel_assets.models.trainers.fitting import RecalibratedModel, load_model
from flywheel_assets.training.classifier import train_classifier
from flywheel_assets.training.requests import ClassifierTrainingReport, ClassifierTrainingRequest

RECIPE = ClassifierRecipe(trees=20, leaves=4, min_leaf_hessian=1.0)
FIRST = date(2026, 3, 2)
DAYS = 84
EVALUATED, NEWEST = FIRST + timedelta(days=70), FIRST + timedelta(days=77)
"""The two evaluation weeks begin here."""


def make_rows(days: Sequence[int], seed: int, a_day: int = 60) -> pa.Table:
    """A stream whose amounts tell frauds; `flipped` tells them, too, and turns round in the evaluation weeks."""
    random = np.random.default_rng(seed)
    count = len(days) * a_day
    day = np.repeat(days, a_day)
    fraud = random.random(count) < 0.15
    turned = day >= (EVALUATED - FIRST).days
    return pa.table(
        {
            "prediction_id": [f"{seed}-{number}" for number in range(count)],
            "subject": [f"card-{number}" for number in random.integers(0, 150, count)],
            "prediction_received_date": [FIRST + timedelta(days=int(each)) for each in day],
            "is_positive": fraud,
            "discrepancy": pa.nulls(count, pa.string()),
            "week": pa.array((day - days[0]) // 7, pa.int32()),
            "score_at_decision": np.clip(random.random(count) * 0.3 + 0.2 * fraud, 0, 1),
            "segment": pa.nulls(count, pa.string()),
            "amount": 10 + 90 * fraud + random.normal(0, 30, count),
            "sample_weight": np.ones(count),
            "known_share": np.ones(count),
            "features": pa.StructArray.from_arrays(
                [
                    pa.array(10 + 90 * fraud + random.normal(0, 60, count)),
                    pa.array(np.where(turned, 1.0 * ~fraud, 1.0 * fraud) + random.normal(0, 0.4, count)),
                ],
                names=["amount", "flipped"],
            ),
        }
    )


def write_version(folder: Path, *, weeks: int = 2) -> Path:
    """Write the export of a version with a newest evaluation week, and an older one where `weeks` is 2."""
    tables = {
        ExportSet.TRAIN: make_rows(range(70), 1),
        ExportSet.EARLIER_1: make_rows(range(63), 2),
        ExportSet.REFIT: make_rows(range(DAYS), 3),
        ExportSet.EVALUATION: make_rows(range(70, DAYS), 4),
    }
    if weeks == 1:
        del tables[ExportSet.EARLIER_1]
        tables[ExportSet.EVALUATION] = make_rows(range(77, DAYS), 4)

    def write_files(building: Path) -> dict[ExportSet, ExportedFile]:
        files = {}
        for which, table in tables.items():
            path = building / f"{which}.parquet"
            pq.write_table(table, path)
            files[which] = ExportedFile(
                name=path.name, rows=table.num_rows, bytes=path.stat().st_size, sha256=hash_file(path)
            )
        return files

    judged = [NEWEST, EVALUATED][:weeks]
    write_export(
        folder / "export",
        version="fraud_gold_v1",
        application="fraud",
        snapshot_id=1,
        write_files=write_files,
        dropped={},
        days={},
        rules={},
        code_version="1",
        details={
            "evaluate_from": NEWEST.isoformat(),
            "evaluated_from": judged[-1].isoformat(),
            "judged_from": [day.isoformat() for day in judged],
            "cross_fitted_from": judged[-1].isoformat(),
        },
    )
    return folder


def train(folder: Path, recipe: ClassifierRecipe = RECIPE, earlier: Path | None = None) -> ClassifierTrainingReport:
    return train_classifier(
        ClassifierTrainingRequest(
            application="fraud",
            version="fraud_gold_v1",
            export_dir=str(folder / "export"),
            manifest_sha256=hash_manifest(folder / "export"),
            recipe=recipe,
            output_dir=str(folder / "training"),
            work_dir=str(folder / "work"),
            earlier_dir=str(earlier / "training") if earlier else None,
        )
    )


def evaluate(folder: Path, champion: Path | None = None, **changes: Any) -> ClassifierEvaluationReport:
    return evaluate_classifier(
        ClassifierEvaluationRequest(
            **{
                "export_dir": str(folder / "export"),
                "manifest_sha256": hash_manifest(folder / "export"),
                "challenger_dir": str(folder / "training"),
                "champion_version": "fraud_gold_v0" if champion else None,
                "champion_dir": str(champion / "training") if champion else None,
                "threshold": 0.3,
                "bootstrap_draws": 50,
                "output_dir": str(folder / "evaluation"),
                "work_dir": str(folder / "work"),
                **changes,
            }
        )
    )


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_version(tmp_path_factory.mktemp("version"))
    train(folder)
    return folder


def test_a_version_trains_a_model_for_each_week_two_stand_ins_and_the_refit(version: Path) -> None:
    report = train(version)  # finds the finished one
    assert report.blocks == {"2026-05-18": "judged", "2026-05-11": "judged_1"}
    assert (report.judged.rows if report.judged else 0, report.rows) == (70 * 60, DAYS * 60)
    # Each stand-in lacks one half of the entities in the evaluation weeks, and no row before them.
    assert sum(each.rows for each in report.stand_ins) == 2 * 70 * 60 + 14 * 60
    folders = {path.name for path in (version / "training").iterdir() if path.is_dir()}
    assert folders == {"model", "judged", "judged_1", "stand_in_0", "stand_in_1"}


def test_a_judged_model_of_the_same_rows_is_taken_over_from_the_version_before(version: Path, tmp_path: Path) -> None:
    """A week later five of six judged models are those of last week: each would cost a fit of all rows again."""
    before, again = train(version), write_version(tmp_path / "again")
    report = train(again, earlier=version)
    assert report.judged_fits == before.judged_fits, "taken over with the seconds of their fits"
    for name in ("judged", "judged_1"):
        assert hash_model(again / "training" / name) == hash_model(version / "training" / name)
    assert report.stand_ins[0].seconds != before.stand_ins[0].seconds

    other = write_version(tmp_path / "other")
    fresh = train(other, ClassifierRecipe(trees=21, leaves=4, min_leaf_hessian=1.0), earlier=version)
    assert fresh.judged_fits["judged"].model_sha256 != before.judged_fits["judged"].model_sha256


def test_a_damaged_earlier_model_is_not_taken_over(version: Path, tmp_path: Path) -> None:
    damaged, after = write_version(tmp_path / "damaged"), write_version(tmp_path / "after")
    train(damaged, earlier=version)
    model = damaged / "training" / "judged" / "model.txt"
    model.write_text(model.read_text().replace("leaf_value=", "leaf_value=0.1 ", 1))
    report = train(after, earlier=damaged)
    assert hash_model(after / "training" / "judged") == hash_model(version / "training" / "judged")
    assert report.judged_fits["judged"].seconds != train(version).judged_fits["judged"].seconds


def test_each_week_is_scored_by_the_model_that_knew_nothing_of_it(version: Path) -> None:
    report = evaluate(version)
    assert list(report.scores["challenger"].by_week) == ["2026-05-11", "2026-05-18"]
    assert report.evidence.weeks == 2
    assert report.incumbent == "deployed model"
    assert report.rows == 14 * 60


def test_the_refit_is_measured_out_of_sample_on_the_recent_weeks(version: Path) -> None:
    """One feature turned round in these weeks: the judged models cannot know, models of their other half do."""
    report = evaluate(version)
    assert report.refit is not None
    assert report.refit.against_judged.ap_gain.rows == 14 * 60
    assert (report.refit.against_judged.ap_gain.low or 0) > 0
    assert report.refit.against_judged.threshold is not None
    assert "refit_ap_gain/mean" in report.list_metrics()


def test_a_champion_judges_only_weeks_that_its_models_had_not_seen(version: Path, tmp_path: Path) -> None:
    """Fitted on the older week's outcomes, it could not be beaten there."""
    champion = write_version(tmp_path / "champion", weeks=1)
    train(champion)
    report = evaluate(version, champion, output_dir=str(tmp_path / "evaluation"))
    assert report.incumbent == "champion"
    assert (report.evidence.weeks, report.rows) == (1, 7 * 60)
    assert report.evidence.ap_gain.mean == pytest.approx(0, abs=0.1)


def test_a_recalibration_is_fitted_on_scores_of_rows_that_the_model_has_not_seen(tmp_path: Path) -> None:
    folder = write_version(tmp_path, weeks=1)
    train(folder, ClassifierRecipe(trees=20, leaves=4, min_leaf_hessian=1.0, recalibration="platt"))
    for name in ("model", "judged", "stand_in_0"):
        assert isinstance(load_model(folder / "training" / name), RecalibratedModel)
    assert evaluate(folder).refit is not None
