"""`flywheel fsck` over a home in other places: catalog in Postgres, warehouse and landing on S3, MLflow behind HTTP."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.defs.automation.inspection import inspect_home
from flywheel_assets.errors import TransientError
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.fsck.findings import Report
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE, TableSpec
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.models.model_folder import hash_weights
from flywheel_assets.settings import Settings, isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import day, make_feedback, make_prediction
from flywheel_assets_tests.lake.closable_stores import ClosableStores
from flywheel_assets_tests.lake.fsck.homes import DAYS, NAME, NOW, V1
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench, stamp
from flywheel_assets_tests.mlflow_server import mlflow_server
from flywheel_assets_tests.models.tracked import empty_run
from flywheel_assets_tests.postgres_server import PostgresServer, postgres_server
from flywheel_assets_tests.s3_server import S3Server, s3_server

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class RemoteHome:
    """One home, and the servers that hold its parts."""

    stores: Stores
    lake: Lake
    s3: S3Server
    postgres: PostgresServer
    mlflow: Path
    """The folder of MLflow's server, as on another machine."""

    def inspect(self, share: float = 1.0, **changed: str) -> Report:
        where = self.stores.where.model_copy(update=changed)
        assert isinstance(where, Settings)
        with closing(ClosableStores(where)) as stores:
            return inspect_home(stores, [APPLICATION], share, NOW)

    def list_keys(self, *parts: str) -> list[str]:
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.s3.bucket)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return [key for key in keys if all(part in key for part in parts)]

    def read(self, key: str) -> bytes:
        found: bytes = self.s3.client.get_object(Bucket=self.s3.bucket, Key=key)["Body"].read()
        return found

    def write(self, key: str, content: bytes) -> None:
        self.s3.client.put_object(Bucket=self.s3.bucket, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.s3.client.delete_object(Bucket=self.s3.bucket, Key=key)


def land(root: Path, landing: ObjectLanding, kind: EventKind, on: date, rows: list[dict[str, object]]) -> None:
    path = Workbench(root / "spool", application=NAME).land(kind, on, rows)
    landing.open_zone(NAME, kind).publish(path, on)


def fill(root: Path, stores: Stores, landing: ObjectLanding) -> Lake:
    """Two days from landing to gold, one version that was trained and serves."""
    lake = stores.lake(NAME)
    for number, on in enumerate(DAYS[:2]):
        ids = [f"p{number}-{each}" for each in range(6)]
        texts = {each: f"answer {each}, which says quite a lot about this thing" for each in ids}
        predictions = [
            make_prediction(event_id=i, prediction_id=i, user_id=f"user {i}", prompt=f"question {i}", output=texts[i])
            for i in ids
        ]
        edits = [
            make_feedback(event_id=f"f{i}", prediction_id=i, user_id=f"user {i}", final_text=f"{texts[i]}, and more")
            for i in ids
        ]
        land(root, landing, EventKind.PREDICTION, on, predictions)
        land(root, landing, EventKind.FEEDBACK, on, edits)
    for kind in EventKind:
        ingest_days(lake, landing, kind, DAYS[:2], stamp(LONG_AFTER), APPLICATION.tables)
    join_days(lake, DAYS[:2], DAYS[0], JoinWindow(), stamp(), APPLICATION.tables)
    curate_days(lake, DAYS[:2], DAYS[0], GateRules(), BreakerLimits(), stamp())
    write_gold_days(lake, {day(3): 12, day(4): 12})
    versions, registry = stores.versions(NAME), stores.registry(NAME)
    cut_pair_version(lake, versions, V1, replace(APPLICATION.resolution, holdout_share=0.3), "1")
    folder = versions.folder(V1)
    adapter = folder.training / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 4)
    folder.training_report.write_text(f'{{"adapter_sha256": "{hash_weights(adapter)}"}}')
    decision = Promotion(version=V1, promoted=True, sentence="Better.", champion_before=None, checks=[{"name": "gain"}])
    record_promotion(folder.promotion, decision)
    registry.register_adapter(V1, empty_run(registry, V1), adapter, "a" * 64)
    registry.promote(V1, None, now=NOW)
    landing.note_first_day(NAME, DAYS[0])
    landing.verify_owner(lake.home_id)
    return lake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteHome]:
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("remote")
    (root / "mlflow").mkdir()
    with (
        s3_server() as s3,
        postgres_server() as postgres,
        mlflow_server(root / "mlflow", serves_artifacts=True) as mlflow,
    ):
        where = isolate_settings(root / "home").model_copy(
            update={
                "catalog_uri": postgres.uri,
                "warehouse": f"s3://{s3.bucket}/warehouse",
                "landing_s3": f"s3://{s3.bucket}/landing",
                "s3_endpoint": s3.endpoint,
                "mlflow_uri": mlflow,
            }
        )
        assert isinstance(where, Settings)
        stores = Stores(where)
        # As an operator makes it: clients reach its artifacts through the server alone.
        MlflowClient(mlflow).create_experiment(stores.registry(NAME).experiment)
        landing = stores.landing()
        assert isinstance(landing, ObjectLanding)
        lake = fill(root, stores, landing)
        yield RemoteHome(stores, lake, s3, postgres, root / "mlflow")
        lake.catalog.engine.dispose()


