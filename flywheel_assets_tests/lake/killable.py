"""The daily work and the version cuts of two applications as numbered steps, for processes that are killed in between.

Processes are forked from one that has imported everything: a kill then costs 30 ms, not the three seconds of imports.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import msgspec
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.orm import Session

from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.mine_days import mine_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, PREFERENCE_TABLES, list_tables
from flywheel_assets.lake.tables.tags import create_tag
from flywheel_assets.lake.upkeep.garbage import (
    expire_snapshots,
    find_unfinished_work,
    list_needed_paths,
    remove_unfinished,
    sweep_table,
)
from flywheel_assets.lake.versions import cutting as versions_module
from flywheel_assets.lake.versions import exports as exports_module
from flywheel_assets.lake.versions import pins as pins_module
from flywheel_assets.lake.versions.example_versions import ExampleRules, cut_example_version
from flywheel_assets.lake.versions.exports import hash_manifest, verify_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import DAY, day, make_feedback, make_gold, make_prediction
from flywheel_assets_tests.lake.labelled import CONTRACT, label, score
from flywheel_assets_tests.lake.workbench import Workbench, stamp, write_day

ASSISTANT, FRAUD = "assistant", "fraud"
PAIRS = ResolutionRules(holdout_share=0.2)
EXAMPLES = ExampleRules(
    contract=CONTRACT, mining=MiningRules(maturity_days=1, sampling=SamplingRules(floor=1.0)), evaluation_weeks=1
)
FIRST_CUT_DAYS = 10
"""A classification version needs this many closed days: two of maturity, seven to be judged on, one to train on."""

AFTER_ALL = datetime(2100, 1, 1, tzinfo=UTC)

forked = multiprocessing.get_context("forkserver")
# With what pyiceberg, pyarrow and SQLAlchemy import only when they are asked for something: 0.5 s in each process.
_LATE = ["pandas", "pyarrow.dataset", "pyiceberg.io.pyarrow", "rich.console", "sqlalchemy.dialects.sqlite", "sqlite3"]
forked.set_forkserver_preload(["__main__", __name__, "flywheel_assets.lake.tables.iceberg", *_LATE])


@dataclass(frozen=True)
class Step:
    """One write of a range of days, or one version cut; given again it comes to the same."""

    application: str
    action: str
    days: tuple[date, ...] = ()
    version: str = ""

    def __str__(self) -> str:
        return f"{self.application} {self.action} {self.version or self.days[-1]}"


def plan(assistant_days: int, assistant_cuts: int, fraud_cuts: int) -> list[Step]:
    """Days of both applications, each four writes, a cut after each of the last of them, and upkeep now and then."""
    steps: list[Step] = []
    for offset in range(assistant_days):
        steps += _writes(ASSISTANT, "curate", (day(offset),))
        if (number := offset - (assistant_days - assistant_cuts) + 1) > 0:
            steps.append(Step(ASSISTANT, "cut", version=f"dpo_gold_v{number}"))
    for number in range(1, fraud_cuts + 1):
        first, last = (0, FIRST_CUT_DAYS - 1) if number == 1 else (FIRST_CUT_DAYS + number - 2,) * 2
        steps += _writes(FRAUD, "mine", tuple(ledger.list_days(day(first), day(last))))
        steps.append(Step(FRAUD, "cut", version=f"fraud_gold_v{number}"))
    for position in range(len(steps) - len(steps) % 12, 0, -12):
        steps.insert(position, replace(steps[position - 1], action="collect"))
    return steps


def _writes(application: str, last: str, days: tuple[date, ...]) -> list[Step]:
    return [Step(application, action, days) for action in (*EventKind, "join", last)]


@dataclass
class Wheel:
    """Both applications' data under one root, sharing catalog, scratch and warehouse."""

    root: Path
    benches: dict[str, Workbench] = field(init=False)
    versions: dict[str, Versions] = field(init=False)

    def __post_init__(self) -> None:
        kinds = {ASSISTANT: PREFERENCE_TABLES, FRAUD: CLASSIFICATION_TABLES}
        self.benches = {name: Workbench(self.root, tables=kind, application=name) for name, kind in kinds.items()}
        self.versions = {name: Versions(self.root / "versions", name) for name in kinds}

    def run(self, step: Step) -> None:
        """Do one step."""
        bench, versions = self.benches[step.application], self.versions[step.application]
        match step.action:
            case EventKind.PREDICTION | EventKind.FEEDBACK:
                bench.ingest(EventKind(step.action), step.days)
            case "join":
                bench.join(step.days)
            case "curate":
                bench.curate(step.days)
            case "mine":
                mine_days(bench.lake, step.days, bench.start, bench.window, CONTRACT, EXAMPLES.mining, stamp())
            case "collect":
                self.collect(step.application)
            case "cut" if step.application == ASSISTANT:
                cut_pair_version(bench.lake, versions, step.version, PAIRS, "1")
            case _:
                cut_example_version(bench.lake, versions, step.version, EXAMPLES, "1")

    def collect(self, application: str) -> int:
        """Expire what is no head and no tag, delete what nothing reaches; returns how many files went."""
        bench = self.benches[application]
        deleted = 0
        for spec in list_tables(bench.tables):
            expire_snapshots(bench.lake, spec, AFTER_ALL)
            deleted += sweep_table(bench.lake, spec, timedelta(0), AFTER_ALL).deleted.files
        return deleted + remove_unfinished(
            find_unfinished_work(bench.lake.scratch, self.versions[application]), AFTER_ALL
        )

    def contents(self) -> dict[str, Any]:
        """Everything that must not depend on how often the work was killed, row by row; the ledger is among it."""
        found: dict[str, Any] = {}
        for name, bench in self.benches.items():
            for spec in list_tables(bench.tables):
                if bench.lake.has_table(spec):
                    found[f"{name}.{spec.name}"] = bench.rows(spec)
            for folder in self.versions[name]:
                manifest = msgspec.structs.asdict(verify_manifest(folder.export))
                # Iceberg draws the number of a snapshot by lot.
                found[folder.version] = {key: value for key, value in manifest.items() if key != "snapshot_id"}
        return found

    def verified_exports(self) -> int:
        """How many exports are visible; each of them must be whole.

        Raises:
            FlywheelError: one is torn.
        """
        folders = [folder for versions in self.versions.values() for folder in versions if folder.export.exists()]
        for folder in folders:
            verify_manifest(folder.export)
        return len(folders)

    def strays(self) -> list[Path]:
        """Files that nothing reaches: of tables, of days under construction, of exports without their name."""
        found = list((self.root / "scratch").rglob("*.parquet"))
        found += [path for path in (self.root / "versions").rglob("*") if path.name.startswith(".")]
        for bench in self.benches.values():
            for spec in list_tables(bench.tables):
                if bench.lake.has_table(spec):
                    table = bench.lake.load_table(spec)
                    folder = Path(table.location().removeprefix("file://"))
                    needed = list_needed_paths(table)
                    found += [path for path in folder.rglob("*") if path.is_file() and str(path) not in needed]
        return found


