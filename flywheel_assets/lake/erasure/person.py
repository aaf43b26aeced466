"""Finds the keys of everything that one person left, and counts and erases the rows that they cover.

A person's own events carry the user id. Around them lie events that do not: the prediction behind a signed edit, the
anonymous rest of a signed conversation, another user's feedback on this person's text. Those are the person's, too:

- predictions of the person's events, unless the prediction was served to another user;
- conversations in which no other user is known: their anonymous events, and the predictions of those;
- all feedback on these predictions, from any user, since it carries the person's text.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import PartitionChangedError
from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure.landing import ErasableLanding, list_written_forms
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    GROUND_TRUTH,
    ApplicationTables,
    TableSpec,
)

_ROWS_AT_ONCE = 100_000
_SEEN = pa.schema(
    [  # type: ignore[arg-type]
        ("is_prediction", pa.bool_()),
        ("event_id", pa.string()),
        ("prediction_id", pa.string()),
        ("user_id", pa.string()),
        ("thread_id", pa.string()),
    ]
)


class LandedKeys(msgspec.Struct):
    """The keys of a landed line, which say whose it is."""

    event_id: str = ""
    prediction_id: str = ""
    user_id: str | None = None
    thread_id: str | None = None


_decoder = msgspec.json.Decoder(LandedKeys)


@dataclass(frozen=True)
class PersonKeys:
    """The keys of everything that one person left."""

    user_id: str
    event_ids: frozenset[str]
    prediction_ids: frozenset[str]
    thread_ids: frozenset[str]

    def covers_line(self, line: bytes) -> bool:
        """Return whether a landed line is the person's.

        A line that is no event counts when it quotes the user id.
        """
        try:
            keys = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return any(name.encode() in line for name in self._list_quoted_names())
        return (
            keys.user_id == self.user_id
            or keys.event_id in self.event_ids
            or keys.prediction_id in self.prediction_ids
            or (not keys.user_id and keys.thread_id in self.thread_ids)
        )

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Give a connection the key tables that `condition` reads."""
        for name, ids in (
            ("person_events", self.event_ids),
            ("person_predictions", self.prediction_ids),
            ("person_threads", self.thread_ids),
        ):
            connection.register(name, pa.table({"id": pa.array(sorted(ids), pa.string())}))

    def write_condition_sql(self, spec: TableSpec) -> str:
        """Return SQL that is true for the person's rows, by the key columns of the table; it is never null."""
        names, user = spec.schema.names, quote(self.user_id)
        found = [
            f"{name} IN (SELECT id FROM person_events)"
            for name in ("event_id", "feedback_event_id", "label_event_id", "row_id")
            if name in names
        ]
        if "prediction_id" in names:
            found.append("prediction_id IN (SELECT id FROM person_predictions)")
        if "user_id" in names:
            found.append(f"user_id = {user}")
        if "thread_id" in names:
            anonymous = "coalesce(user_id, '') = '' AND " if "user_id" in names else ""
            found.append(f"({anonymous}thread_id IN (SELECT id FROM person_threads))")
        if "subject_kind" in names:
            found.append(f"(subject_kind = 'user' AND subject = {user})")
            found.append("(subject_kind = 'thread' AND subject IN (SELECT id FROM person_threads))")
        elif "subject" in names:
            found.append(f"subject = {user}")
        if "payload" in names:
            found += [f"contains(payload, {quote(name)})" for name in self._list_quoted_names()]
        return f"coalesce({' OR '.join(found)}, false)" if found else "false"

    def _list_quoted_names(self) -> list[str]:
        """Return the user id as a JSON string, in every way in which one may be written."""
        return sorted(f'"{form}"' for form in list_written_forms(self.user_id))


def find_person_keys(
    lake: Lake,
    tables: ApplicationTables,
    landing: ErasableLanding,
    user_id: str,
    was_erased: Callable[[str], bool] = lambda _: False,
) -> PersonKeys:
    """Find the keys of everything that a person left.

    Args:
        lake: the application's tables.
        tables: which of them its daily assets fill.
        landing: where its events are landed.
        user_id: the person.
        was_erased: whether an event id belongs to an earlier erasure of the same person, which a crash cut short.
    """
    with lake.connect() as connection:
        connection.register("none", _SEEN.empty_table())
        connection.execute("CREATE TEMP TABLE seen AS FROM none")
        for kind in EventKind:
            for batch in _read_landed_keys(landing, kind):
                connection.register("batch", batch)
                connection.execute("INSERT INTO seen FROM batch")
        sources = (
            (tables.predictions, "true", "event_id"),
            (GROUND_TRUTH, "false", "event_id"),
            (tables.joined, "false", "feedback_event_id"),
        )
        for spec, is_prediction, event_id in sources:
            keys = [name for name in spec.schema.names if name in {event_id, "prediction_id", "user_id", "thread_id"}]
            lake.register(connection, spec, None, keys, view="keys")
            user, thread = (name if name in keys else "NULL" for name in ("user_id", "thread_id"))
            connection.execute(
                f"INSERT INTO seen SELECT {is_prediction}, {event_id}, prediction_id, {user}, {thread} FROM keys"
            )
        earlier = [event for (event,) in connection.execute("SELECT DISTINCT event_id FROM seen").fetchall()]
        again = pa.table({"id": pa.array([event for event in earlier if was_erased(event)], pa.string())})
        connection.register("again", again)
        return _collect_keys(connection, user_id)


