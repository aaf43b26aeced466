"""A wheel whose trainer is a team's own command: trained, evaluated, judged and registered like any other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.evaluation.classifier import read_evaluation
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.models.trainers.fitting import load_model
from flywheel_assets.training.classifier import read_training
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION, FIRST, LAST, NOW, land_traffic
from flywheel_assets_tests.lake.workbench import Workbench

TRAINER = ROOT / "docs" / "examples" / "scoring_command"
RECIPE = CommandRecipe(command=("python", "train.py"), folder=str(TRAINER), timeout_s=120.0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.mark.slow
def test_landed_days_to_a_registered_model_of_the_teams_own(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    land_traffic(Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud"))
    stores, application = Stores(home=str(tmp_path)), replace(APPLICATION, recipe=RECIPE)
    wheel = Driver(application, classification_flywheel(application, stores, Clock(fixed=NOW.isoformat())), instance)
    daily = wheel.materialize(FIRST, LAST)
    assert daily.succeeded, daily.error
    ticked = wheel.tick()
    turn = wheel.turn("fraud_gold_v1", ticked.tags)
    assert turn.succeeded, turn.error

    folder = stores.versions("fraud").folder("fraud_gold_v1")
    trained, evaluated = read_training(folder.training), read_evaluation(folder.evaluation)
    assert trained.recipe == RECIPE
    assert trained.judged is not None
    assert evaluated.challenger_sha256 == trained.judged.model_sha256
    promotion = read_promotion(folder.promotion)
    assert promotion.promoted, promotion.sentence
    champion = stores.registry("fraud").find_champion()
    assert champion is not None
    assert load_model(champion.model_dir).compute_gains() == {}
    stored = {path.name for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()}
    assert {"MLmodel", "model.json", "score.json", "coefficients.json"} <= stored
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".joblib"))]
    assert not list((tmp_path / "scratch").rglob("*.parquet")), "people's rows were left in a work folder"
