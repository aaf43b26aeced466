"""A year of days goes from landing to gold in one run, at a fraction of what a run per day costs.

Claim: 365 partitions in one range run through the real Dagster assets (landing → raw tables → join → summary → gold,
with their checks) make as many commits as one partition does, and every day is in the ledger.
Data: 365 landed days of ten predictions and ten edits each; catalog and Dagster's instance on SQLite, local disk.
Peer, in the same run: one run per partition, for ten of the days, in a home of its own.
Command: python -m benchmarks.backfill [days, 365 by default]
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pyiceberg.table import Table

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver, open_instance
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import Workbench

FIRST = date(2025, 1, 1)
ROWS_PER_DAY, SINGLE_RUNS = 10, 10
APPLICATION = PreferenceApplication(
    name="assistant", description="bench", start_date=FIRST, base_model="base", breaker=BreakerLimits()
)


def land(home: Path, days: list[date]) -> None:
    """Ten interactions of every day, each edited on the same day."""
    bench = Workbench(home, application=APPLICATION.name)
    for day in days:
        at = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=10)
        times = {"received_at": at, "occurred_at": at}
        names = [f"{day}-{number}" for number in range(ROWS_PER_DAY)]
        predictions = [make_prediction(prediction_id=name, event_id=f"p-{name}", **times) for name in names]
        edits = [
            make_feedback(
                prediction_id=name,
                event_id=f"f-{name}",
                user_id=f"user-{number}",
                prompt=f"read rows of table {name}",
                original_output=f'rows = ledger.get_table("{name}").head({number})',
                final_text=f'rows = ledger.read("{name}", limit={number})',
                **times,
            )
            for number, name in enumerate(names)
        ]
        bench.land(EventKind.PREDICTION, day, predictions, f"p-{day}")
        bench.land(EventKind.FEEDBACK, day, edits, f"f-{day}")


@dataclass
class Spent:
    """What a block took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    commits: list[str] = field(default_factory=list)
    """The table of each."""


@contextmanager
def spending() -> Iterator[Spent]:
    """Time a block and count its commits."""
    spent, commit = Spent(), Table._do_commit

    def counted(table: Table, *given: Any, **named: Any) -> None:
        spent.commits.append(table.name()[-1])
        commit(table, *given, **named)

    begin, cpu = time.perf_counter(), time.process_time()
    with patch.object(Table, "_do_commit", counted):
        yield spent
    spent.wall_s, spent.cpu_s = time.perf_counter() - begin, time.process_time() - cpu


def driver_in(home: Path, days: list[date]) -> Driver:
    """The application's real definitions over one home, long after its last day."""
    clock = Clock(fixed=datetime.combine(days[-1] + timedelta(days=60), datetime.min.time(), UTC).isoformat())
    definitions = preference_flywheel(APPLICATION, Stores(home=str(home)), clock)
    return Driver(APPLICATION, definitions, open_instance(home / "dagster"))


def main() -> None:
    """Print the figures; an argument sets the number of days."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 365
    days = [FIRST + timedelta(days=number) for number in range(count)]
    few = days[: min(SINGLE_RUNS, count)]
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder) / "one", Path(folder) / "many"
        land(one, days)
        land(many, few)

        driver = driver_in(one, days)
        before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        with spending() as range_run:
            finished = driver.materialize(days[0], days[-1])
        assert finished.succeeded, finished.error
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        lake = Stores(home=str(one)).lake(APPLICATION.name)
        in_ledger = len(ledger.read_closed_days(lake, CURATED_DPO_PAIRS.name))
        in_gold = lake.count_rows_per_day(CURATED_DPO_PAIRS)
        print(
            f"one run: {count} partitions, {range_run.wall_s:.0f} s ({range_run.cpu_s:.0f} s CPU), "
            f"{len(range_run.commits)} commits to {len(set(range_run.commits))} tables, "
            f"peak {peak_mib} MiB ({before_mib} before), {in_ledger} days closed in the ledger, "
            f"{sum(in_gold.values())} rows in {len(in_gold)} gold days",
            flush=True,
        )
        single = driver_in(many, days)
        with spending() as runs:
            for day in few:
                finished = single.materialize(day, day)
                assert finished.succeeded, finished.error
        scale = count / len(few)
        print(
            f"peer: a run per partition, {len(few)} of them: {runs.wall_s:.1f} s ({runs.cpu_s:.1f} s CPU), "
            f"{len(runs.commits)} commits; times {scale:g}: {scale * runs.wall_s:.0f} s ({scale * runs.cpu_s:.0f} s "
            f"CPU), {scale * len(runs.commits):.0f} commits. One run takes {range_run.cpu_s / scale / runs.cpu_s:.2f} "
            "of its CPU time"
        )


if __name__ == "__main__":
    main()
