"""A lake and a landing zone in a temporary folder, and the daily steps with everything but the day filled in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind, LandingZone
from flywheel_assets.lake.storage.files import sync_folder
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    CURATED_DPO_PAIRS,
    PREFERENCE_TABLES,
    QUARANTINE,
    ApplicationTables,
    TableSpec,
)
from flywheel_assets_tests.builders import APPLICATION, DAY, table

LONG_AFTER = datetime.combine(DAY, time(12), UTC) + timedelta(days=200)
"""When every day that a test uses is closed."""


def stamp(now: datetime = LONG_AFTER, run_id: str = "run") -> RunStamp:
    return RunStamp(run_id, "1", now)


@dataclass
class Workbench:
    """One application's files under `root`."""

    root: Path
    start: date = DAY
    window: JoinWindow = field(default_factory=JoinWindow)
    tables: ApplicationTables = PREFERENCE_TABLES
    application: str = APPLICATION
    limits: BreakerLimits = field(default_factory=BreakerLimits)

    def __post_init__(self) -> None:
        self.lake = self.open_lake()
        self.landing = self.root / "landing"

    def open_lake(self) -> Lake:
        """The lake as another process would open it."""
        return Lake(
            self.application,
            f"sqlite:///{self.root}/catalog.db?timeout=60",
            f"file://{self.root}/warehouse",
            self.root / "scratch",
        )

    def zone(self, kind: EventKind) -> LandingZone:
        return LandingZone(self.landing, self.application, kind)

    def land(
        self, kind: EventKind, day: date, rows: Iterable[Mapping[str, Any] | bytes], name: str = "segment"
    ) -> Path:
        """Publish a segment as capture does; bytes are lines of their own."""
        zone = self.zone(kind)
        zone.open_folder.mkdir(parents=True, exist_ok=True)
        path = zone.open_folder / f"{name}.jsonl"
        lines = [row if isinstance(row, bytes) else msgspec.json.encode(row) for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        sync_folder(zone.open_folder)
        return zone.publish(path, day)

    def ingest(self, kind: EventKind, days: Sequence[date], now: datetime = LONG_AFTER) -> dict[date, LedgerEntry]:
        return ingest_days(self.lake, DiskLanding(self.landing), kind, days, stamp(now), self.tables)

    def ingest_both(self, days: Sequence[date], now: datetime = LONG_AFTER) -> None:
        for kind in EventKind:
            self.ingest(kind, days, now)

    def join(self, days: Sequence[date]) -> dict[date, LedgerEntry]:
        return join_days(self.lake, days, self.start, self.window, stamp(), self.tables)

    def curate(self, days: Sequence[date]) -> dict[date, LedgerEntry]:
        return curate_days(self.lake, days, self.start, GateRules(), self.limits, stamp())

    def write(self, spec: TableSpec, day: date, rows: Sequence[Mapping[str, Any]], stage: str | None = None) -> None:
        """Replace one partition by these rows."""
        write_day(self.lake, spec, day, rows, stage)

    def rows(self, spec: TableSpec, days: Iterable[date] | None = None) -> list[dict[str, Any]]:
        """What the table holds, in a fixed order."""
        found: list[dict[str, Any]] = self.lake.read(spec, days).to_pylist()
        keys = [name for name in (spec.day_column, spec.stage_column, *spec.order_by) if name]
        return sorted(found, key=lambda row: tuple(str(row[key]) for key in keys))

    def refusals(self, stage: str) -> list[dict[str, Any]]:
        return [row for row in self.rows(QUARANTINE) if row["stage"] == stage]


def write_day(
    lake: Lake, spec: TableSpec, day: date, rows: Sequence[Mapping[str, Any]], stage: str | None = None
) -> None:
    with lake.connect() as connection:
        connection.register("given", table(spec.schema, rows))
        file = lake.write_day(connection, spec, day, "SELECT * FROM given")
    lake.replace_days(spec, [day], {day: file} if file else {}, {"flywheel.run-id": "run"}, stage)


def head(lake: Lake, spec: TableSpec = CURATED_DPO_PAIRS) -> int:
    """The number of the snapshot that readers of a table see."""
    snapshot = lake.load_table(spec).current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def landing_of(bench: Workbench) -> ErasableLanding:
    """The landing zone as an erasure rewrites it."""
    return ErasableLanding(bench.application, bench.landing, bench.root / "scratch" / "landing")
