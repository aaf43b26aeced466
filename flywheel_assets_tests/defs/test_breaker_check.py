"""The asset check of the breaker: figures and event ids for whoever looks at the UI, and no text."""

import json
from pathlib import Path

import pytest

from flywheel_assets.applications import fraud
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs._checks import build_breaker_check
from flywheel_assets.defs.automation.alerts import build_breaker_alert
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily import breaker
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets_tests.builders import NOON, day, make_feedback
from flywheel_assets_tests.lake.labelled import run
from flywheel_assets_tests.lake.mass_labels import LABEL_LIMITS, LAST, WRONG, flip, make_ordinary_days
from flywheel_assets_tests.lake.raid import LIMITS, RAID
from flywheel_assets_tests.lake.workbench import Workbench


@pytest.mark.long
def test_the_check_fails_with_figures_until_a_person_has_let_the_day_in(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, limits=LIMITS)
    stores = Stores(home=str(tmp_path))
    bench.lake = stores.lake("assistant")
    landed = [make_feedback() for _ in range(RAID)]
    for offset, rows in enumerate(([make_feedback()], [make_feedback()], landed)):
        bench.land(EventKind.FEEDBACK, day(offset), rows)
    days = [day(offset) for offset in range(3)]
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    check = build_breaker_check(APPLICATION)
    assert not check.check_specs_by_output_name.popitem()[1].blocking

    result = check(stores)
    assert not result.passed
    assert result.description == f"1 days kept out of gold: {day(2)}: burst 2.05 > 2"
    [row] = [record.data for record in result.metadata["figures"].records]
    assert (row["rule"], row["joined rows"], row["limit"]) == ("burst", str(RAID), "2")
    examples = row["feedback events, for instance"].split()
    assert len(examples) == 5
    assert set(examples) <= {each["event_id"] for each in landed}
    assert "store.read" not in json.dumps(row)

    breaker.reset_day(bench.lake, day(2), who="ada", reason="the launch", now=NOON)
    bench.curate([day(2)])
    assert check(stores).passed


@pytest.mark.long
def test_the_check_of_a_classifier_names_rule_numbers_and_commands(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, tables=CLASSIFICATION_TABLES, application="fraud")
    bench.lake = Stores(home=str(tmp_path)).lake("fraud")
    run(bench, flip(make_ordinary_days(0, 11), WRONG), LAST, limits=LABEL_LIMITS)
    stores = Stores(home=str(tmp_path))
    assert not build_breaker_check(fraud.APPLICATION)(stores).passed
    text = build_breaker_check(fraud.APPLICATION)(stores).description
    [found] = breaker.find_tripped_days(bench.lake)
    event = found.figures.trips[0].examples[0]
    assert text == (
        f"1 days kept out of gold: {WRONG}: positive_share: 67% of 21 labels are positive, at most 58% after the days "
        f"before. Look: `flywheel trace {event} --application fraud`; if its labels are right: `flywheel breaker reset "
        f'{WRONG} --application fraud --reason "…" --yes`, then `flywheel backfill {WRONG} {WRONG} --application fraud`'
    )
    alert = build_breaker_alert("fraud", [found])
    assert alert["days"] == {str(WRONG): ["positive_share 0.667 > 0.583"]}
