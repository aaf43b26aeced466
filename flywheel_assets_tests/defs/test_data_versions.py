"""Dagster's data versions: one materialization per day, and days are stale when an input's content has changed."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.applications import fraud
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.history import HistoryLog
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.defs.assets.landed import report_changed_days
from flywheel_assets.defs.flywheels import classification_flywheel, preference_flywheel
from flywheel_assets.defs.partitions import RANGE_END_TAG, RANGE_START_TAG
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily.ledger import find_stale_days, read_entries
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.builders import make_feedback
from flywheel_assets_tests.lake.workbench import Workbench

FIRST, SECOND = date(2026, 9, 1), date(2026, 9, 2)
DURING_THE_SECOND = datetime(2026, 9, 2, 20, tzinfo=UTC)
APPLICATION = PreferenceApplication(
    name="assistant",
    description="test",
    start_date=FIRST,
    base_model="base",
    window=JoinWindow(join_days=2, dedupe_days=1),
)
DAILY = ["raw_predictions", "ground_truth", "joined_feedback", "feedback_summary", "curated_dpo_pairs"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Feedback on two days, the second of which is still open."""
    bench = Workbench(tmp_path, application="assistant")
    land(bench, FIRST, "a")
    land(bench, SECOND, "b")
    return bench


@pytest.fixture
def definitions(bench: Workbench, tmp_path: Path) -> dg.Definitions:
    return preference_flywheel(APPLICATION, Stores(home=str(tmp_path)), Clock(fixed=DURING_THE_SECOND.isoformat()))


def land(bench: Workbench, day: date, name: str) -> None:
    received_at = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=9)
    event = make_feedback(event_id=name, prediction_id=name, user_id=name, prompt=name, received_at=received_at)
    bench.land(EventKind.FEEDBACK, day, [event], name)


def backfill(definitions: dg.Definitions, instance: dg.DagsterInstance, names: list[str]) -> None:
    """Materialize both days of some assets as the UI's backfills do: one run over the range."""
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={key(name) for name in names}, asset_check_selection=set()
    )
    tags = {RANGE_START_TAG: FIRST.isoformat(), RANGE_END_TAG: SECOND.isoformat()}
    assert job.execute_in_process(instance=instance, tags=tags).success


def key(name: str, application: str = "assistant") -> dg.AssetKey:
    return dg.AssetKey([application, name])


def versions_by_day(instance: dg.DagsterInstance, asset: dg.AssetKey) -> list[tuple[str | None, str]]:
    """Every materialization event there ever was, newest first: its partition and its data version."""
    records = instance.fetch_materializations(asset, limit=100).records
    return [(each.partition_key, each.asset_materialization.tags["dagster/data_version"]) for each in records]


def stale(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """By asset the days that Dagster marks as stale."""
    resolver = CachingStaleStatusResolver(instance, definitions.resolve_asset_graph(), LoadingContextForTest(instance))
    days = [FIRST.isoformat(), SECOND.isoformat()]
    marked = {name: [day for day in days if resolver.get_status(key(name), day).value == "STALE"] for name in DAILY}
    return {name: days for name, days in marked.items() if days}


@pytest.mark.long
def test_a_range_run_logs_one_event_a_day_with_the_content_hash_of_the_ledger(bench, definitions, instance) -> None:
    """Dagster alone gives all days of a run one data version; fails when it no longer leaves the events to us."""
    backfill(definitions, instance, DAILY)
    for name in DAILY:
        entries = read_entries(bench.lake, name)
        expected = [(day.isoformat(), entries[day].content_hash) for day in (FIRST, SECOND)]
        assert sorted(versions_by_day(instance, key(name))) == expected, name
    feedback = Counter(version for _, version in versions_by_day(instance, key("ground_truth")))
    assert len(feedback) == 2, "two days of different content have different versions"


@pytest.mark.long
def test_days_are_stale_when_the_content_of_an_input_day_has_changed_and_only_then(
    bench, definitions, instance
) -> None:
    backfill(definitions, instance, DAILY)
    assert stale(definitions, instance) == {}

    backfill(definitions, instance, ["raw_predictions", "ground_truth"])  # equal rows, written again
    assert stale(definitions, instance) == {}

    land(bench, SECOND, "c")
    backfill(definitions, instance, ["ground_truth"])
    assert stale(definitions, instance) == {"joined_feedback": [SECOND.isoformat()]}

    backfill(definitions, instance, ["joined_feedback"])
    assert stale(definitions, instance) == {
        "feedback_summary": [SECOND.isoformat()],
        "curated_dpo_pairs": [SECOND.isoformat()],
    }
    backfill(definitions, instance, DAILY[3:])
    assert stale(definitions, instance) == {}


@pytest.mark.long
def test_a_day_without_an_account_in_the_ledger_has_the_hash_of_its_rows(tmp_path: Path, instance) -> None:
    clock = Clock(fixed="2026-09-10T00:00:00+00:00")
    definitions = classification_flywheel(fraud.APPLICATION, Stores(home=str(tmp_path)), clock)
    backfill_of = ["raw_predictions", "drift_report"]
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={key(name, "fraud") for name in backfill_of}, asset_check_selection=set()
    )
    tags = {RANGE_START_TAG: "2026-03-01", RANGE_END_TAG: "2026-03-02"}
    assert job.execute_in_process(instance=instance, tags=tags).success
    [(second, version), (first, same)] = versions_by_day(instance, key("drift_report", "fraud"))
    assert (first, second) == ("2026-03-01", "2026-03-02")
    assert version == same, "no champion: both days are empty"


