"""Rolling gold back to a version: what the table, the ledger, the trigger and the audit say afterwards."""

from datetime import UTC, datetime

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import CommitContentionError, UnknownNameError, VersionConflictError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry, audit_accounts
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, ROLLBACKS
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions import rollback as rollback_module
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.net_new import NetNew, count_net_new
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.rollback import ChangedDay, DataPlan, plan_data_rollback, roll_back_data
from flywheel_assets_tests.builders import APPLICATION, day
from flywheel_assets_tests.lake.gold import gold_row, write_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp
from flywheel_assets_tests.prepared import PreparedFolder

GOLD = CURATED_DPO_PAIRS
RULES = ResolutionRules(holdout_share=0.0)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def train(bench: Workbench, versions: Versions, version: str) -> None:
    cut_pair_version(bench.lake, versions, version, RULES, "1")
    folder = versions.folder(version)
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    folder.promotion.write_text("{}")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """v1 with days 0 and 1; then day 1 was curated anew and days 2 and 3 came, into v2; then day 4."""
    bench = Workbench(tmp_path_factory.mktemp("history"))
    versions = Versions(bench.root / "versions", APPLICATION)
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 4)
    train(bench, versions, "dpo_gold_v1")
    write_gold(bench, day(1), 6, text="poisoned")
    write_gold(bench, day(2), 5)
    train(bench, versions, "dpo_gold_v2")
    write_gold(bench, day(3), 7)
    return PreparedFolder(bench.root)


@pytest.fixture
def history(prepared: PreparedFolder) -> Workbench:
    return Workbench(prepared.restored())


@pytest.fixture
def versions(history: Workbench) -> Versions:
    return Versions(history.root / "versions", APPLICATION)


def plan(bench: Workbench, versions: Versions, to: str = "dpo_gold_v1") -> DataPlan:
    return plan_data_rollback(bench.lake, versions, GOLD, to)


def roll_back(bench: Workbench, versions: Versions, to: str = "dpo_gold_v1") -> DataPlan:
    planned = plan(bench, versions, to)
    roll_back_data(bench.lake, versions, GOLD, planned, who="ada", reason="a poisoned policy", now=NOW)
    return planned


def texts(bench: Workbench) -> list[str]:
    return sorted(bench.lake.read(GOLD, None, ["chosen"])["chosen"].to_pylist())


def test_a_plan_says_exactly_what_would_change_and_changes_nothing(history: Workbench, versions: Versions) -> None:
    before = texts(history)
    planned = plan(history, versions)
    assert planned.days == {day(1): ChangedDay(6, 4), day(2): ChangedDay(5, 0), day(3): ChangedDay(7, 0)}
    assert (planned.undone, planned.restored) == (("dpo_gold_v2",), ())
    assert texts(history) == before
    assert set(list_tags(history.lake, GOLD)) == {"dpo_gold_v1", "dpo_gold_v2"}


def test_the_table_the_ledger_and_the_accounts_agree_afterwards(history: Workbench, versions: Versions) -> None:
    planned = roll_back(history, versions)
    assert history.lake.count_rows_per_day(GOLD) == {day(0): 3, day(1): 4}
    assert not any("poisoned" in text for text in texts(history))
    entries = ledger.read_entries(history.lake, GOLD.name)
    assert {each: entry.rows_kept for each, entry in entries.items()} == {day(0): 3, day(1): 4, day(2): 0, day(3): 0}
    assert entries[day(1)].content_hash == f"{day(1)} 4 "
    assert entries[day(2)].rows_by_reason == {"rolled_back": 5}
    assert all(entry.is_closed for entry in entries.values())
    assert audit_accounts(history.lake, GOLD).discrepancies == ()
    assert list_tags(history.lake, GOLD)[planned.saved_head] == planned.head


def test_rows_that_wait_for_others_count_as_held_again(history: Workbench, versions: Versions) -> None:
    waiting = {"held_reason": "trivial_edit", "support_key": "key"}
    history.write(GOLD, day(4), [gold_row(day(4), 0), gold_row(day(4), 1) | waiting])
    refused = {"trivial_edit": 1, "policy": 2}
    entry = LedgerEntry(GOLD.name, day(4), True, "two", {}, 4, 1, refused, rows_held=1)
    ledger.record_entries(history.lake, [entry], stamp())
    train(history, versions, "dpo_gold_v3")
    write_gold(history, day(4), 3, text="poisoned")
    roll_back(history, versions, "dpo_gold_v3")
    restored = ledger.read_entries(history.lake, GOLD.name)[day(4)]
    assert (restored.rows_kept, restored.rows_held, restored.balance) == (1, 1, 0)
    assert audit_accounts(history.lake, GOLD).discrepancies == ()


def test_the_trigger_counts_from_the_restored_state(history: Workbench, versions: Versions) -> None:
    assert count_net_new(history.lake, versions, RULES, 1) == NetNew(7, 1, "dpo_gold_v2", is_exact=True)
    roll_back(history, versions)
    assert count_net_new(history.lake, versions, RULES, 1) == NetNew(0, 0, "dpo_gold_v1", is_exact=False)
    write_gold(history, day(4), 2)
    assert count_net_new(history.lake, versions, RULES, 1) == NetNew(2, 1, "dpo_gold_v1", is_exact=True)


