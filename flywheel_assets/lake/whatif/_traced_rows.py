"""Finds the rows of one prediction, event, statement or pair in every table, and in landing, by key columns alone."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.curation.texts.statements import STATEMENT_KEYS
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, LEDGER, QUARANTINE, ApplicationTables, TableSpec
from flywheel_assets.lake.whatif._landed_lines import LandedLine, find_landed_lines
from flywheel_assets.records import SubjectKind, make_event_id

Row = dict[str, Any]

_TEXTS = ("prompt", "output", "original_output", "final_text", "comment", "features", "label")
_LANDED = (
    *("received_date", "event_id", "received_at", "occurred_at", "source", "prediction_id", "model_version"),
    *("signal", "statement_id", "revision", "retracts"),
)
_JOINED = ("completed_date", "feedback_event_id", "prediction_id", "prediction_received_date")
_GOLD = (
    *("completed_date", "support_key", "signal"),
    *("refused_reason", "admitted_by", "similarity", "policy_version", "thread_id"),
    *("feedback_received_date", "model_version"),
    *("label_event_id", "prediction_received_date", "predicted_at", "label_received_date", "label_received_at"),
    *("is_positive", "labeling_source", "discrepancy", "inclusion_probability", "draw"),
    *STATEMENT_KEYS,
)


@dataclass(frozen=True)
class FoundRows:
    """Holds the keys of everything that belongs to one id."""

    feedback: list[Row]
    """Receipts of the events that are asked for, in order; of landed lines `received_date` is null."""
    others: int
    """Other events about the same predictions, where one statement is asked for."""
    served: list[Row]
    """Receipts of the predictions."""
    lines: list[LandedLine]
    """Landed lines of both kinds that no table holds yet."""
    refused: list[Row]
    """Quarantine's rows of the events and of the predictions' events."""
    gold: list[Row]
    """Gold's rows of the events."""
    gold_of_predictions: list[Row]
    """Gold's rows that bear on the verdicts about the predictions.

    These are all rows about them, about the answers that they were compared with, and what takes any of these back.
    """
    joined: dict[str, Row]
    """The matches of the events that are asked for, by event."""


