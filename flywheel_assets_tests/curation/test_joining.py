"""The join against two oracles: the design's sentence taken literally, and a simulation that walks day by day."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flywheel_assets.curation.joining import DayAccount, JoinedKeys, JoinWindow, join_keys

FIRST = date(2026, 1, 1)
LAST_DAY = 16
WINDOW = JoinWindow(join_days=4, dedupe_days=2)
W, SPAN = WINDOW.join_days, WINDOW.match_lookback_days
EVERY_DAY = range(LAST_DAY + 1)

QUICK = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Feedback(NamedTuple):
    event: str
    prediction: str
    day: int
    carries_text: bool


class Prediction(NamedTuple):
    prediction: str
    day: int


class Match(NamedTuple):
    day: int
    event: str
    feedback_day: int
    prediction: str
    prediction_day: int | None


@dataclass(frozen=True)
class Traffic:
    """What was received, by day number; one entry per event and day."""

    feedback: tuple[Feedback, ...] = ()
    predictions: tuple[Prediction, ...] = ()


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET threads = 1")
        yield opened


def date_of(day: int) -> date:
    return FIRST + timedelta(days=day)


def joined(
    connection: duckdb.DuckDBPyConnection,
    traffic: Traffic,
    days: Iterable[int],
    window: JoinWindow = WINDOW,
    finds_late: bool = False,
) -> JoinedKeys:
    connection.register(
        "prediction_keys",
        pa.table(
            {
                "prediction_id": pa.array([each.prediction for each in traffic.predictions], pa.string()),
                "received_date": pa.array([date_of(each.day) for each in traffic.predictions], pa.date32()),
            }
        ),
    )
    connection.register(
        "feedback_keys",
        pa.table(
            {
                "event_id": pa.array([each.event for each in traffic.feedback], pa.string()),
                "prediction_id": pa.array([each.prediction for each in traffic.feedback], pa.string()),
                "received_date": pa.array([date_of(each.day) for each in traffic.feedback], pa.date32()),
                "carries_text": pa.array([each.carries_text for each in traffic.feedback], pa.bool_()),
            }
        ),
    )
    connection.execute("CREATE OR REPLACE TEMP VIEW old_prediction_keys AS SELECT * FROM prediction_keys")
    return join_keys(connection, [date_of(day) for day in days], window, finds_late=finds_late)


def matches_of(keys: JoinedKeys) -> list[Match]:
    return [
        Match(
            (row["completed_date"] - FIRST).days,
            row["feedback_event_id"],
            (row["feedback_date"] - FIRST).days,
            row["prediction_id"],
            (row["prediction_date"] - FIRST).days if row["prediction_date"] else None,
        )
        for row in keys.matches.to_pylist()
    ]


def literal_matches(traffic: Traffic, day: int) -> set[Match]:
    """design.md, step 4: first receipts in [D − w − k, D]; a match belongs to their maximum, at most w apart."""
    in_window = range(day - SPAN, day + 1)
    first_prediction: dict[str, int] = {}
    for prediction in traffic.predictions:
        if prediction.day in in_window:
            earlier = first_prediction.get(prediction.prediction, prediction.day)
            first_prediction[prediction.prediction] = min(earlier, prediction.day)
    first_feedback: dict[str, Feedback] = {}
    for feedback in sorted(traffic.feedback, key=lambda each: each.day):
        if feedback.day in in_window:
            first_feedback.setdefault(feedback.event, feedback)
    found = set()
    for feedback in first_feedback.values():
        known = first_prediction.get(feedback.prediction) if feedback.prediction else None
        fits = known is not None and abs(known - feedback.day) <= W
        if feedback.carries_text:
            if feedback.day == day:
                found.add(Match(day, feedback.event, day, feedback.prediction, known if fits else None))
        elif known is not None and fits and max(known, feedback.day) == day:
            found.add(Match(day, feedback.event, feedback.day, feedback.prediction, known))
    return found


@dataclass
class Simulation:
    """Walks from day to day with a list of what waits; knows nothing of windows of days read again."""

    matches: set[Match]
    expiries: set[tuple[int, str, int]]
    accounts: dict[int, DayAccount]


def simulate(traffic: Traffic) -> Simulation:
    simulation = Simulation(set(), set(), {})
    last_seen: dict[str, int] = {}
    waiting: list[Feedback] = []
    for day in EVERY_DAY:
        received = [each for each in traffic.feedback if each.day == day]
        carried_in, duplicates, matched, expired = len(waiting), 0, 0, 0
        for feedback in received:
            if feedback.event in last_seen and day - last_seen[feedback.event] <= SPAN:
                duplicates += 1
            else:
                waiting.append(feedback)
            last_seen[feedback.event] = day
        still: list[Feedback] = []
        for feedback in waiting:
            seen = [each.day for each in traffic.predictions if each.prediction == feedback.prediction != ""]
            known = min((each for each in seen if day - SPAN <= each <= day), default=None)
            fits = known is not None and abs(known - feedback.day) <= W
            if feedback.carries_text or (fits and known is not None and max(known, feedback.day) == day):
                matched += 1
                prediction_day = known if fits else None
                simulation.matches.add(Match(day, feedback.event, feedback.day, feedback.prediction, prediction_day))
            elif feedback.day == day - W:
                expired += 1
                simulation.expiries.add((day, feedback.event, feedback.day))
            else:
                still.append(feedback)
        waiting = still
        simulation.accounts[day] = DayAccount(len(received), carried_in, duplicates, matched, expired, len(waiting))
    return simulation


@st.composite
def traffics(draw: st.DrawFn, retried_for: int = LAST_DAY, is_consistent: bool = True) -> Traffic:
    """A few predictions and feedback events on a few days, each received again up to `retried_for` days later.

    `is_consistent=False` lets a retry say something else than the first receipt did.
    """
    names = st.sampled_from(["p1", "p2"])
    feedback = []
    for event in ("e1", "e2", "e3"):
        first = draw(st.integers(0, LAST_DAY))
        offsets = draw(st.sets(st.integers(0, retried_for), max_size=3))
        prediction, carries_text = draw(names), draw(st.sampled_from([False, False, True]))
        if carries_text and draw(st.booleans()):
            prediction = ""  # a retraction of a statement
        for day in sorted({first, *(first + offset for offset in offsets)}):
            if day <= LAST_DAY:
                feedback.append(Feedback(event, prediction, day, carries_text))
            if not is_consistent:
                prediction, carries_text = draw(names), draw(st.booleans())
    predictions = []
    for name in ("p1", "p2", ""):
        first = draw(st.integers(0, LAST_DAY))
        offsets = draw(st.sets(st.integers(0, retried_for), max_size=2))
        predictions += [
            Prediction(name, day) for day in sorted({first, *(first + offset for offset in offsets)}) if day <= LAST_DAY
        ]
    return Traffic(tuple(feedback), tuple(predictions))


@pytest.mark.long
@given(traffic=traffics(retried_for=WINDOW.dedupe_days))
@QUICK
def test_matches_are_those_of_the_designs_sentence(connection: duckdb.DuckDBPyConnection, traffic: Traffic) -> None:
    found = matches_of(joined(connection, traffic, EVERY_DAY))
    expected = set.union(*(literal_matches(traffic, day) for day in EVERY_DAY))
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.long
@given(traffic=traffics(is_consistent=False))
@example(
    # The feedback came first on day 0 and waited in vain; its retry on day 5 is no new feedback.
    traffic=Traffic((Feedback("e1", "p1", 0, False), Feedback("e1", "p1", 5, False)), (Prediction("p1", 7),))
)
@example(
    # A prediction sent again behind the dedupe window must not be matched with the same feedback a second time.
    traffic=Traffic((Feedback("e1", "p1", 4, False),), (Prediction("p1", 0), Prediction("p1", 7)))
)
@example(
    # A client that used one id for feedback on two predictions: the first receipt is the one that counts.
    traffic=Traffic(
        (Feedback("e1", "p1", 0, False), Feedback("e1", "p2", 1, False)), (Prediction("p1", 0), Prediction("p2", 2))
    )
)
@QUICK
def test_every_day_adds_up_whatever_is_sent_again(connection: duckdb.DuckDBPyConnection, traffic: Traffic) -> None:
    keys = joined(connection, traffic, EVERY_DAY)
    expected = simulate(traffic)
    found = matches_of(keys)
    assert sorted(found, key=str) == sorted(expected.matches, key=str)
    expiries = {
        ((row["day"] - FIRST).days, row["feedback_event_id"], (row["feedback_date"] - FIRST).days)
        for row in keys.expiries.to_pylist()
    }
    assert expiries == expected.expiries
    accounts = {(day - FIRST).days: account for day, account in keys.accounts.items()}
    assert accounts == expected.accounts
    for day, account in accounts.items():
        assert account.received + account.carried_in == (
            account.duplicates + account.matched + account.expired + account.waiting
        )
        assert account.matched == sum(match.day == day for match in found)
        if day:
            assert account.carried_in == accounts[day - 1].waiting


@pytest.mark.long
@given(traffic=traffics(is_consistent=False), days=st.sets(st.sampled_from(EVERY_DAY), min_size=1, max_size=5))
@QUICK
def test_a_range_is_its_days_one_by_one(
    connection: duckdb.DuckDBPyConnection, traffic: Traffic, days: set[int]
) -> None:
    together = joined(connection, traffic, sorted(days))
    single = [joined(connection, traffic, [day]) for day in sorted(days)]
    assert together.matches.equals(pa.concat_tables([each.matches for each in single]).combine_chunks())
    assert together.expiries.equals(pa.concat_tables([each.expiries for each in single]).combine_chunks())
    assert together.accounts == {day: account for each in single for day, account in each.accounts.items()}


@pytest.mark.long
@given(traffic=traffics(is_consistent=False), data=st.data())
@QUICK
def test_the_order_of_the_rows_does_not_matter(
    connection: duckdb.DuckDBPyConnection, traffic: Traffic, data: Any
) -> None:
    shuffled = Traffic(
        tuple(data.draw(st.permutations(traffic.feedback))), tuple(data.draw(st.permutations(traffic.predictions)))
    )
    assert joined(connection, shuffled, EVERY_DAY) == joined(connection, traffic, EVERY_DAY)


@pytest.mark.long
@given(traffic=traffics(is_consistent=False), day=st.sampled_from(EVERY_DAY))
@QUICK
def test_a_past_day_never_changes(connection: duckdb.DuckDBPyConnection, traffic: Traffic, day: int) -> None:
    until_then = Traffic(
        tuple(each for each in traffic.feedback if each.day <= day),
        tuple(each for each in traffic.predictions if each.day <= day),
    )
    assert joined(connection, until_then, [day]) == joined(connection, traffic, [day])


@pytest.mark.parametrize(
    ("feedback_days", "prediction_days", "expected"),
    [
        ([3], [3], [(3, 3, 3)]),
        ([3], [5], [(5, 3, 5)]),
        ([3 + W], [3], [(3 + W, 3 + W, 3)]),
        ([3 + W + 1], [3], []),
        ([3], [3 + W], [(3 + W, 3, 3 + W)]),
        ([3], [3 + W + 1], []),
        ([3, 4], [3], [(3, 3, 3)]),
        ([3, 5], [4], [(4, 3, 4)]),
        ([4], [3, 5], [(4, 4, 3)]),
    ],
    ids=[
        "same day",
        "feedback before its prediction",
        "at the end of the window",
        "behind the window",
        "prediction at the end of the window",
        "prediction behind the window",
        "retry across midnight",
        "retry around the prediction",
        "prediction retried",
    ],
)
def test_cases(
    connection: duckdb.DuckDBPyConnection,
    feedback_days: Sequence[int],
    prediction_days: Sequence[int],
    expected: Sequence[tuple[int, int, int]],
) -> None:
    traffic = Traffic(
        tuple(Feedback("e", "p", day, False) for day in feedback_days),
        tuple(Prediction("p", day) for day in prediction_days),
    )
    found = [
        (match.day, match.feedback_day, match.prediction_day)
        for match in matches_of(joined(connection, traffic, EVERY_DAY))
    ]
    assert found == list(expected)


LATE = JoinWindow(join_days=4, dedupe_days=2, wait_days=1, late_days=6)


@pytest.mark.parametrize(("age", "matched_on"), [(4, 12), (5, 12), (6, 12), (10, 12), (11, None)])
def test_feedback_after_the_window_is_matched_on_arrival(
    connection: duckdb.DuckDBPyConnection, age: int, matched_on: int | None
) -> None:
    """A label 35 days after its prediction waited for 30 days, was refused, and its silence stayed a negative."""
    traffic = Traffic((Feedback("e1", "p1", 12, False),), (Prediction("p1", 12 - age),))
    keys = joined(connection, traffic, EVERY_DAY, LATE, finds_late=True)
    expected = [] if matched_on is None else [Match(matched_on, "e1", 12, "p1", 12 - age)]
    assert matches_of(keys) == expected
    assert keys.expiries.num_rows == (matched_on is None)
    assert matches_of(joined(connection, traffic, [12], LATE, finds_late=True)) == expected
    next_day = joined(connection, traffic, [13], LATE, finds_late=True)
    assert matches_of(next_day) == []
    assert next_day.expiries.num_rows == (matched_on is None)


@pytest.mark.long
@given(traffic=traffics(is_consistent=False))
@QUICK
def test_the_account_of_late_feedback_adds_up(connection: duckdb.DuckDBPyConnection, traffic: Traffic) -> None:
    """Day by day as in a range; what is matched after the window is matched instead of being refused."""
    without, keys = (joined(connection, traffic, EVERY_DAY, LATE, finds_late=finds) for finds in (False, True))
    late = set(matches_of(keys)) - set(matches_of(without))
    superseded = set(matches_of(without)) - set(matches_of(keys))
    assert {(match.event, match.feedback_day) for match in superseded} <= {
        (match.event, match.feedback_day) for match in late
    }
    assert all(match.day == match.feedback_day for match in late)
    assert all(4 < match.feedback_day - (match.prediction_day or 0) <= 10 for match in late)
    carried = 0
    for day, account in sorted(keys.accounts.items()):
        assert account.carried_in == carried
        assert account.received + carried == account.duplicates + account.matched + account.expired + account.waiting
        carried = account.waiting
        assert matches_of(joined(connection, traffic, [(day - FIRST).days], LATE, finds_late=True)) == [
            match for match in matches_of(keys) if date_of(match.day) == day
        ]


def test_feedback_waits_no_longer_than_the_join_window() -> None:
    assert JoinWindow(join_days=180).longest_wait_days == 30
    assert JoinWindow(join_days=180).account_lookback_days == 217
    assert JoinWindow(join_days=5).longest_wait_days == 5
    assert JoinWindow().compute_lookback_days(is_text=True) == 37
    assert JoinWindow(join_days=180).compute_lookback_days(is_text=False) == 360
    assert JoinWindow(join_days=180).compute_reading_days(is_text=False) == 390


def test_no_input_gives_empty_accounts(connection: duckdb.DuckDBPyConnection) -> None:
    keys = joined(connection, Traffic(), [3, 7])
    assert keys.matches.num_rows == keys.expiries.num_rows == 0
    assert keys.accounts == {date_of(day): DayAccount(0, 0, 0, 0, 0, 0) for day in (3, 7)}


def test_default_windows_reach_as_far_as_documented() -> None:
    window = JoinWindow()
    assert (window.join_days, window.dedupe_days) == (30, 7)
    assert (window.match_lookback_days, window.account_lookback_days) == (37, 67)
