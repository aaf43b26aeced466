"""A classifier's history on its own days: the tables equal those of a flywheel that was there at the time.

Twelve days of decisions and late labels come in the team's own JSON: day by day as they happened; as two files of
history into a flywheel that begins today; and half of them live, half as history into days that were closed long ago.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.applications import fraud
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.sinks import LogSink
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.formats.reading.sources import find_sources
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import RunStamp, read_entries
from flywheel_assets.lake.daily.mine_days import mine_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    GROUND_TRUTH,
    HARD_EXAMPLES,
    JOINED_LABELS,
    QUARANTINE,
    RAW_SCORES,
    TableSpec,
)
from flywheel_assets_tests.command_line import flywheel

pytestmark = pytest.mark.long

TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=40)
DAYS = [FIRST + timedelta(days=number) for number in range(12)]
CONFIG = replace(
    fraud.APPLICATION,
    start_date=FIRST,
    window=JoinWindow(join_days=5, dedupe_days=2),
    mining=replace(fraud.APPLICATION.mining, maturity_days=3),
)
TABLES = (RAW_SCORES, GROUND_TRUTH, JOINED_LABELS, HARD_EXAMPLES, QUARANTINE)
ABOUT_RECEIPT = {"received_at", "feedback_received_at", "label_received_at"}
"""Columns that say when a row was received: history is received when it is imported."""
Happening = tuple[date, dict[str, Any]]
"""A line of a file, and the day on which a flywheel that was there received it."""


def decide(on: date, name: str, score: float, hour: int = 9) -> Happening:
    features = {each: 1.5 if kind == fraud.NUMBER else False for each, kind in CONFIG.contract.features.items()}
    at = datetime.combine(on, time(hour), UTC).isoformat()
    decided = {"transaction_id": name, "card_id": f"card of {name}", "timestamp": at, "features": features}
    return on, {**decided, "prediction": {"fraud_probability": score}}


def label(on: date, name: str, is_fraud: bool, source: str = "chargeback", hour: int = 14) -> Happening:
    at = datetime.combine(on, time(hour), UTC).isoformat()
    truth = {"is_fraud": is_fraud, "labeling_source": source, "timestamp": at}
    return on, {"transaction_id": name, "ground_truth": truth}


@cache
def world() -> tuple[Happening, ...]:
    """What happened: timely, late, too late and early labels, retries, second opinions, silence."""
    found: list[Happening] = []
    for number, on in enumerate(DAYS):
        found += [decide(on, f"t {number} {which}", 0.1 + 0.15 * which) for which in range(6)]
        found.append(found[-1])  # the service sent it again
        found.append(label(on, f"t {number} 0", is_fraud=False, source="analyst"))
        found.append(label(on, f"never decided {number}", is_fraud=True))
        for late, which in ((2, 1), (4, 2), (7, 3)):  # the last is later than the window
            if number >= late:
                found.append(label(on, f"t {number - late} {which}", is_fraud=True))
        if number >= 3:  # the bank decides otherwise than the analyst
            found.append(label(on, f"t {number - 3} 0", is_fraud=True, hour=15))
        if number + 1 < len(DAYS):  # before its decision has arrived
            found.append(label(on, f"t {number + 1} 4", is_fraud=True, hour=23))
    return tuple(found)


class Home:
    """One installation in a folder."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, start: date) -> None:
        self.root, self.patch = root, patch
        self.config: ClassificationApplication = replace(CONFIG, start_date=start)
        self.stores = Stores(home=str(root))
        self.lake = self.stores.lake("fraud")
        self.reload()

    def reload(self) -> None:
        """Load the code location again, as `flywheel dev` does when it starts."""
        self.patch.setattr(fraud, "APPLICATION", self.config)
        self.patch.setattr(fraud, "defs", classification_flywheel(self.config, self.stores))

    def write(self, happenings: Sequence[Happening]) -> list[str]:
        """Write decisions and labels into a file each, as a team exports them."""
        files = {"prediction": self.root / "decisions.jsonl", "ground_truth": self.root / "labels.jsonl"}
        for part, path in files.items():
            path.write_text("".join(json.dumps(line) + "\n" for _, line in happenings if part in line))
        return [str(path) for path in files.values() if path.stat().st_size]

    def live(self, on: date, happenings: Sequence[Happening]) -> None:
        """Receive a day's events on that day, and make the day when it is over."""
        evening = datetime.combine(on, time(23, 55), UTC)
        files = self.write([each for each in happenings if each[0] == on])
        with SegmentLog(self.root / "landing", clock=lambda: evening) as log:
            plan = ImportPlan(application="fraud", contract=self.config.contract)
            imported = import_files(find_sources(files).sources, plan, LogSink(log, "fraud"), lambda: evening)
            assert not imported.refused, imported.causes
        config = self.config
        stamp = RunStamp("live", "1", datetime.combine(on + timedelta(days=1), time(0, 30), UTC))
        for kind in EventKind:
            ingest_days(self.lake, self.stores.landing(), kind, [on], stamp, CLASSIFICATION_TABLES)
        join_days(self.lake, [on], FIRST, config.window, stamp, CLASSIFICATION_TABLES)
        mine_days(self.lake, [on], FIRST, config.window, config.contract, config.mining, stamp)

    def import_history(self, happenings: Sequence[Happening]) -> str:
        imported = flywheel(
            self.root, "import", *self.write(happenings), "-a", "fraud", "--history", "--reason", "moved"
        )
        assert imported.returncode == 0, imported.stdout + imported.stderr
        self.reload()
        return imported.stdout

    def backfill(self) -> None:
        done = flywheel(self.root, "backfill", str(DAYS[0]), str(DAYS[-1]), "-a", "fraud")
        assert done.returncode == 0, done.stderr + done.stdout

    def rows(self, spec: TableSpec) -> list[str]:
        """Every row of the days, without what says when it was received, in a fixed order."""
        found = self.lake.read(spec, DAYS).to_pylist()
        return sorted(
            json.dumps({key: value for key, value in row.items() if key not in ABOUT_RECEIPT}, default=str)
            for row in found
        )

    def accounts(self) -> dict[tuple[str, date], tuple[Any, ...]]:
        """Count what each day keeps; a repeated event lands once in history."""
        return {
            (spec.name, day): (each.rows_kept, each.is_closed)
            for spec in TABLES
            for day, each in read_entries(self.lake, spec.name, DAYS).items()
        }


