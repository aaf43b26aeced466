"""Joined feedback → gold and quarantine, day by day."""

import pytest

from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.errors import MissingInputError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import audit_accounts, describe_discrepancies
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE
from flywheel_assets.records import CURATION_STAGE
from flywheel_assets_tests.builders import DAY, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import Workbench

COMMENTED = "the output that somebody commented"


def edits_of_every_fate() -> list[dict[str, object]]:
    """Two that pass, and one for each of five reasons."""
    repeated = make_feedback()
    return [
        repeated,
        make_feedback(),
        make_feedback(prompt=repeated["prompt"], final_text=repeated["final_text"]),
        make_feedback(do_not_train=True),
        make_feedback(original_output="the same words", final_text="the same words"),
        make_feedback(final_text="Check the result, or write to ada@lovelace-works.com: she reads it even on Sunday."),
        make_feedback(signal="comment", prediction_id=COMMENTED, final_text=None, comment="nice"),
    ]


def run(bench: Workbench, *days: int) -> None:
    bench.land(EventKind.PREDICTION, DAY, [make_prediction(prediction_id=COMMENTED)])
    wanted = [day(offset) for offset in days]
    bench.ingest_both(wanted)
    bench.join(wanted)
    bench.curate(wanted)


def test_every_row_is_kept_or_refused_for_a_reason(bench: Workbench) -> None:
    bench.land(EventKind.FEEDBACK, DAY, edits_of_every_fate())
    run(bench, 0)
    entry = ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name)[DAY]
    assert (entry.rows_in, entry.rows_kept, entry.rows_stated, entry.balance) == (7, 3, 4, 0)
    assert entry.rows_by_reason == {
        "no_consent": 1,
        "not_trainable_signal": 1,
        "personal_data": 1,
        "unchanged": 1,
    }
    refused = bench.refusals(CURATION_STAGE)
    assert sorted(row["reason"] for row in refused) == sorted(entry.rows_by_reason)
    assert all(row["day"] == DAY and row["policy_version"] == GateRules().policy.version for row in refused)
    assert {row["completed_date"] for row in bench.rows(CURATED_DPO_PAIRS)} == {DAY}
    assert audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies == ()


@pytest.mark.long
def test_curating_again_in_another_order_gives_the_same_tables(bench: Workbench) -> None:
    """The same text is in gold as often as it was sent: duplicates are the resolution's business."""
    rows = edits_of_every_fate()
    for offset in range(3):
        fresh = [{**row, "event_id": f"{offset}-{number}"} for number, row in enumerate(rows)]
        bench.land(EventKind.FEEDBACK, day(offset), fresh)
    run(bench, 0, 1, 2)
    before = bench.rows(CURATED_DPO_PAIRS), bench.rows(QUARANTINE)
    accounts = ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name)
    for offset in (2, 0, 1):
        bench.curate([day(offset)])
    assert (bench.rows(CURATED_DPO_PAIRS), bench.rows(QUARANTINE)) == before
    assert ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name) == accounts
    assert bench.lake.count_rows_per_day(CURATED_DPO_PAIRS) == {day(0): 7, day(1): 7, day(2): 7}


def test_a_day_without_feedback_has_an_account_too(bench: Workbench) -> None:
    run(bench, 0)
    entry = ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name)[DAY]
    assert (entry.rows_in, entry.rows_kept, entry.is_closed) == (0, 0, True)


def test_a_day_that_was_never_joined_is_refused(bench: Workbench) -> None:
    with pytest.raises(MissingInputError, match="assistant/joined_feedback was never materialized for 1 of 1 days"):
        bench.curate([DAY])


def test_gold_is_stale_when_joined_feedback_changed(bench: Workbench) -> None:
    bench.land(EventKind.FEEDBACK, DAY, [make_feedback()])
    run(bench, 0)
    lookback = {JOINED_FEEDBACK.name: bench.limits.trailing_days}
    assert ledger.find_stale_days(bench.lake, CURATED_DPO_PAIRS.name, lookback, DAY) == {}
    bench.join([DAY])
    assert ledger.find_stale_days(bench.lake, CURATED_DPO_PAIRS.name, lookback, DAY) == {}
    bench.write(JOINED_FEEDBACK, DAY, [])
    ledger.record_entries(
        bench.lake,
        [ledger.LedgerEntry(JOINED_FEEDBACK.name, DAY, True, "changed", {}, 0, 0, {})],
        ledger.RunStamp("run", "1", make_feedback()["received_at"]),
    )
    assert ledger.find_stale_days(bench.lake, CURATED_DPO_PAIRS.name, lookback, DAY) == {DAY: [JOINED_FEEDBACK.name]}


def test_the_audit_says_what_does_not_add_up(bench: Workbench) -> None:
    bench.land(EventKind.FEEDBACK, DAY, edits_of_every_fate())
    run(bench, 0)
    bench.write(QUARANTINE, DAY, [], stage=CURATION_STAGE)
    bench.write(CURATED_DPO_PAIRS, DAY, [])
    found = audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies
    assert describe_discrepancies(found) == (
        "2026-03-02: the ledger says 3 kept and 4 stated, the table holds 0; "
        "2026-03-02: the ledger says 4 refused, quarantine holds 0"
    )
    assert describe_discrepancies(found, limit=1).endswith("table holds 0; and 1 more")


def test_an_unbalanced_account_is_found(bench: Workbench) -> None:
    entry = ledger.LedgerEntry(CURATED_DPO_PAIRS.name, DAY, True, "", {}, 3, 0, {"duplicate_event": 2})
    ledger.record_entries(bench.lake, [entry], ledger.RunStamp("run", "1", make_feedback()["received_at"]))
    [found] = audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies
    assert found.what == "3 in, 0 kept, 2 not kept"


def test_what_a_key_attests_travels_from_landing_to_gold(bench: Workbench) -> None:
    """Also for rows that say nothing about it: they were landed before keys vouched."""
    sent = ({"attested_source": "web page", "is_attested": False}, {"attested_source": "app", "is_attested": True}, {})
    bench.land(EventKind.FEEDBACK, DAY, [make_feedback(user_id=f"u{n}", **each) for n, each in enumerate(sent)])
    bench.ingest_both([DAY])
    bench.join([DAY])
    bench.curate([DAY])
    expected = {f"u{n}": (each.get("attested_source"), each.get("is_attested")) for n, each in enumerate(sent)}
    for table in (JOINED_FEEDBACK, CURATED_DPO_PAIRS):
        rows = bench.rows(table)
        assert {row["subject"]: (row["attested_source"], row["is_attested"]) for row in rows} == expected
