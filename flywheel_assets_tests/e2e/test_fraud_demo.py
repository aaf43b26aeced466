"""A short version of the fraud demo, with everything real: capture over HTTP, the assets, the trigger, the gate."""

import io
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from flywheel_assets.backtest.report import read_backtest
from flywheel_assets.backtest.rivals import FLYWHEEL, STATIC, WEEKLY
from flywheel_assets.defs.resources import Stores
from flywheel_assets.demo.fraud.demo import Chapter, FraudDemoPlan
from flywheel_assets.demo.fraud.report import ClassifierTurn
from flywheel_assets.demo.fraud.run import play
from flywheel_assets.demo.fraud.world import FraudWorld
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.lake.tables.specs import RAW_SCORES
from flywheel_assets.settings import read_settings

PLAN = FraudDemoPlan(
    first_day=date(2026, 3, 1),
    quiet=Chapter("too early to train", 2),
    chapters=(Chapter("a new fraud", 6),),
    world=FraudWorld(cards=300, terminals=400, terminals_compromised_per_day=0.0006),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    read_settings.cache_clear()
    yield tmp_path
    read_settings.cache_clear()


@pytest.mark.slow
def test_eight_weeks_of_payments_become_a_judged_classifier(home: Path) -> None:
    told = io.StringIO()
    report = play(PLAN, Console(file=told, width=120))
    quiet, new = report.chapters
    assert isinstance(quiet.turn, Skipped)
    assert isinstance(new.turn, ClassifierTurn)
    assert new.turn.version == "fraud_gold_v1"
    assert 0 < new.turn.train_positives < new.turn.train_rows < new.mined.kept + quiet.mined.kept
    # Two of the eight weeks are judged on, whole but for the payments that were blocked or are disputed.
    assert new.turn.test_rows == pytest.approx(2 / 8 * (quiet.scores.payments + new.scores.payments), rel=0.1)
    assert new.turn.test_positives > 0
    assert new.turn.sentence
    for chapter in report.chapters:
        assert chapter.predictions_acknowledged == chapter.scores.payments
        assert chapter.mined.rows == chapter.mined.kept + sum(chapter.mined.dropped.values())
    kept = Stores().lake("fraud").count_rows_per_day(RAW_SCORES)
    assert sum(kept.values()) == sum(chapter.scores.payments for chapter in report.chapters)
    assert (new.turn.champion is not None) == new.turn.promoted
    assert (home / "demo" / "demo-fraud.png").stat().st_size > 10_000

    compared = read_backtest(home / "demo" / "backtest")
    assert compared.first == report.emerges_on
    static, flywheel, weekly = (compared.find(name) for name in (STATIC, FLYWHEEL, WEEKLY))
    # The demo ends with its first turn, so that the static model decides to the end, and the rivals retrain weekly.
    assert static.average_precision == pytest.approx(flywheel.average_precision)
    assert [week.serving for week in compared.weeks] == [None] * 6
    assert weekly.fits == 6
    text = " ".join(told.getvalue().split())
    assert "the same stream, retrained in simpler ways" in text
    assert all(name in text for name in ("static", "flywheel, 0 promoted", "weekly, all rows", "weekly, 1:10"))
