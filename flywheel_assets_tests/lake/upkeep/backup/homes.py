"""A whole home to lose: tables, landing, versions, databases, keys, and the ways to back it up and restore it."""

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flywheel_assets.cli.homes import build_backup_source, build_restore_target
from flywheel_assets.lake.upkeep.backup.manifest import Manifest
from flywheel_assets.lake.upkeep.backup.place import BackupPlace
from flywheel_assets.lake.upkeep.backup.restoring import Restored, choose_backup, restore_backup
from flywheel_assets.lake.upkeep.backup.taking import Backup, take_backup
from flywheel_assets.lake.upkeep.relocation import plan_adoption, plan_move, register_tables
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.lake.killable import ASSISTANT, Wheel, landed, plan

NOW = datetime(2026, 11, 29, tzinfo=UTC)
STEPS = plan(3, 1, 0)
LARGE = b"weights " * 200_000


def make_home(root: Path) -> None:
    """Three days of an application with a cut version, and the other parts of a home with something in each."""
    os.environ.pop("DAGSTER_HOME", None)
    [wheel] = landed(STEPS, root)
    for step in STEPS:
        wheel.run(step)
    for name, content in {
        "landing/assistant/feedback/_open/live.jsonl": b'{"event_id": "live"}\n',
        "erasure.key": b"0" * 64,
        "capture_keys.json": b'{"keys": []}',
        "review/assistant.jsonl": b"{}\n",
        "models/tiny/model.safetensors": LARGE,
        "mlartifacts/1/adapter/adapter.bin": LARGE[:-1],
        "scratch/building/half.parquet": b"unfinished",
        "versions/assistant/.export.0123456789abcdef/half.jsonl": b"unfinished",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in ("mlflow.db", "dagster/history/runs.db", "sources/assistant/tickets.db"):
        write_row(root / name, "first")


def write_row(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE IF NOT EXISTS rows (text)")
        connection.execute("INSERT INTO rows VALUES (?)", (text,))
        connection.commit()


def read_rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM rows")]


@dataclass(frozen=True)
class Everything:
    """What must be the same in a restored home."""

    tables: dict[str, Any]
    files: dict[str, bytes]
    databases: dict[str, list[str]]


def read_everything(root: Path) -> Everything:
    """Tables row by row, versions by their manifests, and all files but the ids and the catalog's own."""
    own = ("scratch", "warehouse", "catalog.db", "home.json", "backups.json")
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in own)
    kept = [path for path in paths if not re.search(r"/_HOME\.json$|/\.[^/]+/|-(wal|shm)$", str(path))]
    return Everything(
        Wheel(root).contents(),
        {str(path.relative_to(root)): path.read_bytes() for path in kept if path.suffix != ".db"},
        {str(path.relative_to(root)): read_rows(path) for path in kept if path.suffix == ".db"},
    )


def open_place(uri: Path | str) -> BackupPlace:
    return BackupPlace.open(str(uri), {})


def back_up(root: Path, place: BackupPlace | Path, *, keep: int = 14, with_keys: bool = True) -> Backup:
    source = build_backup_source(Stores(isolate_settings(root)), with_keys=with_keys)
    found = place if isinstance(place, BackupPlace) else open_place(place)
    return take_backup(source, found, now=NOW, keep=keep)


def restore(place: BackupPlace | Path, root: Path, number: int | None = None, *, is_verified: bool = False) -> Restored:
    """Restore to `root`; verifying the versions takes a second."""
    found = place if isinstance(place, BackupPlace) else open_place(place)
    target = build_restore_target(Stores(isolate_settings(root)), dagster_home=root / "dagster")
    if not is_verified:
        target = type(target)(**{**vars(target), "tables": {}})
    return restore_backup(found, choose(found, number), target)


def choose(place: BackupPlace, number: int | None = None) -> Manifest:
    return choose_backup(place, number)


def back_up_again(root: Path, place: Path, told: Connection) -> None:
    """In a process of its own, which tells when it begins and when it has ended."""
    source = build_backup_source(Stores(isolate_settings(root)), with_keys=True)
    told.send("begun")
    take_backup(source, open_place(place), now=NOW)
    told.send("done")


def restore_again(place: Path, root: Path, told: Connection) -> None:
    told.send("begun")
    restore(place, root)
    told.send("done")


def move_again(root: Path, told: Connection) -> None:
    lake = Wheel(root).benches[ASSISTANT].lake
    assert lake.catalog
    told.send("begun")
    register_tables(lake, plan_move(lake), home_id="moved")
    told.send("done")


def adopt_again(root: Path, told: Connection) -> None:
    lake = Wheel(root).benches[ASSISTANT].lake
    assert lake.catalog
    told.send("begun")
    register_tables(lake, plan_adoption(lake), home_id="adopted")
    told.send("done")
