import math
from typing import Any

import pytest

from flywheel_assets.curation.labels.emphasis import EmphasisRules, write_emphasis_sql
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.storage.duckdb_engine import connect

ROWS = """(VALUES (0, true, 0, 1.0, 100.0), (1, true, 30, 1.0, 400.0), (2, false, 0, 1.0, NULL),
    (3, false, 30, 2.0, 0.1), (4, false, 60, 4.0, 'nan'::DOUBLE), (5, false, -3, 1.0, 25.0)
) AS rows(id, is_positive, age, weight, amount)"""
POSITIVES, NEGATIVES = slice(0, 2), slice(2, 6)
WEIGHTS = [1.0, 1.0, 1.0, 2.0, 4.0, 1.0]


def emphasise(rules: EmphasisRules) -> list[Any]:
    expression = write_emphasis_sql(rules, weight="weight", age_days="age")
    with connect() as connection:
        return [row[0] for row in connection.execute(f"SELECT {expression} FROM {ROWS} ORDER BY id").fetchall()]


def test_nothing_is_emphasised_by_default() -> None:
    assert emphasise(EmphasisRules()) == [None] * 6


@pytest.mark.parametrize(
    ("rules", "relative"),
    [
        (EmphasisRules(recent_half_life_days=30), [1, 0.5, 1, 0.5, 0.25, 1]),
        (EmphasisRules(amount_power=0.5), [10, 20, 1, 1, 1, 5]),  # small, missing and unusable amounts count as 1
        (EmphasisRules(amount_power=1, smallest_amount=50), [100, 400, 50, 50, 50, 50]),
        (EmphasisRules(recent_half_life_days=30, amount_power=0.5), [10, 10, 1, 0.5, 0.25, 5]),
    ],
)
def test_each_class_keeps_the_sum_of_its_weights(rules: EmphasisRules, relative: list[float]) -> None:
    """So the share of positives, and with it the calibration, stays: only rows within a class change places."""
    found = emphasise(rules)
    for members in (POSITIVES, NEGATIVES):
        mean = sum(w * r for w, r in zip(WEIGHTS[members], relative[members], strict=True)) / sum(WEIGHTS[members])
        assert found[members] == pytest.approx([each / mean for each in relative[members]])
        weighed = sum(w * e for w, e in zip(WEIGHTS[members], found[members], strict=True))
        assert weighed == pytest.approx(sum(WEIGHTS[members]))


def test_a_class_of_old_rows_alone_keeps_its_weight() -> None:
    """A half-life of an hour underflows to 0 for all rows but the youngest; 0 / 0 would be no weight."""
    assert all(
        each is not None and math.isfinite(each) for each in emphasise(EmphasisRules(recent_half_life_days=0.01))
    )


@pytest.mark.parametrize("limits", [{"amount_power": 1.5}, {"smallest_amount": 0.0}, {"recent_half_life_days": 0.0}])
def test_rules_without_a_meaning_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(limits))):
        EmphasisRules(**limits)


def test_days_need_not_be_mined_again_for_an_emphasis() -> None:
    assert MiningRules(emphasis=EmphasisRules(amount_power=1)).version == MiningRules().version
