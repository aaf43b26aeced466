"""The champion follows from decisions on disk and rollbacks, as the registry would say."""

import json
from pathlib import Path

import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.recovery import BASE, plan_rollback, roll_back
from flywheel_assets.models.rollout.traffic import RolloutPlan
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets.wheel._models import Serving, Spent, _read_spent, read_models
from flywheel_assets_tests.defs.promoted import V1, V2, promote_two_versions
from flywheel_assets_tests.wheel.homes import noon_after


def serving(stores: Stores, plan: RolloutPlan = RolloutPlan()) -> Serving:  # noqa: B008
    lake, versions = stores.lake("assistant"), stores.versions("assistant")
    return read_models(lake, versions, APPLICATION.tables.gold, plan).serving


def go_back(stores: Stores, to: str) -> None:
    plan = plan_rollback(APPLICATION, stores, to, data=False, models=True)
    roll_back(APPLICATION, stores, plan, who="Ann", reason="worse", now=noon_after(1))


@pytest.mark.long
def test_the_champion_is_the_registrys_through_promotions_and_rollbacks(tmp_path: Path) -> None:
    stores = Stores(isolate_settings(tmp_path))
    assert serving(stores) == Serving(None, 1.0)
    promote_two_versions(stores)
    assert serving(stores) == Serving(V2, 1.0)
    for to in (V1, V2, BASE):
        go_back(stores, to)
        registered = stores.registry("assistant").find_champion()
        assert serving(stores).champion == (registered.gold_version if registered else None)
    assert serving(stores).champion is None


@pytest.mark.long
def test_a_rollout_begins_with_its_first_share(tmp_path: Path) -> None:
    stores = Stores(isolate_settings(tmp_path))
    promote_two_versions(stores)
    assert serving(stores, RolloutPlan(steps=(0.1, 1.0))) == Serving(V2, 0.1)


@pytest.mark.parametrize(
    ("report", "spent"),
    [
        ({"seconds": 5.0, "device": "cuda"}, Spent(gpu_s=5.0)),
        ({"seconds": 5.0}, Spent(cpu_s=5.0)),
        ({"seconds": 1.0, "judged_fits": {"week": {"seconds": 2.0}}, "stand_ins": [{"seconds": 4.0}]}, Spent(7.0)),
        ({}, Spent()),
        (None, Spent()),
    ],
)
def test_a_report_of_any_kind_says_what_it_took(tmp_path: Path, report: object, spent: Spent) -> None:
    path = tmp_path / "training.json"
    if report is not None:
        path.write_text(json.dumps(report))
    assert _read_spent(path) == spent
