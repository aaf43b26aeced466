"""The shape of the fraud code location: the spine is the assistant's, the rest is mining, trees and reports."""

import dagster as dg
import pytest

from flywheel_assets.applications import assistant, fraud


@pytest.fixture(scope="module")
def graph():
    return fraud.defs.resolve_asset_graph()


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["fraud", name])


def test_assets_and_edges_are_the_way_of_one_transaction(graph) -> None:
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
        "hard_examples": ["ground_truth", "joined_feedback", "raw_predictions"],
        "drift_report": ["raw_predictions"],
        "levers_report": ["hard_examples"],
        "label_delay": ["hard_examples"],
        "gold_snapshot": ["hard_examples"],
        "trained_classifier": ["gold_snapshot"],
        "classifier_evaluation": ["trained_classifier"],
        "promotion": ["classifier_evaluation"],
    }


def test_the_spine_is_the_same_code_for_both_kinds() -> None:
    def code_of(defs: dg.Definitions, application: str, name: str) -> object:
        return defs.resolve_assets_def(dg.AssetKey([application, name])).op.compute_fn.decorated_fn.__code__

    for name in ("raw_predictions", "ground_truth", "joined_feedback", "gold_snapshot", "promotion"):
        assert code_of(fraud.defs, "fraud", name) is code_of(assistant.defs, "assistant", name), name


def test_every_asset_has_a_group_and_a_description(graph) -> None:
    for asset in graph.get_all_asset_keys():
        node = graph.get(asset)
        assert node.group_name in {f"fraud_{stage}" for stage in ("landing", "join", "gold", "monitoring", "version")}
        assert len(node.description or "") > 30, asset


def test_hard_examples_depend_on_the_days_they_read() -> None:
    """With the identity mapping a label three weeks late would leave the UI showing its day as fresh."""
    mined = fraud.defs.resolve_assets_def(key("hard_examples"))
    reach = {
        name: -mined.get_partition_mapping(key(name)).start_offset
        for name in ("joined_feedback", "raw_predictions", "ground_truth")
    }
    assert reach == dict(fraud.APPLICATION.gold_lookback_days)


def test_checks_guard_the_tables_the_versions_and_the_drift() -> None:
    names = {check.name for checks in fraud.defs.asset_checks for check in checks.check_keys}
    assert names >= {
        "hard_examples_rows_are_accounted_for",
        "fields_have_not_drifted",
        "exports_match_their_manifests",
        "labels_come_before_maturity",
        "served_scores_are_calibrated",
        "labels_find_their_predictions",
        "labels_agree",
        "versions_get_promoted",
        "no_day_tripped_the_breaker",
    }


def test_the_reports_are_made_every_day_without_a_person() -> None:
    """`levers_report` was in no job, so that hardly anyone ever saw it."""
    schedule = fraud.defs.resolve_schedule_def("fraud_daily_reports")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    job = fraud.defs.resolve_job_def("fraud_reports")
    assert {asset.path[-1] for asset in job.asset_layer.executable_asset_keys} == {"levers_report", "label_delay"}
