"""A day of mass wrong labels: none of them in gold until a person has looked, all of them accounted for."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.lake.daily import breaker, ledger
from flywheel_assets.lake.daily.mine_days import DISPUTE_STAGE
from flywheel_assets.lake.tables.specs import (
    BREAKER_DAYS,
    CLASSIFICATION_TABLES,
    HARD_EXAMPLES,
    JOINED_LABELS,
    QUARANTINE,
)
from flywheel_assets_tests.builders import DAY, NOON, day
from flywheel_assets_tests.lake.labelled import mine, run, score
from flywheel_assets_tests.lake.mass_labels import (
    FIXED,
    LABEL_LIMITS,
    LABELS,
    LAST,
    WRONG,
    flip,
    make_burst,
    make_ordinary_days,
    reverse,
)
from flywheel_assets_tests.lake.workbench import Workbench, stamp


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path, tables=CLASSIFICATION_TABLES)


def run_days(bench: Workbench, events: Sequence[dict[str, Any]], *, each_day: bool = False) -> None:
    run(bench, events, LAST, limits=LABEL_LIMITS, each_day=each_day)


def count_labels(bench: Workbench, on: date) -> int:
    return sum(row["label_event_id"] is not None for row in bench.rows(HARD_EXAMPLES, [on]))


def describe_tripped(bench: Workbench) -> dict[date, str]:
    return {each.day: each.figures.describe() for each in breaker.find_tripped_days(bench.lake)}


@pytest.mark.long
def test_ordinary_days_trip_nothing(bench: Workbench) -> None:
    run_days(bench, make_ordinary_days(0, 11))
    assert describe_tripped(bench) == {}
    assert [each.day for each in breaker.read_judged_days(bench.lake)] == ledger.list_days(day(1), LAST)


@pytest.mark.long
def test_a_flipped_label_column_keeps_the_days_labels_out_and_nothing_is_lost(bench: Workbench) -> None:
    """An export that swapped its two words trained as truth: no rule looked at more than one prediction."""
    run_days(bench, flip(make_ordinary_days(0, 11), WRONG))
    assert describe_tripped(bench) == {
        WRONG: "positive_share: 67% of 21 labels are positive, at most 58% after the days before"
    }
    assert count_labels(bench, WRONG) == 0
    entry = ledger.read_entries(bench.lake, HARD_EXAMPLES.name)[WRONG]
    assert entry.rows_by_reason["breaker_tripped"] == LABELS
    held = [row for row in bench.refusals(HARD_EXAMPLES.name) if row["reason"] == "breaker_tripped"]
    assert {row["day"] for row in held} == {WRONG}
    [found] = breaker.find_tripped_days(bench.lake)
    assert set(found.figures.trips[0].examples) <= {row["row_id"] for row in held}
    assert all(count_labels(bench, each) == LABELS for each in ledger.list_days(day(10), LAST))


@pytest.mark.long
def test_the_silence_of_a_tripped_day_stays_and_its_predictions_are_never_silent(bench: Workbench) -> None:
    events = [*flip(make_ordinary_days(0, 11), WRONG), score(day(2), "quiet")]
    run(bench, events, day(18), limits=LABEL_LIMITS)
    silent = [row for row in bench.rows(HARD_EXAMPLES) if row["label_event_id"] is None]
    assert {(row["prediction_id"], row["completed_date"]) for row in silent} == {("quiet", WRONG)}


@pytest.mark.long
def test_a_burst_of_positives_trips(bench: Workbench) -> None:
    run_days(bench, [*make_ordinary_days(0, 11), *make_burst(WRONG, 30)])
    assert describe_tripped(bench)[WRONG].startswith("positive_burst: 37 positives, at most 28 after the days before; ")


@pytest.mark.long
def test_a_rerun_that_reverses_a_third_trips(bench: Workbench) -> None:
    run_days(bench, [*make_ordinary_days(0, 11), *reverse(5, WRONG, 0.75)])
    assert describe_tripped(bench) == {WRONG: "reversals: 16 of 42 labels reverse what was known, at most 25%"}
    assert [row for row in bench.rows(QUARANTINE) if row["stage"] == DISPUTE_STAGE] == []


@pytest.mark.long
def test_the_correction_of_a_tripped_day_reverses_nothing(bench: Workbench) -> None:
    """The right labels contradict those of the day that tripped: they must not trip in their turn."""
    events = [*flip(make_ordinary_days(0, 11), WRONG), *reverse(8, FIXED, 0.0)]
    run_days(bench, events)
    assert list(describe_tripped(bench)) == [WRONG]
    assert count_labels(bench, FIXED) == 2 * LABELS


@pytest.mark.long
def test_an_open_day_is_not_judged(bench: Workbench) -> None:
    run_days(bench, flip(make_ordinary_days(0, 11), WRONG))
    open_day = ledger.read_entries(bench.lake, JOINED_LABELS.name)[WRONG]
    ledger.record_entries(bench.lake, [replace(open_day, is_closed=False)], stamp())
    mine(bench, [WRONG], limits=LABEL_LIMITS)
    assert (describe_tripped(bench), count_labels(bench, WRONG)) == ({}, LABELS)


@pytest.mark.long
def test_a_range_gives_the_same_as_its_days_one_by_one(bench: Workbench, tmp_path: Path) -> None:
    events = [*flip(make_ordinary_days(0, 11), WRONG), *make_burst(day(8), 30), *reverse(9, LAST)]
    run_days(bench, events)
    other = Workbench(tmp_path / "other", tables=CLASSIFICATION_TABLES)
    run_days(other, events, each_day=True)
    tables = (HARD_EXAMPLES, QUARANTINE, BREAKER_DAYS)
    whole = [bench.rows(spec) for spec in tables]
    assert list(describe_tripped(bench)) == [day(8), WRONG, LAST]
    assert [other.rows(spec) for spec in tables] == whole
    # Again, in parts: what is known of later days decides nothing.
    for some in ([day(9)], ledger.list_days(day(4), day(8)), ledger.list_days(DAY, LAST)):
        mine(other, some, limits=LABEL_LIMITS)
        assert [other.rows(spec) for spec in tables] == whole


@pytest.mark.long
def test_a_reset_lets_the_labels_in_when_the_day_is_mined_again(bench: Workbench) -> None:
    run_days(bench, flip(make_ordinary_days(0, 11), WRONG))
    breaker.reset_day(bench.lake, WRONG, who="ada", reason="a wave of fraud", now=NOON)
    assert count_labels(bench, WRONG) == 0
    mine(bench, ledger.list_days(WRONG, LAST), limits=LABEL_LIMITS)
    assert (describe_tripped(bench), count_labels(bench, WRONG)) == ({}, LABELS)
    [judged] = [each for each in breaker.read_judged_days(bench.lake) if each.is_reset]
    assert (judged.day, judged.figures.rows) == (WRONG, LABELS)
