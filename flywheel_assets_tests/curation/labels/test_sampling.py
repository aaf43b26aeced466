import math
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.curation.labels.sampling import (
    SamplingRules,
    draw_uniform,
    write_draw_sql,
    write_inclusion_probability_sql,
    write_recency_factor_sql,
    write_sample_weight_sql,
    write_selection_reason_sql,
)
from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.storage.duckdb_engine import connect

_ROW = """
SELECT $score::DOUBLE AS score, $is_positive::BOOLEAN AS is_positive, $severity::DOUBLE AS severity,
       $amount::DOUBLE AS amount, $segment::VARCHAR AS segment
"""


def value_of(expression: str, **columns: Any) -> Any:
    row = {"score": 0.03, "is_positive": False, "severity": None, "amount": None, "segment": None, **columns}
    with connect() as connection:
        found = connection.execute(f"SELECT {expression} FROM ({_ROW})", row).fetchone()
    assert found is not None
    return found[0]


LEVERS = SamplingRules(
    floor=0.01,
    severity_boost=2.0,
    large_amount=500.0,
    large_amount_factor=3.0,
    segment_rates={"travel": 0.5, "o'clock": 2.0},
)


@pytest.mark.parametrize(
    ("rules", "columns", "probability", "reason"),
    [
        (SamplingRules(floor=0.01), {"score": 0.03}, 0.3, "surprise"),
        (SamplingRules(floor=0.01), {"score": 0.0005}, 0.01, "floor"),
        (SamplingRules(floor=0.01), {"score": 0.001}, 0.01, "floor"),  # what the floor gives anyway is the floor's
        (SamplingRules(floor=0.01), {"score": 0.1}, 1.0, "surprise"),
        (SamplingRules(floor=0.01), {"score": 0.9}, 1.0, "surprise"),
        (SamplingRules(floor=0.01), {"score": 0.0, "is_positive": True}, 1.0, "positive"),
        (SamplingRules(floor=0.01), {"is_positive": None}, None, None),
        (SamplingRules(floor=0.01), {"score": None}, 1.0, "surprise"),  # nobody can say that it is easy
        (SamplingRules(floor=0.01), {"score": math.nan}, 1.0, "surprise"),
        (SamplingRules(surprise_factor=0, floor=0.05), {"score": 0.9}, 0.05, "floor"),
        (SamplingRules(floor=1), {"score": 0.0}, 1.0, "floor"),
        (LEVERS, {"score": 0.01}, 0.1, "surprise"),
        (LEVERS, {"score": 0.01, "severity": 0.5}, 0.2, "surprise"),
        (LEVERS, {"score": 0.01, "amount": 500.0}, 0.3, "surprise"),
        (LEVERS, {"score": 0.01, "amount": 499.99}, 0.1, "surprise"),
        (LEVERS, {"score": 0.01, "segment": "travel"}, 0.05, "surprise"),
        (LEVERS, {"score": 0.01, "segment": "o'clock"}, 0.2, "surprise"),
        (LEVERS, {"score": 0.01, "segment": "other"}, 0.1, "surprise"),
        (LEVERS, {"score": 0.01, "severity": 0.5, "amount": 900.0, "segment": "travel"}, 0.3, "surprise"),
        (LEVERS, {"score": 0.0015, "segment": "travel"}, 0.01, "floor"),  # no lever reaches below the floor
        (LEVERS, {"score": 0.5, "is_positive": True, "segment": "travel"}, 1.0, "positive"),
    ],
)
def test_the_probability_of_a_row(
    rules: SamplingRules, columns: dict[str, Any], probability: float | None, reason: str | None
) -> None:
    found = value_of(write_inclusion_probability_sql(rules), **columns)
    assert found == (None if probability is None else pytest.approx(probability, rel=1e-12))
    assert value_of(write_selection_reason_sql(rules), **columns) == reason


@pytest.mark.parametrize(
    ("rules", "predictions_per_day", "floor"),
    [
        (SamplingRules(), 0, 1.0),
        (SamplingRules(), 3_900, 1.0),  # a stranger's payments: a floor of .01 cost .018 of average precision there
        (SamplingRules(), 9_600, 1.0),
        (SamplingRules(), 22_222, 0.5),
        (SamplingRules(), 1_000_000, 0.0111),
        (SamplingRules(), 10_000_000, 0.01),
        (SamplingRules(row_budget=18_000), 1_000, 0.1),
        (SamplingRules(floor=0.2), 1, 0.2),
        (SamplingRules(floor=0.002), 10_000_000, 0.002),
    ],
)
def test_the_floor_follows_from_the_row_budget_unless_it_is_named(
    rules: SamplingRules, predictions_per_day: int, floor: float
) -> None:
    assert rules.settle_floor(predictions_per_day).floor == pytest.approx(floor, rel=1e-2)


