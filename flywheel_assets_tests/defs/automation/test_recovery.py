"""The rollback job, as launched from the UI: it plans unless told to act, and tells the serving side."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.application import PreferenceApplication, PromotionHook
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.recovery import BASE, ROLLBACK_JOB, plan_rollback
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, ROLLBACKS
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets_tests.defs.promoted import promote_two_versions

V1, V2 = "dpo_gold_v1", "dpo_gold_v2"


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Two versions with registered models; the second one serves."""
    stores = Stores(home=str(tmp_path))
    promote_two_versions(stores)
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


def read_output(launched: dg.ExecuteInProcessResult) -> dict[str, str]:
    (output,) = [event for event in launched.all_events if event.is_successful_output]
    return {name: str(found.value) for name, found in output.step_output_data.metadata.items()}


def test_the_launchpads_own_config_plans_the_way_to_the_predecessor(stores: Stores) -> None:
    job = preference_flywheel(APPLICATION, stores).resolve_job_def(ROLLBACK_JOB.format("assistant"))
    launched = job.execute_in_process()
    assert state(stores) == (V2, 6)
    assert "the champion goes from dpo_gold_v2 to dpo_gold_v1" in read_output(launched)["changes"]


def test_without_a_champion_the_launchpads_own_config_says_so(tmp_path: Path) -> None:
    job = preference_flywheel(APPLICATION, Stores(home=str(tmp_path))).resolve_job_def(ROLLBACK_JOB.format("assistant"))
    found = read_output(job.execute_in_process())
    assert found["state"] == "nothing to plan"
    assert "no predecessor on record" in found["changes"]


@pytest.mark.parametrize("missing", ["who", "reason"])
def test_nothing_is_rolled_back_without_a_name_and_a_reason(stores: Stores, missing: str) -> None:
    assert not launch(stores, dry_run=False, **{missing: " "}).success
    assert state(stores) == (V2, 6)


@pytest.mark.long
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


@pytest.mark.long
def test_the_base_model_serves_again_and_gold_stays(stores: Stores, tmp_path: Path) -> None:
    """Today's way back ended at the first promoted version: a flywheel whose first model was bad could not be ended."""
    told = tmp_path / "told"
    write = f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())"
    tells = replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", write)))
    assert launch(stores, tells, to=BASE, dry_run=False).success
    assert state(stores) == (None, 6)
    event = json.loads(told.read_text())
    assert (event["kind"], event["gold_version"], event["replaces"]) == ("rollback_to_base", None, V2)
    assert event["base_model"].endswith(APPLICATION.base_model)
    assert event["traffic"]["arms"][0]["share"] == 1
    (audit,) = stores.lake("assistant").read(ROLLBACKS).to_pylist()
    assert (audit["what"], audit["to_version"], audit["champion_before"]) == ("models", BASE, V2)
    assert not launch(stores, to=BASE, models=False).success, "the gold table has no state of the base model"
    assert launch(stores, to=V1, data=False, dry_run=False).success
    assert state(stores) == (V1, 6)


def test_a_version_that_was_never_promoted_needs_force_and_the_gates_words_are_said(stores: Stores) -> None:
    refused = Promotion(version=V1, promoted=False, sentence="0.697 edit distance.", champion_before=None, checks=[])
    stores.versions("assistant").folder(V1).promotion.unlink()
    with pytest.raises(InvalidRuleError, match="had not decided about it"):
        plan_rollback(APPLICATION, stores, V1, data=False, models=True)
    record_promotion(stores.versions("assistant").folder(V1).promotion, refused)
    with pytest.raises(InvalidRuleError, match=r"never promoted. .* had said: 0\.697 edit distance\. .* --force"):
        plan_rollback(APPLICATION, stores, V1, data=False, models=True)
    assert not launch(stores, data=False, dry_run=False).success
    assert plan_rollback(APPLICATION, stores, V1, data=True, models=False).data is not None, "data need no force"
    forced = plan_rollback(APPLICATION, stores, V1, data=False, models=True, force=True)
    assert any("had said: 0.697 edit distance." in sentence for sentence in forced.list_changes())
    assert launch(stores, data=False, force=True, dry_run=False).success
    assert state(stores) == (V1, 6)


@pytest.mark.long
def test_a_rollback_that_was_not_announced_is_announced_by_repeating_it(stores: Stores, tmp_path: Path) -> None:
    """The repeated command found the alias in its place and announced nothing, whatever its error had promised."""
    told = tmp_path / "told"
    broken = replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", "raise SystemExit(3)")))
    write = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read())"
    tells = replace(APPLICATION, on_promotion=PromotionHook(command=(sys.executable, "-c", write)))
    assert not launch(stores, broken, data=False, dry_run=False).success
    assert launch(stores, tells, data=False, dry_run=False).success
    assert launch(stores, tells, data=False, dry_run=False).success
    assert told.read_text().count(V1) >= 1
    assert json.loads(told.read_text())["kind"] == "rollback", "it was announced once"


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
