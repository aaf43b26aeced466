"""`flywheel breaker` on a home with one raided day."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel_assets.cli import app
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily import breaker
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets.settings import read_settings
from flywheel_assets_tests.builders import day, make_feedback
from flywheel_assets_tests.lake.labelled import run
from flywheel_assets_tests.lake.mass_labels import LABEL_LIMITS, LAST, WRONG, flip, make_ordinary_days
from flywheel_assets_tests.lake.raid import LIMITS, RAID
from flywheel_assets_tests.lake.workbench import Workbench


@pytest.fixture
def raided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    read_settings.cache_clear()
    bench = Workbench(tmp_path, limits=LIMITS)
    bench.lake = Stores().lake("assistant")
    for offset, rows in enumerate((5, 5, RAID)):
        bench.land(EventKind.FEEDBACK, day(offset), [make_feedback() for _ in range(rows)])
    days = [day(offset) for offset in range(3)]
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    return bench


def flywheel(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["breaker", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_listing_and_resetting(raided: Workbench) -> None:
    assert "kept out of" in flywheel("list")
    assert "would let" in flywheel("reset", str(day(2)), "--reason", "the launch", "--who", "ada")
    assert breaker.list_resets(raided.lake) == []
    said = flywheel("reset", str(day(2)), "--reason", "the launch", "--who", "ada", "--yes")
    assert f"flywheel backfill {day(2)} {day(2)}" in said
    [decision] = breaker.list_resets(raided.lake)
    assert (decision.decided_by, decision.reason) == ("ada", "the launch")


def test_a_reset_without_a_reason_is_no_command(raided: Workbench) -> None:
    result = CliRunner().invoke(app, ["breaker", "reset", str(day(2)), "--yes"])
    assert result.exit_code == 2
    assert breaker.list_resets(raided.lake) == []


@pytest.mark.long
def test_a_day_of_wrong_labels_is_listed_and_reset_by_the_same_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    read_settings.cache_clear()
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES, application="fraud")
    bench.lake = Stores().lake("fraud")
    run(bench, flip(make_ordinary_days(0, 11), WRONG), LAST, limits=LABEL_LIMITS)
    assert "kept out of" in flywheel("list", "-a", "fraud")
    said = flywheel("reset", str(WRONG), "-a", "fraud", "--reason", "a wave", "--who", "ada", "--yes")
    assert f"flywheel backfill {WRONG} {WRONG} --application fraud" in said
    assert [each.day for each in breaker.list_resets(bench.lake)] == [WRONG]
