"""Reads one application's wheel: counts, days, the next training, versions, production, costs, alarms.

Everything comes from the ledger, daily reports, tables of decisions and the small files of versions, so that a page of
a year-old flywheel costs tenths of a second; and it is read again only after one of them has changed.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from flywheel_assets import records
from flywheel_assets.application import FlywheelApplication
from flywheel_assets.defs.automation.training_rules import Level, TrainingRule, build_rule
from flywheel_assets.errors import FlywheelError
from flywheel_assets.lake.landing.disk import CLOSING_DELAY, EventKind
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    BREAKER_DAYS,
    DRIFT_REPORTS,
    EXCLUSIONS,
    FEEDBACK_SUMMARY,
    LEDGER,
    ROLLBACKS,
    STORAGE,
    TableSpec,
)
from flywheel_assets.lake.upkeep.maintenance import read_storage_history
from flywheel_assets.review.decisions import DecisionIndex
from flywheel_assets.review.samples import ErrorRate, measure_error_rate
from flywheel_assets.settings import Settings
from flywheel_assets.stores import Stores
from flywheel_assets.wheel._accounts import NO_ACCOUNTS, Accounts, read_accounts
from flywheel_assets.wheel._models import Models, Serving, Spent, read_models
from flywheel_assets.wheel._trends import Trend, read_breaches, read_trend

FRESH_S = 5.0
"""Seconds for which a page is shown again without a look at the tables."""
_STUCK_DAYS = 1
_DAILY_RUN = timedelta(hours=3)
"""Time that the daily run, at 00:30 UTC, has for closing a day before the page calls it missing."""
_NOTHING_YET = "nothing is materialized yet: send events, then run `flywheel turn --now -a {}`"


@dataclass(frozen=True)
class Trigger:
    """Says how far the next training is, in the words of the trigger's sensor."""

    sentence: str
    is_due: bool = False
    """A reason to train now is there."""
    share: float | None = None
    """Part of the way to the thresholds, 0 to 1; None: it cannot be said."""


@dataclass(frozen=True)
class Prices:
    """The prices of the settings; None: not set."""

    cpu_hour: float | None
    gpu_hour: float | None
    gib_month: float | None
    currency: str

    @classmethod
    def from_settings(cls, settings: Settings) -> "Prices":
        """Take the prices that the settings name."""
        return cls(settings.price_cpu_hour, settings.price_gpu_hour, settings.price_gib_month, settings.price_currency)

    def price(self, spent: Spent) -> float | None:
        """Price computing time; None: a price that is needed is not set."""
        parts = [(spent.cpu_s, self.cpu_hour), (spent.gpu_s, self.gpu_hour)]
        needed = [(seconds, hour) for seconds, hour in parts if seconds]
        if not needed or any(hour is None for _, hour in needed):
            return None
        return sum(seconds / 3600 * hour for seconds, hour in needed if hour is not None)

    def price_bytes(self, stored: int) -> float | None:
        """Price a month of storage; None: it has no price."""
        return None if self.gib_month is None else stored / 2**30 * self.gib_month

    def describe(self, price: float | None) -> str:
        """Write a price with its currency; a dash where there is none."""
        if price is None:
            return "–"
        return f"{price:,.2f} {self.currency}" if price >= 1 or not price else f"{price:.2g} {self.currency}"


@dataclass(frozen=True)
class Storage:
    """Bytes by stage after the newest maintenance."""

    measured_at: datetime
    stages: tuple[tuple[str, int], ...]
    """Largest first; empty ones are left out."""

    @property
    def total(self) -> int:
        """Return all bytes."""
        return sum(stored for _, stored in self.stages)


@dataclass(frozen=True)
class Alarm:
    """One thing that a person should look at, and the command or page that helps."""

    sentence: str
    remedy: str = ""
    """A command that can be pasted; empty: none is needed."""


@dataclass(frozen=True)
class Landed:
    """Sealed segments of days that are not in the tables yet, on this machine."""

    segments: int
    bytes: int


@dataclass(frozen=True)
class Wheel:
    """Everything that the page shows of one application."""

    application: str
    description: str
    is_text: bool
    today: date
    accounts: Accounts
    trigger: Trigger
    models: Models
    trend: Trend | None
    storage: Storage | None
    alarms: tuple[Alarm, ...]
    errors: ErrorRate
    """Of gold, by the verdicts of this machine's reviewers on drawn rows."""
    sampled_share: float
    """Part of gold's rows that are drawn for them."""
    fingerprint: str
    """Equal for equal numbers."""


