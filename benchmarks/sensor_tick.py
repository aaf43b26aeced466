"""A tick of the training trigger costs hardly more after ten years of days than after a month.

Claim: with 3,650 closed days in gold and ledger, a tick below the threshold reads no row and takes at most 100 ms of
CPU, one that finds nothing changed less. Where rows must be read, they are once per content of the closed days.
Data: per kind of application 3,650 closed days of two rows each, four assets in the ledger, the last training 30 days
ago; SQLite catalog on a local disk, Dagster's instance in memory.
Peer, in the same run: the rows are counted at every tick.
Command: python -m benchmarks.sensor_tick [days, 3650 by default]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.application import (
    ClassificationApplication,
    ExampleTrigger,
    FlywheelApplication,
    PreferenceApplication,
    Trigger,
)
from flywheel_assets.applications import fraud
from flywheel_assets.defs.automation.training_rules import build_rule
from flywheel_assets.defs.automation.triggers import build_training_sensor
from flywheel_assets.defs.partitions import TURN_JOB
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, HARD_EXAMPLES
from flywheel_assets.lake.versions.example_versions import count_new_examples, cut_example_version
from flywheel_assets.lake.versions.net_new import count_net_new
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import NOON, make_gold, table
from flywheel_assets_tests.lake.workbench import stamp

FIRST = date(2016, 1, 1)
ROWS_PER_DAY, UNTRAINED_DAYS = 2, 30
TICKS = 9
MANY = 10**9
PREFERENCE = PreferenceApplication(name="assistant", description="bench", start_date=FIRST, base_model="base")
CLASSIFICATION = replace(fraud.APPLICATION, name="cards", start_date=FIRST)


def example(day: date, name: str) -> dict[str, Any]:
    """A matured negative of which only what counting looks at is filled in."""
    given = {
        "completed_date": day,
        "prediction_id": name,
        "prediction_received_date": day - timedelta(days=CLASSIFICATION.examples.mining.maturity_days),
        "predicted_at": NOON,
        "is_positive": False,
        "subject": name,
        "subject_kind": "user",
        "score": 0.1,
        "inclusion_probability": 1.0,
        "draw": 0.0,
    }
    required = {column.name: _FILLED[column.type] for column in HARD_EXAMPLES.schema if not column.nullable}
    return {**dict.fromkeys(HARD_EXAMPLES.schema.names), **required, **given}


_FILLED: dict[pa.DataType, Any] = {
    pa.string(): "{}",
    pa.float64(): 0.0,
    pa.int64(): 0,
    pa.bool_(): False,
    pa.date32(): FIRST,
    pa.timestamp("us", tz="UTC"): NOON,
}


def row(application: FlywheelApplication, day: date, number: int) -> dict[str, Any]:
    """One gold row of an application of either kind."""
    name = f"{day} {number}"
    if isinstance(application, ClassificationApplication):
        return example(day, name)
    more = {"prediction_id": name, "feedback_event_id": name, "subject": name, "prompt": name}
    return make_gold(completed_date=day, **more)


def fill(lake: Lake, application: FlywheelApplication, days: list[date]) -> None:
    """Days of gold, with their entries in the ledger."""
    gold, files = application.tables.gold, {}
    for day in days:
        files[day] = lake.make_file_path(gold, day)
        files[day].parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(gold.schema, [row(application, day, each) for each in range(ROWS_PER_DAY)]), files[day])
    lake.replace_days(gold, days, files, {})
    tables = application.tables
    assets = [tables.predictions.name, GROUND_TRUTH.name, tables.joined.name, gold.name]
    hashes = {"raw_predictions": "a" * 32, "ground_truth": "b" * 32}
    ledger.record_entries(
        lake,
        [
            LedgerEntry(asset, day, True, f"{day} {asset}", hashes, ROWS_PER_DAY, ROWS_PER_DAY, {})
            for asset in assets
            for day in days
        ],
        stamp(),
    )


def train(stores: Stores, application: FlywheelApplication) -> None:
    """What a successful training leaves."""
    lake, versions = stores.lake(application.name), stores.versions(application.name)
    version = f"{application.version_prefix}1"
    if isinstance(application, ClassificationApplication):
        cut_example_version(lake, versions, version, application.examples, "1")
    elif isinstance(application, PreferenceApplication):
        cut_pair_version(lake, versions, version, application.resolution, "1")
    folder = versions.folder(version)
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")


def with_threshold(application: FlywheelApplication, enough: int) -> FlywheelApplication:
    """The application with a trigger that asks for so many new rows, and never fires."""
    if isinstance(application, ClassificationApplication):
        trigger = ExampleTrigger(min_new_positives=enough, min_new_hard_examples=enough, maintenance_pause_days=MANY)
        return replace(application, trigger=trigger)
    assert isinstance(application, PreferenceApplication)
    return replace(application, trigger=Trigger(min_new_pairs=enough, min_new_partitions=MANY))


def took(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> str:
    """Median of `TICKS` calls, wall and CPU."""
    times = []
    for _ in range(TICKS):
        before()
        begin, cpu = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - begin, time.process_time() - cpu))
    wall, used = (1000 * statistics.median(each) for each in zip(*times, strict=True))
    return f"{used:6.0f} ms CPU, {wall:6.0f} ms"


def measure(stores: Stores, instance: dg.DagsterInstance, application: FlywheelApplication, count: int) -> None:
    """Print what a tick of one application takes."""
    lake = stores.lake(application.name)
    days = [FIRST + timedelta(days=number) for number in range(count)]
    fill(lake, application, days[:-UNTRAINED_DAYS])
    train(stores, application)
    fill(lake, application, days[-UNTRAINED_DAYS:])
    versions = stores.versions(application.name)
    clock = Clock(fixed=datetime.combine(days[-1] + timedelta(days=2), NOON.time(), UTC).isoformat())

    def tick(configured: FlywheelApplication, cursor: str | None) -> str:
        sensor = build_training_sensor(configured, build_rule(configured), TURN_JOB.format(configured.name))
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"stores": stores, "clock": clock}
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult), result
        assert not result.run_requests
        assert result.cursor
        return result.cursor

    def count_rows() -> object:
        if isinstance(application, ClassificationApplication):
            return count_new_examples(lake, versions, application.examples)
        assert isinstance(application, PreferenceApplication)
        return count_net_new(lake, versions, application.resolution, 0)

    def materialize_again() -> None:
        # The same content: other snapshots of gold and ledger, and nothing to count.
        fill(lake, application, days[-1:])

    far, near = with_threshold(application, MANY), with_threshold(application, 1)
    cursor = tick(far, None)
    counted = tick(near, None)
    print(f"{application.name}, {count} days:")
    print(f"  below the threshold, everything new    {took(lambda: tick(far, None))}")
    print(f"  a day materialized again, same content {took(lambda: tick(near, counted), materialize_again)}")
    cursor, counted = tick(far, cursor), tick(near, counted)
    print(f"  nothing changed                        {took(lambda: tick(near, counted))}")
    print(f"  rows are counted                       {took(lambda: tick(near, None))}")
    print(f"  peer: only counting rows, every tick   {took(count_rows)}", flush=True)


def main() -> None:
    """Print the figures; an argument sets the number of days."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3650
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        stores = Stores(home=str(Path(folder)))
        for application in (PREFERENCE, CLASSIFICATION):
            measure(stores, instance, application, count)


if __name__ == "__main__":
    main()
