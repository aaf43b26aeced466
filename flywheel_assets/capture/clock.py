"""Defines the clock of the capture service, so that a test can set the time, and distrusts the machine's.

An event lands on the day on which it was received. With a clock at 1972 or 2095 it is acknowledged and lies on a day
that no partition reads: lost to the wheel, without a warning.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from flywheel_assets.errors import SettingsError

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]

LONGEST_JUMP = timedelta(days=1)
LONGEST_PAUSE = timedelta(days=31)
"""A virtual machine that was paused comes back with the right time; its count of seconds stood still meanwhile."""
LONGEST_BREAK = timedelta(days=366)
"""Between the last event of a landing zone and the start of a service on it."""
_EARLIEST, _LATEST = date(2026, 1, 1), date(2056, 1, 1)
"""Where nothing has landed yet. This software did not exist before the first."""


def read_clock() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def read_elapsed_s() -> float:
    """Return the seconds since some moment, also those in which the machine slept; no change of the time moves it."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class SteadyClock:
    """Gives the machine's time as long as it moves with the seconds that pass.

    After a jump by more than a day, back or by more than a month ahead, it goes on from the time before. A jump ahead
    by less is believed. Each is logged.
    """

    def __init__(self, wall: Clock = read_clock, elapsed_s: Callable[[], float] = read_elapsed_s) -> None:
        self._wall = wall
        self._elapsed_s = elapsed_s
        self._last = wall(), elapsed_s()
        self._is_off = False
        self.off_s = 0.0
        """Seconds by which the machine's clock is ahead of this one: 0 unless it jumped."""

    def __call__(self) -> datetime:
        """Return the present time in UTC."""
        now, elapsed_s = self._wall(), self._elapsed_s()
        before, before_s = self._last
        expected = before + timedelta(seconds=elapsed_s - before_s)
        jump = now - expected
        if jump > LONGEST_PAUSE or jump < -LONGEST_JUMP:
            if not self._is_off:
                log.error(
                    "the machine's clock jumped by %s days to %s: events go on landing on %s; set the clock, or, if it "
                    "is right now, restart this service",
                    round(jump / timedelta(days=1), 1),
                    now.isoformat(timespec="seconds"),
                    expected.date(),
                )
            self._is_off, self.off_s = True, jump.total_seconds()
            return expected
        if jump > LONGEST_JUMP:
            log.error("the machine's clock jumped ahead by %s days; was it paused?", round(jump / timedelta(days=1), 1))
        if self._is_off:
            log.warning("the machine's clock is right again")
        self._last, self._is_off, self.off_s = (now, elapsed_s), False, 0.0
        return now


def explain_wrong_clock(landing: Path, now: datetime) -> str | None:
    """Say why this cannot be the time, by the days on which events landed; None: it can be."""
    days = [day for path in landing.glob("*/*/received_date=*") if (day := _read_day(path)) is not None]
    today = now.astimezone(UTC).date()
    newest = max(days, default=None)
    if newest is None:
        if _EARLIEST <= today <= _LATEST:
            return None
        known = f"valid: {_EARLIEST} to {_LATEST}"
    elif newest - LONGEST_JUMP <= today <= newest + LONGEST_BREAK:
        return None
    else:
        known = f"events landed on {newest} in {landing}"
    return (
        f"the machine's clock says {today}, and {known}: what is received now would land on a day that nothing reads. "
        "Set the clock; if it is right, start once with FLYWHEEL_CAPTURE_ANY_CLOCK=true"
    )


def open_clock(landing: Path, *, accepts_any: bool = False, wall: Clock = read_clock) -> SteadyClock:
    """Open the clock of a service that writes into `landing`.

    Raises:
        SettingsError: this cannot be the time, and `accepts_any` is off.
    """
    problem = None if accepts_any else explain_wrong_clock(landing, wall())
    if problem is not None:
        raise SettingsError(problem)
    return SteadyClock(wall)


def _read_day(path: Path) -> date | None:
    try:
        return date.fromisoformat(path.name.partition("=")[2])
    except ValueError:
        return None
