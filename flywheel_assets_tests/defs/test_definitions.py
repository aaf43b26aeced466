"""The shape of a code location: its assets, how they hang together, what runs by default."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.applications.assistant import APPLICATION, defs
from flywheel_assets.defs._checks import build_version_checks
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores

DAILY = ["raw_predictions", "ground_truth", "joined_feedback", "curated_dpo_pairs"]
VERSIONED = ["gold_snapshot", "trained_adapter", "adapter_evaluation", "promotion"]


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["assistant", name])


@pytest.fixture(scope="module")
def graph():
    return defs.resolve_asset_graph()


def test_assets_and_edges_are_the_designs_way_of_one_edit(graph) -> None:
    edges = {
        asset.path[-1]: sorted(parent.path[-1] for parent in graph.get(asset).parent_keys)
        for asset in graph.get_all_asset_keys()
    }
    assert edges == {
        "landed_predictions": [],
        "landed_feedback": [],
        "raw_predictions": ["landed_predictions"],
        "ground_truth": ["landed_feedback"],
        "joined_feedback": ["ground_truth", "raw_predictions"],
        "feedback_summary": ["joined_feedback"],
        "curated_dpo_pairs": ["joined_feedback"],
        "production_watch": ["joined_feedback", "raw_predictions"],
        "gold_snapshot": ["curated_dpo_pairs"],
        "trained_adapter": ["gold_snapshot"],
        "adapter_evaluation": ["trained_adapter"],
        "promotion": ["adapter_evaluation"],
    }


def test_every_asset_has_a_group_and_a_description(graph) -> None:
    for asset in graph.get_all_asset_keys():
        node = graph.get(asset)
        # The UI merges groups of equal name across code locations.
        assert node.group_name in {
            f"assistant_{stage}" for stage in ("landing", "join", "gold", "analytics", "version")
        }
        assert len(node.description or "") > 30, asset


def test_daily_assets_run_a_range_in_one_run(graph) -> None:
    for name in DAILY:
        policy = graph.get(key(name)).backfill_policy
        assert policy is not None
        assert policy.max_partitions_per_run is None, f"{name} would make one run per day"


def test_version_assets_share_one_partitions_definition_named_after_the_application(graph) -> None:
    names = {graph.get(key(name)).partitions_def.name for name in VERSIONED}
    assert names == {f"{APPLICATION.name}_gold_versions"}


def test_one_materialized_day_requests_no_version() -> None:
    """With a wider mapping one backfilled day retrained every version there ever was."""
    mapping = defs.resolve_assets_def(key("gold_snapshot")).get_partition_mapping(key("curated_dpo_pairs"))
    assert isinstance(mapping, dg.SpecificPartitionsPartitionMapping)
    assert list(mapping.partition_keys) == []


def test_the_watch_is_made_daily_and_can_be_switched_off() -> None:
    job = defs.resolve_job_def("assistant_reports")
    assert {asset.path[-1] for asset in job.asset_layer.executable_asset_keys} == {"production_watch"}
    assert defs.resolve_schedule_def("assistant_daily_reports").default_status is dg.DefaultScheduleStatus.RUNNING
    without = preference_flywheel(replace(APPLICATION, watch=None)).resolve_asset_graph()
    assert key("production_watch") not in without.get_all_asset_keys()
    assert not [check for check in without.asset_check_keys if check.name == "current_model_is_not_worse"]


def test_schedule_and_sensor_run_by_default() -> None:
    assert defs.resolve_schedule_def("daily_feedback_schedule").default_status is dg.DefaultScheduleStatus.RUNNING
    assert defs.resolve_sensor_def("training_threshold_sensor").default_status is dg.DefaultSensorStatus.RUNNING


def test_training_waits_in_the_gpu_pool() -> None:
    for name in ("trained_adapter", "adapter_evaluation"):
        assert defs.resolve_assets_def(key(name)).op.pool == "gpu"


def test_checks_guard_every_daily_asset_and_the_snapshot() -> None:
    names = {check.name for checks in defs.asset_checks for check in checks.check_keys}
    assert {f"{name}_rows_are_accounted_for" for name in DAILY} <= names
    assert {
        "joined_feedback_days_are_fresh",
        "curated_dpo_pairs_days_are_fresh",
        "exports_match_their_manifests",
        "no_day_tripped_the_breaker",
        "operator_texts_are_clean",
    } <= names
    # The comparison is made once: the asset itself says whether the check passed.
    assert "current_model_is_not_worse" in {check.name for check in defs.resolve_asset_graph().asset_check_keys}


def test_a_damaged_old_version_is_reported_and_stops_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "versions" / "assistant" / "dpo_gold_v1" / "export").mkdir(parents=True)  # its manifest is gone
    [check] = build_version_checks(APPLICATION)
    assert not check.check_specs_by_output_name.popitem()[1].blocking
    result = check(Stores(home=str(tmp_path)))
    assert not result.passed
    assert "Materialize gold_snapshot" in result.description
