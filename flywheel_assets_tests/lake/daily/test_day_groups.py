"""Small days are worked on together; a large one alone."""

from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.day_groups import MOST_BYTES, MOST_ROWS, group_days, part_by_day
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.lake.tables.specs import JOINED_FEEDBACK
from flywheel_assets_tests.builders import day, make_joined, table


def test_days_are_grouped_up_to_a_number_of_rows_and_of_bytes() -> None:
    days = [day(number) for number in range(6)]
    rows = dict(zip(days, (MOST_ROWS - 1, 1, 1, 0, 5, 5), strict=True))
    read = dict(zip(days, (0, 0, MOST_BYTES, 0, 1, 1), strict=True))
    assert list(group_days(days, rows, read)) == [days[:2], days[2:4], days[4:]]
    large = dict.fromkeys(days, MOST_ROWS + 1)
    assert list(group_days(days, large, read)) == [[each] for each in days]
    assert list(group_days([], {}, {})) == []


def test_a_group_is_parted_by_day_and_hashed_as_single_days_are() -> None:
    days = [day(number) for number in range(3)]
    made = [make_joined(completed_date=days[number % 3], feedback_event_id=f"{9 - number}") for number in range(8)]
    rows = table(JOINED_FEEDBACK.schema, [each for each in made if each["completed_date"] != days[1]])
    parts = part_by_day(rows, JOINED_FEEDBACK, days)
    assert [parts[each]["feedback_event_id"].to_pylist() for each in days] == [["3", "6", "9"], [], ["4", "7"]]
    assert all(set(part["completed_date"].to_pylist()) <= {each} for each, part in parts.items())
    with connect() as connection:
        hashes = ledger.hash_days(parts, "completed_date", connection)
    assert hashes == {each: ledger.hash_content(part) for each, part in parts.items()}
    assert part_by_day(rows, JOINED_FEEDBACK, days[:1]) == {days[0]: rows}
