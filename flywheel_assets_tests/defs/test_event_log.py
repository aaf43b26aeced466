"""Events of many partitions are stored together, and read as if each had been stored by itself."""

from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy.engine import Connection

from flywheel_assets.defs.event_log import GatheringEventLog
from flywheel_assets.defs.running import open_instance

TEMPLATE = Path(__file__).parents[2] / "dagster.yaml"
DAYS = [f"2026-01-{day:02d}" for day in range(1, 31)]
KEY = dg.AssetKey("rows")


@dg.asset(
    key=KEY,
    partitions_def=dg.StaticPartitionsDefinition(DAYS),
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
)
def rows(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
    for day in context.partition_keys:
        context.log_event(dg.AssetMaterialization(KEY, partition=day, tags={"dagster/data_version": f"of {day}"}))
    if context.run.tags.get("fails"):
        raise ValueError("after the events")
    yield from ()


def run(instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
    job = dg.Definitions(assets=[rows], jobs=[dg.define_asset_job("all", [rows])]).resolve_job_def("all")
    span = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    return job.execute_in_process(instance=instance, tags={**span, **(tags or {})}, raise_on_error=False)


def describe(instance: dg.DagsterInstance, run_id: str) -> tuple[object, ...]:
    """What pages and sensors of Dagster read of a run."""
    log = [
        (each.dagster_event.event_type_value, each.dagster_event.partition)
        for each in instance.all_logs(run_id)
        if each.dagster_event and each.dagster_event.asset_key and not each.dagster_event.is_engine_event
    ]
    materialized = [
        (each.partition_key, each.asset_materialization and each.asset_materialization.tags)
        for each in instance.fetch_materializations(KEY, limit=100).records
    ]
    planned = instance.event_log_storage.get_latest_storage_id_by_partition(
        KEY, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    )
    newest = instance.get_latest_materialization_event(KEY)
    assert newest is not None
    version = instance.get_latest_data_version_record(KEY, partition_key=DAYS[3])
    assert version is not None
    return sorted(log), materialized, sorted(planned), newest.dagster_event.partition, version.partition_key  # type: ignore[union-attr]


@pytest.mark.long
@pytest.mark.parametrize("tags", [{}, {"fails": "yes"}], ids=["a run that succeeds", "a run that fails"])
def test_a_run_reads_as_if_each_event_had_been_stored_by_itself(tmp_path: Path, tags: dict[str, str]) -> None:
    found = []
    (tmp_path / "plain").mkdir()
    with (
        open_instance(tmp_path / "gathering", TEMPLATE) as gathering,
        dg.DagsterInstance.from_config(str(tmp_path / "plain")) as plain,
    ):
        assert type(gathering.event_log_storage) is GatheringEventLog
        assert type(plain.event_log_storage) is SqliteEventLogStorage
        for instance in (gathering, plain):
            result = run(instance, tags)
            assert result.success is not bool(tags)
            found.append(describe(instance, result.run_id))
    assert found[0] == found[1]
    # What another process reads in the same home is the same.
    with dg.DagsterInstance.from_config(str(tmp_path / "gathering")) as reader:
        assert type(reader.event_log_storage) is SqliteEventLogStorage
        assert len(reader.get_materialized_partitions(KEY)) == len(DAYS)


def test_the_log_is_opened_for_hundreds_of_events_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of five years spent half of its time on opening the log for each event."""
    opened: list[str] = []
    connect = SqliteEventLogStorage._connect

    def count(storage: SqliteEventLogStorage, shard: str) -> AbstractContextManager[Connection]:
        opened.append(shard)
        return connect(storage, shard)

    with open_instance(tmp_path, TEMPLATE) as instance:
        monkeypatch.setattr(SqliteEventLogStorage, "_connect", count)
        assert run(instance).success
    assert len(opened) < 2 * len(DAYS)


def test_a_storage_that_the_operator_names_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(f"storage: {{sqlite: {{base_dir: {tmp_path / 'elsewhere'}}}}}\n")
    with open_instance(tmp_path) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        assert (tmp_path / "elsewhere").is_dir()
