"""A machine's clock that is wrong: nothing lands in 1972 or 2095, nothing is lost, and people are told."""

import logging
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.clock import SteadyClock, explain_wrong_clock, open_clock
from flywheel_assets.capture.service import running_capture
from flywheel_assets.errors import SettingsError
from flywheel_assets.settings import Settings
from flywheel_assets_tests.capture.samples import NOON, edit

DAY = timedelta(days=1)


class Machine:
    """A machine's clock and its count of seconds."""

    def __init__(self) -> None:
        self.now = NOON
        self.elapsed_s = 5000.0

    def read(self) -> datetime:
        return self.now

    def read_elapsed_s(self) -> float:
        return self.elapsed_s

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.elapsed_s += seconds

    def open_clock(self) -> SteadyClock:
        return SteadyClock(self.read, self.read_elapsed_s)


@pytest.mark.parametrize("year", [1972, 2095])
def test_a_jump_while_it_runs_moves_no_event_to_another_day(
    year: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Events were acknowledged into days of 1972 and 2095 that no partition reads."""
    machine = Machine()
    clock = machine.open_clock()
    with running_capture(tmp_path, ["assistant"], clock) as capture:
        for number in range(3):
            sent = httpx.post(f"{capture.url}/v1/assistant/edits", json=edit(prompt=f"p{number}"))
            assert sent.status_code == 202
            machine.now = datetime(year, 1, 1, tzinfo=UTC)
            machine.elapsed_s += 60
    days = {path.parent.name for path in tmp_path.rglob("*.jsonl")}
    assert days == {f"received_date={NOON.date()}"}
    told = [record.message for record in caplog.records if "clock jumped by" in record.message]
    assert len(told) == 1
    assert f"events go on landing on {NOON.date()}; set the clock" in told[0]


def test_time_goes_on_during_a_jump_and_the_machine_is_believed_again(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    clock = machine.open_clock()
    machine.now -= 400 * DAY
    assert clock() == NOON
    assert clock.off_s == -400 * 86400
    machine.wait(90_000)
    assert clock() == NOON + timedelta(seconds=90_000), "its own count passes midnight"
    machine.now += 400 * DAY
    assert clock() == machine.now
    assert clock.off_s == 0
    assert "right again" in caplog.text


@pytest.mark.parametrize(
    ("jump", "is_told"),
    [(timedelta(hours=23), False), (timedelta(hours=-23), False), (3 * DAY, True), (30 * DAY, True)],
    ids=["summer time and worse", "back", "a paused machine", "paused for a month"],
)
def test_a_jump_that_can_be_right_is_believed(jump: timedelta, is_told: bool, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    clock = machine.open_clock()
    machine.now += jump
    with caplog.at_level(logging.ERROR):
        assert clock() == machine.now
    assert ("was it paused?" in caplog.text) is is_told


@pytest.mark.parametrize(
    ("landed", "today", "is_right"),
    [
        (None, date(2026, 3, 2), True),
        (None, date(1972, 1, 1), False),
        (None, date(2095, 1, 1), False),
        (date(2026, 3, 2), date(2026, 3, 2), True),
        (date(2026, 3, 2), date(2026, 3, 1), True),
        (date(2026, 3, 2), date(2026, 2, 27), False),
        (date(2026, 3, 2), date(2027, 3, 1), True),
        (date(2026, 3, 2), date(2027, 6, 1), False),
    ],
)
def test_a_service_starts_only_at_a_time_that_can_be_right(
    tmp_path: Path, landed: date | None, today: date, is_right: bool
) -> None:
    if landed is not None:
        (tmp_path / "assistant" / "feedback" / f"received_date={landed}").mkdir(parents=True)
    (tmp_path / "assistant" / "feedback" / "received_date=unknown").mkdir(parents=True)
    now = datetime.combine(today, datetime.min.time(), UTC)
    assert (explain_wrong_clock(tmp_path, now) is None) is is_right
    if not is_right:
        with pytest.raises(SettingsError, match=f"says {today}, and .*FLYWHEEL_CAPTURE_ANY_CLOCK=true"):
            open_clock(tmp_path, wall=lambda: now)
    assert open_clock(tmp_path, accepts_any=True, wall=lambda: now)() == now
    assert Settings(home=tmp_path).capture_any_clock is False
