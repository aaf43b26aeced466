import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from flywheel_assets.capture.service import running_capture
from flywheel_assets.demo.assistant.people import People
from flywheel_assets.demo.assistant.play import DayStats, play_days
from flywheel_assets.demo.assistant.world import Workload, World
from flywheel_assets.demo.capture_client import CaptureDoor, SimulatedClock
from flywheel_assets.errors import CaptureUnavailableError
from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets_tests.demo.assistant.scripted import Scripted

WORLD = World()
WORKLOAD = Workload({"read": 1.0, "bus": 1.0})
FIRST = date(2026, 9, 1)
DAYS = (FIRST, FIRST + timedelta(days=1))
PER_DAY = 60


@pytest.fixture
def door(tmp_path: Path) -> Iterator[CaptureDoor]:
    clock = SimulatedClock(datetime.combine(FIRST, datetime.min.time(), UTC))
    with running_capture(tmp_path, ["assistant"], clock) as capture:
        yield CaptureDoor(capture.url, capture.seal, clock)


def play(assistant: Scripted, door: CaptureDoor, days: Sequence[date] = DAYS, seed: int = 1) -> list[DayStats]:
    return list(play_days(assistant, WORLD, WORKLOAD, People(), days, PER_DAY, door, seed))


def landed(root: Path, kind: EventKind, day: date) -> list[dict[str, str]]:
    files = sorted(LandingZone(root, "assistant", kind).find_day_folder(day).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_what_was_acknowledged_lies_under_its_own_day(tmp_path: Path, door: CaptureDoor) -> None:
    days = play(Scripted(), door)
    assert [day.day for day in days] == list(DAYS)
    for day in days:
        predictions = landed(tmp_path, EventKind.PREDICTION, day.day)
        feedback = landed(tmp_path, EventKind.FEEDBACK, day.day)
        assert len(predictions) == day.predictions_acknowledged == day.requests + day.edited
        assert len(feedback) == day.feedback_acknowledged
        assert sum(line["signal"] == "edit" for line in feedback) == day.edited > 0
        assert {line["received_at"][:10] for line in predictions + feedback} == {day.day.isoformat()}
        assert {line["model_version"] for line in predictions} == {"scripted"}
    for kind in EventKind:
        zone = LandingZone(tmp_path, "assistant", kind)
        assert zone.list_days() == list(DAYS)
        assert not list(zone.open_folder.glob("*.jsonl"))


def test_after_the_last_day_that_day_can_be_closed(tmp_path: Path, door: CaptureDoor) -> None:
    play(Scripted(), door)
    assert LandingZone(tmp_path, "assistant", EventKind.FEEDBACK).read(DAYS[-1], door.clock()).is_closed


def test_a_day_is_the_same_whenever_it_is_played(tmp_path: Path, door: CaptureDoor) -> None:
    first, second = Scripted(), Scripted()
    before = play(first, door)
    other_clock = SimulatedClock(datetime.combine(DAYS[1], datetime.min.time(), UTC))
    with running_capture(tmp_path / "other", ["assistant"], other_clock) as capture:
        again = play(second, CaptureDoor(capture.url, capture.seal, other_clock), DAYS[1:])
    assert again == before[1:]
    assert second.asked == first.asked[PER_DAY:]


def test_shares_are_counted_on_what_the_assistant_wrote(door: CaptureDoor) -> None:
    (day,) = play(Scripted(), door, DAYS[:1])
    assert day.requests == PER_DAY == day.internal + day.neutral
    assert day.lacking_right_call == day.internal
    assert day.internal_exact == day.neutral_exact == 0


def test_an_assistant_that_is_always_right_is_edited_by_vandals_only(door: CaptureDoor) -> None:
    rng = random.Random(f"1 {FIRST}")
    right = {request.prompt: request.right for request in (WORLD.ask(rng, WORKLOAD) for _ in range(PER_DAY))}
    (day,) = play(Scripted(says=right.__getitem__), door, DAYS[:1])
    assert day.lacking_right_call == 0
    assert (day.internal_exact, day.neutral_exact) == (day.internal, day.neutral)
    assert day.edited == len(day.vandalism)
    assert day.approved > 0


def test_refused_events_stop_the_play(tmp_path: Path) -> None:
    clock = SimulatedClock(datetime.combine(FIRST, datetime.min.time(), UTC))
    with (
        running_capture(tmp_path, ["another"], clock) as capture,
        pytest.raises(CaptureUnavailableError, match="HTTP 404"),
    ):
        play(Scripted(), CaptureDoor(capture.url, capture.seal, clock))


def test_the_simulated_clock_never_goes_back() -> None:
    clock = SimulatedClock(datetime(2026, 9, 2, tzinfo=UTC))
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(datetime(2026, 9, 1, tzinfo=UTC))