def _collect_keys(connection: duckdb.DuckDBPyConnection, user_id: str) -> PersonKeys:
    """Apply the rule at the top of this module to the table `seen`."""
    user = quote(user_id)
    is_other = f"coalesce(user_id, '') NOT IN ('', {user})"
    connection.execute(f"CREATE TEMP TABLE own AS FROM seen WHERE user_id = {user} OR event_id IN (FROM again)")
    connection.execute(
        "CREATE TEMP TABLE threads AS SELECT DISTINCT thread_id AS id FROM own WHERE thread_id <> '' "
        f"EXCEPT SELECT thread_id FROM seen WHERE {is_other}"
    )
    anonymous = "coalesce(user_id, '') = '' AND thread_id IN (SELECT id FROM threads)"
    connection.execute(
        "CREATE TEMP TABLE predictions AS "
        f"(SELECT prediction_id AS id FROM own UNION SELECT prediction_id FROM seen WHERE {anonymous}) "
        f"EXCEPT (SELECT prediction_id FROM seen WHERE is_prediction AND {is_other} UNION SELECT '')"
    )
    connection.execute(
        "CREATE TEMP TABLE events AS SELECT event_id AS id FROM own UNION SELECT event_id FROM seen "
        f"WHERE prediction_id IN (SELECT id FROM predictions) OR ({anonymous}) EXCEPT SELECT ''"
    )
    events, predictions, threads = (
        frozenset(each for (each,) in connection.execute(f"FROM {name}").fetchall())
        for name in ("events", "predictions", "threads")
    )
    return PersonKeys(user_id, events, predictions, threads)


def _read_landed_keys(landing: ErasableLanding, kind: EventKind) -> Iterator[pa.Table]:
    is_prediction = kind is EventKind.PREDICTION
    rows: list[LandedKeys] = []
    for line in landing.read_lines(kind):
        try:
            rows.append(_decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if len(rows) == _ROWS_AT_ONCE:
            yield _build_seen_rows(rows, is_prediction)
            rows = []
    yield _build_seen_rows(rows, is_prediction)


def _build_seen_rows(rows: Iterable[LandedKeys], is_prediction: bool) -> pa.Table:
    kept = [(is_prediction, each.event_id, each.prediction_id, each.user_id, each.thread_id) for each in rows]
    return pa.Table.from_pylist([dict(zip(_SEEN.names, row, strict=True)) for row in kept], schema=_SEEN)


Partition = tuple[date, str | None]
"""A day, and a stage where the table has stages."""
_ATTEMPTS = 3


def find_rows(lake: Lake, spec: TableSpec, person: PersonKeys, snapshot_id: int | None = None) -> dict[Partition, int]:
    """Count the rows of the person in each partition that holds any, in the head or in another snapshot."""
    if not lake.has_table(spec):
        return {}
    own = person.write_condition_sql(spec)
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, spec, None, view="whole", snapshot_id=snapshot_id)
        found = connection.execute(
            f"SELECT {spec.day_column}, {spec.stage_column or 'NULL'}, count(*) FROM whole WHERE {own} GROUP BY 1, 2"
        ).fetchall()
    return {(day, stage): rows for day, stage, rows in found}


def read_rows(lake: Lake, spec: TableSpec, person: PersonKeys) -> pa.Table:
    """Read the person's rows in the head."""
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, spec, None, view="whole")
        return connection.sql(f"SELECT * FROM whole WHERE {person.write_condition_sql(spec)}").to_arrow_table()  # type: ignore[no-any-return]


def count_rows(found: dict[Partition, int]) -> int:
    """Count the person's rows in all partitions."""
    return sum(found.values())


def write_kept_rows(
    lake: Lake, spec: TableSpec, person: PersonKeys, partition: Partition, snapshot_id: int | None = None
) -> Path | None:
    """Write one partition without the person to a local file; return None where nothing stays."""
    day, stage = partition
    with lake.connect() as connection:
        person.register(connection)
        lake.register(connection, spec, [day], view="whole", snapshot_id=snapshot_id)
        of_stage = f"{spec.stage_column} = {quote(stage)} AND " if stage is not None else ""
        query = f"SELECT * FROM whole WHERE {of_stage}NOT {person.write_condition_sql(spec)}"
        return lake.write_day(connection, spec, day, query)


def erase_head_rows(
    lake: Lake,
    spec: TableSpec,
    person: PersonKeys,
    stamp: RunStamp,
    on_touched: Callable[[TableSpec, dict[Partition, int]], None],
) -> int:
    """Rewrite the head's partitions that contain data of the person; return how many rows were deleted.

    Args:
        lake: the application's tables.
        spec: the table.
        person: keys of what the person left.
        stamp: who writes.
        on_touched: gets the partitions, and how many rows each is about to lose, before they change, so that the
            next run finishes a killed one.

    Raises:
        PartitionChangedError: other writers wrote the person's rows again each time.
    """
    removed = 0
    # Daily steps wait. Rows that a writer without our lock adds meanwhile stay, and are looked at again.
    for _ in range(_ATTEMPTS):
        found = find_rows(lake, spec, person)
        if not found:
            break
        on_touched(spec, found)
        for stage in sorted({stage for _, stage in found}, key=str):
            days = sorted(day for day, of in found if of == stage)
            seen = lake.list_files(spec, days, stage)
            files = {day: write_kept_rows(lake, spec, person, (day, stage)) for day in days}
            kept = {day: file for day, file in files.items() if file is not None}
            try:
                lake.replace_days(spec, days, kept, stamp.properties, stage, seen)
            except PartitionChangedError:
                for file in kept.values():
                    file.unlink()
                continue
            removed += sum(found[day, stage] for day in days)
    else:
        if find_rows(lake, spec, person):
            raise PartitionChangedError(f"{spec.name}: a run keeps writing rows to erase; let it end, then repeat")
    return removed
