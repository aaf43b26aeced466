"""Exclusions: what a rule covers, how one ends, and that nothing of the decision is lost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, EXCLUSIONS, HARD_EXAMPLES
from flywheel_assets.lake.versions import cutting as versions_module
from flywheel_assets.lake.versions.exclusions import (
    DayOf,
    Exclusion,
    ExclusionRule,
    count_excluded_per_day,
    end_exclusion,
    exclude_rows,
    find_exclusions,
    find_statement,
    list_exclusions,
    list_exclusions_in_force,
    require_columns,
    write_excluded_sql,
)
from flywheel_assets.lake.versions.exports import ExportSet
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import count_net_new, fingerprint_state
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.records import make_event_id
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_gold
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WEEK = ExclusionRule(first_day=day(0), last_day=day(6))


def begin(bench: Workbench, rule: ExclusionRule = WEEK, now: datetime = NOW) -> Exclusion:
    return exclude_rows(bench.lake, rule, who="ada", reason="a client sent garbage", now=now)


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        (WEEK, {"feedback_received_date": day(7)}),
        (WEEK, {"feedback_received_date": day(-1)}),
        (
            ExclusionRule(first_day=DAY, last_day=DAY, by=DayOf.OCCURRED),
            {"occurred_at": datetime(2026, 3, 3, tzinfo=UTC)},
        ),
        (ExclusionRule(user_id="mallory"), {"subject": "ada"}),
        (ExclusionRule(user_id="mallory"), {"subject_kind": "thread"}),
        (ExclusionRule(model_version="v7"), {"model_version": "v8"}),
        (ExclusionRule(model_version="v7"), {"model_version": None}),
        (ExclusionRule(first_day=DAY, last_day=DAY, user_id="mallory"), {"subject": "ada"}),
        (ExclusionRule(prediction_id="p"), {"prediction_id": "q"}),
        (ExclusionRule(thread_id="t"), {"thread_id": None}),
        (ExclusionRule(statement_id="s"), {"statement_id": "another"}),
        (ExclusionRule(event_id="e"), {"feedback_event_id": "s"}),
        (ExclusionRule(source="import:edits.jsonl"), {"source": "app"}),
        (ExclusionRule(source="import:edits.jsonl", thread_id="t"), {"thread_id": "u"}),
        (ExclusionRule(prediction_id="p", user_id="mallory"), {"subject": "ada"}),
    ],
)
def test_one_field_decides_whether_a_row_is_covered(
    bench: Workbench, rule: ExclusionRule, changed: dict[str, Any]
) -> None:
    named = {"prediction_id": "p", "thread_id": "t", "statement_id": "s", "feedback_event_id": "e"}
    covered = {"subject": "mallory", "model_version": "v7", "source": "import:edits.jsonl", **named}
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(**covered), make_gold(**{**covered, **changed})])
    assert count_excluded_per_day(bench.lake, CURATED_DPO_PAIRS, [begin(bench, rule)]) == {DAY: 1}


def test_names_with_quotes_are_names(bench: Workbench) -> None:
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(subject="o'hara' OR 'x' = 'x"), make_gold()])
    rule = ExclusionRule(user_id="o'hara' OR 'x' = 'x")
    assert count_excluded_per_day(bench.lake, CURATED_DPO_PAIRS, [begin(bench, rule)]) == {DAY: 1}


def test_rows_of_several_exclusions_count_once_and_without_any_none(bench: Workbench) -> None:
    for offset in range(3):
        bench.write(CURATED_DPO_PAIRS, day(offset), [make_gold(completed_date=day(offset), subject="mallory")])
    both = [begin(bench), begin(bench, ExclusionRule(user_id="mallory"))]
    assert count_excluded_per_day(bench.lake, CURATED_DPO_PAIRS, both) == {day(offset): 1 for offset in range(3)}
    assert count_excluded_per_day(bench.lake, CURATED_DPO_PAIRS, []) == {}
    assert write_excluded_sql(CURATED_DPO_PAIRS, []) == "false"


def test_an_ended_exclusion_is_remembered_and_no_longer_in_force(bench: Workbench) -> None:
    first, second = begin(bench), begin(bench, ExclusionRule(model_version="v7"), NOW + timedelta(hours=1))
    assert [each.id for each in list_exclusions_in_force(bench.lake)] == [first.id, second.id]
    ended = end_exclusion(bench.lake, first.id, who="grace", reason="it was the clock", now=NOW + timedelta(days=1))
    assert (ended.ended_by, ended.ended_reason) == ("grace", "it was the clock")
    assert list_exclusions_in_force(bench.lake) == [second]
    assert [each.id for each in list_exclusions(bench.lake)] == [first.id, second.id]
    assert [each.rule for each in find_exclusions(bench.lake, [first.id])] == [WEEK]
    with pytest.raises(UnknownNameError, match=f"unknown exclusion in force '{first.id}'; known: {second.id}"):
        end_exclusion(bench.lake, first.id, who="grace", reason="again", now=NOW)
    with pytest.raises(UnknownNameError, match="unknown exclusion 'nobody'"):
        find_exclusions(bench.lake, ["nobody"])


def test_deciding_the_same_twice_is_one_decision(bench: Workbench) -> None:
    """A command that was killed behind its commit is given again."""
    assert begin(bench) == begin(bench)
    assert bench.lake.read(EXCLUSIONS).num_rows == 1


def test_trap_14_decisions_outlive_the_snapshots_that_wrote_them(bench: Workbench) -> None:
    first = begin(bench)
    end_exclusion(bench.lake, first.id, who="grace", reason="no", now=NOW)
    table = bench.lake.load_table(EXCLUSIONS)
    table.maintenance.expire_snapshots().older_than(datetime(2100, 1, 1, tzinfo=UTC)).commit()
    assert len(bench.lake.load_table(EXCLUSIONS).snapshots()) == 1
    (remembered,) = list_exclusions(bench.lake)
    assert (remembered.decided_by, remembered.reason, remembered.ended_by) == ("ada", "a client sent garbage", "grace")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "would exclude everything"),
        ({"first_day": DAY}, "needs both days"),
        ({"last_day": DAY}, "needs both days"),
        ({"first_day": day(1), "last_day": day(0)}, "give the first day first"),
        ({"user_id": ""}, "would exclude everything"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRuleError, match=complaint):
        ExclusionRule(**fields)


def test_a_rule_describes_itself_without_naming_anybody() -> None:
    rule = ExclusionRule(first_day=DAY, last_day=day(1), by=DayOf.OCCURRED, user_id="mallory", model_version="v7")
    assert rule.describe() == "occurred 2026-03-02 … 2026-03-03, one user, model version v7"
    ids = ExclusionRule(prediction_id="p1", thread_id="t1", statement_id="s1", event_id="e1", source="import:a.jsonl")
    assert ids.describe() == "one prediction, one conversation, one statement, one event, source import:a.jsonl"


def test_every_name_of_a_rule_is_remembered(bench: Workbench) -> None:
    """Ids of decisions from before rules could name an event are derived as they were then."""
    names = ExclusionRule(prediction_id="p", thread_id="t", statement_id="s", event_id="e", source="app")
    made = begin(bench, names)
    begin(bench, ExclusionRule(prediction_id="q"))
    assert names in [each.rule for each in list_exclusions(bench.lake)]
    assert made.id != begin(bench, ExclusionRule(prediction_id="q")).id
    assert len(list_exclusions(bench.lake)) == 2


def test_a_client_names_its_event_as_it_sent_it(bench: Workbench) -> None:
    """An element of `/edits` lands as two events, of which the feedback's id has an ending."""
    edit = make_event_id(APPLICATION, "shop", "e1/feedback")
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(statement_id=edit), make_gold()])
    assert find_statement(bench.lake, CURATED_DPO_PAIRS, "shop", "e1") == edit
    assert find_statement(bench.lake, CURATED_DPO_PAIRS, "shop", "e2") == make_event_id(APPLICATION, "shop", "e2")