def landed(steps: Sequence[Step], *roots: Path) -> list[Wheel]:
    """In each root the same days that `steps` need: late, repeated and malformed events among it."""
    wheels = [Wheel(root) for root in roots]
    for name, last in {step.application: step.days[-1] for step in steps if step.days}.items():
        for on in ledger.list_days(DAY, last):
            land_day(wheels, name, on)
    return wheels


def land_day(wheels: Sequence[Wheel], application: str, on: date) -> None:
    """Land one day's events of an application, the same in each wheel: late, repeated and malformed ones among it."""
    rows = _edits if application == ASSISTANT else _payments
    for kind, events in zip(EventKind, rows(on), strict=True):
        for wheel in wheels:
            wheel.benches[application].land(kind, on, events)


def _edits(on: date) -> tuple[list[Any], list[Any]]:
    received = datetime.combine(on, time(12), UTC)
    predictions, feedback = [], []
    for number in range(6):
        name = f"{on} {number}"
        ids = {"prediction_id": name, "user_id": f"user {number}", "received_at": received, "occurred_at": received}
        predictions.append(make_prediction(event_id=f"p {name}", prompt=f"How is valve {name} set?", **ids))
        words = {"prompt": f"How is valve {name} set?", "original_output": f"Turn valve {name} by hand, then wait."}
        edited = f"Close valve {name} with the key and note the pressure."
        feedback.append(make_feedback(event_id=f"f {name}", final_text=edited, **words, **ids))
    late = {"prediction_id": f"{DAY} {on.day % 6}", "received_at": received, "occurred_at": received}
    nothing = {"prompt": None, "prompt_format": None, "original_output": None, "final_text": None}
    feedback.append(make_feedback(event_id=f"late {on}", signal="accept", **nothing, **late))
    return [*predictions, predictions[0], b"{"], [*feedback, feedback[0], b"no event"]


def _payments(on: date) -> tuple[list[Any], list[Any]]:
    names = [f"{on} {number}" for number in range(6)]
    scores = [score(on, name, score=0.3, user_id=f"card {name}") for name in names]
    return scores, [label(on, name, user_id=f"card {name}") for name in names[:2]]


