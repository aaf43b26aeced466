"""The weekly upkeep: what goes, what must stay, and that accounts add up afterwards."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.errors import LandingRetiredError, SettingsError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables import specs
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    CURATED_DPO_PAIRS,
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    RAW_PREDICTIONS,
    ApplicationTables,
    TableSpec,
    list_tables,
)
from flywheel_assets.lake.tables.tags import create_tag
from flywheel_assets.lake.upkeep.maintenance import MaintenanceRules, Upkeep, maintain_tables, read_storage_history
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets_tests.builders import APPLICATION, day, make_feedback, make_gold, make_prediction
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench, head, stamp

WINDOW = JoinWindow(join_days=3, dedupe_days=1)
DAYS = [day(offset) for offset in range(3)]


@pytest.fixture
def bench(tmp_path: Any) -> Workbench:
    """Three days of 20 predictions, of which two get feedback, materialized up to the join."""
    bench = Workbench(tmp_path, window=WINDOW)
    for offset, on in enumerate(DAYS):
        predictions = [make_prediction(prediction_id=f"p{offset}-{number}") for number in range(20)]
        # A thumb: unlike an edit it needs its prediction.
        thumb = {"signal": "thumb", "value": 1.0, "prompt": None, "original_output": None, "final_text": None}
        feedback = [
            make_feedback(prediction_id=f"p{offset}-{number}", prompt_format=None, **thumb) for number in range(2)
        ]
        bench.land(EventKind.PREDICTION, on, predictions, f"p{offset}")
        bench.land(EventKind.FEEDBACK, on, feedback, f"f{offset}")
    settled = [day(offset) for offset in range(11)]
    bench.ingest_both(settled)
    bench.join(settled)
    return bench


def upkeep(
    bench: Workbench, rules: MaintenanceRules, tables: ApplicationTables = PREFERENCE_TABLES, run: str = "m1"
) -> Upkeep:
    versions = Versions(bench.root / "versions", APPLICATION)
    # Snapshots carry the machine's time: a run in the far future finds all of them old.
    when = replace(stamp(LONG_AFTER + timedelta(days=36_500 + len(run))), run_id=run)
    return maintain_tables(bench.lake, tables, versions, DiskLanding(bench.landing), WINDOW, rules, when)


def test_by_default_no_row_and_no_landed_file_goes(bench: Workbench) -> None:
    done = upkeep(bench, MaintenanceRules(grace_hours=0))
    assert (done.predictions_trimmed, done.segments_removed) == ({}, 0)
    assert done.snapshots_expired > 0
    assert done.files_deleted.files > 0
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == dict.fromkeys(DAYS, 20)
    assert done.before["landing"] == done.after["landing"]


@pytest.mark.long
def test_predictions_out_of_the_window_are_trimmed_to_what_is_referenced_and_a_share(bench: Workbench) -> None:
    done = upkeep(bench, MaintenanceRules(trimmed_share=0.0))
    assert done.predictions_trimmed == dict.fromkeys(DAYS, 18)
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS) == dict.fromkeys(DAYS, 2)
    assert ledger.read_entries(bench.lake, RAW_PREDICTIONS.name)[DAYS[0]].rows_by_reason == {"trimmed": 18}
    assert audit_accounts(bench.lake, RAW_PREDICTIONS).discrepancies == ()
    before = bench.rows(JOINED_FEEDBACK)
    bench.join(DAYS)
    assert bench.rows(JOINED_FEEDBACK) == before, "a backfill joins what it joined"
    assert upkeep(bench, MaintenanceRules(trimmed_share=0.0), run="again").predictions_trimmed == {}


def test_a_day_that_is_written_while_it_is_trimmed_is_trimmed_the_next_time(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daily steps wait for the trim; this is whoever does not."""
    rows, write_day = bench.rows(RAW_PREDICTIONS, DAYS[:1]), Lake.write_day

    def write_and_wait(lake: Lake, *arguments: Any) -> Path | None:
        trimmed = write_day(lake, *arguments)
        monkeypatch.undo()
        bench.write(RAW_PREDICTIONS, DAYS[0], rows)
        return trimmed

    monkeypatch.setattr(Lake, "write_day", write_and_wait)
    assert upkeep(bench, MaintenanceRules(trimmed_share=0.0)).predictions_trimmed == dict.fromkeys(DAYS[1:], 18)
    assert bench.lake.count_rows_per_day(RAW_PREDICTIONS)[DAYS[0]] == 20
    assert audit_accounts(bench.lake, RAW_PREDICTIONS).discrepancies == ()
    again = upkeep(bench, MaintenanceRules(trimmed_share=0.0), run="again")
    assert again.predictions_trimmed == {DAYS[0]: 18}