def test_a_whole_home_has_no_finding_and_what_servers_keep_is_named(home: RemoteHome) -> None:
    report = home.inspect()
    assert [str(each) for each in report.findings] == []
    assert report.looked_at["registered models"] == 1
    assert report.looked_at["closed landing days"] == 4
    assert report.looked_at["landed segments"] == 4
    assert report.looked_at["versions"] == 1
    told = " ".join(report.not_looked_at)
    assert "the catalog: it is no SQLite file" in told
    assert "MLflow's store: it is no SQLite file" in told
    assert "MLflow's copies of models: its server is elsewhere" in told


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def fill_with_garbage(content: bytes) -> bytes:
    return (b"\x00\xffgarbage" * len(content))[: len(content)]


def find_key(home: RemoteHome, spec: TableSpec, part: str) -> str:
    """The key of one object that the head of a table needs."""
    table = home.lake.load_table(spec)
    head = table.current_snapshot()
    assert head is not None
    uri = {
        "manifest list": lambda: head.manifest_list,
        "manifest": lambda: head.manifests(table.io)[0].manifest_path,
        "data": lambda: next(iter(table.scan().plan_files())).file.file_path,
    }[part]()
    return uri.removeprefix(f"s3://{home.s3.bucket}/")


def test_each_damaged_object_is_found_and_nothing_else_is(home: RemoteHome) -> None:
    """All at once, as no one is needed to find another; `test_damaged_homes` takes each kind by itself, on a disk."""
    segment = home.list_keys("landing/", f"feedback/received_date={DAYS[1]}", ".jsonl")[0]
    lost = home.list_keys("landing/", f"prediction/received_date={DAYS[0]}", ".jsonl")[0]
    damages: dict[str, Callable[[bytes], bytes] | None] = {
        segment: flip,
        lost: None,
        f"landing/{NAME}/feedback/received_date={DAYS[0]}/_CLOSED.json": fill_with_garbage,
        f"landing/{NAME}/prediction/received_date={DAYS[1]}/_CLOSED.json": None,
        f"landing/{NAME}/_HISTORY.json": cut_off,
        "landing/_HOME.json": fill_with_garbage,
        "warehouse/_HOME.json": cut_off,
        find_key(home, CURATED_DPO_PAIRS, "data"): flip,
        find_key(home, JOINED_FEEDBACK, "manifest"): cut_off,
        find_key(home, QUARANTINE, "manifest list"): None,
    }
    sound = {key: home.read(key) for key in damages}
    try:
        for key, damage in damages.items():
            home.delete(key) if damage is None else home.write(key, damage(sound[key]))
        found = home.inspect().findings
    finally:
        for key, content in sound.items():
            home.write(key, content)
    prefix = f"s3://{home.s3.bucket}/"
    assert sorted(each.file.removeprefix(prefix) for each in found) == sorted(damages), [str(each) for each in found]
    assert all(each.cause and each.repair for each in found)


def test_servers_that_do_not_answer_are_no_damage(home: RemoteHome, tmp_path: Path) -> None:
    """Half an hour of a restarting server must not send a person to the backups."""
    report = home.inspect(mlflow_uri="http://127.0.0.1:9")
    assert [str(each) for each in report.findings] == []
    assert any("its server does not answer" in each for each in report.not_looked_at)
    with pytest.raises(TransientError, match="safe to run again"):
        home.inspect(catalog_uri=f"postgresql+psycopg://flywheel@/postgres?host={tmp_path}")
