"""Finds landed lines that no raw table holds yet, by their ids; nothing is closed, moved or decoded besides them."""

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.landing.disk import EventKind, LandingZone, compute_closing_time
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, LEDGER, ApplicationTables


class LandedKeys(msgspec.Struct, kw_only=True):
    """Holds the keys of a landed line; of a prediction `signal` is empty."""

    event_id: str
    received_at: datetime
    occurred_at: datetime | None = None
    source: str = ""
    prediction_id: str = ""
    signal: str = ""
    statement_id: str | None = None
    revision: int | None = None
    model_version: str | None = None
    retracts: str | None = None


@dataclass(frozen=True)
class LandedLine:
    """One landed event that is not in a raw table yet."""

    keys: LandedKeys
    where: str
    """The segment's day folder and name, or that it is not sealed yet."""
    content: dict[str, Any]
    """The whole line, texts included."""

    @property
    def is_feedback(self) -> bool:
        """Tell feedback from predictions, which have no signal."""
        return bool(self.keys.signal)

    def names(self, events: Collection[str]) -> bool:
        """Return whether it is one of these events, or a revision of one of these statements."""
        return self.keys.event_id in events or self.keys.statement_id in events


def find_landed_lines(
    lake: Lake, tables: ApplicationTables, landing: LandingPlace, local: Path, ids: Collection[str]
) -> list[LandedLine]:
    """Find the lines that name one of `ids`, on days that the raw tables do not hold finally.

    Args:
        lake: the application's tables; its ledger says which days are final.
        tables: which of them its daily assets fill.
        landing: where sealed segments lie.
        local: this machine's landing folder, with segments that are not sealed or not shipped yet.
        ids: event ids, statement ids and prediction ids.
    """
    needles = [msgspec.json.encode(each) for each in sorted(ids)]
    found: list[LandedLine] = []
    for kind in EventKind:
        table = GROUND_TRUTH if kind is EventKind.FEEDBACK else tables.predictions
        entries = ledger.read_entries(lake, table.name) if lake.has_table(LEDGER) else {}
        zone = landing.open_zone(lake.application, kind)
        for day in zone.list_days():
            if day in entries and entries[day].is_closed:
                continue
            # A moment before its closing: so no day is closed by a question.
            seen = zone.read(day, compute_closing_time(day) - timedelta(seconds=1))
            if day in entries and entries[day].content_hash == seen.content_hash:
                continue
            state = "closed" if seen.is_closed else "open"
            with zone.fetch(seen, lake.scratch / "tracing") as paths:
                for path in paths:
                    found += _search(path, f"in {_name_day(day)}/{path.name} (the day is {state})", needles)
        here = LandingZone(local, lake.application, kind)
        for path in sorted(here.open_folder.glob("*.jsonl")):
            found += _search(path, "in a segment that is not sealed yet", needles)
        if not isinstance(zone, LandingZone):
            for path in sorted(here.folder.glob("received_date=*/*.jsonl")):
                found += _search(path, "in a segment that is not shipped to S3 yet", needles)
    return found


def _name_day(day: date) -> str:
    return f"received_date={day.isoformat()}"


def _search(path: Path, where: str, needles: list[bytes]) -> Iterator[LandedLine]:
    try:
        with open(path, "rb") as file:
            if not path.stat().st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                lines = {line for needle in needles for line in _find_lines(content, needle)}
    except FileNotFoundError:
        return  # it was sealed or shipped since it was listed
    wanted = {msgspec.json.decode(needle) for needle in needles}
    for line in sorted(lines):
        try:
            keys = msgspec.json.decode(line, type=LandedKeys)
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # quarantine holds it once its day is ingested
        if not wanted.isdisjoint((keys.event_id, keys.statement_id, keys.prediction_id)):
            yield LandedLine(keys, where, row)


def _find_lines(content: mmap.mmap, needle: bytes) -> Iterator[bytes]:
    at = content.find(needle)
    while at >= 0:
        start, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
        end = len(content) if end < 0 else end
        yield content[start:end]
        at = content.find(needle, end)
