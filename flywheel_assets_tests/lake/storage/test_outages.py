"""S3 or Postgres gone in the middle of a write, a cut, an export, an erasure, a collection: told, and nothing lost."""

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import (
    CatalogUnavailableError,
    CommitContentionError,
    LockLostError,
    SettingsError,
    StorageUnavailableError,
    VersionConflictError,
)
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.erasure.erase import Place, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding, erase_lines
from flywheel_assets.lake.landing.disk import OWNER_FILE, DiskLanding, EventKind
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.storage import failures
from flywheel_assets.lake.storage import s3 as s3_storage
from flywheel_assets.lake.storage.commits import bound_waits, hold_lock, verify_locks
from flywheel_assets.lake.storage.failures import is_disk_full
from flywheel_assets.lake.storage.files import write_synced
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, LEDGER, TableSpec, list_tables
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.upkeep import garbage
from flywheel_assets.lake.upkeep.garbage import (
    _list_files,
    expire_snapshots,
    find_unfinished_work,
    list_needed_paths,
    remove_unfinished,
    sweep_table,
)
from flywheel_assets.lake.versions import exports
from flywheel_assets.lake.versions.exports import verify_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.publishing import S3Folder, publish_export
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets.settings import Settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import APPLICATION, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.failing_servers import FailingS3, Fault, Outage, Wire, failing_s3
from flywheel_assets_tests.lake.gold import gold_row, write_gold_days
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench, stamp, write_day
from flywheel_assets_tests.postgres_server import PostgresServer, postgres_server

GOLD = CURATED_DPO_PAIRS
SLOW = pytest.mark.slow
RULES = ResolutionRules(holdout_share=0.2)
AFTER_ALL = datetime(2100, 1, 1, tzinfo=UTC)
PERSONS = 6


