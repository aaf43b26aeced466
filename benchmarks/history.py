"""Five years of history come in by one import and one backfill, in bounded memory.

Claim: the import spreads rows over 1,826 days of two kinds with no file open between, the backfill of all days is one
run with as many commits as one day makes, and neither holds the history in memory.
Data: edits in this project's own format, 200 a day, evenly over the days before 2026; catalog and Dagster's instance on
SQLite, local disk.
Peer, in the same run: a loop over the same file (`json.loads` a line, a pandas frame and a Parquet file a day). It has
neither ids, duplicates, audit, join nor gate, and nothing of it survives a kill.
Command: python -m benchmarks.history [days, 1826 by default] [edits a day, 200 by default]
"""

import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from benchmarks.backfill import APPLICATION, spending
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.sinks import HistorySink
from flywheel_assets.capture.log.history import HistoryLog, Published
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver, open_instance
from flywheel_assets.formats.reading.sources import find_sources
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS

LAST = date(2025, 12, 31)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def write_file(path: Path, days: list[date], per_day: int) -> None:
    """Edits of every day, the days in no order: an export is seldom sorted by time."""
    with open(path, "w") as file:
        for number in range(per_day):
            for day in days:
                name = f"{day}-{number}"
                edit = {
                    "id": name,
                    "prompt": f"read rows of table {name}",
                    "original_llm_output": f'rows = ledger.get_table("{name}").head({number})',
                    "final_user_edit": f'rows = ledger.read("{name}", limit={number})',
                    "user_id": f"user-{number}",
                    "occurred_at": f"{day}T{number % 24:02d}:00:00Z",
                }
                file.write(json.dumps(edit) + "\n")


@contextmanager
def timing(title: str) -> Iterator[None]:
    """Print what a block took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    begin, cpu = time.perf_counter(), time.process_time()
    with spending() as spent:
        yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{title}: {time.perf_counter() - begin:.1f} s ({time.process_time() - cpu:.1f} s CPU), peak {peak} MiB "
        f"({before} before), {len(spent.commits)} commits",
        flush=True,
    )


def write_plainly(file: Path, folder: Path) -> None:
    """Write one Parquet file a day, as a script that somebody writes in ten minutes does."""
    import pandas as pd

    by_day = defaultdict(list)
    with open(file) as lines:
        for line in lines:
            row = json.loads(line)
            by_day[row["occurred_at"][:10]].append(row)
    for day, rows in by_day.items():
        target = folder / f"day={day}"
        target.mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(target / "rows.parquet")


def main() -> None:
    """Print the figures; the arguments set the numbers of days and of edits a day."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1826
    per_day = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    days = [LAST - timedelta(days=number) for number in reversed(range(count))]
    application = replace(APPLICATION, start_date=NOW.date())
    with tempfile.TemporaryDirectory() as folder:
        home, file = Path(folder) / "home", Path(folder) / "edits.jsonl"
        write_file(file, days, per_day)
        print(f"{count} days, {count * per_day:,} edits, {file.stat().st_size / 2**20:.0f} MiB", flush=True)
        stores = Stores(home=str(home))
        lake = stores.lake(application.name)

        def open_log() -> HistoryLog:
            where = lake, stores.landing(), stores.scratch("history")
            return HistoryLog(*where, "ada", "benchmark", file.name, lambda: NOW)

        def import_history() -> Published:
            with open_log() as log:
                sink = HistorySink(log)
                plan = ImportPlan(application=application.name)
                imported = import_files(find_sources([str(file)]).sources, plan, sink, lambda: NOW)
                assert not imported.refused, imported.causes
            assert sink.published is not None
            return sink.published

        with timing("import"):
            published = import_history()
        files = sum(1 for path in stores.landing_folder().rglob("*") if path.is_file())
        print(
            f"  {published.events:,} rows on {sum(map(len, published.days.values())):,} days of a kind, {files:,} files"
        )
        with timing("the same import again"):
            assert import_history().events == 0
        definitions = preference_flywheel(application, stores, Clock(fixed=NOW.isoformat()))
        driver = Driver(application, definitions, open_instance(home / "dagster"))
        with timing("backfill"):
            finished = driver.materialize(days[0], days[-1])
            assert finished.succeeded, finished.error
        rows = lake.count_rows_per_day(CURATED_DPO_PAIRS)
        print(f"  {sum(rows.values()):,} gold rows on {len(rows):,} days")
        with timing("peer: one Parquet file a day with pandas"):
            write_plainly(file, Path(folder) / "plain")


if __name__ == "__main__":
    main()