def test_a_floor_that_nobody_settled_is_no_probability() -> None:
    with pytest.raises(ValueError, match="settle_floor"):
        write_inclusion_probability_sql(SamplingRules())


def test_a_lever_that_is_not_used_needs_no_column() -> None:
    expression = write_inclusion_probability_sql(
        SamplingRules(floor=0.01), severity="nowhere", amount="nowhere", segment="nowhere"
    )
    assert value_of(expression) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("age_days", "is_positive", "factor"),
    [(0, False, 1.0), (30, False, 0.5), (60, False, 0.25), (300, False, 0.1), (60, True, 1.0), (-3, False, 1.0)],
)
def test_age_thins_out_negatives_down_to_a_floor(age_days: int, is_positive: bool, factor: float) -> None:
    rules = SamplingRules(recency_half_life_days=30)
    assert value_of(write_recency_factor_sql(rules, age_days=str(age_days)), is_positive=is_positive) == factor
    assert value_of(write_recency_factor_sql(SamplingRules(), age_days=str(age_days)), is_positive=is_positive) == 1.0


@pytest.mark.parametrize(
    ("probability", "propensity", "weight"),
    [("0.25", "1", 4), ("0.25", "NULL", 4), ("0.25", "0.1", 40), ("1", "0.001", 20), ("1", "1.5", 1), ("1", "0", 20)],
)
def test_a_row_stands_for_what_was_not_drawn_and_what_was_not_let_through(
    probability: str, propensity: str, weight: float
) -> None:
    expression = write_sample_weight_sql(
        SamplingRules(), inclusion_probability=probability, allow_propensity=propensity
    )
    assert value_of(expression) == pytest.approx(weight)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"floor": 0.0}, "floor is 0.0"),
        ({"floor": 1.5}, "floor is 1.5"),
        ({"floor": math.nan}, "floor is nan"),
        ({"row_budget": 0}, "row_budget is 0"),
        ({"surprise_factor": -1.0}, "surprise_factor is -1.0"),
        ({"surprise_factor": math.inf}, "surprise_factor is inf"),
        ({"recency_half_life_days": 0.0}, "recency_half_life_days is 0.0"),
        ({"recency_floor": 0.0}, "recency_floor is 0.0"),
        ({"min_allow_propensity": 0.0}, "min_allow_propensity is 0.0"),
        ({"large_amount_factor": 3.0}, "large_amount is None"),
        ({"large_amount": math.nan, "large_amount_factor": 3.0}, "large_amount is nan"),
        ({"segment_rates": {"travel": -1.0}}, "'travel'"),
    ],
)
def test_rules_that_would_bias_the_weights_are_refused(limits: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        SamplingRules(**limits)


@pytest.mark.parametrize("salt", ["", "fraud:2"])
def test_a_salt_that_could_be_mistaken_for_an_id_is_refused(salt: str) -> None:
    with pytest.raises(SettingsError, match="salt"):
        write_draw_sql(salt)
    with pytest.raises(SettingsError, match="salt"):
        draw_uniform(salt, "txn_1")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=20))
def test_python_draws_what_the_lake_draws_bit_for_bit(ids: list[str]) -> None:
    ids = [prediction_id.replace("\0", "") for prediction_id in ids]  # DuckDB's parameters end at a null character
    query = f"SELECT {write_draw_sql('fraud', 'id')} FROM (SELECT unnest($ids) AS id)"
    with connect() as connection:
        drawn = [row[0] for row in connection.execute(query, {"ids": ids}).fetchall()]
    assert drawn == [draw_uniform("fraud", prediction_id) for prediction_id in ids]


def test_draws_do_not_change_between_releases() -> None:
    """Another hash would draw other rows for versions that are already cut."""
    assert draw_uniform("fraud", "txn_12345abc") == 0.4442064716798225
    assert draw_uniform("other", "txn_12345abc") != draw_uniform("fraud", "txn_12345abc")


@pytest.fixture(scope="module")
def world() -> Iterator[duckdb.DuckDBPyConnection]:
    """20,000 predictions with scores as skewed as a fraud model's, their labels and their draws."""
    connection = duckdb.connect()
    connection.execute(f"""
        CREATE TABLE world AS
        SELECT *, {write_draw_sql("fraud")} AS draw, {write_draw_sql("noise")} < score AS is_positive
        FROM (
            SELECT 'txn_' || i AS prediction_id, pow(i / 20000.0, 6) AS score,
                   pow(i / 20000.0, 3) AS severity, (i * 7919 % 1000)::DOUBLE AS amount, 's' || (i % 3) AS segment
            FROM range(20000) AS t(i)
        )""")
    yield connection
    connection.close()


