"""The rollback job, as launched from the UI: it plans unless told to act, and tells the serving side."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.application import PreferenceApplication, PromotionHook
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.recovery import ROLLBACK_JOB
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, ROLLBACKS
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.models.tracked import empty_run

V1, V2 = "dpo_gold_v1", "dpo_gold_v2"


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Two versions with registered models; the second one serves."""
    stores = Stores(home=str(tmp_path))
    lake, versions, registry = stores.lake("assistant"), stores.versions("assistant"), stores.registry("assistant")
    champion = None
    for number, version in enumerate((V1, V2)):
        write_gold_days(lake, {day(number): 3})
        cut_pair_version(lake, versions, version, replace(APPLICATION.resolution, holdout_share=0.0), "1")
        folder = versions.folder(version)
        (folder.training / "adapter").mkdir(parents=True)
        (folder.training / "training.json").write_text("{}")
        decided = Promotion(version=version, promoted=True, sentence="Better.", champion_before=champion, checks=[])
        record_promotion(folder.promotion, decided)
        registry.register_adapter(version, empty_run(registry, version), folder.training / "adapter", "a" * 64)
        registry.promote(version, champion)
        champion = version
    return stores


def launch(
    stores: Stores, application: PreferenceApplication = APPLICATION, **config: object
) -> dg.ExecuteInProcessResult:
    job = preference_flywheel(application, stores).resolve_job_def(ROLLBACK_JOB.format(application.name))
    asked = {"to": V1, "reason": "it leaks", "who": "ada", **config}
    return job.execute_in_process({"ops": {"roll_back": {"config": asked}}}, raise_on_error=False)


def state(stores: Stores) -> tuple[str | None, int]:
    champion = stores.registry("assistant").find_champion()
    rows = stores.lake("assistant").count_rows_per_day(CURATED_DPO_PAIRS)
    return champion.gold_version if champion else None, sum(rows.values())


def test_launched_as_it_is_it_only_says_what_would_change(stores: Stores) -> None:
    launched = launch(stores)
    assert launched.success
    assert state(stores) == (V2, 6)
    (output,) = [event for event in launched.all_events if event.is_step_success or event.is_successful_output][:1]
    metadata = output.step_output_data.metadata
    assert "the champion goes from dpo_gold_v2 to dpo_gold_v1" in metadata["changes"].value
    assert metadata["state"].value.startswith("only planned")


def test_data_and_champion_go_back_separately_or_together(stores: Stores, tmp_path: Path) -> None:
    told = tmp_path / "told"
    write = f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())"
    tells = replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", write)))
    assert launch(stores, tells, models=False, dry_run=False).success
    assert state(stores) == (V2, 3)
    assert not told.exists()
    assert launch(stores, tells, data=False, dry_run=False).success
    assert state(stores) == (V1, 3)
    event = json.loads(told.read_text())
    assert (event["gold_version"], event["replaces"]) == (V1, V2)
    assert Path(event["adapter_dir"]).is_dir()
    audit = stores.lake("assistant").read(ROLLBACKS).to_pylist()
    assert sorted((row["what"], row["decided_by"], row["reason"]) for row in audit) == [
        ("data", "ada", "it leaks"),
        ("models", "ada", "it leaks"),
    ]
    assert launch(stores, to=V2, dry_run=False).success
    assert state(stores) == (V2, 6)


def test_what_cannot_be_meant_fails_with_the_known_names(stores: Stores) -> None:
    for config, complaint in (
        ({"to": "dpo_gold_v9"}, "known: dpo_gold_v1, dpo_gold_v2"),
        ({"data": False, "models": False}, "ask for one of them, or for both"),
    ):
        failed = launch(stores, **config)
        assert not failed.success
        (failure,) = [event for event in failed.all_events if event.is_step_failure]
        error = failure.step_failure_data.error
        assert complaint in f"{error.message} {error.cause.message if error.cause else ''}"
    assert state(stores) == (V2, 6)
