"""Records people's decisions in append-only tables: exclusions, rollbacks, breaker resets and erasures.

Every row has an id of 8 characters, the time, the person who decided, and the reason. The id is derived from the
decision and is the key of the commit: a decision that is recorded again after a crash is found, not written twice.
"""

from datetime import datetime
from typing import Any

import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec


def make_decision_id(lake: Lake, kind: str, *identity: object) -> str:
    """Return the id of a decision: 8 hex characters, equal for equal kind, application and `identity`."""
    return records.make_stable_id(kind, lake.application, *identity)[:8]


def record_decision(
    lake: Lake, spec: TableSpec, decision: str, *, who: str, reason: str, now: datetime, **facts: object
) -> None:
    """Append a decision to its table, once.

    Args:
        lake: the application's tables.
        spec: the decision table.
        decision: the id from `make_decision_id`.
        who: the person who decides.
        reason: why.
        now: when.
        facts: the other columns of this table; columns without a value are null.
    """
    row = {"id": decision, "decided_at": now, "decided_by": who, "reason": reason, **facts}
    rows = pa.Table.from_pylist([dict.fromkeys(spec.schema.names) | row], schema=spec.schema)
    lake.append(spec, rows, decision, {})


def list_decisions(lake: Lake, spec: TableSpec) -> list[dict[str, Any]]:
    """List every row of a decision table, oldest first."""
    return sorted(lake.read(spec).to_pylist(), key=lambda row: (row["decided_at"], row["id"]))