@pytest.mark.long
def test_a_rollback_can_be_taken_back(history: Workbench, versions: Versions) -> None:
    before, entries = texts(history), ledger.read_entries(history.lake, GOLD.name)
    first = roll_back(history, versions)
    roll_back(history, versions, first.saved_head)
    assert texts(history) == before
    assert count_net_new(history.lake, versions, RULES, 1) == NetNew(7, 1, "dpo_gold_v2", is_exact=True)
    assert {d: e.rows_kept for d, e in ledger.read_entries(history.lake, GOLD.name).items()} == {
        d: e.rows_kept for d, e in entries.items()
    }
    assert audit_accounts(history.lake, GOLD).discrepancies == ()


def test_rolling_forward_to_a_version_makes_it_count_again(history: Workbench, versions: Versions) -> None:
    roll_back(history, versions)
    assert roll_back(history, versions, "dpo_gold_v2").restored == ("dpo_gold_v2",)
    trained = versions.find_last_trained()
    assert trained is not None
    assert trained.version == "dpo_gold_v2"


@pytest.mark.parametrize("step", ["record_decision", "_set_ledger", "write_once"])
def test_a_rollback_that_was_killed_is_repeated(
    history: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rollback_module, step, crash)
        with pytest.raises(KeyboardInterrupt):
            roll_back(history, versions)
    assert history.lake.count_rows_per_day(GOLD) == {day(0): 3, day(1): 6, day(2): 5, day(3): 7}
    roll_back(history, versions)
    assert history.lake.count_rows_per_day(GOLD) == {day(0): 3, day(1): 4}
    assert audit_accounts(history.lake, GOLD).discrepancies == ()
    assert history.lake.read(ROLLBACKS).num_rows == 1


def test_trap_2_a_commit_since_the_plan_stops_it(history: Workbench, versions: Versions) -> None:
    planned = plan(history, versions)
    write_gold(history, day(4), 2)
    with pytest.raises(VersionConflictError, match="another writer has committed since"):
        roll_back_data(history.lake, versions, GOLD, planned, who="ada", reason="r", now=NOW)
    assert history.lake.count_rows_per_day(GOLD)[day(4)] == 2
    assert history.lake.read(ROLLBACKS).num_rows == 0


def test_a_version_cut_since_the_plan_stops_it(history: Workbench, versions: Versions) -> None:
    planned = plan(history, versions)
    begun = versions.folder("dpo_gold_v3")
    begun.path.mkdir()
    with pytest.raises(VersionConflictError, match="dpo_gold_v3 was cut from what would be rolled back"):
        roll_back_data(history.lake, versions, GOLD, planned, who="ada", reason="r", now=NOW)
    begun.promotion.write_text("{}")
    with pytest.raises(VersionConflictError, match="dpo_gold_v3 was cut since the plan was made"):
        roll_back_data(history.lake, versions, GOLD, planned, who="ada", reason="r", now=NOW)
    assert set(list_tags(history.lake, GOLD)) == {"dpo_gold_v1", "dpo_gold_v2"}


def test_beside_a_cut_or_an_erasure_no_head_gets_a_tag(
    history: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel_assets.lake.tables.lake._LOCK_TIMEOUT_S", 0.1)
    with history.lake.lock_versions(), pytest.raises(CommitContentionError, match="versions was locked"):
        roll_back(history, versions)
    assert set(list_tags(history.lake, GOLD)) == {"dpo_gold_v1", "dpo_gold_v2"}


def test_trap_7_expiry_has_cut_the_chain_and_the_tag_is_still_a_target(history: Workbench, versions: Versions) -> None:
    history.lake.load_table(GOLD).maintenance.expire_snapshots().older_than(datetime(2100, 1, 1, tzinfo=UTC)).commit()
    roll_back(history, versions)
    assert history.lake.count_rows_per_day(GOLD) == {day(0): 3, day(1): 4}


def test_who_and_why_are_in_the_audit_table(history: Workbench, versions: Versions) -> None:
    planned = roll_back(history, versions)
    (row,) = history.lake.read(ROLLBACKS).to_pylist()
    assert (row["decided_by"], row["reason"], row["decided_at"]) == ("ada", "a poisoned policy", NOW)
    assert (row["snapshot_before"], row["snapshot_after"]) == (planned.head, planned.target)


def test_an_unknown_tag_is_answered_with_the_known_ones(history: Workbench, versions: Versions) -> None:
    with pytest.raises(UnknownNameError, match="unknown tag 'dpo_gold_v9'; known: dpo_gold_v1, dpo_gold_v2"):
        plan(history, versions, "dpo_gold_v9")


def test_a_version_in_training_stops_it(history: Workbench, versions: Versions) -> None:
    versions.folder("dpo_gold_v2").promotion.unlink()
    with pytest.raises(VersionConflictError, match="dpo_gold_v2 was cut from what would be rolled back"):
        plan(history, versions)
