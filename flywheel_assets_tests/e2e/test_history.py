"""History on its own days: the tables equal those of a flywheel that was there at the time.

One world of twelve days comes in three ways: day by day as it happened; as one file of history into a flywheel that
begins today; and half of it live, half as history into days that were closed long ago. Only what says when a row was
received may differ.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from flywheel_assets.applications import assistant
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.sinks import LogSink
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Stores
from flywheel_assets.formats.reading.sources import find_sources
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import RunStamp, read_entries
from flywheel_assets.lake.daily.reports import summarize_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import (
    CURATED_DPO_PAIRS,
    FEEDBACK_SUMMARY,
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    QUARANTINE,
    RAW_PREDICTIONS,
    TableSpec,
)
from flywheel_assets.lake.versions.exports import read_manifest
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests.command_line import flywheel

pytestmark = pytest.mark.long

TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=40)
DAYS = [FIRST + timedelta(days=number) for number in range(12)]
LAST = DAYS[-1]
CONFIG = replace(
    assistant.APPLICATION, start_date=FIRST, window=JoinWindow(join_days=5, dedupe_days=2), name="assistant"
)
TABLES = (RAW_PREDICTIONS, GROUND_TRUTH, JOINED_FEEDBACK, CURATED_DPO_PAIRS, QUARANTINE, FEEDBACK_SUMMARY)
ABOUT_RECEIPT = {"received_at", "feedback_received_at"}
"""Columns that say when a row was received: history is received when it is imported."""
EDITED = (
    ("Add a retry to the upload", "upload(file)", "upload(file, attempts=3)"),
    ("Explain the error", "It is a timeout.", "The server did not answer within 30 seconds; raise `timeout`."),
    ("Name the table", "table = read('x')", "orders = read('orders')"),
)


@dataclass(frozen=True)
class Happening:
    """One line of a file, and the day on which a flywheel that was there received it."""

    on: date
    line: dict[str, Any]


def at(day: date, hour: int, minute: int = 0) -> str:
    return datetime.combine(day, time(hour, minute), UTC).isoformat()


@cache
def world() -> tuple[Happening, ...]:
    """What happened: edits, thumbs, late and early feedback, retries, corrections, retractions, events without use."""
    found: list[Happening] = []
    for number, on in enumerate(DAYS):

        def note(line: dict[str, Any], on: date = on) -> None:
            found.append(Happening(on, line))

        for which, (prompt, output, final) in enumerate(EDITED):
            line = {
                "id": f"edit {number} {which}",
                "prompt": f"{prompt} of job {number}-{which}",
                "original_llm_output": f"{output} # {number}",
                "final_user_edit": f"{final} # {number} was read by person {which}",
                "user_id": f"person {(number + which) % 5}",
                "occurred_at": at(on, 9, which),
            }
            note(line)
            if which == 0:
                note(line)  # the client sent it again
        unchanged = {"prompt": f"same {number}", "original_llm_output": "a b", "final_user_edit": "a b"}
        note({**unchanged, "id": f"same {number}", "occurred_at": at(on, 10)})
        for which in range(3):
            data = {
                "prediction_id": f"p {number} {which}",
                "prompt": f"Ask {number} {which}?",
                "output": f"So {which}.",
            }
            note(event("prediction", f"p {number} {which}", at(on, 8, which), data, user=f"person {which}"))
        thumb = {"prediction_id": f"p {number} 0", "signal": "thumb", "value": 1.0 if number % 3 else -1.0}
        note(event("feedback", f"thumb {number}", at(on, 11), thumb, user="person 0"))
        if number >= 3:  # three days late
            late = {"prediction_id": f"p {number - 3} 1", "signal": "accept"}
            note(event("feedback", f"late {number}", at(on, 12), late, user="person 1"))
        if number >= 8:  # later than the window
            late = {"prediction_id": f"p {number - 8} 2", "signal": "copy"}
            note(event("feedback", f"too late {number}", at(on, 12, 5), late, user="person 2"))
        if number + 1 < len(DAYS):  # before its prediction
            early = {"prediction_id": f"p {number + 1} 2", "signal": "copy"}
            note(event("feedback", f"early {number}", at(on, 23, 50), early, user="person 2"))
        if number % 4 == 2:  # what was said two days ago is taken back, or said better
            undone = {"prediction_id": f"p {number - 2} 0", "signal": "retract"}
            note(event("feedback", f"undo {number}", at(on, 13), undone, user="person 0"))
            better = {**next(each.line for each in found if each.line.get("id") == f"edit {number - 2} 1")}
            note({**better, "final_user_edit": f"Better: {better['final_user_edit']}", "occurred_at": at(on, 14)})
    return tuple(found)


def event(kind: str, name: str, when: str, data: Mapping[str, Any], user: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": name,
        "source": "app",
        "type": f"flywheel.{kind}",
        "time": when,
        "data": {**data, "user_id": user},
    }


class Home:
    """One installation in a folder."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, start: date) -> None:
        self.root = root
        self.patch = patch
        self.config = replace(CONFIG, start_date=start)
        self.stores = Stores(home=str(root))
        self.lake = self.stores.lake("assistant")
        self.reload()

    def reload(self) -> None:
        """Load the code location again, as `flywheel dev` does when it starts."""
        self.patch.setattr(assistant, "APPLICATION", self.config)
        self.patch.setattr(assistant, "defs", preference_flywheel(self.config, self.stores))

    def write(self, happenings: Sequence[Happening]) -> Path:
        path = self.root / "events.jsonl"
        path.write_text("".join(json.dumps(each.line) + "\n" for each in happenings))
        return path

    def live(self, on: date, happenings: Sequence[Happening]) -> None:
        """Receive a day's events on that day, and make the day when it is over."""
        noon = datetime.combine(on, time(23, 55), UTC)
        file = self.write([each for each in happenings if each.on == on])
        with SegmentLog(self.root / "landing", clock=lambda: noon) as log:
            sink = LogSink(log, "assistant")
            plan = ImportPlan(application="assistant")
            assert not import_files(find_sources([str(file)]).sources, plan, sink, lambda: noon).refused
        stamp = RunStamp("live", "1", datetime.combine(on + timedelta(days=1), time(0, 30), UTC))
        for kind in EventKind:
            ingest_days(self.lake, self.stores.landing(), kind, [on], stamp)
        join_days(self.lake, [on], FIRST, self.config.window, stamp)
        curate_days(self.lake, [on], FIRST, self.config.gate, self.config.breaker, stamp)
        summarize_days(self.lake, [on], stamp)

    def import_history(self, happenings: Sequence[Happening]) -> str:
        file = self.write(happenings)
        imported = flywheel(self.root, "import", str(file), "-a", "assistant", "--history", "--reason", "moved here")
        assert imported.returncode == 0, imported.stderr
        self.reload()
        return imported.stdout

    def backfill(self, first: date, last: date) -> str:
        done = flywheel(self.root, "backfill", str(first), str(last), "-a", "assistant")
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def rows(self, spec: TableSpec) -> list[str]:
        """Every row of a table without what says when it was received, in a fixed order."""
        found = self.lake.read(spec).to_pylist()
        return sorted(
            json.dumps(
                {key: value for key, value in row.items() if key not in ABOUT_RECEIPT}, default=str, sort_keys=True
            )
            for row in found
        )

    def accounts(self) -> dict[str, dict[date, Any]]:
        """Every day's counts of the ledger."""
        return {
            spec.name: {
                day: (
                    each.rows_in,
                    each.rows_kept,
                    each.rows_by_reason,
                    each.rows_held,
                    each.rows_stated,
                    each.is_closed,
                )
                for day, each in read_entries(self.lake, spec.name, DAYS).items()
            }
            for spec in TABLES
        }