@pytest.mark.parametrize("name", ["thread_id", "statement_id", "source"])
def test_a_rule_is_refused_where_the_kind_of_table_lacks_its_column(name: str) -> None:
    rule = ExclusionRule(**{name: "x"})
    require_columns(CURATED_DPO_PAIRS, rule)
    valid = "valid: days, user_id, model_version, prediction_id, event_id"
    with pytest.raises(InvalidRuleError, match=f"hard_examples has no column for {name}; {valid}"):
        require_columns(HARD_EXAMPLES, rule)


RULES = ResolutionRules(holdout_share=0.0)


def test_trap_8_a_poisoned_week_stays_out_of_later_versions_and_in_the_table(bench: Workbench) -> None:
    """The weeks after it stay in, versions cut before it do not change, and the count for the trigger honours it."""
    versions = Versions(bench.root / "versions", APPLICATION)
    for offset in range(3):
        write_gold(bench, day(offset), offset + 2)
    before = cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    exclusion = begin(bench, ExclusionRule(first_day=day(1), last_day=day(1), by=DayOf.RECEIVED))
    # `write_gold` received everything on the first day: only the middle day is moved.
    rows = [{**row, "feedback_received_date": row["completed_date"]} for row in bench.rows(CURATED_DPO_PAIRS)]
    for offset in range(3):
        bench.write(CURATED_DPO_PAIRS, day(offset), [row for row in rows if row["completed_date"] == day(offset)])
    state = fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS)
    assert count_net_new(bench.lake, versions, RULES, 1).pairs == 6

    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v2", RULES, "1")
    assert (manifest.files[ExportSet.TRAIN].rows, manifest.dropped) == (6, {"excluded": 3})
    assert manifest.exclusions == {exclusion.id: "received 2026-03-03 … 2026-03-03"}
    assert bench.lake.read(CURATED_DPO_PAIRS).num_rows == 9
    assert cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1") == before

    end_exclusion(bench.lake, exclusion.id, who="ada", reason="it was fine", now=NOW)
    assert fingerprint_state(bench.lake, versions, CURATED_DPO_PAIRS) != state
    assert count_net_new(bench.lake, versions, RULES, 1).pairs == 9
    assert cut_pair_version(bench.lake, versions, "dpo_gold_v2", RULES, "1") == manifest
    assert cut_pair_version(bench.lake, versions, "dpo_gold_v3", RULES, "1").dropped == {}


def test_a_cut_that_crashed_keeps_the_exclusions_it_was_pinned_with(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(bench.root / "versions", APPLICATION)
    write_gold(bench, DAY, 4)
    exclusion = begin(bench, ExclusionRule(user_id=f"user {DAY} 0"))

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(versions_module, "write_export", crash)
        with pytest.raises(KeyboardInterrupt):
            cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    end_exclusion(bench.lake, exclusion.id, who="ada", reason="too late for v1", now=NOW)
    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    assert (manifest.files[ExportSet.TRAIN].rows, manifest.exclusions) == (3, {exclusion.id: "one user"})
