from dataclasses import replace
from datetime import timedelta

import pytest

from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets.lake.whatif.levers import LeversReport, read_floor_rows, report_levers
from flywheel_assets_tests.builders import DAY, day
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench

DAYS, A_DAY = 14, 30
SAMPLED = replace(RULES, sampling=SamplingRules(surprise_factor=10.0, floor=0.1))


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Two weeks that have matured; each day's first prediction is a fraud of another amount and segment."""
    bench = Workbench(tmp_path_factory.mktemp("lake"), tables=CLASSIFICATION_TABLES)
    events = []
    for offset in range(DAYS):
        for number in range(A_DAY):
            is_fraud = number == 0
            more = {"score": 0.5, "amount": 900.0, "segment": "travel"} if is_fraud else {"score": 0.02, "amount": 10.0}
            name = f"d{offset}n{number}"
            events.append(score(DAY + timedelta(days=offset), name, **({"segment": "shop"} | more)))
            if is_fraud:
                events.append(label(DAY + timedelta(days=offset + 1), name))
    run(bench, events, day(DAYS + 6))
    return bench


def report(bench: Workbench, **changes: object) -> LeversReport:
    found = report_levers(bench.lake, CONTRACT, replace(SAMPLED, **changes), DAYS)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_every_lever_is_tried_alone(fortnight: Workbench) -> None:
    found = report(fortnight)
    assert (found.rows, found.positives, found.floor) == (DAYS * A_DAY, DAYS, 0.1)
    others = {each.lever: each.rows for each in found.others}
    as_it_is = others.pop("as it is, floor 0.1")
    assert list(others) == [
        "… severity_boost 4",
        "… large_amount 10, large_amount_factor 3",
        "… segment_rates shop: 0.5",
        "… recency_half_life_days 30",
        "… recency_half_life_days 90",
    ]
    assert others["… large_amount 10, large_amount_factor 3"] > as_it_is
    assert others["… segment_rates shop: 0.5"] < as_it_is
    assert others["… recency_half_life_days 30"] <= others["… recency_half_life_days 90"] <= as_it_is


def test_where_all_rows_are_kept_the_levers_are_tried_at_a_floor_that_they_can_move(fortnight: Workbench) -> None:
    found = report(fortnight, sampling=SamplingRules())
    assert found.floor == 1  # thirty predictions a day are far below the row budget
    assert [each.lever for each in found.others[:2]] == ["as it is, all rows", "floor 0.1"]
    assert found.others[0].rows == DAYS * A_DAY > found.others[1].rows


def test_floors_are_measured_on_the_last_week_and_fitted_on_the_days_before(fortnight: Workbench) -> None:
    rows = read_floor_rows(fortnight.lake, CONTRACT, SAMPLED, DAYS, max_rows=1_000, floors=(0.1, 1.0))
    assert rows is not None
    assert rows.floors == (0.1, 1.0)
    assert (rows.test_from, rows.last_day) == (day(7), day(13))
    assert (rows.train.num_rows, rows.test.num_rows) == (7 * A_DAY, 7 * A_DAY)
    assert set(rows.test["weight"].to_pylist()) == {1.0}


def test_floors_with_too_many_rows_are_named_and_a_large_test_week_is_thinned(fortnight: Workbench) -> None:
    rows = read_floor_rows(fortnight.lake, CONTRACT, SAMPLED, DAYS, max_rows=100, floors=(0.1, 1.0))
    assert rows is not None
    assert (rows.floors, rows.floors_too_large, rows.thinned_to) == ((0.1,), (1.0,), 1.0)
    assert rows.test.num_rows < 7 * A_DAY
    positives = [row["weight"] for row in rows.test.to_pylist() if row["is_positive"]]
    assert positives == [1.0] * 7
    weights = [row["weight"] for row in rows.test.to_pylist() if not row["is_positive"]]
    assert weights == pytest.approx([2.1] * len(weights))


def test_where_no_floor_fits_the_smallest_is_thinned_for_the_cost_of_a_row(fortnight: Workbench) -> None:
    rows = read_floor_rows(fortnight.lake, CONTRACT, SAMPLED, DAYS, max_rows=20, floors=(0.1, 1.0))
    assert rows is not None
    assert rows.thinned_to < 1
    assert rows.train.num_rows < 40


def test_one_week_is_too_short_to_measure_floors(fortnight: Workbench) -> None:
    assert read_floor_rows(fortnight.lake, CONTRACT, SAMPLED, 7, max_rows=1_000) is None