def work(root: Path, steps: Sequence[Step], first: int, told: Connection) -> None:
    """Do `steps` from the one numbered `first`; tells that it begins by -1, then the number of each that is done."""
    wheel = Wheel(root)
    told.send(-1)
    for number in range(first, len(steps)):
        wheel.run(steps[number])
        told.send(number)


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Run a function of this module in a process of its own."""
    process = forked.Process(target=target, args=arguments)
    process.start()
    return process


@dataclass(frozen=True)
class Point:
    """A moment in the code: just before, or just after, the first call of a function."""

    owner: Any
    name: str
    after: bool = False


POINTS = {
    "rows built, table untouched": Point(Lake, "place"),
    "data file placed, no manifest": Point(Lake, "place", after=True),
    "manifests written, no metadata": Point(MetastoreCatalog, "_write_metadata"),
    "metadata written, catalog untouched": Point(MetastoreCatalog, "_write_metadata", after=True),
    "catalog written, not committed": Point(Session, "commit"),
    "committed, old metadata not deleted, locked": Point(SqlCatalog, "commit_table", after=True),
    "committed, unlocked, quarantine of before": Point(Lake, "commit", after=True),
    "tables done, ledger of before": Point(ledger, "record_entries"),
    "ledger done, nobody told": Point(ledger, "record_entries", after=True),
}
"""Where a write can be cut in two, in the order of its steps."""
CUT_POINTS = {
    "a hold's metadata written": Point(MetastoreCatalog, "_write_metadata", after=True),
    "gold held, nothing pinned": Point(pins_module, "keep_head", after=True),
    "all held, nothing pinned": Point(pins_module, "write_once"),
    "pinned": Point(pins_module, "write_once", after=True),
    "resolved, not tagged": Point(versions_module, "create_tag"),
    "tagged": Point(versions_module, "create_tag", after=True),
    "one file of the export written": Point(exports_module, "write_synced", after=True),
    "export written, without its name": Point(os, "rename"),
    "export visible, nobody told": Point(versions_module, "write_export", after=True),
    "snapshots let go, nobody told": Point(versions_module, "release_snapshots", after=True),
}
"""Where a version cut can be cut in two."""


def die_at(name: str, root: Path, step: Step) -> None:
    """Do a step and be killed, as by `kill -9`, at one of the points above."""
    point = {**POINTS, **CUT_POINTS}[name]
    wheel = Wheel(root)
    # What opening the catalog writes is not what is meant.
    assert wheel.benches[step.application].lake.catalog
    real = getattr(point.owner, point.name)

    def watched(*arguments: Any, **keywords: Any) -> Any:
        if point.after:
            real(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    is_static = isinstance(vars(point.owner).get(point.name), staticmethod)
    setattr(point.owner, point.name, staticmethod(watched) if is_static else watched)
    wheel.run(step)


def cut_together(root: Path, steps: Sequence[Step], together: Barrier, told: Connection) -> None:
    """Cut versions, each at the same moment as the other processes; tells of each its manifest or the error."""
    wheel = Wheel(root)
    assert wheel.benches[steps[0].application].lake.catalog
    for step in steps:
        together.wait(60)
        try:
            wheel.run(step)
        except Exception as error:
            told.send(f"{type(error).__name__}: {error}")
        else:
            told.send(hash_manifest(wheel.versions[step.application].folder(step.version).export))


def write_and_tag(root: Path, on: date, rounds: int, told: Connection) -> None:
    """Replace a day of gold again and again and tag the head; tells of each tag the text that its day must hold."""
    lake = Workbench(root).lake
    gold = PREFERENCE_TABLES.gold
    for number in range(rounds):
        text = f"text {number} of {on}"
        write_day(lake, gold, on, [make_gold(completed_date=on, chosen=text)])
        head = lake.load_table(gold).current_snapshot()
        assert head is not None
        name = f"of_{on}_{number}".replace("-", "_")
        try:
            create_tag(lake, gold, name, head.snapshot_id)
        except UnknownNameError as error:
            told.send((None, str(error)))
        else:
            told.send((name, text))


def collect_until(root: Path, over: Event, told: Connection) -> None:
    """Expire and sweep with no grace at all until told to stop; tells how many files went."""
    lake = Workbench(root).lake
    deleted = 0
    while not over.is_set():
        expire_snapshots(lake, PREFERENCE_TABLES.gold, AFTER_ALL)
        deleted += sweep_table(lake, PREFERENCE_TABLES.gold, timedelta(0), AFTER_ALL).deleted.files
    told.send(deleted)
