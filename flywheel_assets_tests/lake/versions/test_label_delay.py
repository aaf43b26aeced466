"""The label delay of a small lake whose delays are known, and the asset that shows it."""

from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.applications.fraud import APPLICATION
from flywheel_assets.defs.assets.label_delay import build_label_delay_asset
from flywheel_assets.defs.presentation import INLINE_CHARACTERS
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets.lake.versions.label_delay import measure_label_delay
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.lake.labelled import label, run, score
from flywheel_assets_tests.lake.workbench import Workbench

QUICK, SLOW, DAYS = 2, 10, 30


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make gold of six frauds a day: four are known after two days, two after ten."""
    home = tmp_path_factory.mktemp("home")
    bench = Workbench(home, tables=CLASSIFICATION_TABLES)
    bench.lake = Stores(home=str(home)).lake("fraud")
    bench.application = "fraud"
    events = []
    for number in range(DAYS):
        for each in range(6):
            name, delay = f"p{number}-{each}", QUICK if each < 4 else SLOW
            events.append(score(day(number), name))
            if number + delay < DAYS:
                source = "analyst" if each < 4 else "chargeback"
                events.append(label(day(number + delay), name, label="true", labeling_source=source))
    run(bench, events, day(DAYS - 1))
    return home


def test_the_share_that_is_known_at_each_age_is_the_stream_s(home: Path) -> None:
    delay = measure_label_delay(Stores(home=str(home)).lake("fraud"), 7)
    assert delay is not None
    overall = delay.curves[0]
    assert [overall.share_known(age) for age in (1, 2, 9, 10)] == pytest.approx([0, 2 / 3, 2 / 3, 1], abs=0.02)
    assert delay.known_at_maturity == pytest.approx(2 / 3, abs=0.02)
    assert (delay.maturity_days, delay.proposed_days) == (7, SLOW)
    assert {each.source: each.find_age(0.95) for each in delay.curves[1:]} == {"analyst": QUICK}


def test_an_empty_lake_has_no_delay(tmp_path: Path) -> None:
    assert measure_label_delay(Stores(home=str(tmp_path)).lake("fraud"), 7) is None


def test_the_asset_shows_the_curve_without_a_click(home: Path) -> None:
    result = dg.materialize([build_label_delay_asset(APPLICATION)], resources={"stores": Stores(home=str(home))})
    [event] = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    days = APPLICATION.mining.maturity_days
    assert f"of positives come after maturity_days = {days}" in str(metadata["summary"].value)
    assert len(str(metadata["curve"].value)) < INLINE_CHARACTERS
    assert "data:image/png" in str(metadata["curve, large"].value)
    assert metadata["proposed_maturity_days"].value == SLOW
