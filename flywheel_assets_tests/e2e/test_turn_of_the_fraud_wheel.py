"""One turn of the classification flywheel: landed days to a promoted classifier, its drift report and its levers."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from flywheel_assets import cli
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, DRIFT_REPORTS
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.settings import read_settings
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION, FIRST, LAST, NOW, land_traffic
from flywheel_assets_tests.lake.workbench import Workbench

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    land_traffic(Workbench(home, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud"))
    return home


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_landed_days_to_a_promoted_classifier(home: Path, instance: dg.DagsterInstance) -> None:
    stores = Stores(home=str(home))
    definitions = classification_flywheel(APPLICATION, stores, Clock(fixed=NOW.isoformat()))
    wheel = Driver(APPLICATION, definitions, instance)
    daily = wheel.materialize(FIRST, LAST)
    assert daily.succeeded, daily.error
    lake = stores.lake("fraud")
    # Before the first champion the first served days are the reference.
    references = {row["reference_version"] for row in lake.read(DRIFT_REPORTS).to_pylist()}
    assert len(references) == 1
    assert references.pop().startswith(f"first served days {FIRST} … ")

    ticked = wheel.tick()
    assert ticked.version == "fraud_gold_v1", ticked.reason
    assert ticked.tags["flywheel/reason.new_examples"] == "yes"
    turn = wheel.turn("fraud_gold_v1", ticked.tags)
    assert turn.succeeded, turn.error
    folder = stores.versions("fraud").folder("fraud_gold_v1")
    promotion = read_promotion(folder.promotion)
    assert promotion.promoted, promotion.sentence
    champion = stores.registry("fraud").find_champion()
    assert champion is not None
    assert (champion.gold_version, champion.model_dir) == ("fraud_gold_v1", folder.training / "model")

    # Nothing beyond its training has matured, and a run that repeats the version verifies and returns.
    assert "new hard examples since fraud_gold_v1" in wheel.tick().reason
    trained = (folder.training / "model" / "model.txt").stat().st_mtime_ns
    assert wheel.turn("fraud_gold_v1", {}).succeeded
    assert (folder.training / "model" / "model.txt").stat().st_mtime_ns == trained

    # The last two days' risk was shifted by 1: now there is a champion, and its training rows to compare with.
    assert wheel.materialize(LAST - timedelta(days=2), LAST).succeeded
    reported = {(row["day"], row["field"]): row["breach"] for row in lake.read(DRIFT_REPORTS).to_pylist()}
    assert reported[LAST - timedelta(days=2), "risk"] is None
    assert "PSI" in reported[LAST, "risk"]
    assert reported[LAST, "country"] is None


def test_the_levers_are_tried_without_writing(home: Path, instance: dg.DagsterInstance) -> None:
    stores = Stores(home=str(home))
    definitions = classification_flywheel(APPLICATION, stores, Clock(fixed=NOW.isoformat()))
    before = sorted(path for path in (home / "warehouse").rglob("*") if path.is_file())
    levers = definitions.resolve_assets_def(dg.AssetKey(["fraud", "levers_report"]))
    result = dg.materialize([levers], instance=instance)
    [materialization] = result.asset_materializations_for_node("fraud__levers_report")
    assert materialization.metadata["rows"].value == 28 * 100
    assert "data:image/svg" in materialization.metadata["levers"].value
    samplings = materialization.metadata["samplings"].records
    rows = {(each.data["surprise factor"], each.data["floor"]): int(each.data["rows"]) for each in samplings}
    assert rows["20.000", "1.000"] == 28 * 100
    assert rows["0.000", "0.010"] < rows["10.000", "0.030"] < rows["20.000", "0.100"] < 28 * 100
    after = sorted(path for path in (home / "warehouse").rglob("*") if path.is_file())
    assert [path for path in after if path not in before and "ledger" not in str(path)] == []


def test_the_command_shows_the_same_levers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    monkeypatch.setattr(cli.whatif.console, "width", 200)
    read_settings.cache_clear()
    try:
        run = CliRunner().invoke(cli.app, ["levers", "--days", "7", "--floor", "1", "--threshold", "0.1"])
        refused = CliRunner().invoke(cli.app, ["levers", "--application", "assistant"])
    finally:
        read_settings.cache_clear()
    assert run.exit_code == 0, run.output
    assert "700 matured predictions" in run.output
    assert "100.0%" in run.output
    assert "assistant is no classification application" in str(refused.exception)


def test_the_registered_model_loads_without_pickle(home: Path) -> None:
    registry = Stores(home=str(home)).registry("fraud")
    champion = registry.find_champion()
    assert champion is not None
    stored = [path.name for path in (home / "mlartifacts").rglob("model/*") if path.is_file()]
    assert {"MLmodel", "model.lgb", "features.json"} <= set(stored)
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".joblib"))]
    model_file = next((home / "mlartifacts").rglob("model.lgb"))
    assert model_file.read_text().startswith("tree\n")
