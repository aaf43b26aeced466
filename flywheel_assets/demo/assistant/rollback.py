"""Plays the epilogue: a challenger that passed the promotion gate is worse for people, and is taken back by itself.

The second promoted version is real, and so is its decision. Planted is a fault that no evaluation can see: after an
update the serving engine does not load its adapter, so that the base model answers under its name. Half of the users
get it, assigned by the client's router from the hook's event; the other half keeps the version before. No line here
takes anything back: the daily jobs do.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from typing import Protocol

from rich.console import Console

from flywheel_assets.demo.assistant.play import ArmCounts
from flywheel_assets.errors import SettingsError

SHARE = 0.5
"""Of the users who get the challenger. With 300 people a tenth of them would prove gross harm in weeks only."""
MAX_DAYS = 8


@dataclass(frozen=True)
class DayEnd:
    """The end of one day of a rollout: the watch's finding, and the state after the rollout's job."""

    summary: str
    """The watch's sentence."""
    check_passed: bool
    champion: str | None
    """The version that the alias names."""
    audited: Mapping[str, object] | None
    """The audit table's row of a rollback, where there is one."""


class Production(Protocol):
    """The flywheel of an assistant whose model is rolled out by share, as the epilogue drives it."""

    def roll_out(self, share: float) -> None:
        """Give the champion a share of the users, and announce it to the serving side."""
        ...

    def read_event(self) -> Mapping[str, object]:
        """Read the last event that the serving side got from the promotion hook."""
        ...

    def end_day(self, day: date) -> DayEnd:
        """Run a closed day's jobs: from landing to gold, the reports with the watch, and the rollout's step."""
        ...


@dataclass(frozen=True, kw_only=True)
class RollbackReport:
    """The epilogue in numbers."""

    challenger: str
    predecessor: str
    share: float
    days: tuple[Mapping[str, ArmCounts], ...]
    """By day, by version."""
    was_taken_back: bool
    answers: int
    """Of both models, from the begin of the rollout until it was taken back."""
    answers_of_challenger: int
    reason: str
    """The watch's sentence as the audit table keeps it; empty where nothing was taken back."""
    event_kind: str
    """Of the last event that the serving side got."""
    seconds: float

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        if not self.was_taken_back:
            return f"{self.challenger} was not taken back within {len(self.days)} days: {self.answers} answers."
        return (
            f"{self.challenger} was taken back by itself after {self.answers} answers in {len(self.days)} days, "
            f"{self.answers_of_challenger} of them its own; {self.predecessor} serves again. The hook announced a "
            f"{self.event_kind}; the audit table says why: {self.reason}"
        )


def play_rollback(
    production: Production,
    play_day: Callable[[date, Callable[[str], str]], Mapping[str, ArmCounts]],
    challenger: str,
    predecessor: str,
    first_day: date,
    console: Console,
) -> RollbackReport:
    """Roll a challenger out to half of the users, and play days until it is taken back, eight at most.

    Args:
        production: the flywheel whose champion is `challenger`.
        play_day: plays one day with a router, which maps a user to a version, and counts by version.
        challenger: the version that is rolled out, and answers with its fault.
        predecessor: the version that keeps the other users.
        first_day: the first day after the story.
        console: gets one line a day, and the result.

    Raises:
        CaptureUnavailableError: capture refused or lost something.
    """
    started = time.monotonic()
    console.rule("[bold]epilogue: a model that passed, and is worse in production")
    console.print(
        f"{SHARE:.0%} of the users get {challenger}; a planted fault: the serving engine does not load its adapter, "
        "and the base model answers under its name",
        highlight=False,
    )
    production.roll_out(SHARE)
    days: list[Mapping[str, ArmCounts]] = []
    ended: DayEnd | None = None
    while len(days) < MAX_DAYS and (ended is None or ended.audited is None):
        day = first_day + timedelta(days=len(days))
        counts = play_day(day, _build_router(production.read_event()))
        ended = production.end_day(day)
        days.append(counts)
        shown = ", ".join(f"{version} {each.edited} of {each.answers} edited" for version, each in counts.items())
        console.print(f"{day}: {shown}. The watch: {ended.summary}", markup=False, highlight=False)
    audited = ended.audited if ended is not None else None
    report = RollbackReport(
        challenger=challenger,
        predecessor=predecessor,
        share=SHARE,
        days=tuple(days),
        was_taken_back=ended is not None and audited is not None and ended.champion == predecessor,
        answers=sum(each.answers for counts in days for each in counts.values()),
        answers_of_challenger=sum(counts[challenger].answers for counts in days),
        reason=str(audited["reason"]) if audited else "",
        event_kind=str(production.read_event()["kind"]),
        seconds=time.monotonic() - started,
    )
    console.print(report.sentence, markup=False, highlight=False)
    return report


def require_router() -> None:
    """Look for the Python client, whose router assigns the users.

    Raises:
        SettingsError: it is not installed.
    """
    if find_spec("flywheel_client") is None:
        raise SettingsError(
            "the epilogue assigns users by the client's router, which is not installed: pip install flywheel-client "
            "(in a checkout of this project: pip install ./clients/python)"
        )


def _build_router(event: Mapping[str, object]) -> Callable[[str], str]:
    from flywheel_client import assign_by_event

    return lambda user_id: assign_by_event(user_id, event) or "base"
