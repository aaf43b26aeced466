"""A tripped day in the lake: out of gold, accounted for, apart from all other days, let in only by an audited row."""

from dataclasses import replace

import pytest

from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.lake.daily import breaker, ledger
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import BREAKER_RESETS, CURATED_DPO_PAIRS, JOINED_FEEDBACK, QUARANTINE
from flywheel_assets.records import CURATION_STAGE
from flywheel_assets_tests.builders import NOON, day, make_feedback
from flywheel_assets_tests.lake.raid import LIMITS, RAID
from flywheel_assets_tests.lake.workbench import Workbench, stamp
from flywheel_assets_tests.prepared import PreparedFolder

CALM = 20


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """Two calm days, a day with twice as many rows and one more, and another calm one."""
    bench = Workbench(tmp_path_factory.mktemp("raided"), limits=LIMITS)
    for offset, rows in enumerate((CALM, CALM, RAID, CALM)):
        bench.land(EventKind.FEEDBACK, day(offset), [make_feedback() for _ in range(rows)])
    days = [day(offset) for offset in range(4)]
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    return PreparedFolder(bench.root)


@pytest.fixture
def raided(prepared: PreparedFolder) -> Workbench:
    return Workbench(prepared.restored(), limits=LIMITS)


def kept_rows(bench: Workbench) -> list[int]:
    counts = bench.lake.count_rows_per_day(CURATED_DPO_PAIRS)
    return [counts.get(day(offset), 0) for offset in range(4)]


def test_nothing_of_a_tripped_day_is_in_gold_and_the_accounts_add_up(raided: Workbench) -> None:
    assert kept_rows(raided) == [CALM, CALM, 0, CALM]
    entry = ledger.read_entries(raided.lake, CURATED_DPO_PAIRS.name)[day(2)]
    assert (entry.rows_in, entry.rows_kept, entry.rows_held) == (RAID, 0, 0)
    assert entry.rows_by_reason == {"breaker_tripped": RAID}
    assert audit_accounts(raided.lake, CURATED_DPO_PAIRS).discrepancies == ()
    refusals = raided.refusals(CURATION_STAGE)
    assert {(row["day"], row["detail"]) for row in refusals} == {(day(2), "burst 2.05 > 2")}
    [found] = breaker.find_tripped_days(raided.lake)
    assert found.day == day(2)
    assert set(found.figures.trips[0].examples) <= {row["row_id"] for row in refusals}


def test_rows_that_wait_leave_gold_with_their_day(bench: Workbench) -> None:
    """Held rows could join a version once three people said the same: of a raid they are part of it."""
    bench.limits = replace(LIMITS, min_trailing_days=1)
    bench.land(EventKind.FEEDBACK, day(0), [make_feedback() for _ in range(CALM)])
    text = "Call settings.fetch('name') and check the result for None, then close the store and write what you found."
    bench.land(
        EventKind.FEEDBACK,
        day(1),
        [
            *(make_feedback() for _ in range(RAID)),
            make_feedback(original_output=text, final_text=text.replace("close the", "close a")),
        ],
    )
    days = [day(0), day(1)]
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    assert kept_rows(bench)[:2] == [CALM, 0]
    assert ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name)[day(1)].rows_by_reason == {
        "breaker_tripped": RAID,
        "trivial_edit": 1,
    }
    assert audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies == ()


def test_days_are_judged_alike_in_any_order_and_again(raided: Workbench) -> None:
    """The baseline is the joined rows of the days before: what was curated or withheld of them changes nothing."""
    before = raided.rows(CURATED_DPO_PAIRS), raided.rows(QUARANTINE), breaker.read_judged_days(raided.lake)
    for offset in (3, 2, 0, 1):
        raided.curate([day(offset)])
    assert (raided.rows(CURATED_DPO_PAIRS), raided.rows(QUARANTINE), breaker.read_judged_days(raided.lake)) == before


def test_a_day_is_stale_when_an_earlier_day_has_changed(raided: Workbench) -> None:
    lookback = {JOINED_FEEDBACK.name: LIMITS.trailing_days}
    assert ledger.find_stale_days(raided.lake, CURATED_DPO_PAIRS.name, lookback, day(0)) == {}
    changed = ledger.LedgerEntry(JOINED_FEEDBACK.name, day(1), True, "changed", {}, 0, 0, {})
    ledger.record_entries(raided.lake, [changed], stamp())
    assert list(ledger.find_stale_days(raided.lake, CURATED_DPO_PAIRS.name, lookback, day(0))) == [
        day(1),
        day(2),
        day(3),
    ]