@dataclass
class Site(Workbench):
    """An application whose landing, warehouse and copies may lie on S3, and whose catalog may be a Postgres."""

    s3: FailingS3 | None = None
    """Keeps landing and copies; None: a disk does."""
    is_warehouse_local: bool = False
    catalog: str = ""
    """Default: SQLite."""

    def __post_init__(self) -> None:
        self.bucket = self.s3.new_bucket() if self.s3 else ""
        self.client = self.s3.client() if self.s3 else None
        self.objects = ObjectLanding.from_uri(f"s3://{self.bucket}/landing", self.client) if self.s3 else None
        super().__post_init__()
        self.copies = f"s3://{self.bucket}/copies" if self.s3 else f"{self.root}/copies"
        self.versions = Versions(self.root / "versions", APPLICATION)
        landing = ErasableLanding(APPLICATION, self.landing, self.root / "scratch" / "landing", self.objects)
        self.place = Place(self.lake, self.tables, self.versions, landing, self.start, {})

    def open_lake(self) -> Lake:
        on_s3 = self.s3 is not None and not self.is_warehouse_local
        return Lake(
            self.application,
            self.catalog or f"sqlite:///{self.root}/catalog.db?timeout=60",
            f"s3://{self.bucket}/warehouse" if on_s3 else f"file://{self.root}/warehouse",
            self.root / "scratch",
            "a key that all sites share",
            self.s3.storage() if self.s3 else {},
        )

    def bring(self, days: int) -> None:
        """The same days that every other site gets."""
        for offset, kind in itertools.product(range(days), EventKind):
            path = self.land(kind, day(offset), edits(offset)[list(EventKind).index(kind)], f"{kind}-{offset}")
            if self.objects is not None:
                self.objects.open_zone(APPLICATION, kind).publish(path, day(offset))
                path.unlink()

    def do(self, action: str, number: int) -> None:
        """One operation; given again it comes to the same."""
        version = f"dpo_gold_v{number + 1}"
        match action:
            case EventKind.PREDICTION | EventKind.FEEDBACK:
                ingest_days(
                    self.lake, self.objects or DiskLanding(self.landing), EventKind(action), [day(number)], stamp()
                )
            case "join":
                self.join([day(number)])
            case "curate":
                self.curate([day(number)])
            case "write gold":
                write_gold_days(self.lake, {day(number): 30})
            case "cut":
                cut_pair_version(self.lake, self.versions, version, RULES, "1")
            case "export":
                publish_export(self.versions.folder(version), self.copies, self.root / "scratch", lambda: self.client)
            case "erase":
                plan = plan_erasure(self.place, f"user {number}")
                now = LONG_AFTER + timedelta(hours=number)
                erase_person(self.place, plan, who="ada", reason="asked", now=now, grace=timedelta(0))
            case _:
                self.collect([GOLD, LEDGER] if action == "collect gold" else list_tables(self.tables))

    def collect(self, specs: Iterable[TableSpec]) -> None:
        for spec in specs:
            expire_snapshots(self.lake, spec, AFTER_ALL)
            sweep_table(self.lake, spec, timedelta(0), AFTER_ALL)
        remove_unfinished(find_unfinished_work(self.lake.scratch, self.versions), AFTER_ALL)

    def kept(self) -> list[TableSpec]:
        return [spec for spec in list_tables(self.tables) if self.lake.has_table(spec)]

    def state(self) -> dict[str, Any]:
        """Everything that must not depend on outages: rows, accounts, versions with their sha256, landing, copies."""
        found: dict[str, Any] = {spec.name: self.rows(spec) for spec in self.kept()}
        for folder in self.versions:
            manifest = msgspec.structs.asdict(verify_manifest(folder.export))
            # Iceberg draws the number of a snapshot by lot.
            removed = [each.rows_removed for each in manifest.pop("erasures")]
            found[folder.version] = {**manifest, "erasures": removed, "snapshot_id": None}
        for key, content in self.objects_under("landing", "copies").items():
            if key.endswith(f"/{OWNER_FILE}"):
                continue  # each home has an id of its own
            found[key] = None if key.endswith("manifest.json") else hashlib.sha256(content).hexdigest()
        return found

    def objects_under(self, *prefixes: str) -> dict[str, bytes]:
        if self.client is None:
            return {}
        pages = [self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{prefix}/") for prefix in prefixes]
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def assert_nothing_torn(self) -> None:
        """What is seen under its final name is whole, also in the middle of things."""
        for folder in self.versions:
            if folder.export.exists():
                verify_manifest(folder.export)
        copies = self.objects_under("copies")
        for manifest in (msgspec.json.decode(copy) for key, copy in copies.items() if key.endswith("manifest.json")):
            for file in manifest["files"].values():
                assert hashlib.sha256(copies[f"copies/{file['name']}"]).hexdigest() == file["sha256"]

    def assert_sound(self) -> None:
        """Versions verify, and once garbage was collected there is none."""
        assert verify_versions(self.lake, self.versions, GOLD).differences == ()
        self.collect(self.kept())
        strays = list((self.root / "scratch").rglob("*.parquet"))
        strays += [path for path in (self.root / "versions").rglob("*") if path.name.startswith(".")]
        assert strays == []
        for spec in self.kept():
            table = self.lake.load_table(spec)
            assert {info.path for info in _list_files(table)} == list_needed_paths(table)


@cache
def edits(offset: int) -> tuple[list[Any], list[Any]]:
    on = day(offset)
    received = datetime.combine(on, time(12), UTC)
    predictions, feedback = [], []
    for number in range(PERSONS):
        name = f"{on} {number}"
        ids = {"prediction_id": name, "user_id": f"user {number}", "received_at": received, "occurred_at": received}
        words = {"prompt": f"How is valve {name} set?", "original_output": f"Turn valve {name} by hand, then wait."}
        predictions.append(make_prediction(event_id=f"p {name}", prompt=words["prompt"], **ids))
        edited = f"Close valve {name} with the key and note the pressure."
        feedback.append(make_feedback(event_id=f"f {name}", final_text=edited, **words, **ids))
    return [*predictions, predictions[0], b"{"], [*feedback, feedback[0], b"no event"]


@pytest.fixture(scope="module")
def s3() -> Iterator[FailingS3]:
    with failing_s3() as server:
        yield server


DAILY = [*EventKind, "join", "curate", "cut", "export", "erase", "collect"]
GOLD_ONLY = ["write gold", "cut", "export", "collect gold"]
FEW = GOLD_ONLY[:3]


@pytest.mark.long
@pytest.mark.parametrize(
    ("actions", "points", "fault"),
    [
        (FEW, 1, Fault.LOST_ANSWER),
        *(pytest.param(GOLD_ONLY, 8, fault, marks=SLOW) for fault in Fault if fault is not Fault.SILENCE),
        pytest.param(DAILY, 3, Fault.LOST_ANSWER, marks=SLOW),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_an_operation_that_s3_left_in_the_middle_is_made_whole_by_the_next(
    tmp_path: Path, s3: FailingS3, monkeypatch: pytest.MonkeyPatch, actions: list[str], points: int, fault: Fault
) -> None:
    """S3 fails from some request on, at several of them, and is there again; nothing shows it in the end."""
    monkeypatch.setattr(tables, "_DEADLINE_S", 0.0)
    clean, victim = (Site(tmp_path / name, s3=s3, is_warehouse_local=name == "clean") for name in ("clean", "victim"))
    told = Counter[str]()
    for site in (clean, victim):
        site.bring(2 if actions is DAILY else 0)
    for action in actions:
        for number in range(2):
            clean.do(action, number)
        before = len(s3.requests)
        victim.do(action, 0)
        requests = len(s3.requests) - before
        for point in range(points):
            with s3.failing(Outage(fault, after=requests * (2 * point + 1) // (2 * points))):
                try:
                    victim.do(action, 1)
                except StorageUnavailableError:
                    told[action] += 1
            victim.assert_nothing_torn()
        victim.do(action, 1)
    print(dict(told))
    # Whoever is given no content needs none: a torn answer to a PUT is an answer.
    assert set(told) == set(actions) - ({"export"} if fault is Fault.TORN_ANSWER else set())
    assert victim.state() == clean.state()
    victim.assert_sound()


@pytest.mark.long
def test_a_commit_outlives_an_s3_that_refuses_connections_for_a_while(tmp_path: Path, s3: FailingS3) -> None:
    site = Site(tmp_path, s3=s3)
    site.lake.load_table(GOLD)
    refusal = ExitStack()
    refusal.enter_context(s3.refusing())
    back = threading.Timer(0.5, refusal.close)
    back.start()
    write_day(site.lake, GOLD, day(0), [gold_row(day(0), 0)])
    back.join()
    assert site.lake.count_rows_per_day(GOLD) == {day(0): 1}
    assert len(site.lake.load_table(GOLD).metadata.snapshots) == 1


@pytest.fixture(scope="module")
def cut_site(s3: FailingS3, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """With a version to be copied to S3."""
    site = Site(tmp_path_factory.mktemp("cut"), s3=s3, is_warehouse_local=True)
    site.do("write gold", 0)
    site.do("cut", 0)
    return site


def copy(site: Site, to: str, client: Any) -> list[bool]:
    """Copies the version; returns of each file whether it is new."""
    folder = site.versions.folder("dpo_gold_v1")
    return [file.is_new for file in publish_export(folder, to, site.root / "scratch", lambda: client)]


@pytest.mark.long
def test_an_s3_that_never_answers_is_told(
    cut_site: Site, s3: FailingS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bounds of its own a client waits as long as the server likes."""
    monkeypatch.setattr(tables, "_DEADLINE_S", 0.0)
    monkeypatch.setattr(s3_storage, "_READ_S", 0.2)
    monkeypatch.setenv("FLYWHEEL_S3_ENDPOINT", s3.endpoint)
    client = Stores(Settings(home=tmp_path)).s3_client()
    storage = {**s3.storage(), "s3.request-timeout": "1"}
    uri = f"sqlite:///{tmp_path}/catalog.db"
    lake = Lake(APPLICATION, uri, f"s3://{cut_site.bucket}/hasty", tmp_path / "scratch", "key", storage)
    lake.load_table(GOLD)
    to = f"s3://{cut_site.bucket}/silent"
    with s3.failing(Outage(Fault.SILENCE)) as outage:
        with pytest.raises(StorageUnavailableError, match="NETWORK_CONNECTION during"):
            write_day(lake, GOLD, day(0), [gold_row(day(0), 0)])
        with pytest.raises(StorageUnavailableError, match="ReadTimeoutError"):
            copy(cut_site, to, client)
    assert outage.failed > 3, "boto3's client asks again"
    write_day(lake, GOLD, day(0), [gold_row(day(0), 0)])
    assert all(copy(cut_site, to, cut_site.client))


def test_a_copy_whose_answer_was_lost_is_our_own(cut_site: Site, s3: FailingS3, tmp_path: Path) -> None:
    """The client asks again, and `IfNoneMatch` refuses it because of its own first request."""
    client = s3.client(attempts=2)
    with s3.failing(Outage(Fault.LOST_ANSWER, of="PUT .*/copies/", after=2, times=1)) as outage:
        are_new = copy(cut_site, cut_site.copies, client)
    assert outage.failed == 1
    assert are_new == [True, True, False, *([True] * (len(are_new) - 3))]
    cut_site.assert_nothing_torn()
    (tmp_path / "other").write_bytes(b"other\n")
    with pytest.raises(VersionConflictError, match="exists with other content"):
        S3Folder(client, cut_site.copies).put("dpo_gold_v1.jsonl", tmp_path / "other", is_derived=False)


def test_s3_that_refuses_for_good_is_not_asked_again(cut_site: Site, s3: FailingS3, tmp_path: Path) -> None:
    lake = Lake(APPLICATION, f"sqlite:///{tmp_path}/catalog.db", "s3://no-such-bucket", tmp_path, storage=s3.storage())
    with pytest.raises(SettingsError, match=r"NO_SUCH_BUCKET during .* Check FLYWHEEL_WAREHOUSE"):
        write_day(lake, GOLD, day(0), [gold_row(day(0), 0)])
    with pytest.raises(SettingsError, match="NoSuchBucket; check the name of the bucket"):
        copy(cut_site, "s3://no-such-bucket/copies", cut_site.client)


@pytest.mark.long
def test_a_closing_whose_answer_was_lost_is_our_own(tmp_path: Path, s3: FailingS3) -> None:
    """A closing is created once, and replaced only if it is the one that was seen: asked again, both are refused."""
    site = Site(tmp_path, s3=s3, is_warehouse_local=True)
    site.bring(1)
    patient = ObjectLanding.from_uri(f"s3://{site.bucket}/landing", s3.client(attempts=2))
    zone = patient.open_zone(APPLICATION, EventKind.FEEDBACK)
    with s3.failing(Outage(Fault.LOST_ANSWER, of=r"PUT .*_CLOSED\.json", times=1)):
        assert zone.read(day(0), LONG_AFTER).is_closed
    for lost in range(3):
        with s3.failing(Outage(Fault.LOST_ANSWER, of=r"PUT .*_CLOSED\.json", after=lost, times=1)) as outage:
            is_gone = holds(f"user {lost}")
            done = erase_lines(zone, is_gone, "erasure", lambda: LONG_AFTER, tmp_path / "work")
        assert (outage.failed, done.segments) == (1, 1), "announced, listed, emptied: it is replaced three times"
    sealed = zone.find_closing(day(0))
    assert sealed is not None
    assert sealed.closing.erasing == []
    assert [each.name for each in sealed.closing.segments] == [each.name for each in zone.list_segments(day(0))]
    [left] = [
        text for key, text in site.objects_under("landing").items() if "/feedback/" in key and "_CLOSED" not in key
    ]
    assert not any(holds(f"user {lost}")(left) for lost in range(3))
    assert holds("user 3")(left)


def holds(words: str) -> Callable[[bytes], bool]:
    return lambda line: words.encode() in line


def test_files_that_were_swept_between_two_attempts_are_not_committed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between attempts nobody holds the lock: a sweep without grace may take what the first one had placed."""
    commit = Table._do_commit

    def lose(table: Table, *arguments: Any, **keywords: Any) -> None:
        monkeypatch.setattr(Table, "_do_commit", commit)
        for path in bench.root.glob("warehouse/**/data/*.parquet"):
            path.unlink()
        raise CommitFailedException("overtaken")

    monkeypatch.setattr(Table, "_do_commit", lose)
    with pytest.raises(CommitContentionError, match="swept while their commit was tried again"):
        write_day(bench.lake, GOLD, day(0), [gold_row(day(0), 0)])
    assert bench.lake.count_rows_per_day(GOLD) == {}


def test_an_expiry_without_its_lock_takes_no_tag(bench: Workbench) -> None:
    """Trap 3 where the lock does not help: Postgres may lose it. pyiceberg alone forgets snapshot and tag."""
    write_gold_days(bench.lake, {day(0): 1})
    head = bench.lake.load_table(GOLD).metadata.current_snapshot_id
    write_gold_days(bench.lake, {day(1): 1})
    assert head is not None
    stale = bench.lake.load_table(GOLD)
    bench.open_lake().load_table(GOLD).manage_snapshots().create_tag(head, "dpo_gold_v1").commit()
    with pytest.raises(CommitFailedException, match="has changed since it was loaded"):
        stale.maintenance.expire_snapshots().older_than(AFTER_ALL).commit()
    assert expire_snapshots(bench.lake, GOLD, AFTER_ALL) == 0
    assert list_tags(bench.lake, GOLD) == {"dpo_gold_v1": head}


# Postgres ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def wire(postgres: PostgresServer) -> Iterator[Wire]:
    wire = Wire(postgres.socket)
    yield wire
    wire.close()


@pytest.fixture
def behind(wire: Wire, tmp_path: Path) -> Iterator[Site]:
    """A site whose catalog is behind the wire; its tables are new."""
    site = Site(tmp_path / "victim", catalog=wired(wire))
    for identifier in site.lake.catalog.list_tables(APPLICATION):
        site.lake.catalog.drop_table(identifier)
    yield site
    site.lake.catalog.engine.dispose()


def wired(wire: Wire) -> str:
    return f"postgresql+psycopg://flywheel@127.0.0.1:{wire.port}/postgres?sslmode=disable&connect_timeout=2"


@pytest.mark.long
@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, pytest.param(Fault.LOST_REQUEST, marks=SLOW)])
def test_a_commit_of_which_nobody_knows_happens_once(behind: Site, wire: Wire, tmp_path: Path, fault: Fault) -> None:
    """The connection is gone when COMMIT was sent: the retry finds its key, or that nothing happened."""
    clean = Site(tmp_path / "clean")
    commits = Counter[str]()
    for action in ("write gold", "cut"):
        for site in (clean, behind):
            site.do(action, 0)
        for _ in range(10):
            number = 1 + commits[action]
            clean.do(action, number)
            with wire.failing(Outage(fault, of="COMMIT", after=commits[action], times=1)) as outage:
                behind.do(action, number)
            assert snapshots(behind) == snapshots(clean)
            if not outage.failed:
                break
            commits[action] += 1
    assert commits == {"write gold": 2, "cut": 3}, "gold and ledger; a hold, a tag, the end of the hold"
    assert behind.state() == clean.state()
    behind.assert_sound()


def snapshots(site: Site) -> dict[str, int]:
    return {spec.name: len(site.lake.load_table(spec).metadata.snapshots) for spec in site.kept()}


@pytest.mark.long
def test_a_restart_of_postgres_in_the_middle_of_a_commit_is_outlived(
    behind: Site, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped as by a power cut when the metadata are written and the catalog is not, and between two commits."""
    behind.do("write gold", 0)
    write = MetastoreCatalog._write_metadata
    starting: list[threading.Timer] = []

    def stop(**arguments: Any) -> None:
        write(**arguments)
        if not starting:
            postgres.stop()
            starting.append(threading.Timer(0.5, postgres.start))
            starting[0].start()

    with monkeypatch.context() as patched:
        patched.setattr(MetastoreCatalog, "_write_metadata", staticmethod(stop))
        behind.do("write gold", 1)
    starting[0].join()
    assert behind.lake.count_rows_per_day(GOLD) == {day(0): 30, day(1): 30}
    postgres.stop()
    postgres.start()
    # Pooled connections are from before.
    assert behind.lake.count_rows_per_day(GOLD) == {day(0): 30, day(1): 30}
    behind.do("cut", 0)
    behind.assert_sound()


@pytest.mark.long
@pytest.mark.parametrize(
    ("actions", "points"),
    [(["write gold", "cut", "collect gold"], (7,)), pytest.param(DAILY, (0, 3, 11, 23, 47, 95), marks=SLOW)],
    ids=len,
)
def test_an_operation_that_postgres_left_in_the_middle_is_made_whole_by_the_next(
    behind: Site,
    wire: Wire,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    actions: list[str],
    points: tuple[int, ...],
) -> None:
    """Each operation loses its catalog from some question on."""
    clean = Site(tmp_path / "clean")
    told = Counter[str]()
    for site in (clean, behind):
        site.bring(1 if actions is DAILY else 0)
    for action in actions:
        clean.do(action, 0)
        for after in points:
            with monkeypatch.context() as patched, wire.failing(Outage(Fault.LOST_REQUEST, after=after)) as outage:
                patched.setattr(tables, "_DEADLINE_S", 0.0)
                try:
                    behind.do(action, 0)
                except (CatalogUnavailableError, LockLostError):
                    told[action] += 1
                else:
                    assert not outage.failed, "it did not ask as often"
            behind.assert_nothing_torn()
        behind.do(action, 0)
    # An export asks nothing: its version lies on the disk.
    assert set(told) == set(actions) - {"export"}
    print(dict(told))
    assert behind.state() == clean.state()
    behind.assert_sound()


def lose_locks(postgres: PostgresServer) -> None:
    """End the connections of all that hold an advisory lock, as an administrator or a failover does."""
    import psycopg

    held = "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory'"
    with psycopg.connect(postgres.uri.replace("+psycopg", ""), autocommit=True) as connection:
        assert connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM ({held}) held").fetchall()


def test_a_commit_whose_lock_was_lost_takes_it_again(
    behind: Site, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind.do("write gold", 0)
    place = Lake.place
    placed: list[str] = []

    def lose(lake: Lake, table: Table, path: Path) -> str:
        placed.append(place(lake, table, path))
        lose_locks(postgres)
        return placed[-1]

    monkeypatch.setattr(Lake, "place", lose)
    behind.do("write gold", 1)
    assert behind.lake.list_files(GOLD, [day(1)]) == frozenset(placed), "placed once, committed by the second attempt"
    behind.assert_sound()


def test_a_cut_whose_lock_was_lost_exports_nothing(
    behind: Site, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure may have begun meanwhile, and would not know the export that appears after it has looked."""
    behind.do("write gold", 0)

    def written_then_lost(path: Path, content: bytes) -> None:
        write_synced(path, content)
        lose_locks(postgres)

    with monkeypatch.context() as patched:
        patched.setattr(exports, "write_synced", written_then_lost)
        with pytest.raises(LockLostError, match=r"let go of the lock assistant\.versions .* safe to run again"):
            behind.do("cut", 0)
    assert not behind.versions.folder("dpo_gold_v1").export.exists()
    behind.do("cut", 0)
    behind.assert_sound()


def test_a_sweep_whose_lock_was_lost_deletes_nothing(
    behind: Site, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever got the lock after it may have placed files that no snapshot reaches yet."""
    behind.do("write gold", 0)
    behind.do("write gold", 0)
    expire_snapshots(behind.lake, GOLD, AFTER_ALL)

    def lose(table: Table) -> set[str]:
        lose_locks(postgres)
        return list_needed_paths(table)

    before = sorted(behind.root.rglob("*.parquet"))
    with monkeypatch.context() as patched:
        patched.setattr(garbage, "list_needed_paths", lose)
        with pytest.raises(LockLostError):
            sweep_table(behind.lake, GOLD, timedelta(0), AFTER_ALL)
    assert sorted(behind.root.rglob("*.parquet")) == before
    assert sweep_table(behind.lake, GOLD, timedelta(0), AFTER_ALL).deleted.files > 0
    behind.assert_sound()


def test_a_daily_step_whose_lock_was_lost_writes_nothing(behind: Site, postgres: PostgresServer) -> None:
    """Between its first read and its commit an erasure may have been there."""
    behind.do("write gold", 0)
    with behind.lake.share_daily_steps():
        behind.do("write gold", 0)
        lose_locks(postgres)
        with pytest.raises(LockLostError, match=r"let go of the lock assistant\.daily_steps .* safe to run again"):
            behind.do("write gold", 1)
    behind.do("write gold", 1)
    behind.assert_sound()


def test_a_lost_lock_is_free_at_once_and_hides_nothing(
    behind: Site, postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the work under it raised is what is told, not that the lock could not be released."""
    lock = partial(hold_lock, behind.catalog, tmp_path, "assistant.models", 5.0)

    def work() -> None:
        with lock():
            lose_locks(postgres)
            with lock():
                pass
            raise VersionConflictError("the work")

    with pytest.raises(VersionConflictError, match="the work"):
        work()
    assert "assistant.models was lost before it was released" in caplog.text
    with lock():
        verify_locks()


def test_a_postgres_that_never_answers_is_told(wire: Wire, tmp_path: Path) -> None:
    with wire.failing(Outage(Fault.SILENCE)), pytest.raises(CatalogUnavailableError, match="timeout"):
        assert Lake(APPLICATION, wired(wire), f"file://{tmp_path}", tmp_path).catalog


def test_a_postgres_that_refuses_us_is_not_asked_again(wire: Wire, tmp_path: Path) -> None:
    uri = wired(wire).replace("/postgres?", "/nobody?")
    with pytest.raises(SettingsError, match=r'database "nobody" does not exist\. Check FLYWHEEL_CATALOG_URI'):
        write_day(Lake(APPLICATION, uri, f"file://{tmp_path}", tmp_path), GOLD, day(0), [gold_row(day(0), 0)])


def test_waits_are_bounded_unless_the_address_says_how() -> None:
    bounded = bound_waits("postgresql+psycopg://flywheel:secret@db/lake?connect_timeout=3")
    assert bounded.startswith("postgresql+psycopg://flywheel:secret@db/lake?")
    assert "connect_timeout=3" in bounded
    assert "tcp_user_timeout=60000" in bounded
    assert bound_waits("sqlite:////tmp/catalog.db?timeout=60") == "sqlite:////tmp/catalog.db?timeout=60"


def test_causes_that_come_in_a_circle_are_walked_once() -> None:
    """An error that is raised again while its own consequence is handled is among its causes."""
    first, second = OSError("first"), OSError("AWS Error SLOW_DOWN during PutObject operation: later")
    first.__cause__, second.__cause__ = second, first
    assert isinstance(failures.find_outage(first), StorageUnavailableError)
    assert not is_disk_full(first)
    assert failures.find_outage(ValueError("AWS Error SLOW_DOWN during PutObject operation")) is None
