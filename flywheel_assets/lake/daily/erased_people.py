"""Recognises events of erased people by keyed hashes: enough to refuse a replay, too little to name a person.

The key is a secret of the installation. Without it the hashes in the table `erasures` cannot be compared with a list of
user ids. An installation that has lost its key can no longer refuse replays; ingestion stops with an error that says
so. It stops, too, under another key than the erasures': each of them keeps a *check value* of its key. Without it a
wrong but valid key let the replay of an erased person in. Erasures of older releases have none.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.storage.files import write_once
from flywheel_assets.lake.tables.decisions import list_decisions
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import ERASURES


@dataclass(frozen=True)
class ErasedPeople:
    """Holds the keyed hashes of all erased people and of their events."""

    key: bytes
    people: Mapping[str, datetime]
    """Hash of the user id → time of the erasure: events received before it are refused."""
    events: frozenset[str]
    """Hashes of event ids, refused whenever they come: a broker's replay has a new receipt."""

    def has_event(self, event_id: str | None) -> bool:
        """Return whether an event of this id was erased."""
        return event_id is not None and hash_with_key(self.key, "event", event_id) in self.events

    def find_numbers(self, connection: duckdb.DuckDBPyConnection, view: str, number: str) -> set[int]:
        """Find the numbers of the landed events that were erased.

        Args:
            connection: that has the view.
            view: with `event_id`, `user_id`, `received_at` and `number`.
            number: a column that numbers the rows.
        """
        users = connection.execute(f"SELECT DISTINCT user_id FROM {view} WHERE user_id <> ''").fetchall()
        hashes = {str(row[0]): hash_with_key(self.key, "user", str(row[0])) for row in users}
        known = [(user, self.people[hashed]) for user, hashed in hashes.items() if hashed in self.people]
        schema = pa.schema([("user_id", pa.string()), ("erased_at", pa.timestamp("us", tz="UTC"))])  # type: ignore[arg-type]
        rows = [{"user_id": user, "erased_at": erased_at} for user, erased_at in known]
        connection.register("erased_users", pa.Table.from_pylist(rows, schema=schema))
        theirs = connection.execute(
            f"SELECT {number} FROM {view} JOIN erased_users USING (user_id) WHERE received_at < erased_at"
        ).fetchall()
        events = connection.sql(f"SELECT {number}, event_id FROM {view}").to_arrow_table()
        numbered = zip(events[number].to_pylist(), events["event_id"].to_pylist(), strict=True)
        return {row[0] for row in theirs} | {each for each, event_id in numbered if self.has_event(event_id)}


def read_erased_people(lake: Lake) -> ErasedPeople | None:
    """Read the hashes of the people whose events are refused; None before the first erasure.

    Raises:
        SettingsError: there were erasures, and their key is gone or is another one.
    """
    if not lake.has_table(ERASURES):
        return None
    rows = list_decisions(lake, ERASURES)
    if not rows:
        return None
    people: dict[str, datetime] = {}
    for row in rows:
        people[row["person_key"]] = max(row["decided_at"], people.get(row["person_key"], row["decided_at"]))
    events = frozenset(key for row in rows for key in json.loads(row["event_keys"]))
    return ErasedPeople(load_erasure_key(lake, rows), people, events)


def load_erasure_key(lake: Lake, erasures: Sequence[Mapping[str, Any]], *, make: bool = False) -> bytes:
    """Return the installation's secret for keyed hashes, and check it against the erasures so far.

    Args:
        lake: whose `erasure_key` or key file it is.
        erasures: rows of the table `erasures`.
        make: create the file where there is none.

    Raises:
        SettingsError: there is none, it cannot be read, or it is not the key of the erasures.
    """
    key = _read_key(lake, make=make and not erasures)
    checks = {str(row["key_check"]) for row in erasures if row["key_check"]}
    if checks - {compute_key_check(key)}:
        where = "FLYWHEEL_ERASURE_KEY" if lake.erasure_key else str(locate_key_file(lake))
        raise SettingsError(
            f"{where} is not the key under which people were erased (its check value is {compute_key_check(key)}, "
            f"theirs {', '.join(sorted(checks))}): replays of their events could not be refused. Restore the key that "
            "was used then, from a backup of the home or of your secrets."
        )
    return key


def compute_key_check(key: bytes) -> str:
    """Compute the value by which a key is recognised; it says nothing about the key or about people."""
    return hash_with_key(key, "check", "the erasure key")


def _read_key(lake: Lake, *, make: bool) -> bytes:
    if lake.erasure_key:
        return hashlib.blake2b(lake.erasure_key.encode()).digest()
    path = locate_key_file(lake)
    if make and write_once(path, secrets.token_hex(32).encode()):
        path.chmod(0o600)
    if not path.exists():
        raise SettingsError(
            f"{path} is gone, and people were erased under it: replays of their events could not be refused. "
            "Restore it, or set FLYWHEEL_ERASURE_KEY to the secret that was used."
        )
    try:
        return bytes.fromhex(path.read_text())
    except ValueError:
        raise SettingsError(
            f"{path} does not hold 64 hexadecimal digits: it is damaged. Restore it from a backup of the home."
        ) from None


def locate_key_file(lake: Lake) -> Path:
    """Return the path of the key if the settings give none: outside `scratch`, which may be deleted."""
    return lake.scratch.parent / "erasure.key"


def hash_with_key(key: bytes, kind: str, text: str) -> str:
    """Return 32 hex characters that only an owner of the key can compare with a text."""
    return hashlib.blake2b(f"{kind}:{text}".encode(), key=key[:64], digest_size=16).hexdigest()