def test_a_share_stays_by_hash(bench: Workbench) -> None:
    upkeep(bench, MaintenanceRules(trimmed_share=0.5))
    kept = sum(bench.lake.count_rows_per_day(RAW_PREDICTIONS).values())
    assert 6 < kept < 60
    assert audit_accounts(bench.lake, RAW_PREDICTIONS).discrepancies == ()


def test_nothing_within_the_join_window_is_trimmed(bench: Workbench) -> None:
    """The calendar does not count: after an outage the next join reads as far back as it always did."""
    rules, wide = MaintenanceRules(trimmed_share=0.0, landing_kept_days=0), JoinWindow(join_days=5, dedupe_days=0)
    versions = Versions(bench.root / "versions", APPLICATION)
    when = stamp(LONG_AFTER + timedelta(days=36_500))
    done = maintain_tables(bench.lake, PREFERENCE_TABLES, versions, DiskLanding(bench.landing), wide, rules, when)
    # Joined up to day 10, whose successor looks back to day 1.
    assert (list(done.predictions_trimmed), done.segments_removed) == ([DAYS[0]], 2)


def test_a_classifier_keeps_its_silence(tmp_path: Any) -> None:
    bench = Workbench(tmp_path, window=WINDOW, tables=CLASSIFICATION_TABLES)
    assert upkeep(bench, MaintenanceRules(trimmed_share=0.0), CLASSIFICATION_TABLES).predictions_trimmed == {}


def test_landed_files_go_when_the_tables_hold_them(bench: Workbench) -> None:
    late = bench.land(EventKind.FEEDBACK, day(12), [make_feedback()], "never materialized")
    assert upkeep(bench, MaintenanceRules(landing_kept_days=30)).segments_removed == 6
    assert late.exists()
    closed = bench.zone(EventKind.FEEDBACK).find_day_folder(DAYS[0]) / "_CLOSED.json"
    assert closed.exists()
    with pytest.raises(LandingRetiredError):
        bench.ingest(EventKind.FEEDBACK, DAYS)
    assert bench.lake.count_rows_per_day(GROUND_TRUTH) == dict.fromkeys(DAYS, 2)


def test_upkeep_without_anything_to_trim_or_retire_waits_for_no_daily_step(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits to be alone no other step begins, and a failed wait would cost the sweep, too."""
    rules = MaintenanceRules(trimmed_share=0.0, landing_kept_days=30)
    assert upkeep(bench, rules).segments_removed == 6
    monkeypatch.setattr(tables, "_STEPS_TIMEOUT_S", 0.1)
    with bench.open_lake().share_daily_steps():
        assert upkeep(bench, rules, run="again").segments_removed == 0


def test_tagged_versions_stay_readable(bench: Workbench) -> None:
    bench.write(CURATED_DPO_PAIRS, DAYS[0], [make_gold(chosen="tagged")])
    tagged = head(bench.lake)
    create_tag(bench.lake, CURATED_DPO_PAIRS, "dpo_gold_v1", tagged)
    bench.write(CURATED_DPO_PAIRS, DAYS[0], [make_gold(chosen="head")])
    upkeep(bench, MaintenanceRules(grace_hours=0))
    assert bench.lake.read(CURATED_DPO_PAIRS, None, ["chosen"], tagged)["chosen"].to_pylist() == ["tagged"]
    assert bench.lake.read(CURATED_DPO_PAIRS, None, ["chosen"])["chosen"].to_pylist() == ["head"]


def test_no_table_is_forgotten() -> None:
    """`breaker_days`, rewritten by every daily run, kept all its snapshots and files for ever."""
    declared = {each.name for each in vars(specs).values() if isinstance(each, TableSpec)}
    kept_up = {spec.name for kind in (PREFERENCE_TABLES, CLASSIFICATION_TABLES) for spec in list_tables(kind)}
    assert kept_up == declared


def test_what_everything_weighs_is_remembered(bench: Workbench) -> None:
    first = upkeep(bench, MaintenanceRules())
    upkeep(bench, MaintenanceRules(), run="again")
    history = read_storage_history(bench.lake)
    assert history["raw_predictions"][0][1] == first.after["raw_predictions"].bytes
    assert {len(points) for points in history.values()} == {2}


@pytest.mark.parametrize("rules", [{"trimmed_share": 2.0}, {"snapshots_kept_days": 0}, {"grace_hours": -1.0}])
def test_rules_that_cannot_be_meant_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(rules))):
        MaintenanceRules(**rules)
