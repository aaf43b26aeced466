"""One behaviour, whatever keeps the catalog and the files: SQLite or Postgres, a disk or S3."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
import yaml

from flywheel_assets import stores
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import CommitContentionError, HomeMismatchError, VersionConflictError
from flywheel_assets.lake.storage.commits import hold_lock
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.upkeep.garbage import expire_snapshots, sweep_table
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows
from flywheel_assets.lake.versions.exports import ExportSet
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import count_net_new
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets.models.registry import ModelRegistry
from flywheel_assets.settings import Settings
from flywheel_assets_tests.builders import APPLICATION, day
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.models.tracked import empty_run
from flywheel_assets_tests.postgres_server import postgres_server

GOLD = CURATED_DPO_PAIRS
RULES = ResolutionRules(holdout_share=0.0)
BUCKET = "warehouse"


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    with postgres_server() as server:
        yield server.uri


@pytest.fixture
def s3_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
    yield {"s3.endpoint": endpoint}
    server.stop()


@pytest.fixture(params=["sqlite, disk", "postgres, disk", "sqlite, s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    catalog, storage = request.param.split(", ")
    uri = f"sqlite:///{tmp_path}/catalog.db?timeout=60"
    if catalog == "postgres":
        uri = request.getfixturevalue("postgres_uri")
    options = request.getfixturevalue("s3_storage") if storage == "s3" else {}
    # A warehouse belongs to one catalog: each test has its own.
    warehouse = f"s3://{BUCKET}/{tmp_path.name}" if storage == "s3" else f"file://{tmp_path}/warehouse"
    with opened(Lake(APPLICATION, uri, warehouse, tmp_path / "scratch", storage=options)) as lake:
        # A Postgres is shared by the tests of this session, its tables are not.
        for identifier in lake.catalog.list_tables(APPLICATION):
            lake.catalog.drop_table(identifier)
        yield lake


@contextmanager
def opened(lake: Lake) -> Iterator[Lake]:
    """A lake whose pooled connections end with it."""
    yield lake
    lake.catalog.engine.dispose()


def as_another_process(lake: Lake) -> AbstractContextManager[Lake]:
    return opened(Lake(lake.application, lake.catalog_uri, lake.warehouse, lake.scratch, storage=lake.storage))


@pytest.mark.long
def test_days_versions_exclusions_expiry_and_verification(lake: Lake, tmp_path: Path) -> None:
    versions = Versions(tmp_path / "versions", APPLICATION)
    write_gold_days(lake, {day(0): 3, day(1): 4})
    first = cut_pair_version(lake, versions, "dpo_gold_v1", RULES, "1")
    write_gold_days(lake, {day(1): 2, day(2): 5}, text="again")
    assert lake.count_rows_per_day(GOLD) == {day(0): 3, day(1): 2, day(2): 5}
    assert list_tags(lake, GOLD) == {"dpo_gold_v1": first.snapshot_id}
    assert lake.read(GOLD, [day(1)], snapshot_id=first.snapshot_id).num_rows == 4

    now = datetime(2026, 11, 21, tzinfo=UTC)
    exclude_rows(lake, ExclusionRule(user_id=f"user {day(2)} 0"), who="ada", reason="r", now=now)
    assert count_net_new(lake, versions, RULES, 1).pairs == 9
    second = cut_pair_version(lake, versions, "dpo_gold_v2", RULES, "1")
    assert (second.files[ExportSet.TRAIN].rows, second.dropped) == (9, {"excluded": 1})

    far = datetime(2100, 1, 1, tzinfo=UTC)
    assert expire_snapshots(lake, GOLD, far) > 0
    assert sweep_table(lake, GOLD, timedelta(0), far).deleted.files > 0
    assert lake.read(GOLD, [day(1)], snapshot_id=first.snapshot_id).num_rows == 4
    found = verify_versions(lake, versions, GOLD)
    assert (found.versions, found.differences) == (2, ())


@pytest.mark.long
def test_writers_of_different_days_lose_nothing(lake: Lake) -> None:
    def write(first: int) -> None:
        with as_another_process(lake) as own:
            write_gold_days(own, {day(first + offset): 2 for offset in range(3)})

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert lake.count_rows_per_day(GOLD) == {day(first + offset): 2 for first in (0, 10) for offset in range(3)}


def test_a_restored_dump_under_the_same_name_does_not_take_the_warehouse(postgres_uri: str, tmp_path: Path) -> None:
    """Two Postgres catalogs differed by the name of their database only; its copy swept the original's files."""
    psycopg = pytest.importorskip("psycopg")
    uri = postgres_uri.replace("/postgres?", "/wheel?")
    with psycopg.connect(postgres_uri.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE wheel")
        lake = Lake(APPLICATION, uri, f"file://{tmp_path}/warehouse", tmp_path / "scratch")
        with opened(lake):
            write_gold_days(lake, {day(0): 1})
            marker = tmp_path / "warehouse" / "_HOME.json"
            # As the release before wrote it: the next sweep adds what it lacks.
            marker.write_bytes(msgspec.json.encode({"id": lake.home_id, "catalog": lake.home.catalog_name}))
            assert lake.verify_home(sweeps=True) == lake.home_id
            assert msgspec.json.decode(marker.read_bytes())["server"] == lake.home.server
        connection.execute("ALTER DATABASE wheel RENAME TO original")
        connection.execute("CREATE DATABASE wheel TEMPLATE original")
        with as_another_process(lake) as copy, pytest.raises(HomeMismatchError, match=r"it is a copy.*`flywheel move`"):
            sweep_table(copy, GOLD, timedelta(0), datetime(2100, 1, 1, tzinfo=UTC))
        with as_another_process(lake) as copy:
            copy.home.write_id("new", {})
            assert copy.verify_home(sweeps=True) == "new"


@pytest.mark.long
def test_a_lock_that_stays_taken_is_a_transient_error(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gold_days(lake, {day(0): 1})
    with as_another_process(lake) as other, monkeypatch.context() as patched:
        assert other.load_table(GOLD).current_snapshot() is not None
        patched.setattr(tables, "_LOCK_TIMEOUT_S", 0.2)
        with other.lock_table(GOLD), pytest.raises(CommitContentionError, match="safe to run again"):
            write_gold_days(lake, {day(0): 2})
    write_gold_days(lake, {day(0): 2})
    assert lake.count_rows_per_day(GOLD) == {day(0): 2}


def test_daily_steps_share_what_others_hold_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_STEPS_TIMEOUT_S", 0.2)
    with as_another_process(lake) as other:
        with lake.share_daily_steps():
            with other.share_daily_steps():
                pass
            with pytest.raises(CommitContentionError, match="safe to run again"), other.pause_daily_steps():
                pytest.fail("alone beside a step")
        with lake.pause_daily_steps():
            for others_wait in (other.share_daily_steps, other.pause_daily_steps):
                with pytest.raises(CommitContentionError, match="safe to run again"), others_wait():
                    pytest.fail("beside one who is alone")
        with other.pause_daily_steps():
            pass


DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_instance_for_several_hosts_differs_in_its_storage_only() -> None:
    one_host = yaml.safe_load((DEPLOY.parent / "dagster.yaml").read_text())
    several = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert several.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert several == one_host


@pytest.mark.slow
def test_dagster_and_mlflow_keep_their_state_on_postgres(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")
    psycopg2_uri = postgres_uri.replace("+psycopg", "")
    # Databases of their own, as in deploy/: both have a table `runs`.
    with psycopg.connect(psycopg2_uri, autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    mlflow_uri = psycopg2_uri.replace("/postgres?", "/mlflow?")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", psycopg2_uri)
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    for _ in range(2):
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            instance.add_dynamic_partitions("assistant_gold_versions", ["dpo_gold_v1"])
            assert instance.get_dynamic_partitions("assistant_gold_versions") == ["dpo_gold_v1"]
    lock = partial(hold_lock, postgres_uri, tmp_path / "locks", "assistant.models", 10.0)
    registry = ModelRegistry(mlflow_uri, APPLICATION, tmp_path / "artifacts", lock)
    assert registry.find_champion() is None
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    registry.register_adapter("dpo_gold_v1", empty_run(registry, "dpo_gold_v1"), tmp_path / "adapter", "a" * 64)
    registry.promote("dpo_gold_v1", None)
    champion = ModelRegistry(mlflow_uri, APPLICATION, tmp_path / "artifacts", lock).find_champion()
    assert champion is not None
    assert champion.gold_version == "dpo_gold_v1"


@pytest.mark.long
def test_two_machines_never_both_move_the_champion(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias was locked by a file in the home: two homes on one MLflow both compared, and both swapped."""
    monkeypatch.setenv("FLYWHEEL_CATALOG_URI", postgres_uri)
    monkeypatch.setenv("FLYWHEEL_MLFLOW_URI", f"sqlite:///{tmp_path}/mlflow.db")
    machines = [stores.Stores(Settings(home=tmp_path / name)).registry(APPLICATION) for name in ("one", "other")]
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for number, machine in enumerate(machines, start=1):
        version = f"dpo_gold_v{number}"
        machine.register_adapter(version, empty_run(machine, version), tmp_path / "adapter", "a" * 64)

    # Long enough between comparing and swapping that without a lock both have compared.
    registered = ModelRegistry._find_registered

    def slowly(self: ModelRegistry, version: str) -> Any:
        time.sleep(0.3)
        return registered(self, version)

    def promote(number: int) -> str:
        try:
            return machines[number - 1].promote(f"dpo_gold_v{number}", None).gold_version
        except VersionConflictError:
            return "conflict"

    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as threads:
        patched.setattr(ModelRegistry, "_find_registered", slowly)
        outcomes = list(threads.map(promote, (1, 2)))
    serving = machines[0].find_champion()
    assert serving is not None
    assert sorted(outcomes) == ["conflict", serving.gold_version]

    monkeypatch.setattr(stores, "_ALIAS_TIMEOUT_S", 0.2)
    third = stores.Stores(Settings(home=tmp_path / "third")).registry(APPLICATION)
    with machines[0].lock(), pytest.raises(CommitContentionError, match="safe to run again"):
        third.promote("dpo_gold_v1", serving.gold_version)
