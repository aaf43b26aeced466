"""The watch over a model in production: what a person sees in the UI, and when its check fails."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.defs.assets.production_watch import watch_production
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.arm_users import watch_versions
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import JOINED_FEEDBACK, RAW_PREDICTIONS
from flywheel_assets.measures.live_arms import WatchLimits
from flywheel_assets_tests.builders import DAY, day, make_joined, make_prediction
from flywheel_assets_tests.lake.workbench import stamp, write_day

APPLICATION = PreferenceApplication(name="assistant", description="test", start_date=DAY, base_model="base")
LIMITS = WatchLimits()
PEOPLE = 80


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def serve_day(lake: Lake, on: date, edited_by: dict[str, float]) -> None:
    """Two models serve half of the people each, one answer a person; so large a share of each model's is edited."""
    served: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for version, share in edited_by.items():
        for number in range(PEOPLE // 2):
            name, row = f"{on}-{version}-{number}", {"user_id": f"{version}-{number}", "model_version": version}
            served.append({**make_prediction(prediction_id=name, **row), "received_date": on})
            if number < share * PEOPLE / 2:
                said.append(make_joined(prediction_id=name, completed_date=on, **row))
    write_day(lake, RAW_PREDICTIONS, on, served)
    write_day(lake, JOINED_FEEDBACK, on, said)
    entries = [LedgerEntry(JOINED_FEEDBACK.name, on, True, "h", {}, len(said), len(said), {})]
    ledger.record_entries(lake, entries, stamp())


def materialize(home: Path, instance: dg.DagsterInstance) -> tuple[dict[str, Any], bool, str]:
    """Run the daily report job; return the metadata, whether the check passed, and its description."""
    definitions = preference_flywheel(APPLICATION, Stores(home=str(home)))
    result = definitions.resolve_job_def("assistant_reports").execute_in_process(instance=instance)
    [materialization] = result.asset_materializations_for_node("assistant__production_watch")
    evaluations = {each.check_name: each for each in result.get_asset_check_evaluations()}
    check = evaluations["current_model_is_not_worse"]
    metadata = {name: each.value for name, each in materialization.metadata.items()}
    return metadata, check.passed, str(check.description)


def test_a_model_that_people_correct_more_often_fails_the_check(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    lake = Stores(home=str(tmp_path)).lake("assistant")
    serve_day(lake, DAY, {"v1": 0.2})
    for number in range(1, 4):
        serve_day(lake, day(number), {"v1": 0.2, "v2": 0.7})
    metadata, passed, description = materialize(tmp_path, instance)
    assert not passed
    assert "v2 against v1" in description
    assert "edited: worse: +0.500" in description
    assert (metadata["verdict"], metadata["current"], metadata["predecessor"]) == ("worse", "v2", "v1")
    assert metadata["since"] == day(1).isoformat()
    rates = {record.data["rate"]: record.data for record in metadata["rates"].records}
    assert rates["edited"]["decides"] == "yes"
    assert rates["kept"]["decides"] == "no"
    assert str(metadata["edited"]).startswith("![plot]")


def test_an_equal_model_passes(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    lake = Stores(home=str(tmp_path)).lake("assistant")
    serve_day(lake, DAY, {"v1": 0.2, "v2": 0.2})
    metadata, passed, _ = materialize(tmp_path, instance)
    assert passed
    assert metadata["verdict"] != "worse"


def test_one_model_alone_has_nothing_to_be_compared_with(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    lake = Stores(home=str(tmp_path)).lake("assistant")
    serve_day(lake, DAY, {"v1": 0.9})
    metadata, passed, description = materialize(tmp_path, instance)
    assert passed
    assert metadata["verdict"] == "undecided"
    assert "one model version serves" in description


def test_a_day_between_two_looks_repeats_the_last_one(tmp_path: Path) -> None:
    """A look that moved with every run would be an uncounted look."""
    lake = Stores(home=str(tmp_path)).lake("assistant")
    for number in range(7):
        serve_day(lake, day(number), {"v1": 0.2, "v2": 0.9 if number == 6 else 0.2})
    found = watch_production(lake, LIMITS)
    assert found is not None
    assert (found.until, found.comparisons["edited"].look.number) == (day(5), 6)
    assert found.comparisons["edited"].difference == 0


def test_looks_at_earlier_shares_are_counted(tmp_path: Path) -> None:
    lake = Stores(home=str(tmp_path)).lake("assistant")
    serve_day(lake, DAY, {"v1": 0.2, "v2": 0.5})
    serve_day(lake, day(1), {"v1": 0.2, "v2": 0.5})
    first = watch_production(lake, LIMITS)
    assert first is not None
    later = watch_versions(lake, first.versions, day(1), LIMITS, earlier_looks=10)
    assert later is not None
    assert later.comparisons["edited"].look.number == 12
    assert later.comparisons["edited"].level < first.comparisons["edited"].level
    assert watch_versions(lake, first.versions, day(-1), LIMITS) is None


def test_limits_outside_of_their_range_are_refused() -> None:
    with pytest.raises(SettingsError, match="margin"):
        WatchLimits(margin=0.0)
    with pytest.raises(SettingsError, match="measures"):
        WatchLimits(measures=())