def test_draws_are_uniform(world: duckdb.DuckDBPyConnection) -> None:
    draws = world.execute("SELECT draw FROM world ORDER BY draw").fetchnumpy()["draw"]
    assert draws[0] >= 0
    assert draws[-1] < 1
    steps = np.arange(1, len(draws) + 1) / len(draws)
    assert np.abs(draws - steps).max() < 1.95 / math.sqrt(len(draws))  # Kolmogorov's limit at one in a thousand


rules_of_all_kinds = st.builds(
    SamplingRules,
    surprise_factor=st.floats(0, 50),
    floor=st.floats(0.005, 1),
    severity_boost=st.floats(0, 5),
    large_amount=st.floats(0, 1000),
    large_amount_factor=st.floats(0, 5),
    segment_rates=st.dictionaries(st.sampled_from(["s0", "s1", "s2"]), st.floats(0, 3)),
    recency_half_life_days=st.none() | st.floats(1, 100),
)


@settings(max_examples=40, deadline=None)
@given(rules=rules_of_all_kinds, age_days=st.integers(0, 400))
def test_weights_sum_to_all_rows_whatever_the_levers(
    world: duckdb.DuckDBPyConnection, rules: SamplingRules, age_days: int
) -> None:
    """Σ weights over the kept rows estimates the number of rows, and Σ weights · amount the amount, without bias."""
    probability = (
        f"({write_inclusion_probability_sql(rules)}) * ({write_recency_factor_sql(rules, age_days=str(age_days))})"
    )
    kept, kept_amount, spread, amount_spread, rows, amount, lost = world.execute(f"""
        SELECT sum(weight) FILTER (draw < pi), sum(weight * amount) FILTER (draw < pi),
               sqrt(sum((1 - pi) / pi)), sqrt(sum(amount * amount * (1 - pi) / pi)),
               count(*), sum(amount), count(*) FILTER (is_positive AND draw >= pi)
        FROM (SELECT *, {write_sample_weight_sql(rules, inclusion_probability="pi", allow_propensity="NULL")} AS weight
              FROM (SELECT *, {probability} AS pi FROM world))""").fetchone()  # type: ignore[misc]
    assert lost == 0
    assert abs(kept - rows) <= 4.5 * spread + 1e-6
    assert abs(kept_amount - amount) <= 4.5 * amount_spread + 1e-6


@settings(max_examples=40, deadline=None)
@given(rules=rules_of_all_kinds, more=st.floats(1, 4), age_days=st.integers(0, 400))
def test_raising_a_rate_only_adds_rows_and_age_only_removes_them(
    world: duckdb.DuckDBPyConnection, rules: SamplingRules, more: float, age_days: int
) -> None:
    assert rules.floor
    generous = SamplingRules(
        **{**vars(rules), "surprise_factor": rules.surprise_factor * more, "floor": min(1.0, rules.floor * more)}
    )
    day, raised = write_inclusion_probability_sql(rules), write_inclusion_probability_sql(generous)
    aged = f"({day}) * ({write_recency_factor_sql(rules, age_days=str(age_days))})"
    taken_away, brought_back = world.execute(f"""
        SELECT count(*) FILTER (draw < ({day}) AND draw >= ({raised})),
               count(*) FILTER (draw < ({aged}) AND draw >= ({day}))
        FROM world""").fetchone()  # type: ignore[misc]
    assert (taken_away, brought_back) == (0, 0)


def test_a_policy_that_lets_some_through_leaves_the_estimate_unbiased(world: duckdb.DuckDBPyConnection) -> None:
    """Of what scores above 0.5 one in five is let through, and only that gets a label; their weights stand for all."""
    rules = SamplingRules(floor=0.01)
    estimate, positives = world.execute(f"""
        SELECT sum({write_sample_weight_sql(rules, inclusion_probability="pi", allow_propensity="allowed")})
                   FILTER (is_positive AND draw < pi AND {write_draw_sql("policy")} < allowed),
               count(*) FILTER (is_positive)
        FROM (SELECT *, {write_inclusion_probability_sql(rules)} AS pi,
                     CASE WHEN score > 0.5 THEN 0.2 ELSE 1 END AS allowed
              FROM world)""").fetchone()  # type: ignore[misc]
    assert estimate == pytest.approx(positives, rel=0.1)
