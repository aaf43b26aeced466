"""Stores Dagster's events of many partitions together, where its event log is SQLite on this machine.

Dagster's own storage opens a database two to five times for each event: 20 ms of CPU. A backfill of five years has two
events a day for each asset, 18,260 of them, and spent half of its time on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection

MOST_GATHERED = 500
"""The index is locked while they are stored, for some tenths of a second; other processes wait five seconds."""
_GATHERED_TYPES = {DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_MATERIALIZATION}
_STORAGES = ("storage", "event_log_storage", "run_storage", "schedule_storage", "instance_class")


class GatheringEventLog(SqliteEventLogStorage):
    """Holds back the events of partitions until any other event comes or anything is read.

    Every reader of this process therefore finds what was stored before. The events of a run end with others: at the
    latest the end of their step stores them.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # The base class reads while it is made.
        self._gathered: list[EventLogEntry] = []
        self._gathering = RLock()
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "GatheringEventLog":
        """See the base class."""
        return cls(config_value["base_dir"], inst_data)

    def store_event(self, event: EventLogEntry) -> None:
        """See the base class."""
        if event.dagster_event_type in _GATHERED_TYPES and event.run_id:
            with self._gathering:
                self._gathered.append(event)
                if len(self._gathered) >= MOST_GATHERED:
                    self._flush()
        else:
            super().store_event(event)

    def dispose(self) -> None:
        """See the base class."""
        self._flush()
        super().dispose()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        self._flush()
        with super()._connect(shard) as connection:
            yield connection

    def _flush(self) -> None:
        # Kept locked until they are stored: a reader waits for them.
        with self._gathering:
            events, self._gathered = self._gathered, []
            if events:
                self._store_together(events)

    def _store_together(self, events: Sequence[EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        with super()._connect(INDEX_SHARD_NAME) as connection:
            ids = [_insert(connection, row) for row in rows]
            self._store_asset_event_tags(connection, events, ids)
            # Each overwrites what the one before it says about its asset.
            newest = {(row["asset_key"], row["dagster_event_type"]): number for number, row in enumerate(rows)}
            for number in sorted(newest.values()):
                self._store_asset_event(connection, events[number], ids[number])
        by_run: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_run.setdefault(row["run_id"], []).append(row)
        for run_id, of_run in by_run.items():
            with super()._connect(run_id) as connection:
                connection.execute(SqlEventLogStorageTable.insert(), of_run)


def _insert(connection: Connection, row: Mapping[str, Any]) -> int:
    key = connection.execute(SqlEventLogStorageTable.insert(), row).inserted_primary_key
    assert key is not None
    return int(key[0])


def open_gathering_instance(dagster_home: Path) -> dg.DagsterInstance:
    """Open the instance in a DAGSTER_HOME with a gathering event log, unless its dagster.yaml names a storage."""
    configured, _ = dagster_instance_config(str(dagster_home))
    if any(name in configured for name in _STORAGES):
        return dg.DagsterInstance.from_config(str(dagster_home))
    log = {
        "module": __name__,
        "class": GatheringEventLog.__name__,
        # Dagster's own default.
        "config": {"base_dir": str(dagster_home / "history" / "runs")},
    }
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(dagster_home), overrides={"event_log_storage": log}))
