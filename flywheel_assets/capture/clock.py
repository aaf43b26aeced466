"""Defines the clock of the capture service, so that a test can set the time."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def read_clock() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)
