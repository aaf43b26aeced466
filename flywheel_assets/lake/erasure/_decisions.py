"""The tables of people's decisions and of the breaker without a person: rules, reasons and examples that name them."""

import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from flywheel_assets.lake.daily.ledger import RunStamp
from flywheel_assets.lake.erasure.person_keys import Traces
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import BREAKER_DAYS, BREAKER_RESETS, ERASURES, EXCLUSIONS, ROLLBACKS, TableSpec


def forget_in_decisions(lake: Lake, traces: Traces, erasure: str, stamp: RunStamp) -> int:
    """Rewrite what names the person; returns how many rows did.

    A rule about this user no longer names anybody, and covers nobody: all its rows are gone. What people gave as their
    reason stays, but for the user id. The breaker's examples of rows that are gone are dropped.
    """
    alias = f"erased:{erasure}"
    # Not within a longer word: the user "a" is in every reason.
    named = re.compile(rf"(?<!\w){re.escape(traces.user_id)}(?!\w)")

    def reworded(reason: str | None) -> str | None:
        return reason if reason is None else named.sub(alias, reason)

    def renamed(user: str | None) -> str | None:
        return alias if user == traces.user_id else user

    def without_examples(trips: str) -> str:
        found = json.loads(trips)
        for trip in found:
            trip["examples"] = [event for event in trip["examples"] if event not in traces.event_ids]
        return json.dumps(found)

    changes: tuple[tuple[TableSpec, str, Callable[[Any], Any]], ...] = (
        (EXCLUSIONS, "user_id", renamed),
        (EXCLUSIONS, "reason", reworded),
        (ROLLBACKS, "reason", reworded),
        (BREAKER_RESETS, "reason", reworded),
        (ERASURES, "reason", reworded),
        (BREAKER_DAYS, "trips", without_examples),
    )
    return sum(_changed(lake, spec, column, change, stamp) for spec, column, change in changes)


def _changed(lake: Lake, spec: TableSpec, column: str, change: Callable[[Any], Any], stamp: RunStamp) -> int:
    if not lake.has_table(spec):
        return 0

    def rewrite(rows: pa.Table) -> pa.Table:
        position = rows.schema.get_field_index(column)
        values = pa.array([change(value) for value in rows[column].to_pylist()], pa.string())
        return rows.set_column(position, rows.schema.field(position), values)

    before = lake.read(spec)
    pairs = zip(before[column].to_pylist(), rewrite(before)[column].to_pylist(), strict=True)
    differing = sum(bool(old != new) for old, new in pairs)
    if differing:
        lake.replace_all(spec, rewrite, stamp.properties())
    return differing
