from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.evaluation.floor_costs import measure_floor_costs
from flywheel_assets.lake.whatif.levers import FloorRows
from flywheel_assets.models.boosting import ClassifierRecipe

FLOORS = (0.1, 0.5, 1.0)
RECIPE = ClassifierRecipe(trees=20)


def make_rows(floors: tuple[float, ...] = FLOORS) -> FloorRows:
    """Positives at high values of one feature; the floors draw negatives evenly."""
    random = np.random.default_rng(0)

    def make_part(size: int) -> dict[str, pa.Array]:
        risk = random.random(size)
        is_positive = random.random(size) < 0.4 * risk**4
        return {
            "is_positive": pa.array(is_positive),
            "features": pa.StructArray.from_arrays([pa.array(risk)], names=["risk"]),
            "subject": pa.array([f"card {each % 300}" for each in range(size)]),
            "draw": pa.array(random.random(size)),
            "weight": pa.array(np.ones(size)),
        }

    train = pa.table(make_part(8_000))
    positive = train["is_positive"].to_numpy(zero_copy_only=False)
    for place, floor in enumerate(floors):
        train = train.append_column(f"share_{place}", pa.array(np.where(positive, 1.0, floor)))
    test = pa.table(make_part(4_000))
    return FloorRows(train, test, date(2026, 1, 15), date(2026, 1, 21), floors, (), 1.0)


def test_each_floor_is_compared_with_the_largest_on_the_same_test_rows() -> None:
    costs = measure_floor_costs(make_rows(), RECIPE)
    assert [each.floor for each in costs.floors] == [0.1, 0.5, 1.0]
    few, some, everything = costs.floors
    assert few.rows < some.rows < everything.rows == 8_000
    assert (everything.cost.mean, everything.cost.low, everything.cost.high) == (0, 0, 0)
    assert few.average_precision is not None
    assert everything.average_precision is not None
    assert few.cost.mean == pytest.approx(everything.average_precision - few.average_precision)
    assert few.cost.low is not None
    assert few.cost.high is not None
    assert few.cost.low <= few.cost.mean <= few.cost.high
    assert costs.remark == ""


def test_the_cost_of_a_row_has_an_overhead_of_its_own() -> None:
    """`flywheel levers` scaled the seconds of 5,000 rows up, most of them overhead: 152.7 s where 2 s were true."""
    costs = measure_floor_costs(make_rows(), RECIPE)
    few, everything = costs.floors[0], costs.floors[-1]
    assert costs.estimate_fit_seconds(everything.rows) <= max(few.fit_seconds, everything.fit_seconds) * 1.001
    assert costs.overhead_seconds >= 0
    assert costs.seconds_per_row >= 0


def test_without_time_the_floors_between_are_left_out_by_name() -> None:
    costs = measure_floor_costs(make_rows(), RECIPE, max_seconds=0)
    assert [each.floor for each in costs.floors] == [0.1, 1.0]
    assert costs.remark == "floor 0.5: left out after 0 s"
    assert costs.describe().endswith("Floor 0.5: left out after 0 s.")


def test_of_too_many_rows_only_the_cost_of_a_row_is_measured() -> None:
    rows = replace(make_rows((0.1,)), thinned_to=0.2, floors_too_large=(0.5, 1.0))
    costs = measure_floor_costs(rows, RECIPE)
    assert costs.floors == ()
    assert "only the cost of a row" in costs.remark
