"""Plans a backtest: its weeks, and what is compared."""

from dataclasses import dataclass
from datetime import date, timedelta

from flywheel_assets.errors import InvalidRuleError

DAYS_PER_WEEK = 7
LEAST_WEEKS = 2


@dataclass(frozen=True)
class Week:
    """One week of the replay, ends included; the last one may be shorter."""

    first: date
    last: date


@dataclass(frozen=True, kw_only=True)
class BacktestPlan:
    """Says which days are replayed, and how they are compared."""

    first: date
    """Go-live: the first day whose predictions the strategies score; UTC days of receipt."""
    last: date
    floors: tuple[float, ...] = ()
    """Sampling floors of further rivals, each trained weekly on the rows that it draws."""
    draws: int = 300
    """Bootstrap samples of each interval."""
    seed: int = 0
    """Of the drawn negatives and of the bootstrap."""

    def __post_init__(self) -> None:
        """Check the days.

        Raises:
            InvalidRuleError: they are in the wrong order, or fewer than two weeks.
        """
        days = (self.last - self.first).days + 1
        if days < LEAST_WEEKS * DAYS_PER_WEEK:
            raise InvalidRuleError(
                f"--from {self.first} --to {self.last} are {max(days, 0)} days; valid: at least "
                f"{LEAST_WEEKS * DAYS_PER_WEEK}, since each model is fitted once a week. Try --to "
                f"{self.first + timedelta(days=LEAST_WEEKS * DAYS_PER_WEEK - 1)}"
            )

    def list_weeks(self) -> list[Week]:
        """List the weeks, from the first day on."""
        starts = range(0, (self.last - self.first).days + 1, DAYS_PER_WEEK)
        firsts = [self.first + timedelta(days=start) for start in starts]
        return [Week(first, min(self.last, first + timedelta(days=DAYS_PER_WEEK - 1))) for first in firsts]


def read_day(text: str, option: str) -> date:
    """Read a day as YYYY-MM-DD.

    Raises:
        InvalidRuleError: it is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        received = repr(text) if text else "nothing"
        raise InvalidRuleError(
            f"{option} is {received}; valid: a day as YYYY-MM-DD. Try {option} {date(2026, 3, 1)}"
        ) from None
