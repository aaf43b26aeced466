"""One turn of the classification flywheel: landed days to a promoted classifier, its drift report and its levers."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from flywheel_assets import cli
from flywheel_assets.application import ClassificationApplication, ExampleTrigger
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, DRIFT_REPORTS
from flywheel_assets.lake.versions.promotions import read_promotion
from flywheel_assets.measures.drift import DriftLimits
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets.settings import settings
from flywheel_assets_tests.builders import make_label, make_score
from flywheel_assets_tests.lake.workbench import Workbench

FIRST = date(2026, 9, 1)
DAYS = 46  # a training week, twice a maturity of 7 days, two weeks of evaluation, and some more
LAST = FIRST + timedelta(days=DAYS - 1)
NOW = datetime.combine(LAST + timedelta(days=1), time(9), UTC)
APPLICATION = ClassificationApplication(
    name="fraud",
    description="test",
    start_date=FIRST,
    contract=ScoreContract(features={"risk": FeatureType.NUMBER, "country": FeatureType.TEXT}),
    mining=MiningRules(maturity_days=7, sampling=SamplingRules(floor=0.2)),
    trigger=ExampleTrigger(min_new_positives=20, min_new_hard_examples=20),
    recipe=ClassifierRecipe(trees=40, leaves=7),
    limits=ClassifierLimits(min_positives=30, min_calibration_ratio=0.5, max_calibration_ratio=2),
    drift=DriftLimits(min_rows=50),
    threshold=None,
    cards_per_day=5,
)


def land_traffic(bench: Workbench) -> None:
    """Payments whose risk the served model hardly looks at; most frauds are disputed after a few days."""
    rng = random.Random(5)
    labels: dict[date, list[dict[str, object]]] = {}
    for offset in range(DAYS):
        on = FIRST + timedelta(days=offset)
        at = datetime.combine(on, time(12), UTC)
        scores = []
        for number in range(100):
            risk = rng.random()
            is_fraud = rng.random() < (0.6 if risk > 0.92 else 0.005)
            name = f"{on}-{number}"
            features = f'{{"risk":{risk + (offset >= DAYS - 2):.4f},"country":"{rng.choice(["NL", "DE"])}"}}'
            served = min(1.0, 0.02 + 0.1 * rng.random() + (0.2 if is_fraud and rng.random() < 0.3 else 0))
            who = {"prediction_id": name, "event_id": name, "user_id": f"card-{rng.randrange(60)}"}
            when = {"received_at": at, "occurred_at": at}
            scores.append(make_score(**who, **when, features=features, score=served))
            if is_fraud and (known := on + timedelta(days=rng.randint(1, 6))) <= LAST:
                said = datetime.combine(known, time(13), UTC)
                event = make_label(
                    event_id=f"label-{name}", prediction_id=name, received_at=said, occurred_at=said, user_id=None
                )
                labels.setdefault(known, []).append(event)
        bench.land(EventKind.PREDICTION, on, scores)
    for on, events in labels.items():
        bench.land(EventKind.FEEDBACK, on, events)


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
    assert lake.rows_per_day(DRIFT_REPORTS) == {}  # nobody to compare with yet

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
    samplings = materialization.metadata["samplings"].records
    rows = {(each.data["surprise factor"], each.data["floor"]): int(each.data["rows"]) for each in samplings}
    assert rows["20.000", "1.000"] == 28 * 100
    assert rows["0.000", "0.002"] < rows["10.000", "0.010"] < rows["20.000", "0.050"] < 28 * 100
    after = sorted(path for path in (home / "warehouse").rglob("*") if path.is_file())
    assert [path for path in after if path not in before and "ledger" not in str(path)] == []


def test_the_command_shows_the_same_levers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    monkeypatch.setattr(cli.levers.console, "width", 200)
    settings.cache_clear()
    try:
        run = CliRunner().invoke(cli.app, ["levers", "--days", "7", "--floor", "1", "--threshold", "0.1"])
        refused = CliRunner().invoke(cli.app, ["levers", "--application", "assistant"])
    finally:
        settings.cache_clear()
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
