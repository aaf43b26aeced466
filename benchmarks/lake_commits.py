"""Commits, scans and counts do not slow down with history, and writers of different days lose nothing.

Claims: while the upkeep runs, replacing a partition, planning a scan of one day and counting what is new (what the
training trigger does) take after 1,000 commits at most twice what they took after 10; without upkeep they do not.
8 processes × 12 different partitions: 96 of 96, at least 5 commits a second once the processes stand ready.
Data: one gold table of 100 days with one pair each, replaced one day after the other; SQLite catalog on a local disk.
Peers, in the same run, for as long as they are bearable: no upkeep; no snapshot ever forgotten; and on top of that
pyiceberg's own transaction.
Command: python -m benchmarks.lake_commits [most commits, 1000 by default]
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
from pyiceberg.table import Transaction

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables import iceberg
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.upkeep.garbage import expire_snapshots, sweep_table
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import count_net_new
from flywheel_assets_tests.builders import APPLICATION, DAY, make_gold, table
from flywheel_assets_tests.lake.workbench import Workbench, stamp

GOLD = CURATED_DPO_PAIRS
MARKS = (10, 100, 300, 1000)
WITHOUT, OWN_TRANSACTION = 300, 100
DAYS = 100
PROCESSES, DAYS_EACH = 8, 12
EVERY = 25
"""Commits between two upkeeps: what a week brings."""


@dataclass(frozen=True)
class Took:
    """Median milliseconds, wall and CPU (user and system), of ten calls."""

    wall_ms: float
    cpu_ms: float

    @classmethod
    def of(cls, times: list[tuple[float, float]]) -> "Took":
        """From seconds."""
        walls, cpus = zip(*times[-10:], strict=True)
        return cls(1000 * statistics.median(walls), 1000 * statistics.median(cpus))

    def __str__(self) -> str:
        return f"{self.wall_ms:.0f} ms ({self.cpu_ms:.0f} CPU)"


class Timed:
    """Wall and CPU seconds of a block, appended to a list."""

    def __init__(self, times: list[tuple[float, float]]) -> None:
        self.times = times

    def __enter__(self) -> None:
        self.begin = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.times.append((time.perf_counter() - self.begin[0], time.process_time() - self.begin[1]))


def day_file(lake: Lake, day: date) -> Path:
    """One pair of one day, ready to be swapped in."""
    file = lake.make_file_path(GOLD, day)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(GOLD.schema, [make_gold(completed_date=day)]), file)
    return file


def grow(root: Path, commits: int, *, upkeep: bool) -> Iterator[tuple[int, Took, Took, Took, int]]:
    """At each mark: commits so far; a commit, a plan, a count; retained snapshots."""
    lake, versions = Workbench(root).lake, Versions(root / "versions", APPLICATION)
    days = [DAY + timedelta(days=number) for number in range(DAYS)]
    lake.replace_days(GOLD, days, {day: day_file(lake, day) for day in days}, {})
    ledger.record_entries(lake, [LedgerEntry(GOLD.name, day, True, "rows", {}, 1, 1, {}) for day in days], stamp())
    times: list[tuple[float, float]] = []
    for number in range(1, commits + 1):
        day = days[number % DAYS]
        file = day_file(lake, day)
        with Timed(times):
            lake.replace_days(GOLD, [day], {day: file}, {})
        if upkeep and number % EVERY == 0:
            expire_snapshots(lake, GOLD, datetime.now(UTC))
            sweep_table(lake, GOLD, timedelta(0), datetime.now(UTC))
        if number in MARKS or number == commits:
            plans: list[tuple[float, float]] = []
            counts: list[tuple[float, float]] = []
            for _ in range(10):
                with Timed(plans):
                    list(lake.load_table(GOLD).scan(row_filter=f"completed_date = '{day}'").plan_files())
                with Timed(counts):
                    assert count_net_new(lake, versions, ResolutionRules(holdout_share=0.0), 1).pairs == DAYS
            yield number, Took.of(times), Took.of(plans), Took.of(counts), len(lake.load_table(GOLD).snapshots())


def write(root: Path, process: int, ready: Barrier) -> None:
    """One process's twelve days."""
    lake = Workbench(root).lake
    lake.load_table(GOLD)
    ready.wait()
    for number in range(DAYS_EACH):
        day = DAY + timedelta(days=1000 * process + number)
        lake.replace_days(GOLD, [day], {day: day_file(lake, day)}, {})


def race(root: Path) -> str:
    """What all processes at once managed."""
    spawn = multiprocessing.get_context("spawn")
    Workbench(root).lake.load_table(GOLD)
    ready = spawn.Barrier(PROCESSES + 1)
    started = time.perf_counter()
    writers = [spawn.Process(target=write, args=(root, number, ready)) for number in range(PROCESSES)]
    for writer in writers:
        writer.start()
    ready.wait()
    begin = time.perf_counter()
    for writer in writers:
        writer.join()
    seconds, starting = time.perf_counter() - begin, begin - started
    written, wanted = len(Workbench(root).lake.count_rows_per_day(GOLD)), PROCESSES * DAYS_EACH
    return (
        f"{PROCESSES} processes x {DAYS_EACH} partitions: {written} of {wanted}, {wanted / seconds:.1f} commits/s, row "
        f"files included; {wanted / (seconds + starting):.1f} with the {starting:.1f} s until all processes stood ready"
    )


def main() -> None:
    """Print the figures; an argument bounds the commits."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else max(MARKS)
    with tempfile.TemporaryDirectory() as folder:
        print(race(Path(folder) / "race"), flush=True)
        endless = patch.object(iceberg, "MOST_SNAPSHOTS", 10**9)
        own = patch.object(iceberg, "TransactionOnce", Transaction)
        for name, commits, upkeep, patches in (
            ("upkeep", most, True, []),
            ("no upkeep", min(most, WITHOUT), False, []),
            ("no snapshot forgotten", min(most, WITHOUT), False, [endless]),
            ("and pyiceberg's own transaction", min(most, OWN_TRANSACTION), False, [endless, own]),
        ):
            for each in patches:
                each.start()
            root, first = Path(folder) / name.replace(" ", "-"), None
            for number, commit, plan, count, snapshots in grow(root, commits, upkeep=upkeep):
                first = first or (commit, plan, count)
                against = zip((commit, plan, count), first, strict=True)
                ratios = " / ".join(f"{now.cpu_ms / then.cpu_ms:.1f}" for now, then in against)
                print(
                    f"{name}, after {number} commits: commit {commit}, plan one day {plan}, count {count}, "
                    f"{snapshots} snapshots; CPU against the first mark {ratios}",
                    flush=True,
                )
            for each in patches:
                each.stop()


if __name__ == "__main__":
    main()