def test_dagster_is_bounded_where_its_undocumented_parts_are_used() -> None:
    """Another minor version of Dagster is tried before it is allowed: `__source_asset_observation__` is no promise."""
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "dagster>=1.13,<1.14" in pyproject["project"]["dependencies"]


@pytest.mark.long
def test_history_marks_the_reopened_day_and_then_what_reads_it_and_no_other(
    bench, definitions, instance, tmp_path: Path
) -> None:
    backfill(definitions, instance, DAILY)
    stores = Stores(home=str(tmp_path))
    assert not any(report_changed_days(instance, APPLICATION, stores).values())
    when = datetime(2026, 9, 1, 8, tzinfo=UTC)
    old = make_feedback(event_id="o" * 32, prediction_id="o", user_id="o", occurred_at=when)
    log = HistoryLog(
        bench.lake, stores.landing(), tmp_path / "history", "ada", "moved here", "f.jsonl", lambda: DURING_THE_SECOND
    )
    with log:
        log.add([LandedRow(EventKind.FEEDBACK, msgspec.json.encode(old) + b"\n")])
        assert log.publish().reopened[EventKind.FEEDBACK] == [FIRST]
    for _ in range(2):  # reported once however often
        assert report_changed_days(instance, APPLICATION, stores)["ground_truth"] == [FIRST]
    assert len(instance.fetch_observations(key("landed_feedback"), limit=9).records) == 1
    assert stale(definitions, instance) == {"ground_truth": [FIRST.isoformat()]}

    backfill(definitions, instance, ["raw_predictions", "ground_truth"])
    # Day 2 of the join reads day 1 as well.
    assert stale(definitions, instance) == {"joined_feedback": [FIRST.isoformat(), SECOND.isoformat()]}
    backfill(definitions, instance, DAILY[2:])
    assert stale(definitions, instance) == {}
    assert not any(report_changed_days(instance, APPLICATION, stores).values())


@pytest.mark.long
def test_a_backfill_of_two_days_in_a_new_home_reaches_gold(
    bench: Workbench, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Somebody imported two days of history and backfilled them in the UI: the join refused 87 days of silence."""
    application = replace(APPLICATION, start_date=FIRST - timedelta(days=30))
    definitions = preference_flywheel(
        application, Stores(home=str(tmp_path)), Clock(fixed=DURING_THE_SECOND.isoformat())
    )
    backfill(definitions, instance, ["raw_predictions", "ground_truth"])
    backfill(definitions, instance, ["joined_feedback", "feedback_summary", "curated_dpo_pairs"])
    gold = read_entries(bench.lake, "curated_dpo_pairs")
    assert {day: entry.is_closed for day, entry in gold.items()} == {FIRST: True, SECOND: False}
    read = {"ground_truth": 3, "raw_predictions": 3}
    assert not find_stale_days(bench.lake, "joined_feedback", read, application.start_date)


def test_a_day_with_landed_events_is_still_asked_for(
    bench: Workbench, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    land(bench, FIRST - timedelta(days=1), "c")
    application = replace(APPLICATION, start_date=FIRST - timedelta(days=30))
    definitions = preference_flywheel(
        application, Stores(home=str(tmp_path)), Clock(fixed=DURING_THE_SECOND.isoformat())
    )
    backfill(definitions, instance, ["raw_predictions", "ground_truth"])
    with pytest.raises(dg.Failure, match=r"never materialized for 1 of \d+ days, first 2026-08-31"):
        backfill(definitions, instance, ["joined_feedback"])


def test_a_classifiers_two_days_in_a_new_home_reach_gold(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    application = replace(fraud.APPLICATION, start_date=FIRST - timedelta(days=30))
    definitions = classification_flywheel(
        application, Stores(home=str(tmp_path)), Clock(fixed=DURING_THE_SECOND.isoformat())
    )
    for names in (["raw_predictions", "ground_truth"], ["joined_feedback"], ["hard_examples"]):
        job = definitions.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection={key(name, "fraud") for name in names}, asset_check_selection=set()
        )
        tags = {RANGE_START_TAG: FIRST.isoformat(), RANGE_END_TAG: SECOND.isoformat()}
        assert job.execute_in_process(instance=instance, tags=tags).success
    assert set(read_entries(Stores(home=str(tmp_path)).lake("fraud"), "hard_examples")) == {FIRST, SECOND}