class WheelReader:
    """Reads one application's wheel; blocking, safe between threads, and read again only after a change."""

    def __init__(
        self, application: FlywheelApplication, stores: Stores, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.application = application
        self._stores = stores
        self._monotonic = monotonic
        self._lake = stores.lake(application.name)
        self._versions = stores.versions(application.name)
        self._rule: TrainingRule = build_rule(application)
        self._decisions = DecisionIndex(stores.review_index(application.name))
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._wheel: Wheel | None = None
        self._trigger: tuple[str, Trigger] | None = None

    @property
    def name(self) -> str:
        """Return the application's name."""
        return self.application.name

    def read(self, now: datetime) -> Wheel:
        """Read the wheel as it is, at most some seconds ago.

        Raises:
            FlywheelError: a table or a file cannot be read.
        """
        with self._lock:
            moment = self._monotonic()
            is_fresh = self._looked_at is not None and moment - self._looked_at < FRESH_S
            if self._wheel is not None and is_fresh and self._wheel.today == now.date():
                return self._wheel
            fingerprint = self._compute_fingerprint(now)
            if self._wheel is None or self._wheel.fingerprint != fingerprint:
                self._wheel = self._read(now, fingerprint)
            self._looked_at = self._monotonic()
            return self._wheel

    def count_landed(self, now: datetime) -> Landed:
        """Count today's sealed segments on this machine; they are in the tables after the next run."""
        folder = self._stores.landing().find_folder(self.name)
        if folder is None:
            return Landed(0, 0)
        days = [folder / kind.value / f"received_date={now.date().isoformat()}" for kind in EventKind]
        sizes = [file.stat().st_size for day in days if day.is_dir() for file in day.glob("*.jsonl")]
        return Landed(len(sizes), sum(sizes))

    def _compute_fingerprint(self, now: datetime) -> str:
        """Hash the day, the hour, the tables' snapshots and the state of every version's folder."""
        heads: list[tuple[str, int | None]] = []
        if self._lake.is_begun:
            for spec in (LEDGER, BREAKER_DAYS, ROLLBACKS, EXCLUSIONS, STORAGE, self._report):
                head = self._lake.load_table(spec).current_snapshot() if self._lake.has_table(spec) else None
                heads.append((spec.name, None if head is None else head.snapshot_id))
        folders = [
            (folder.version, folder.export.name, folder.is_trained, folder.evaluation.exists(), folder.is_finished)
            for folder in self._versions
        ]
        # The hour: that a day is missing or a version stuck follows from the clock alone.
        decided = self._decisions.path.stat().st_mtime_ns if self._decisions.path.exists() else 0
        return records.make_stable_id("wheel", f"{now:%Y-%m-%d %H}", heads, folders, decided)

    @property
    def _report(self) -> TableSpec:
        return FEEDBACK_SUMMARY if self.application.tables.is_text else DRIFT_REPORTS

    def _read(self, now: datetime, fingerprint: str) -> Wheel:
        lake, tables, today = self._lake, self.application.tables, now.date()
        accounts, trend, storage = NO_ACCOUNTS, None, None
        models = Models((), Serving(None, 1.0))
        trigger = Trigger(_NOTHING_YET.format(self.name))
        breaches = None
        if lake.is_begun and lake.has_table(LEDGER):
            closable = (now - CLOSING_DELAY - _DAILY_RUN).date() - timedelta(days=1)
            accounts = read_accounts(lake, tables, today, closable)
            models = read_models(lake, self._versions, tables.gold, self.application.rollout)
            days = accounts.days.closed + accounts.days.open
            trend = read_trend(lake, tables, accounts.periods, days)
            storage = _read_storage(lake)
            breaches = None if tables.is_text else read_breaches(lake)
            if lake.has_table(tables.gold):
                trigger = self._assess(now, models)
        return Wheel(
            application=self.name,
            description=self.application.description,
            is_text=tables.is_text,
            today=today,
            accounts=accounts,
            trigger=trigger,
            models=models,
            trend=trend,
            storage=storage,
            alarms=tuple(_find_alarms(self.name, accounts, models, breaches, now)),
            errors=measure_error_rate(self._decisions.read_decisions()),
            sampled_share=self._stores.where.review_sampled_share,
            fingerprint=fingerprint,
        )

    def _assess(self, now: datetime, models: Models) -> Trigger:
        """Ask the rule that the trigger's sensor asks, once per content of the closed days."""
        if models.unfinished:
            newest = models.unfinished[0]
            return Trigger(f"{newest.version} is under way: {newest.state}; the trigger waits for its decision")
        try:
            content = self._rule.fingerprint(Level.CONTENT, self._stores, self._lake, self._versions)
            if self._trigger is None or self._trigger[0] != content:
                found = self._rule.assess(self._stores, self._lake, self._versions, now)
                self._trigger = (content, Trigger(found.says, bool(found.reasons), found.share))
            return self._trigger[1]
        except FlywheelError as error:
            return Trigger(f"the trigger cannot be asked: {error}")


def _read_storage(lake: Lake) -> Storage | None:
    history = read_storage_history(lake)
    if not history:
        return None
    newest = {stage: measured[-1] for stage, measured in history.items()}
    stages = sorted(((stage, stored) for stage, (_, stored) in newest.items() if stored), key=lambda each: -each[1])
    return Storage(max(at for at, _ in newest.values()), tuple(stages))


def _find_alarms(
    name: str, accounts: Accounts, models: Models, breaches: tuple[date, list[str]] | None, now: datetime
) -> Iterable[Alarm]:
    days = accounts.days
    if days.tripped:
        more = f" and {len(days.tripped) - 3:,} days before" if len(days.tripped) > 3 else ""
        yield Alarm(
            f"The batch breaker keeps {', '.join(map(str, days.tripped[-3:]))}{more} out of gold.",
            f"flywheel breaker list -a {name}",
        )
    if days.missing:
        last = f"the last closed day is {days.last_closed}" if days.last_closed else "no day is closed"
        yield Alarm(
            f"{days.missing:,} days could be closed and are not in gold, as {last}. Does Dagster run?",
            f"flywheel turn -a {name}",
        )
    if accounts.unbalanced:
        yield Alarm(
            f"Rows of {len(accounts.unbalanced):,} partitions do not add up, first {accounts.unbalanced[0]}.",
            f"flywheel verify -a {name}",
        )
    for version in models.unfinished:
        if version.began_at is not None and now - version.began_at > timedelta(days=_STUCK_DAYS):
            yield Alarm(
                f"{version.version} began on {version.began_at:%Y-%m-%d} and is {version.state}.",
                f"flywheel retry {version.version} -a {name}",
            )
    if breaches is not None:
        day, fields = breaches
        more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
        yield Alarm(f"Fields drifted in the week up to {day}: {'; '.join(fields[:3])}{more}.")