@pytest.fixture(scope="module")
def was_there() -> Iterator[Home]:
    """The flywheel that was there: fed and materialized day by day."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home = Home(Path(folder), patch, FIRST)
        for on in DAYS:
            home.live(on, world())
        yield home


def compare(home: Home, was_there: Home) -> None:
    """Compare every row of every table, and each day's counts."""
    for spec in TABLES:
        there = was_there.rows(spec)
        assert there, spec.name
        assert home.rows(spec) == there, spec.name
    assert home.accounts() == was_there.accounts()
    assert "every day is fresh" in flywheel(home.root, "stale", "-a", "fraud").stdout


def test_the_world_holds_every_kind_of_example(was_there: Home) -> None:
    examples = was_there.lake.read(HARD_EXAMPLES).to_pylist()
    assert {row["labeling_source"] for row in examples} == {"chargeback", "analyst", "silence"}
    assert {row["reason"] for row in was_there.lake.read(QUARANTINE).to_pylist()} == {
        "disputed",
        "label_after_window",
        "no_prediction_in_window",
    }


def test_history_into_an_empty_flywheel_gives_the_tables_of_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: Home
) -> None:
    home = Home(tmp_path, monkeypatch, TODAY)
    assert f"fraud now begins on {FIRST}" in home.import_history(world())
    home.backfill()
    compare(home, was_there)
    assert "nothing new: no day has changed" in home.import_history(world())


@pytest.mark.parametrize(
    "is_live",
    [lambda number, line: "prediction" in line, lambda number, line: number % 2 == 0],
    ids=["the labels are missing", "every second line is missing"],
)
def test_history_into_closed_days_gives_the_tables_of_a_flywheel_that_had_it_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    was_there: Home,
    is_live: Callable[[int, dict[str, Any]], bool],
) -> None:
    live = [each for number, each in enumerate(world()) if is_live(number, each[1])]
    home = Home(tmp_path, monkeypatch, FIRST)
    for on in DAYS:
        home.live(on, live)
    assert "reopened: " in home.import_history([each for each in world() if each not in live])
    assert flywheel(tmp_path, "stale", "-a", "fraud").returncode == 1
    home.backfill()
    compare(home, was_there)