@pytest.fixture(scope="module")
def was_there() -> Any:
    """The flywheel that was there: fed and materialized day by day."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home = Home(Path(folder), patch, FIRST)
        for on in DAYS:
            home.live(on, world())
        rows = {spec.name: home.rows(spec) for spec in TABLES}
        assert all(rows.values())
        assert "unchanged" in {json.loads(row)["reason"] for row in rows["quarantine"]}
        yield home.accounts(), rows


def compare(home: Home, was_there: Any) -> None:
    accounts, rows = was_there
    for spec in TABLES:
        assert home.rows(spec) == rows[spec.name], spec.name
    assert home.accounts() == accounts


def test_history_into_an_empty_flywheel_gives_the_tables_of_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: Any
) -> None:
    home = Home(tmp_path, monkeypatch, TODAY)
    said = home.import_history(world())
    assert f"assistant now begins on {FIRST}" in said
    assert f"flywheel backfill {FIRST} {LAST}" in said
    home.backfill(FIRST, LAST)
    compare(home, was_there)
    assert "every day is fresh" in flywheel(tmp_path, "stale", "-a", "assistant").stdout
    listed = flywheel(tmp_path, "history", "-a", "assistant").stdout
    assert "moved here" in listed
    assert "events.jsonl" in listed
    # The same file again changes nothing.
    assert "nothing new: no day has changed" in home.import_history(world())
    assert "every day is fresh" in flywheel(tmp_path, "stale", "-a", "assistant").stdout


@pytest.mark.parametrize(
    "is_live",
    [
        lambda number, happening: happening.on >= DAYS[6],
        lambda number, happening: number % 2 == 0,
    ],
    ids=["the first half is missing", "every second line is missing"],
)
def test_history_into_closed_days_gives_the_tables_of_a_flywheel_that_had_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: Any, is_live: Callable[[int, Happening], bool]
) -> None:
    live = [each for number, each in enumerate(world()) if is_live(number, each)]
    home = Home(tmp_path, monkeypatch, FIRST)
    for on in DAYS:
        home.live(on, live)
    versions = home.stores.versions("assistant")
    cut_pair_version(home.lake, versions, "dpo_gold_v1", ResolutionRules(holdout_share=0.2), "1")
    manifest = read_manifest(versions.folder("dpo_gold_v1").export)

    said = home.import_history([each for each in world() if each not in live])
    assert "reopened: " in said
    stale = flywheel(tmp_path, "stale", "-a", "assistant")
    assert stale.returncode == 1
    assert "raw_predictions" in stale.stdout
    assert "landing changed" in stale.stdout
    home.backfill(FIRST, LAST)
    compare_all_but_repeats(home, was_there)
    assert "every day is fresh" in flywheel(tmp_path, "stale", "-a", "assistant").stdout

    assert read_manifest(versions.folder("dpo_gold_v1").export) == manifest
    assert not verify_versions(home.lake, versions, CURATED_DPO_PAIRS).differences


def compare_all_but_repeats(home: Home, was_there: Any) -> None:
    """Compare with a flywheel that had it all: an event that a day held already did not land a second time."""
    accounts, rows = was_there
    for spec in TABLES:
        assert home.rows(spec) == rows[spec.name], spec.name
    for name, days in home.accounts().items():
        for day, account in days.items():
            assert account[1:2] + account[3:] == accounts[name][day][1:2] + accounts[name][day][3:]