@dataclass
class RowReader:
    """Reads rows of one application by their keys; a table that does not exist has none, and is not created."""

    lake: Lake
    tables: ApplicationTables
    connection: duckdb.DuckDBPyConnection
    looked_at: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._entries: dict[str, dict[date, LedgerEntry]] = {}
        self._tables: dict[str, bool] = {}

    def look(self, place: str) -> None:
        """Note that a place was searched."""
        if place not in self.looked_at:
            self.looked_at.append(place)

    def name_event(self, row: Row) -> str | None:
        """Return the id of the feedback event that gave a gold row; None: silence."""
        event: str | None = row["feedback_event_id" if self.tables.is_text else "label_event_id"]
        return event

    def read_entries(self, asset: str) -> dict[date, LedgerEntry]:
        """Read the ledger's entries of an asset, once."""
        if asset not in self._entries:
            self._entries[asset] = ledger.read_entries(self.lake, asset) if self.lake.has_table(LEDGER) else {}
        return self._entries[asset]

    def read_landed(
        self, spec: TableSpec, named: Mapping[str, Collection[str]], days: Collection[date] | None = None
    ) -> list[Row]:
        """Read receipts by ids, by column, in order."""
        empty: Row = dict.fromkeys(_LANDED)
        return _sort_receipts({**empty, **row} for row in self._read(spec, _LANDED, named, days))

    def read_joined(self, receipts: Collection[Row], wait_days: int) -> dict[str, Row]:
        """Read the matches of received events, by event; a match lies at most `wait_days` after a receipt."""
        events = {row["event_id"] for row in receipts}
        first = {row["received_date"] for row in receipts}
        days = {day + timedelta(days=after) for day in first for after in range(wait_days + 1)}
        rows = self._read(self.tables.joined, _JOINED, {"feedback_event_id": events}, days)
        return {row["feedback_event_id"]: row for row in rows}

    def read_gold(self, named: Mapping[str, Collection[str]], days: Collection[date] | None = None) -> list[Row]:
        """Read gold's rows by ids, by column, in order."""
        rows = self._read(self.tables.gold, _GOLD, named, days)
        return sorted(rows, key=lambda row: (row["completed_date"], str(self.name_event(row))))

    def read_quarantine(self, events: Collection[str]) -> list[Row]:
        """Read the refusals of events, of any stage."""
        columns = ("day", "stage", "row_id", "reason", "detail", "evidence", "policy_version")
        return self._read(QUARANTINE, columns, {"row_id": events})

    def count_voices(self, support_key: str) -> int:
        """Count who says the same as a waiting row, as `mark_unsupported_rows` counts."""
        columns = ("support_key", "subject", "subject_kind", "source")
        rows = self._read(self.tables.gold, columns, {"support_key": {support_key}})
        is_user = [row["subject_kind"] == SubjectKind.USER.value for row in rows]
        # All people of one source who are no signed-in users are one voice.
        return len({(of, row["subject" if of else "source"]) for of, row in zip(is_user, rows, strict=True)})

    def read_texts(self, found: FoundRows) -> dict[str, dict[str, str]]:
        """Read the texts of the rows that were found, by event: of the joined row, else of what was received."""
        texts: dict[str, dict[str, str]] = {}
        days = {event: row["completed_date"] for event, row in found.joined.items()}
        places = [(self.tables.joined, "feedback_event_id", days)]
        for spec, rows in ((GROUND_TRUTH, found.feedback), (self.tables.predictions, found.served)):
            received = {row["event_id"]: row["received_date"] for row in rows if row["received_date"] is not None}
            places.append((spec, "event_id", received))
        for spec, key, days in places:
            left = {event: day for event, day in days.items() if event not in texts}
            for row in self._read(spec, (key, *_TEXTS), {key: set(left)}, set(left.values())):
                texts[row[key]] = _select_texts(row)
        return texts | {line.keys.event_id: _select_texts(line.content) for line in found.lines}

    def _read(
        self,
        spec: TableSpec,
        columns: Iterable[str],
        named: Mapping[str, Collection[str]],
        days: Collection[date] | None = None,
    ) -> list[Row]:
        """Read the rows in which one of the columns holds one of its ids.

        Their days are found first, by these columns alone.
        """
        self.look(spec.name)
        keys = [name for name, ids in named.items() if ids and name in spec.schema.names]
        if not keys or not self._has_table(spec):
            return []
        where = " OR ".join(f"{name} IN ({', '.join(map(quote, sorted(named[name])))})" for name in keys)
        if days is None:
            day = str(spec.day_column)
            self.lake.register(self.connection, spec, None, [day, *keys], view="keys")
            days = [
                each for (each,) in self.connection.execute(f"SELECT DISTINCT {day} FROM keys WHERE {where}").fetchall()
            ]
        names = [name for name in dict.fromkeys((*columns, *keys)) if name in spec.schema.names]
        found: list[Row] = self.lake.read(spec, days, names, where=where, connection=self.connection).to_pylist()
        return found

    def _has_table(self, spec: TableSpec) -> bool:
        if spec.name not in self._tables:
            self._tables[spec.name] = self.lake.has_table(spec)
        return self._tables[spec.name]


