"""A decision is recorded once, with nulls where its table has columns that it does not use."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flywheel_assets.lake.tables.decisions import list_decisions, make_decision_id, record_decision
from flywheel_assets.lake.tables.specs import ROLLBACKS
from flywheel_assets_tests.lake.workbench import Workbench

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


def test_a_decision_is_recorded_once_and_listed_in_order(tmp_path: Path) -> None:
    lake = Workbench(tmp_path).lake
    later, earlier = make_decision_id(lake, "rollback", "v1", 2), make_decision_id(lake, "rollback", "v1", 1)
    assert len({later, earlier, make_decision_id(lake, "reset", "v1", 1)}) == 3
    for decision, now in ((later, NOW), (earlier, NOW - timedelta(days=1)), (later, NOW)):
        facts = {"what": "data", "to_version": "v1"}
        record_decision(lake, ROLLBACKS, decision, who="ada", reason="asked", now=now, **facts)
    rows = list_decisions(lake, ROLLBACKS)
    assert [row["id"] for row in rows] == [earlier, later]
    assert rows[0]["decided_by"] == "ada"
    assert rows[0]["snapshot_before"] is None