def test_an_open_day_is_not_judged(bench: Workbench) -> None:
    bench.limits = replace(LIMITS, max_top_user_ratio=0.1)
    rows = [make_feedback(user_id=None if number else "loud") for number in range(RAID)]
    bench.land(EventKind.FEEDBACK, day(0), [{**row, "user_id": "loud"} for row in rows[:30]] + rows[30:])
    bench.ingest_both([day(0)], now=NOON.replace(hour=23))
    bench.join([day(0)])
    bench.curate([day(0)])
    assert breaker.read_judged_days(bench.lake) == []
    assert kept_rows(bench)[0] == RAID


def test_a_reset_lets_the_day_in_when_it_is_curated_again(raided: Workbench) -> None:
    done = breaker.reset_day(raided.lake, day(2), who="ada", reason="the launch", now=NOON)
    assert kept_rows(raided)[2] == 0
    raided.curate([day(2)])
    assert kept_rows(raided) == [CALM, CALM, RAID, CALM]
    assert breaker.find_tripped_days(raided.lake) == []
    assert [(each.decided_by, each.reason, each.day) for each in breaker.list_resets(raided.lake)] == [
        ("ada", "the launch", day(2))
    ]
    assert done == breaker.list_resets(raided.lake)[0]
    assert audit_accounts(raided.lake, CURATED_DPO_PAIRS).discrepancies == ()


def test_a_reset_holds_for_the_rows_that_were_looked_at_and_no_others(raided: Workbench) -> None:
    breaker.reset_day(raided.lake, day(2), who="ada", reason="the launch", now=NOON)
    raided.write(JOINED_FEEDBACK, day(2), [*raided.rows(JOINED_FEEDBACK, [day(2)])])
    entry = ledger.read_entries(raided.lake, JOINED_FEEDBACK.name)[day(2)]
    ledger.record_entries(raided.lake, [replace(entry, content_hash="other rows")], stamp())
    raided.curate([day(2)])
    assert kept_rows(raided)[2] == 0


@pytest.mark.parametrize(("who", "reason"), [("", "the launch"), ("ada", " ")])
def test_a_reset_that_nobody_could_audit_is_refused(raided: Workbench, who: str, reason: str) -> None:
    with pytest.raises(InvalidRuleError, match="needs who decides and why"):
        breaker.reset_day(raided.lake, day(2), who=who, reason=reason, now=NOON)
    raided.curate([day(2)])
    assert kept_rows(raided)[2] == 0


def test_a_day_that_did_not_trip_cannot_be_reset(raided: Workbench) -> None:
    with pytest.raises(UnknownNameError, match=f"tripped day '{day(1)}'.*{day(2)}"):
        breaker.reset_day(raided.lake, day(1), who="ada", reason="just in case", now=NOON)
    assert raided.rows(BREAKER_RESETS) == []


# One sender ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tripped_on_purpose(bench: Workbench) -> Workbench:
    """A day of twenty people, next to whom one person sends as much as all of them."""
    bench.limits = replace(LIMITS, max_top_user_ratio=0.25, min_trailing_days=3)
    rows = [make_feedback() for _ in range(CALM)]
    loud = [make_feedback(user_id="loud") for _ in range(CALM)]
    bench.land(EventKind.FEEDBACK, day(0), [*rows, *loud])
    bench.ingest_both([day(0)])
    bench.join([day(0)])
    bench.curate([day(0)])
    return bench


def test_a_day_goes_on_without_the_sender_who_tripped_it(tripped_on_purpose: Workbench) -> None:
    """150 edits a day of one account kept ten days out of gold, and no version could be cut."""
    bench = tripped_on_purpose
    assert kept_rows(bench)[0] == CALM
    assert {row["subject"] for row in bench.rows(CURATED_DPO_PAIRS)} & {"loud"} == set()
    entry = ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name)[day(0)]
    assert (entry.rows_in, entry.rows_kept, entry.rows_by_reason) == (2 * CALM, CALM, {"sender_held": CALM})
    assert audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies == ()
    assert {(row["subject"], row["detail"]) for row in bench.refusals(CURATION_STAGE)} == {
        ("loud", "top_user_share 0.5 > 0.25")
    }
    assert breaker.find_tripped_days(bench.lake) == []
    [found] = breaker.find_kept_out_days(bench.lake)
    assert (found.day, found.held_rows, found.is_tripped) == (day(0), CALM, False)


def test_a_held_sender_is_let_in_by_the_day_s_reset(tripped_on_purpose: Workbench) -> None:
    bench = tripped_on_purpose
    breaker.reset_day(bench.lake, day(0), who="ada", reason="our own load test", now=NOON)
    bench.curate([day(0)])
    assert kept_rows(bench)[0] == 2 * CALM
    assert breaker.find_kept_out_days(bench.lake) == []
