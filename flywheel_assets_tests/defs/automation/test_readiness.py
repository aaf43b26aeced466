"""The sentence that says what a training lacks, against a real lake."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.applications import fraud
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.automation.readiness import describe_open_days, find_cut_problem
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import DAY, day, make_gold
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.lake.workbench import stamp, write_day

APPLICATION = PreferenceApplication(
    name="assistant", description="test", start_date=DAY, base_model="base", resolution=ResolutionRules()
)
EVENING = datetime(DAY.year, DAY.month, DAY.day, 21, 3, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Stores(home=str(tmp_path)).lake("assistant")


def test_todays_rows_count_when_the_day_closes(lake: Lake) -> None:
    write_gold_days(lake, {DAY: 368}, is_closed=False)
    waiting = "today's 368 pairs count when the day closes at 00:15 UTC (in 3 h 12 min)"
    assert describe_open_days(APPLICATION, lake, EVENING) == waiting
    assert find_cut_problem(APPLICATION, lake, EVENING) == f"gold has no closed day; {waiting}"
    assert "(in 12 min)" in str(describe_open_days(APPLICATION, lake, EVENING + timedelta(hours=3)))


def test_accepted_outputs_are_no_pairs(lake: Lake) -> None:
    kinds = ["preference_pair", "accepted_output", "accepted_output"]
    rows = [make_gold(completed_date=DAY, example_kind=kind) for kind in kinds]
    write_day(lake, CURATED_DPO_PAIRS, DAY, rows)
    entry = LedgerEntry(CURATED_DPO_PAIRS.name, DAY, False, "content", {}, 3, 3, {})
    ledger.record_entries(lake, [entry], stamp())
    waiting = "today's 3 rows of gold, 1 of them pairs, count when the day closes at 00:15 UTC (in 3 h 12 min)"
    assert describe_open_days(APPLICATION, lake, EVENING) == waiting


def test_a_day_that_could_close_waits_for_a_turn(lake: Lake) -> None:
    write_gold_days(lake, {DAY: 3}, is_closed=False)
    assert describe_open_days(APPLICATION, lake, EVENING + timedelta(days=1)) == (
        f"3 pairs up to {DAY} count after the next `flywheel turn`, which closes their days"
    )


def test_nothing_waits_when_every_day_is_closed(lake: Lake) -> None:
    write_gold_days(lake, {DAY: 40})
    assert describe_open_days(APPLICATION, lake, EVENING) is None
    assert find_cut_problem(APPLICATION, lake, EVENING) is None


def test_an_empty_lake_has_no_closed_day(lake: Lake) -> None:
    assert find_cut_problem(APPLICATION, lake, EVENING) == "gold has no closed day"
    write_gold_days(lake, {day(1): 0})
    assert find_cut_problem(APPLICATION, lake, EVENING) == "gold has no row on any of its 1 closed days"


@pytest.mark.parametrize(
    ("holdout_share", "problem"),
    [
        (0.0, "none of 4 pairs is of a held-out user, so nothing could judge the model (0% of the users are held out)"),
        (1.0, "1 closed days hold no pair to train on"),
    ],
)
def test_rows_to_train_on_and_to_judge_by_are_both_needed(lake: Lake, holdout_share: float, problem: str) -> None:
    write_gold_days(lake, {DAY: 4})
    application = replace(APPLICATION, resolution=ResolutionRules(holdout_share=holdout_share))
    assert str(find_cut_problem(application, lake, EVENING)).startswith(problem)


def test_a_classifier_without_a_closed_day(tmp_path: Path) -> None:
    lake = Stores(home=str(tmp_path)).lake("fraud")
    assert find_cut_problem(fraud.APPLICATION, lake, EVENING) == "gold has no closed day"
