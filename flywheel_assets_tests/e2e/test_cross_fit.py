"""A team of 40 from its edits to a promoted adapter: each user is judged by an adapter that has not seen them."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from flywheel_assets.application import PreferenceApplication, Trigger
from flywheel_assets.capture.service import running_capture
from flywheel_assets.curation.texts.resolution import ResolutionRules, find_folds
from flywheel_assets.defs.assets.preference import read_evaluation_report
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.lake.versions.exports import FOLDS, count_folds, read_manifest, read_rows
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.models.generation import hash_adapter
from flywheel_assets.training.requests import read_training_report
from flywheel_assets_tests.training.small_world import RECIPE, ask, trained_base

pytestmark = pytest.mark.slow

FIRST = date(2026, 9, 1)
MORNING = datetime(2026, 9, 1, 9, tzinfo=UTC)
NEXT_DAY = datetime(2026, 9, 2, 9, tzinfo=UTC)
PEOPLE, HALVES = 40, 2


def land_edits(home: Path) -> None:
    rng = random.Random(3)
    edits = []
    for number in range(6 * PEOPLE):
        wanted = ask(rng, internal=True)
        edits.append(
            {
                "prompt": wanted.prompt,
                "original_llm_output": wanted.wrong,
                "final_user_edit": wanted.right,
                "user_id": f"person-{number % PEOPLE}",
                "id": f"edit-{number}",
            }
        )
    with running_capture(home / "landing", ["assistant"], clock=lambda: MORNING) as capture:
        answer = httpx.post(f"{capture.url}/v1/assistant/edits", json=edits, timeout=30)
        assert answer.status_code == 202, answer.text


def driver(home: Path, instance: dg.DagsterInstance) -> Driver:
    application = PreferenceApplication(
        name="assistant",
        description="test",
        start_date=FIRST,
        base_model=str(trained_base()),
        trigger=Trigger(min_new_pairs=50),
        resolution=ResolutionRules(cross_fit_folds=HALVES),
        recipe=replace(RECIPE, preference_epochs=0.0),
    )
    return Driver(
        application,
        preference_flywheel(application, Stores(home=str(home)), Clock(fixed=NEXT_DAY.isoformat())),
        instance,
    )


def test_a_team_too_small_for_a_holdout_gets_its_adapter(tmp_path: Path) -> None:
    land_edits(tmp_path)
    stores = Stores(home=str(tmp_path))
    folder = stores.versions("assistant").folder("dpo_gold_v1")
    with dg.DagsterInstance.ephemeral() as instance:
        wheel = driver(tmp_path, instance)
        assert wheel.materialize(FIRST, FIRST).succeeded
        ticked = wheel.tick()
        assert ticked.version == "dpo_gold_v1", ticked.reason

        # The run dies between the folds and the deployed adapter: what is finished stays.
        work = stores.scratch("training", "assistant", "dpo_gold_v1")
        work.mkdir(parents=True)
        with FileLock(work / "trainer.lock"):
            assert not wheel.turn("dpo_gold_v1", ticked.tags).succeeded
        assert not folder.is_trained
        weights = [folder.fold(fold) / "adapter" / "adapter_model.safetensors" for fold in range(1, HALVES + 1)]
        before = [path.stat().st_mtime_ns for path in weights]
        finished = wheel.turn("dpo_gold_v1", ticked.tags)
        assert finished.succeeded, finished.error
        assert [path.stat().st_mtime_ns for path in weights] == before

    manifest = read_manifest(folder.export)
    assert count_folds(manifest) == HALVES
    reports = [read_training_report(folder.fold(fold) / "training.json") for fold in (1, 2)]
    deployed = read_training_report(folder.training_report)
    assert [report.fold for report in (*reports, deployed)] == [1, 2, None]
    assert all(report.recipe == deployed.recipe for report in reports)
    assert len({report.adapter_sha256 for report in (*reports, deployed)}) == 3
    for report, which in zip(reports, FOLDS, strict=False):
        subjects = {row.subject for row in read_rows(folder.export, manifest, which)}
        assert report.fold not in find_folds(subjects, HALVES)

    evaluation = read_evaluation_report(folder)
    cross_fit = evaluation.evidence.cross_fit
    assert cross_fit is not None
    assert cross_fit.folds == HALVES
    assert evaluation.evidence.likelihood.gain is not None
    assert len(evaluation.evidence.likelihood.gain.values) == PEOPLE, "each person has one vote"
    # Learnt texts are likelier than unseen ones, so the deployed adapter must not be what is judged.
    rows = pq.read_table(folder.evaluation / "rows.parquet").to_pandas()
    log_p = rows.groupby("model")["log_p_chosen"].mean()
    assert log_p["deployed"] > log_p["challenger"] > log_p["base"]
    assert np.isfinite(rows["log_p_chosen"]).all()

    promotion = read_promotion(folder.promotion)
    assert promotion.promoted, promotion.sentence
    assert {"deployed_lost", "deployed_missing_end"} <= {check["name"] for check in promotion.checks}
    champion = stores.registry("assistant").find_champion()
    assert champion is not None
    assert hash_adapter(champion.model_dir) == deployed.adapter_sha256, "the one that all have taught serves"
