"""`flywheel import --history` is killed as by `kill -9` at moments by lot: no row is lost, none lands twice.

The command runs in a forked process, on a disk with closed, open and unknown days. A longer run by hand:
`python -c "from flywheel_assets_tests.e2e.test_killed_imports import main; main()" 30`.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.sinks import LogSink
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.defs.resources import Stores
from flywheel_assets.formats.reading.sources import find_sources
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.command_line import flywheel

pytestmark = pytest.mark.long

FIRST = datetime.now(UTC).date() - timedelta(days=60)
DAYS = [FIRST + timedelta(days=number) for number in range(40)]
LIVE = DAYS[10:14]
PER_DAY = 5
EVENTS = 2 * PER_DAY

forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["__main__", __name__, "flywheel_assets.lake.tables.iceberg", "pyiceberg.io.pyarrow"])


def write_edits(path: Path, days: list[date], numbers: range) -> Path:
    lines = (
        {
            "id": f"{day} {number}",
            "prompt": f"Ask {day} {number}?",
            "original_llm_output": f"So {number}.",
            "final_user_edit": f"This is why: {number}.",
            "occurred_at": f"{day}T10:00:00Z",
        }
        for number in numbers
        for day in days
    )
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def receive_some(home: Path) -> None:
    """Receive two of the edits of each live day when it was that day, and close it."""
    for day in LIVE:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        # An edit's source is its file's name: with another one these were other events than those of history.
        file = write_edits(home / "edits.jsonl", [day], range(2))
        with SegmentLog(home / "landing", clock=lambda at=noon: at) as log:  # type: ignore[misc]
            sink = LogSink(log, "assistant")
            plan = ImportPlan(application="assistant")
            assert not import_files(find_sources([str(file)]).sources, plan, sink, lambda at=noon: at).refused  # type: ignore[misc]
        for kind in EventKind:
            zone = Stores(home=str(home)).landing().open_zone("assistant", kind)
            assert zone.read(day, noon + timedelta(days=1)).is_closed


def import_history(home: str, file: str) -> None:
    """Run the command and exit as it does."""
    os._exit(flywheel(Path(home), "import", file, "-a", "assistant", "--history", "--reason", "moved here").returncode)


def read_landed(home: Path) -> dict[tuple[EventKind, date], list[str]]:
    """Read the ids of the landed events of every day as a daily step does, live segments included."""
    landing = Stores(home=str(home)).landing()
    found: dict[tuple[EventKind, date], list[str]] = {}
    for kind in EventKind:
        zone = landing.open_zone("assistant", kind)
        for day in DAYS:
            landed = zone.look(day)
            with zone.fetch(landed, home / "fetched") as paths:
                lines = [line for path in paths for line in path.read_bytes().splitlines()]
            found[kind, day] = sorted(json.loads(line)["event_id"] for line in lines)
    return found


def kill_imports(home: Path, kills: int, dice: random.Random) -> Counter[str]:
    """Kill imports of one file until `kills` have died or one has finished, then complete it and compare.

    Returns:
        How many were killed, and in what state each left the days: none, some or all of them changed.
    """
    home.mkdir()
    receive_some(home)
    file = write_edits(home / "edits.jsonl", DAYS, range(PER_DAY))
    before = read_landed(home)
    seen: Counter[str] = Counter()
    shortest, longest = 0.0, 3.0
    for _ in range(kills):
        begin = time.monotonic()
        process = forked.Process(target=import_history, args=(str(home), str(file)))
        process.start()
        process.join(dice.uniform(shortest, longest))
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        else:
            longest = time.monotonic() - begin
        seen["killed" if process.exitcode == -signal.SIGKILL else f"ended with {process.exitcode}"] += 1
        now = read_landed(home)
        for key, ids in now.items():
            assert len(set(ids)) == len(ids), f"an event landed twice: {key}"
            assert ids == before[key] or len(ids) == PER_DAY, f"half a day of history: {key}, {len(ids)}"
            assert set(before[key]) <= set(ids), f"a row is gone: {key}"
        whole = sum(len(ids) == PER_DAY for ids in now.values())
        if not whole:
            # On a slow machine it died while it started: the next one lives longer.
            shortest, longest = longest * 0.7, longest * 1.3
        seen["no day changed" if not whole else "all changed" if whole == len(now) else "some days changed"] += 1
        print(dict(seen), flush=True)
        if process.exitcode == 0:
            break
    process = forked.Process(target=import_history, args=(str(home), str(file)))
    process.start()
    process.join()
    assert process.exitcode == 0
    for key, ids in read_landed(home).items():
        assert len(ids) == len(set(ids)) == PER_DAY, key
    assert not list((home / "landing").rglob("*.adding"))
    return seen


def test_killed_at_any_moment_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    assert kill_imports(tmp_path / "home", 4, random.Random(14))


def main() -> None:
    """Kill as many imports as asked; print what was seen."""
    wanted, seen = int(sys.argv[1]), Counter[str]()
    dice = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    with TemporaryDirectory() as folder:
        number = 0
        while seen["killed"] < wanted:
            number += 1
            seen += kill_imports(Path(folder) / str(number), 8, dice)
            print(number, dict(seen), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
