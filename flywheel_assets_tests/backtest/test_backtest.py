"""A small history replayed from landing to the report: the flywheel promotes, and its model scores the next weeks."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel_assets.application import PromotionHook
from flywheel_assets.backtest.plan import BacktestPlan
from flywheel_assets.backtest.report import read_backtest, write_backtest
from flywheel_assets.backtest.rivals import FLYWHEEL, STATIC, WEEKLY
from flywheel_assets.backtest.wheel import run_backtest
from flywheel_assets.settings import read_settings
from flywheel_assets_tests.backtest.traffic import GO_LIVE, LAST, land_history
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION


def hash_files(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_history_is_replayed_in_a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places that the environment names stay untouched, and the serving side hears of no promotion."""
    home = tmp_path / "home"
    landing = land_history(home, per_day=100)
    before = hash_files(tmp_path)
    for name in ("WAREHOUSE", "MLFLOW_URI", "CATALOG_URI", "VERSIONS_DIR", "LANDING_DIR"):
        monkeypatch.setenv(f"FLYWHEEL_{name}", str(tmp_path / "production" / name))
    read_settings.cache_clear()
    application = replace(APPLICATION, on_promotion=PromotionHook(command=("touch", str(tmp_path / "announced"))))
    weeks = []
    plan = BacktestPlan(first=GO_LIVE, last=LAST, draws=50)
    try:
        report = run_backtest(application, landing, plan, tmp_path / "kept", on_week=weeks.append)
    finally:
        monkeypatch.undo()
        read_settings.cache_clear()
    after = {
        path: digest for path, digest in hash_files(tmp_path).items() if not path.startswith(str(tmp_path / "kept"))
    }
    assert after == before
    assert (tmp_path / "kept" / "versions").is_dir()
    assert len(weeks) == len(report.weeks) == 3

    first = report.weeks[0].decision
    assert first is not None, report.weeks[0].waited
    assert first.promoted, first.sentence
    assert report.weeks[0].serving == first.version
    static, flywheel, weekly = (report.find(name) for name in (STATIC, FLYWHEEL, WEEKLY))
    assert static.average_precision is not None
    assert weekly.over_static is not None
    assert weekly.over_static.low > 0.1
    assert flywheel.over_static is not None
    assert flywheel.over_static.low > 0.1
    assert flywheel.promotions is not None
    assert flywheel.promotions >= 1
    assert weekly.fits == 3

    write_backtest(report, tmp_path / "report")
    assert read_backtest(tmp_path / "report") == report
    text = (tmp_path / "report" / "backtest.md").read_text()
    assert first.sentence in text
    assert (tmp_path / "report" / "backtest.png").stat().st_size > 1_000