def find_rows(
    reader: RowReader, landing: LandingPlace, local_landing: Path, wait_days: int, wanted: str, source: str | None
) -> FoundRows:
    """Find the rows of a prediction, a pair or a statement.

    To a prediction or a pair belong all events about it, to a statement its revisions and what takes it back. Every
    scan of a whole table reads one to three columns of ids; other columns are read of the days that were found.

    Args:
        reader: of the tables.
        landing: where sealed segments lie.
        local_landing: this machine's landing folder.
        wait_days: days for which feedback waits for its prediction.
        wanted: the id.
        source: with it `wanted` may be a client's event id.
    """
    events = {wanted}
    if source is not None:
        # An element of `/edits` lands as a prediction and a feedback, whose ids have an ending.
        names = (wanted, f"{wanted}/feedback", f"{wanted}/prediction")
        events |= {make_event_id(reader.lake.application, source, name) for name in names}
    predictions_table = reader.tables.predictions
    named = {"event_id": events, "statement_id": events, "prediction_id": {wanted}}
    feedback, served = reader.read_landed(GROUND_TRUTH, named), reader.read_landed(predictions_table, named)
    reader.look("landed segments that no table holds yet")
    lines = find_landed_lines(reader.lake, reader.tables, landing, local_landing, events)
    gold: list[Row] = []
    if not (feedback or served or lines):
        by_event = dict.fromkeys(("feedback_event_id", "statement_id", "label_event_id"), events)
        gold = reader.read_gold({"pair_id": {wanted}, "prediction_id": {wanted}, **by_event})

    asked = {row["statement_id"] or row["event_id"] for row in feedback if _is_named(row, events)}
    asked |= {line.keys.statement_id or line.keys.event_id for line in lines if line.is_feedback and line.names(events)}
    asked |= {event for row in gold if (event := reader.name_event(row)) in events}
    predictions = {row["prediction_id"] for row in (*gold, *feedback, *served)}
    predictions |= {line.keys.prediction_id for line in lines}
    predictions.discard("")
    # Asked for the prediction itself, by its id or by the event that brought it, or for its pair.
    is_whole = not asked or wanted in predictions or any(row.get("pair_id") == wanted for row in gold)

    around = {"prediction_id": predictions, "statement_id": asked, "retracts": asked}
    feedback = _merge_receipts(feedback, reader.read_landed(GROUND_TRUTH, around))
    # Over HTTP a retraction names a statement and no prediction.
    if said := {row["statement_id"] or row["event_id"] for row in feedback} - asked:
        feedback = _merge_receipts(feedback, reader.read_landed(GROUND_TRUTH, {"retracts": said}))
    joined = reader.read_joined(feedback, wait_days)
    if missing := predictions - {row["prediction_id"] for row in served}:
        met = [row for row in joined.values() if row["prediction_id"] in missing]
        on = {row["prediction_received_date"] for row in met if row["prediction_received_date"]}
        is_met = missing <= {row["prediction_id"] for row in met if row["prediction_received_date"]}
        more_served = reader.read_landed(predictions_table, {"prediction_id": missing}, on if is_met else None)
        served = _merge_receipts(served, more_served)
    if (ids := events | asked | predictions) != events:
        lines = find_landed_lines(reader.lake, reader.tables, landing, local_landing, ids)
    lines = [line for line in lines if not _is_ingested(line, (*feedback, *served))]
    feedback = _sort_receipts([*feedback, *(_read_keys(line) for line in lines if line.is_feedback)])
    chosen = [row for row in feedback if is_whole or _belongs_to(row, asked)]
    of_events = {row["event_id"] for row in chosen} | ({*asked} & {reader.name_event(row) for row in gold})
    # Only silence gives an example on a day on which nothing was joined.
    days = {row["completed_date"] for row in joined.values()} if reader.tables.is_text and not gold else None
    every = reader.read_gold({"prediction_id": predictions, "retracts": asked}, days)
    own = [row for row in every if is_whole or reader.name_event(row) in of_events]
    return FoundRows(
        feedback=chosen,
        others=len({row["event_id"] for row in feedback} - of_events),
        served=served,
        lines=[line for line in lines if not line.is_feedback or line.keys.event_id in of_events],
        refused=reader.read_quarantine(events | of_events | {row["event_id"] for row in served}),
        gold=own,
        gold_of_predictions=_read_around(reader, every, predictions) if reader.tables.is_text else every,
        joined={event: row for event, row in joined.items() if event in of_events},
    )


def _read_around(reader: RowReader, about: list[Row], predictions: Collection[str]) -> list[Row]:
    """Read what else bears on the verdicts: rows about compared answers, and what takes a row back."""
    rows = {row["feedback_event_id"]: row for row in about}
    known, named = set(predictions), set[str]()
    while about:
        said = {row["statement_id"] or row["feedback_event_id"] for row in about} - named
        siblings = {row[name] for row in about for name in ("prediction_id", "sibling_id") if row[name]} - known
        of_siblings = siblings or (set(predictions) if not named else set())
        more = reader.read_gold({"retracts": said, "prediction_id": siblings, "sibling_id": of_siblings})
        about = [row for row in more if row["feedback_event_id"] not in rows]
        rows |= {row["feedback_event_id"]: row for row in about}
        known |= siblings
        named |= said
    return list(rows.values())


def _belongs_to(row: Row, statements: Collection[str]) -> bool:
    return (row["statement_id"] or row["event_id"]) in statements or row["retracts"] in statements


def _merge_receipts(first: list[Row], second: list[Row]) -> list[Row]:
    """Merge two lists of receipts in order, each receipt once."""
    return _sort_receipts({(row["event_id"], row["received_at"]): row for row in (*first, *second)}.values())


def _sort_receipts(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["received_at"], row["event_id"]))


def take_first_receipts(rows: Iterable[Row]) -> list[Row]:
    """Take the first receipt of each event."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["event_id"], row)
    return list(first.values())


def _is_named(row: Row, events: Collection[str]) -> bool:
    return row["event_id"] in events or row["statement_id"] in events


def _is_ingested(line: LandedLine, rows: Iterable[Row]) -> bool:
    keys = line.keys
    return any((row["event_id"], row["received_at"]) == (keys.event_id, keys.received_at) for row in rows)


def _read_keys(line: LandedLine) -> Row:
    """Build a receipt's keys of a line; null as received day: no table holds it yet."""
    return {name: getattr(line.keys, name, None) for name in _LANDED}


def _select_texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row[name]) for name in _TEXTS if row.get(name) is not None}
