"""The rows of a capped evaluation: in proportion, decided by hashes, and with every judge."""

from collections import Counter

import pytest

from flywheel_assets.evaluation._inclusion import choose_rows, describe_inclusion
from flywheel_assets.evaluation.requests import Stratum
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets_tests.training.small_world import exported

Row = tuple[Stratum, ExportedRow]


def rows_of(people: int, *, busy: int = 1, days: int = 10) -> list[Row]:
    """Person n has 1 + n % 7 rows in the primary stratum, and one accepted output; the first `busy` have 200."""
    rows: list[Row] = []
    for person in range(people):
        count = 200 if person < busy else 1 + person % 7
        for number in range(count):
            day = f"2026-03-{1 + (person * 3 + number) % days:02}"
            row = exported(person * 1000 + number, "p", "c", "r", f"user-{person}", completed_date=day)
            rows.append((Stratum.PRIMARY, row))
        kept = exported(person * 1000 + 999, "p", "c", None, f"user-{person}", completed_date="2026-03-01")
        rows.append((Stratum.REGRESSION, kept))
    return rows


def test_fewer_rows_than_the_cap_are_all_taken() -> None:
    rows = rows_of(5)
    for most in (None, len(rows), 10_000):
        assert choose_rows(rows, most) == dict.fromkeys(range(len(rows)), 1.0)


@pytest.mark.parametrize("most", [300, 450])
def test_every_judge_keeps_a_row_and_the_others_their_share(most: int) -> None:
    rows = rows_of(100, busy=3)
    chosen = choose_rows(rows, most)
    assert len(chosen) == pytest.approx(most, abs=1)
    before = Counter((stratum, row.subject) for stratum, row in rows)
    after = Counter((rows[place][0], rows[place][1].subject) for place in chosen)
    assert after.keys() == before.keys()
    share = sum(after[Stratum.PRIMARY, f"user-{person}"] for person in range(3)) / 600
    assert all(abs(count - max(1, share * before[judge])) <= 1 for judge, count in after.items())
    for place, probability in chosen.items():
        stratum, row = rows[place]
        assert probability == after[stratum, row.subject] / before[stratum, row.subject]


def test_days_keep_their_share() -> None:
    """A sample of the first rows by date would judge by the oldest weeks alone."""
    rows = rows_of(400, busy=4)
    chosen = choose_rows(rows, 700)
    all_days, sampled = (
        Counter(rows[place][1].completed_date for place in places if rows[place][0] is Stratum.PRIMARY)
        for places in (range(len(rows)), chosen)
    )
    for day, count in all_days.items():
        assert sampled[day] / sampled.total() == pytest.approx(count / all_days.total(), abs=0.03)


def test_a_busy_persons_days_are_spread() -> None:
    rows = rows_of(1)
    chosen = choose_rows(rows, 21)
    days = Counter(rows[place][1].completed_date for place in chosen if rows[place][0] is Stratum.PRIMARY)
    assert dict(days) == {f"2026-03-{day:02}": 2 for day in range(1, 11)}


def test_the_sample_is_the_same_whatever_the_order_of_the_rows() -> None:
    rows = rows_of(50)
    one = {rows[place][1].pair_id for place in choose_rows(rows, 120)}
    turned = rows[::-1]
    assert {turned[place][1].pair_id for place in choose_rows(turned, 120)} == one


def test_more_judges_than_rows_keep_one_row_each() -> None:
    rows = rows_of(50)
    chosen = choose_rows(rows, 10)
    assert Counter((rows[place][0], rows[place][1].subject) for place in chosen) == Counter(
        (stratum, f"user-{person}") for person in range(50) for stratum in (Stratum.PRIMARY, Stratum.REGRESSION)
    )


def test_the_report_says_what_was_taken() -> None:
    rows = rows_of(20)
    chosen = choose_rows(rows, 60)
    found = describe_inclusion(rows, chosen)
    assert found.keys() == {Stratum.PRIMARY, Stratum.REGRESSION}
    primary = found[Stratum.PRIMARY]
    assert primary.of_rows == sum(stratum is Stratum.PRIMARY for stratum, _ in rows)
    assert primary.rows + found[Stratum.REGRESSION].rows == len(chosen)
    assert (primary.subjects, primary.of_days) == (20, 10)
    assert 0 < primary.least_probability < found[Stratum.REGRESSION].least_probability == 1
