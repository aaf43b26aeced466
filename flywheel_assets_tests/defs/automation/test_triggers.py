"""The training trigger and the daily schedule, against a real lake and an ephemeral Dagster instance."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from flywheel_assets.application import PreferenceApplication, Trigger
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.automation import training_rules
from flywheel_assets.defs.automation.training_rules import build_rule
from flywheel_assets.defs.automation.triggers import (
    PendingVersion,
    build_daily_schedule,
    build_training_sensor,
    explain_retry_refusal,
    find_first_unfinished_day,
    find_last_closed_day,
    find_pending_version,
    name_next_version,
)
from flywheel_assets.defs.failures import EMPTY, FAILURE_TAG, PERMANENT, RETRY_REQUESTED, TRANSIENT, classify_failures
from flywheel_assets.defs.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG, build_version_partitions
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions import net_new
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.promotion.text_limits import PromotionLimits
from flywheel_assets.records import CURATED_DPO_PAIRS as GOLD_SCHEMA
from flywheel_assets_tests.builders import DAY, make_gold, table

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
RULES = ResolutionRules(holdout_share=0.0)
APPLICATION = PreferenceApplication(
    name="assistant",
    description="test",
    start_date=DAY,
    base_model="base",
    # The thresholds alone: that a version could not be judged is a test of its own.
    trigger=Trigger(min_new_pairs=5, min_new_partitions=1, retry_backoff_s=60.0, only_decidable=False),
    resolution=RULES,
)
VERSIONS = build_version_partitions("assistant")


@dg.asset(partitions_def=VERSIONS)
def placeholder() -> None:
    """Stands for the version assets, whose training no test of the trigger needs."""


@dg.asset(partitions_def=VERSIONS)
def broken() -> None:
    """Fails, as a training can."""
    raise RuntimeError("broken on purpose")


JOB = dg.define_asset_job("assistant_turn", dg.AssetSelection.assets(placeholder))
BROKEN_JOB = dg.define_asset_job("assistant_turn", dg.AssetSelection.assets(broken))


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(home=str(tmp_path))


@pytest.fixture
def lake(stores: Stores) -> Lake:
    return stores.lake("assistant")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def write_gold(lake: Lake, day: date, pairs: int, *, is_closed: bool = True, first: int = 0) -> None:
    """Gold of one day: pairs numbered from `first`, so that a day can be written again with the same ones."""
    numbers = range(first, first + pairs)
    rows = [
        make_gold(
            completed_date=day,
            prediction_id=f"{day}-{number}",
            subject=f"user-{number}",
            feedback_event_id=f"{day}-{number}",
            prompt=f"{day} {number}",
        )
        for number in numbers
    ]
    with lake.connect() as connection:
        connection.register("rows", table(GOLD_SCHEMA, rows))
        file = lake.write_day(connection, CURATED_DPO_PAIRS, day, "SELECT * FROM rows")
    lake.replace_days(CURATED_DPO_PAIRS, [day], {day: file} if file else {}, {})
    entry = LedgerEntry(CURATED_DPO_PAIRS.name, day, is_closed, f"{day}-{pairs}", {}, pairs, pairs, {})
    ledger.record_entries(lake, [entry], RunStamp("test", "1", NOW))


def tick(
    stores: Stores,
    instance: dg.DagsterInstance,
    cursor: str | None = None,
    application: PreferenceApplication = APPLICATION,
) -> dg.SensorResult | dg.SkipReason:
    sensor = build_training_sensor(application, build_rule(application), JOB.name)
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"stores": stores, "clock": Clock(fixed=NOW.isoformat())}
    )
    return sensor(context)


def reason(result: dg.SensorResult | dg.SkipReason) -> str:
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    assert result.skip_reason is not None, f"fired: {result.run_requests}"
    return str(result.skip_reason.skip_message if isinstance(result.skip_reason, dg.SkipReason) else result.skip_reason)


def finish(stores: Stores, lake: Lake, version: str) -> None:
    """What a successful turn leaves behind: export, training and decision."""
    versions = stores.versions("assistant")
    cut_pair_version(lake, versions, version, RULES, "1")
    folder = versions.folder(version)
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    record_promotion(
        folder.promotion,
        Promotion(version=version, promoted=False, sentence="test", champion_before=None, checks=[]),
    )


def run_version(instance: dg.DagsterInstance, job: Any, version: str) -> str:
    definitions = dg.Definitions(assets=[placeholder, broken], jobs=[job])
    result = definitions.resolve_job_def("assistant_turn").execute_in_process(
        instance=instance, partition_key=version, raise_on_error=False
    )
    return result.run_id


def test_fires_once_with_a_new_version_when_both_thresholds_are_crossed(stores, lake, instance) -> None:
    write_gold(lake, DAY, 5)
    result = tick(stores, instance)
    assert [request.partition_key for request in result.run_requests] == ["dpo_gold_v1"]
    assert result.run_requests[0].run_key == "assistant:dpo_gold_v1:first"
    assert result.dynamic_partitions_requests[0].partition_keys == ["dpo_gold_v1"]


def test_below_the_threshold_says_how_far(stores, lake, instance) -> None:
    write_gold(lake, DAY, 4)
    assert reason(tick(stores, instance)) == (
        "at most 4 of 5 new pairs, 1 of 1 new closed partitions since the beginning"
    )


def test_an_empty_lake_skips(stores, instance) -> None:
    assert "0 of 5 new pairs" in reason(tick(stores, instance))


def test_open_days_do_not_count(stores, lake, instance) -> None:
    write_gold(lake, DAY, 50, is_closed=False)
    assert "0 of 5 new pairs, 0 of 1" in reason(tick(stores, instance))


def test_a_day_materialized_again_or_backfilled_counts_once(stores, lake, instance) -> None:
    write_gold(lake, DAY, 5)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    finish(stores, lake, "dpo_gold_v1")
    write_gold(lake, DAY, 5)
    assert "0 of 5 new pairs, 0 of 1" in reason(tick(stores, instance))
    # A past day that comes later is new, wherever it lies in time.
    write_gold(lake, DAY + timedelta(days=1), 4)
    assert "4 of 5 new pairs, 1 of 1 new closed partitions since dpo_gold_v1" in reason(tick(stores, instance))
    write_gold(lake, DAY + timedelta(days=2), 1)
    assert [request.partition_key for request in tick(stores, instance).run_requests] == ["dpo_gold_v2"]


def test_many_pairs_in_one_known_day_wait_for_a_new_partition(stores, lake, instance) -> None:
    write_gold(lake, DAY, 5)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    finish(stores, lake, "dpo_gold_v1")
    write_gold(lake, DAY, 50)
    assert "45 of 5 new pairs, 0 of 1 new closed partitions" in reason(tick(stores, instance))


def test_the_count_is_taken_once_per_state_of_the_lake(stores, lake, instance, monkeypatch) -> None:
    application = replace(APPLICATION, trigger=Trigger(min_new_pairs=6))
    write_gold(lake, DAY, 5)
    cursor = tick(stores, instance, application=application).cursor
    monkeypatch.setattr(
        "flywheel_assets.defs.automation.training_rules.count_net_new", lambda *_: pytest.fail("counted again")
    )
    assert "5 of 6" in reason(tick(stores, instance, cursor, application))


def test_rows_are_read_at_most_once_per_content_and_not_at_all_below_the_threshold(
    stores, lake, instance, monkeypatch
) -> None:
    """A daily run moves the snapshots of gold and ledger six times; rows were counted again after each."""
    counted = []
    count = net_new.find_pair_ids_to_train
    monkeypatch.setattr(net_new, "find_pair_ids_to_train", lambda *given: (counted.append(1), count(*given))[1])
    waiting = replace(APPLICATION, trigger=Trigger(min_new_pairs=5, min_new_partitions=3, only_decidable=False))
    write_gold(lake, DAY, 4)
    cursor = tick(stores, instance, application=waiting).cursor
    assert not counted, "4 rows cannot be 5 pairs"
    write_gold(lake, DAY + timedelta(days=1), 4)
    for _ in range(3):
        cursor = tick(stores, instance, cursor, waiting).cursor
    assert len(counted) == 1
    # The same day materialized again, and an open one: other snapshots, the same closed days.
    write_gold(lake, DAY, 4)
    write_gold(lake, DAY + timedelta(days=2), 4, is_closed=False)
    result = tick(stores, instance, cursor, waiting)
    assert "8 of 5 new pairs, 2 of 3 new closed partitions" in reason(result)
    assert len(counted) == 1
    write_gold(lake, DAY + timedelta(days=2), 4)
    assert len(tick(stores, instance, result.cursor, waiting).run_requests) == 1
    assert len(counted) == 2


def test_other_resolution_rules_are_counted_at_once(stores, lake, instance) -> None:
    held_out = replace(APPLICATION, resolution=ResolutionRules(holdout_share=1.0))
    write_gold(lake, DAY, 5)
    waiting = tick(stores, instance, application=held_out)
    assert "0 of 5 new pairs" in reason(waiting)
    assert len(tick(stores, instance, waiting.cursor).run_requests) == 1


def test_another_tokenizer_is_noticed_although_the_lake_is_the_same(stores, lake, instance, monkeypatch) -> None:
    """Rows that the last base model refused may be trainable now; the sensor remembers the count of a state."""
    write_gold(lake, DAY, 4)
    counted = []
    count = training_rules.count_net_new
    monkeypatch.setattr(training_rules, "count_net_new", lambda *given: (counted.append(given[-1]), count(*given))[1])
    cursor = tick(stores, instance).cursor
    assert tick(stores, instance, cursor).cursor == cursor
    base = stores.where.resolve_models_dir() / "base"
    base.mkdir(parents=True)
    (base / "tokenizer.json").write_text("{}")
    tick(stores, instance, cursor)
    assert len({each["tokenizer_sha256"] for each in counted}) == len(counted) == 2


def test_a_training_about_which_nothing_could_be_decided_is_not_paid_for(stores, lake, instance, monkeypatch) -> None:
    """A team of 60 trained at every threshold, on a GPU, and was "not enough evidence" each time."""
    trigger, tenth = Trigger(min_new_pairs=5), ResolutionRules(holdout_share=0.1)
    small = replace(APPLICATION, trigger=trigger, resolution=tenth)
    write_gold(lake, DAY, 60)
    waiting = tick(stores, instance, application=small)
    assert not waiting.run_requests
    assert reason(waiting) == (
        "54 of 5 new pairs, 1 of 1 new closed partitions since the beginning; not trained, as it could not be "
        "promoted: 6 held-out users of 60 with new rows would judge a version cut now, and the promotion gate needs 20 "
        "to decide; gold holds too few days to tell how many new users come; ResolutionRules(holdout_share=0.38) would "
        "have 20 judge now and leave 40 of 54 pairs to train on; ResolutionRules(cross_fit_folds=5) would have 60 "
        "judge now and leave all 60 pairs, for 5 more trainings; to train all the same: "
        "`flywheel retrain -a assistant --reason … --yes`"
    )
    # Once per state of the lake, like the count.
    with monkeypatch.context() as patch:
        patch.setattr(training_rules, "foresee_decision", lambda *_: pytest.fail("foreseen again"))
        assert reason(tick(stores, instance, waiting.cursor, small)) == reason(waiting)
    # Other limits, the share that was proposed, a person, or more people: each lets it begin.
    for change in (
        {"limits": PromotionLimits(min_subjects=6)},
        {"resolution": ResolutionRules(holdout_share=0.38)},
        {"trigger": replace(trigger, only_decidable=False)},
    ):
        assert tick(stores, instance, waiting.cursor, replace(small, **change)).run_requests
    write_gold(lake, DAY + timedelta(days=1), 200, first=60)
    assert tick(stores, instance, waiting.cursor, small).run_requests


def test_a_training_that_a_person_asked_for_runs_although_nothing_could_be_decided(stores, lake, instance) -> None:
    """What `flywheel retrain` does: it adds the partition."""
    small = replace(APPLICATION, trigger=Trigger(min_new_pairs=5), resolution=ResolutionRules(holdout_share=0.1))
    write_gold(lake, DAY, 60)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    assert [each.partition_key for each in tick(stores, instance, None, small).run_requests] == ["dpo_gold_v1"]


def test_a_decision_is_noticed_although_the_lake_is_the_same(stores, lake, instance) -> None:
    """Each test that proves no gain lowers the level of the next: what could be proven before may not be any more."""
    small = replace(APPLICATION, trigger=Trigger(min_new_pairs=500))
    write_gold(lake, DAY, 60)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    rule = build_rule(small)
    versions = stores.versions("assistant")
    before = rule.fingerprint(training_rules.Level.CONTENT, stores, lake, versions)
    finish(stores, lake, "dpo_gold_v1")
    trained = rule.fingerprint(training_rules.Level.CONTENT, stores, lake, versions)
    versions.folder("dpo_gold_v1").promotion.unlink()
    undecided = rule.fingerprint(training_rules.Level.CONTENT, stores, lake, versions)
    assert len({before, trained, undecided}) == 3


def test_a_failed_tick_loses_nothing(stores, lake, instance, monkeypatch) -> None:
    write_gold(lake, DAY, 5)
    with monkeypatch.context() as patch:
        patch.setattr(
            "flywheel_assets.defs.automation.training_rules.count_net_new",
            lambda *_: (_ for _ in ()).throw(OSError("catalog is away")),
        )
        with pytest.raises(OSError, match="away"):
            tick(stores, instance)
    assert len(tick(stores, instance).run_requests) == 1


def test_a_requested_version_that_never_ran_is_requested_again(stores, lake, instance) -> None:
    """The daemon died between adding the partition and launching the run."""
    write_gold(lake, DAY, 5)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    result = tick(stores, instance)
    assert [request.partition_key for request in result.run_requests] == ["dpo_gold_v1"]
    assert not result.dynamic_partitions_requests


def test_a_failed_training_is_run_again_as_the_same_version(stores, lake, instance) -> None:
    write_gold(lake, DAY, 5)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    run_id = run_version(instance, BROKEN_JOB, "dpo_gold_v1")
    write_gold(lake, DAY + timedelta(days=1), 500)

    instance.add_run_tags(run_id, {FAILURE_TAG: PERMANENT})
    assert "`flywheel retry dpo_gold_v1 -a assistant`" in reason(tick(stores, instance))

    instance.add_run_tags(run_id, {FAILURE_TAG: RETRY_REQUESTED})
    request = tick(stores, instance).run_requests[0]
    assert (request.partition_key, request.run_key) == ("dpo_gold_v1", f"assistant:dpo_gold_v1:{run_id}")


@dg.asset(partitions_def=VERSIONS)
def gold_snapshot(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> None:
    """Cuts the version, as the real asset does."""
    with classify_failures(context):
        versions = stores.versions("assistant")
        cut_pair_version(stores.lake("assistant"), versions, context.partition_key, RULES, "1")


def cut_in_a_run(instance: dg.DagsterInstance, stores: Stores, version: str) -> None:
    job = dg.define_asset_job("assistant_turn", dg.AssetSelection.assets(gold_snapshot))
    definitions = dg.Definitions(assets=[gold_snapshot], jobs=[job], resources={"stores": stores})
    definitions.resolve_job_def("assistant_turn").execute_in_process(
        instance=instance, partition_key=version, raise_on_error=False
    )


def test_an_empty_version_waits_for_rows_and_blocks_nothing(stores, lake, instance) -> None:
    """600 edits were imported and a training was requested on the same day: no pair counted yet.

    The run failed for good, and the trigger named that version at every tick, also when the day had closed.
    """
    write_gold(lake, DAY, 600, is_closed=False)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    cut_in_a_run(instance, stores, "dpo_gold_v1")
    waiting = reason(tick(stores, instance))
    assert waiting.startswith("dpo_gold_v1 found nothing to train on; it is cut again when the thresholds are reached")
    assert "0 of 5 new pairs" in waiting

    write_gold(lake, DAY, 600)
    result = tick(stores, instance)
    assert [request.partition_key for request in result.run_requests] == ["dpo_gold_v1"]
    assert not result.dynamic_partitions_requests
    cut_in_a_run(instance, stores, "dpo_gold_v1")
    assert stores.versions("assistant").folder("dpo_gold_v1").export.exists()


@pytest.mark.long
def test_a_version_that_stays_empty_is_tried_once_per_content(stores, lake, instance) -> None:
    """The tokenizer may refuse every row that the count takes for a pair: a run at every tick would help no one."""
    write_gold(lake, DAY, 600, is_closed=False)
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    cut_in_a_run(instance, stores, "dpo_gold_v1")
    write_gold(lake, DAY, 600)
    keys = {tick(stores, instance).run_requests[0].run_key for _ in range(2)}
    write_gold(lake, DAY + timedelta(days=1), 5)
    keys |= {tick(stores, instance).run_requests[0].run_key}
    assert len(keys) == 2, "Dagster starts no second run under the same key"


def test_deleted_runs_lose_no_retry(stores, lake, instance) -> None:
    """Dagster silently drops a request whose key any earlier run had."""
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1"])
    keys, runs = [], []
    for attempt in range(3):
        runs.append(run_version(instance, BROKEN_JOB, "dpo_gold_v1"))
        instance.add_run_tags(runs[-1], {FAILURE_TAG: RETRY_REQUESTED})
        keys.append(tick(stores, instance).run_requests[0].run_key)
        if attempt == 1:
            instance.delete_run(runs[0])
    assert len(set(keys)) == 3


def test_pending_version_reads_the_runs(stores, instance) -> None:
    instance.add_dynamic_partitions(VERSIONS.name, ["dpo_gold_v1", "dpo_gold_v2"])
    partitions = ["dpo_gold_v1", "dpo_gold_v2"]
    for _ in range(2):
        run_version(instance, BROKEN_JOB, "dpo_gold_v2")
    found = find_pending_version(instance, stores.versions("assistant"), partitions, "assistant_turn")
    assert (found.version, found.attempts, found.failed_in_a_row, found.is_running) == ("dpo_gold_v2", 2, 2, False)
    queued = instance.create_run_for_job(
        dg.Definitions(assets=[placeholder], jobs=[JOB]).resolve_job_def("assistant_turn"),
        tags={PARTITION_TAG: "dpo_gold_v2"},
    )
    assert queued.status is dg.DagsterRunStatus.NOT_STARTED
    assert find_pending_version(instance, stores.versions("assistant"), partitions, "assistant_turn").is_running


PENDING = PendingVersion("dpo_gold_v3", "assistant", False, 1, 1, TRANSIENT, NOW.timestamp() - 61, False)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({}, None),
        ({"failure": None}, None),
        ({"is_running": True}, "queued or running"),
        ({"failure": PERMANENT}, "failed permanently"),
        ({"failure": EMPTY}, "or leave it: `flywheel abandon dpo_gold_v3 -a assistant --reason … --yes`"),
        ({"failure": EMPTY, "is_empty": True}, "found nothing to train on"),
        ({"is_canceled": True}, "was canceled"),
        ({"is_canceled": True, "failure": RETRY_REQUESTED, "failed_in_a_row": 0}, None),
        ({"ended_at": NOW.timestamp() - 59}, "run again in 1 s (attempt 2)"),
        ({"attempts": 2, "failed_in_a_row": 2}, "run again in 59 s (attempt 3)"),
        ({"attempts": 4, "failed_in_a_row": 4, "ended_at": 0.0}, "failed 4 times in a row"),
        ({"attempts": 0, "failed_in_a_row": 0, "failure": None, "ended_at": None}, None),
    ],
)
def test_when_a_pending_version_runs_again(change, refusal) -> None:
    found = explain_retry_refusal(replace(PENDING, **change), APPLICATION.trigger, NOW)
    assert (found is None) if refusal is None else (refusal in found)


def test_a_version_name_is_never_used_twice(stores, lake) -> None:
    versions = stores.versions("assistant")
    assert name_next_version(lake, versions, [], APPLICATION) == "dpo_gold_v1"
    write_gold(lake, DAY, 5)
    cut_pair_version(lake, versions, "dpo_gold_v4", RULES, "1")
    assert name_next_version(lake, versions, ["dpo_gold_v2"], APPLICATION) == "dpo_gold_v5"
    assert name_next_version(lake, versions, ["dpo_gold_v10"], APPLICATION) == "dpo_gold_v11"


@pytest.mark.parametrize(
    ("now", "day"), [("2026-03-20T00:14:59Z", "2026-03-18"), ("2026-03-20T00:15:00Z", "2026-03-19")]
)
def test_a_day_closes_a_quarter_of_an_hour_after_its_end(now, day) -> None:
    assert find_last_closed_day(datetime.fromisoformat(now)) == date.fromisoformat(day)


def test_the_schedule_asks_for_the_last_closed_day_and_for_missed_ones(stores, lake, instance) -> None:
    last = find_last_closed_day(NOW)
    assert find_first_unfinished_day(lake, CURATED_DPO_PAIRS, DAY, last) == DAY
    for offset in range(18):
        write_gold(lake, DAY + timedelta(days=offset), 0, is_closed=offset != 16)
    # DAY + 17 is the 19th, the last closed day; the 18th was materialized while it was open.
    assert find_first_unfinished_day(lake, CURATED_DPO_PAIRS, DAY, last) == date(2026, 3, 18)
    schedule = build_daily_schedule(APPLICATION, JOB.name)
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW, resources={"stores": stores})
    request = schedule(context)
    assert request.tags[RANGE_START_TAG] == "2026-03-18"
    assert request.tags[RANGE_END_TAG] == "2026-03-19"
