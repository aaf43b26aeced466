"""Commits do not slow down with history while maintenance runs, and writers of different days lose nothing.

Claims: with snapshots expired, a commit after 1,000 others takes at most twice what it took after 10, and planning as
little; without expiry it does not. 8 processes × 12 different partitions: 96 of 96 commits.
Data: one gold table, one row a day, partitions replaced one after the other; SQLite catalog on a local disk.
Peer: the same commits without maintenance, in the same run (300 of them: they grow slower and slower).
Command: python -m benchmarks.lake_commits [most commits]
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from flywheel_assets.lake.garbage import expire_snapshots, sweep
from flywheel_assets.lake.tables import CURATED_DPO_PAIRS, Lake
from flywheel_assets_tests.builders import DAY, make_gold, table
from flywheel_assets_tests.lake.workbench import Workbench, write_day

GOLD = CURATED_DPO_PAIRS
MARKS = (10, 100, 1000)
WITHOUT = 300
PROCESSES, DAYS_EACH = 8, 12
EVERY = 25
"""Commits between two maintenances: what a week brings."""


def commit(lake: Lake, day: date) -> float:
    """Seconds for one partition's replacement, without writing its rows."""
    with lake.connect() as connection:
        connection.register("given", table(GOLD.schema, [make_gold(completed_date=day)]))
        file = lake.write_day(connection, GOLD, day, "SELECT * FROM given")
    assert file is not None
    begin = time.perf_counter()
    lake.replace_days(GOLD, [day], {day: file}, {})
    return time.perf_counter() - begin


def grow(root: Path, commits: int, *, maintained: bool) -> Iterator[tuple[int, float, float]]:
    """At each mark: commits so far, median seconds of the last ten, seconds to plan a scan."""
    lake, times = Workbench(root).lake, []
    for number in range(1, commits + 1):
        times.append(commit(lake, DAY + timedelta(days=number % 100)))
        if maintained and number % EVERY == 0:
            expire_snapshots(lake, GOLD, datetime.now(UTC))
            sweep(lake, GOLD, timedelta(0), datetime.now(UTC))
        if number in MARKS or number == commits:
            begin = time.perf_counter()
            list(lake.table(GOLD).scan().plan_files())
            yield number, statistics.median(times[-10:]), time.perf_counter() - begin


def write(root: Path, process: int) -> None:
    """One process's twelve days."""
    lake = Workbench(root).lake
    for number in range(DAYS_EACH):
        day = DAY + timedelta(days=1000 * process + number)
        write_day(lake, GOLD, day, [make_gold(completed_date=day)])


def race(root: Path) -> tuple[int, float]:
    """(partitions written, commits per second) of all processes at once."""
    spawn = multiprocessing.get_context("spawn")
    Workbench(root).lake.table(GOLD)
    begin = time.perf_counter()
    writers = [spawn.Process(target=write, args=(root, number)) for number in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    seconds = time.perf_counter() - begin
    return len(Workbench(root).lake.rows_per_day(GOLD)), PROCESSES * DAYS_EACH / seconds


def main() -> None:
    """Print the figures; an argument bounds the commits."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else max(MARKS)
    with tempfile.TemporaryDirectory() as folder:
        written, per_second = race(Path(folder) / "race")
        print(
            f"{PROCESSES} processes x {DAYS_EACH} partitions: {written} of {PROCESSES * DAYS_EACH}, "
            f"{per_second:.1f} commits/s, imports and row files included"
        )
        for name, commits, maintained in (("maintained", most, True), ("not maintained", min(most, WITHOUT), False)):
            root = Path(folder) / name.replace(" ", "-")
            for number, seconds, planning in grow(root, commits, maintained=maintained):
                took = f"{seconds * 1000:.0f} ms a commit, {planning * 1000:.0f} ms to plan"
                print(f"{name}, after {number} commits: {took}", flush=True)


if __name__ == "__main__":
    main()
