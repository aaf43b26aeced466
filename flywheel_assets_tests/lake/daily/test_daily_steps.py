"""Daily steps beside an erasure, a trim and a rollback: accounts, rows and staleness agree however they interleave.

One is begun when the other has read and not yet written. It must be told to wait, and given again it must come to what
it would have come to alone.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import CommitContentionError, VersionConflictError
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.curate_days import curate_days
from flywheel_assets.lake.daily.ingest import ingest_days
from flywheel_assets.lake.daily.join_days import join_days
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.daily.mine_days import mine_days
from flywheel_assets.lake.daily.reports import report_drift, summarize_days
from flywheel_assets.lake.erasure import erase as erasure_module
from flywheel_assets.lake.erasure.erase import Place, erase_person, plan_erasure
from flywheel_assets.lake.erasure.landing import ErasableLanding
from flywheel_assets.lake.erasure.person import PersonKeys, find_rows
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.storage.commits import hold_lock
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    CURATED_DPO_PAIRS,
    FEEDBACK_SUMMARY,
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    RAW_PREDICTIONS,
)
from flywheel_assets.lake.upkeep.maintenance import retire_segments, trim_predictions
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.rollback import plan_data_rollback, roll_back_data
from flywheel_assets_tests.builders import APPLICATION, day, make_feedback, make_prediction
from flywheel_assets_tests.lake import killable
from flywheel_assets_tests.lake.workbench import Workbench, stamp
from flywheel_assets_tests.prepared import PreparedFolder

PERSON = "mallory"
DAYS = [day(0), day(1), day(2)]
OPEN_DAY = DAYS[-1]
NOW = datetime.combine(OPEN_DAY, time(13), UTC)
WINDOW = JoinWindow(join_days=3, dedupe_days=1)
TABLES = (RAW_PREDICTIONS, GROUND_TRUTH, JOINED_FEEDBACK, CURATED_DPO_PAIRS)
RULES = ResolutionRules(holdout_share=0.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """Two closed days in a version and an open one, with predictions to trim and a segment that nobody has ingested."""
    bench = Workbench(tmp_path_factory.mktemp("days"), window=WINDOW)
    for offset, on in enumerate(DAYS):
        land(bench, on, "first")
        ingest(bench)
        bench.join(DAYS[: offset + 1])
        bench.curate(DAYS[: offset + 1])
        summarize_days(bench.lake, DAYS[: offset + 1], stamp())
        if offset == 1:
            cut_pair_version(bench.lake, Versions(bench.root / "versions", APPLICATION), "dpo_gold_v1", RULES, "1")
            (bench.root / "versions" / APPLICATION / "dpo_gold_v1" / "promotion.json").write_text("{}")
    land(bench, OPEN_DAY, "second")
    bench.lake.catalog.engine.dispose()
    return PreparedFolder(bench.root)


@pytest.fixture
def bench(prepared: PreparedFolder, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setattr(tables, "_LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(tables, "_STEPS_TIMEOUT_S", 0.1)
    return Workbench(prepared.restored(), window=WINDOW)


def land(bench: Workbench, on: date, name: str, person: str = PERSON) -> None:
    """Of three people an edit each, the prediction behind it and four that nobody reacted to."""
    received = datetime.combine(on, time(12), UTC)
    for user in (person, "ada", "bob"):
        # Spelled out: several processes land events, and a builder counts up its ids in each of them.
        said = {"user_id": user, "received_at": received, "occurred_at": received - timedelta(minutes=1)}
        ids = [f"{user} {on} {name} {number}" for number in range(5)]
        predictions = [make_prediction(event_id=f"p {each}", prediction_id=each, **said) for each in ids]
        edit = make_feedback(event_id=f"f {ids[0]}", prediction_id=ids[0], **said)
        bench.land(EventKind.PREDICTION, on, predictions, f"{name} {user}")
        bench.land(EventKind.FEEDBACK, on, [edit], f"{name} {user}")


def ingest(bench: Workbench, days: Sequence[date] = DAYS) -> None:
    bench.ingest_both(days, NOW)


STEPS: Mapping[str, Callable[[Workbench, Sequence[date]], object]] = {
    "ingest": ingest,
    "join": Workbench.join,
    "curate": Workbench.curate,
    "summarize": lambda bench, days: summarize_days(bench.lake, days, stamp()),
}


def place_of(bench: Workbench) -> Place:
    lookback = {
        JOINED_FEEDBACK.name: dict.fromkeys((RAW_PREDICTIONS.name, GROUND_TRUTH.name), WINDOW.match_lookback_days),
        CURATED_DPO_PAIRS.name: {JOINED_FEEDBACK.name: bench.limits.trailing_days},
        FEEDBACK_SUMMARY.name: {JOINED_FEEDBACK.name: 0},
    }
    landing = ErasableLanding(APPLICATION, bench.landing, bench.root / "scratch" / "landing")
    versions = Versions(bench.root / "versions", APPLICATION)
    return Place(bench.lake, PREFERENCE_TABLES, versions, landing, bench.start, lookback)


def forget(bench: Workbench, person: str = PERSON) -> None:
    place = place_of(bench)
    erase_person(place, plan_erasure(place, person), who="ada", reason="asked", now=NOW, grace=timedelta(0))


def trim(bench: Workbench) -> None:
    trim_predictions(bench.lake, PREFERENCE_TABLES, DAYS[1], 0.0, stamp())


def roll_back(bench: Workbench) -> None:
    versions = Versions(bench.root / "versions", APPLICATION)
    plan = plan_data_rollback(bench.lake, versions, CURATED_DPO_PAIRS, "dpo_gold_v1")
    roll_back_data(bench.lake, versions, CURATED_DPO_PAIRS, plan, who="ada", reason="poisoned", now=NOW)


OPERATIONS: Mapping[str, Callable[[Workbench], None]] = {"erase": forget, "trim": trim, "roll back": roll_back}
MOMENTS = {"read, not written": (Lake, "replace_days"), "written, not recorded": (ledger, "record_entries")}


def interleaved(
    bench: Workbench,
    first: Callable[[Workbench], object],
    second: Callable[[Workbench], object],
    moment: tuple[Any, str],
) -> bool:
    """Begin the second just before the first calls a function for the first time; returns whether it had to wait.

    One that had to wait is given again at the end, as an orchestrator or a person would.
    """
    owner, name = moment
    real = getattr(owner, name)
    told: list[bool] = []
    with pytest.MonkeyPatch.context() as patched:

        def interrupted(*arguments: Any, **keywords: Any) -> Any:
            patched.undo()
            told.append(is_told_to_wait(bench, second))
            return real(*arguments, **keywords)

        patched.setattr(owner, name, interrupted)
        first(bench)
    [has_waited] = told
    if has_waited:
        second(bench)
    return has_waited


def on_all_days(step: str) -> Callable[[Workbench], object]:
    return lambda bench: STEPS[step](bench, DAYS)


def is_told_to_wait(bench: Workbench, act: Callable[[Workbench], object]) -> bool:
    try:
        act(Workbench(bench.root, window=WINDOW))
    except CommitContentionError:
        return True
    return False


def everything_agrees(bench: Workbench, erased: str | None) -> None:
    """Accounts are those of the rows, nobody who was erased is left, and what is not stale would be made the same."""
    for spec in TABLES:
        assert audit_accounts(bench.lake, spec).discrepancies == (), spec.name
    for spec in (JOINED_FEEDBACK, CURATED_DPO_PAIRS):
        held = {on: ledger.hash_content(bench.lake.read(spec, [on])) for on in DAYS}
        entries = ledger.read_entries(bench.lake, spec.name)
        assert {on: entry.content_hash for on, entry in entries.items()} == held, spec.name
    if erased is not None:
        keys = PersonKeys(erased, frozenset(), frozenset(), frozenset())
        assert [spec.name for spec in TABLES if find_rows(bench.lake, spec, keys)] == []
    lookback = place_of(bench).lookback_days[JOINED_FEEDBACK.name]
    stale = ledger.find_stale_days(bench.lake, JOINED_FEEDBACK.name, lookback, DAYS[0])
    fresh = [on for on in DAYS if on not in stale]
    before = bench.rows(JOINED_FEEDBACK, fresh)
    bench.join(fresh)
    assert bench.rows(JOINED_FEEDBACK, fresh) == before


# Of all pairs of a step and one of them, those that went wrong while neither waited.
BESIDE_ONE_OF_THEM = [("ingest", "erase"), ("ingest", "trim")]
BESIDE_A_STEP = [*BESIDE_ONE_OF_THEM, ("join", "erase"), ("curate", "erase"), ("curate", "roll back")]


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("step", "operation"), BESIDE_ONE_OF_THEM)
def test_a_step_that_begins_beside_one_of_them_comes_after_it(
    bench: Workbench, step: str, operation: str, moment: str
) -> None:
    has_waited = interleaved(bench, OPERATIONS[operation], on_all_days(step), MOMENTS[moment])
    everything_agrees(bench, PERSON if operation == "erase" else None)
    assert has_waited


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("step", "operation"), BESIDE_A_STEP)
def test_one_of_them_that_begins_beside_a_step_comes_after_it(
    bench: Workbench, step: str, operation: str, moment: str
) -> None:
    has_waited = interleaved(bench, on_all_days(step), OPERATIONS[operation], MOMENTS[moment])
    everything_agrees(bench, PERSON if operation == "erase" else None)
    assert has_waited


@pytest.mark.parametrize("step", [ingest_days, join_days, curate_days, mine_days, summarize_days, report_drift])
def test_every_daily_step_waits(bench: Workbench, step: Callable[..., object]) -> None:
    with bench.open_lake().pause_daily_steps(), pytest.raises(CommitContentionError, match="daily_steps"):
        step(bench.lake)


def retire(bench: Workbench) -> None:
    retire_segments(bench.lake, PREFERENCE_TABLES, DiskLanding(bench.landing), DAYS[1], NOW)


@pytest.mark.long
@pytest.mark.parametrize("operation", [forget, trim, retire, roll_back])
def test_everything_that_rewrites_days_waits_for_steps(
    bench: Workbench, operation: Callable[[Workbench], None]
) -> None:
    with bench.open_lake().share_daily_steps():
        with pytest.raises(CommitContentionError, match=r"daily_steps was locked .* safe to run again"):
            operation(bench)
        ingest(bench)  # steps do not wait for each other
    operation(bench)


def test_steps_that_overlap_let_in_who_waits_to_be_alone(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is let in beside a step: two backfills after each other would have kept an erasure out for hours."""
    patient, late = bench.open_lake(), bench.open_lake()
    was_alone = threading.Event()

    def wait_to_be_alone() -> None:
        with patient.pause_daily_steps():
            was_alone.set()

    waiting = threading.Thread(target=wait_to_be_alone)
    with bench.lake.share_daily_steps():
        monkeypatch.setattr(tables, "_STEPS_TIMEOUT_S", 60.0)
        waiting.start()
        while not is_held(bench, "daily_steps.door"):
            assert waiting.is_alive()
        monkeypatch.setattr(tables, "_STEPS_TIMEOUT_S", 0.1)
        with pytest.raises(CommitContentionError, match="door was locked"), late.share_daily_steps():
            pytest.fail("let in before the one who waits")
        assert not was_alone.is_set()
    waiting.join()
    assert was_alone.is_set()
    with late.share_daily_steps():
        pass


def is_held(bench: Workbench, name: str) -> bool:
    try:
        with hold_lock(bench.lake.catalog_uri, bench.lake.scratch / "locks", f"{APPLICATION}.{name}", 0.0):
            return False
    except CommitContentionError:
        return True


@pytest.mark.long
def test_what_lands_during_an_erasure_is_not_taken_for_ingested(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open day's entry named the new segment: ingested afterwards, the day looked unchanged to the join."""
    ingest(bench)
    bench.join(DAYS)
    settle = erasure_module.settle_accounts

    def land_and_settle(*arguments: Any) -> None:
        land(bench, OPEN_DAY, "during")
        settle(*arguments)

    monkeypatch.setattr(erasure_module, "settle_accounts", land_and_settle)
    forget(bench)
    ingest(bench)
    lookback = place_of(bench).lookback_days[JOINED_FEEDBACK.name]
    assert list(ledger.find_stale_days(bench.lake, JOINED_FEEDBACK.name, lookback, DAYS[0])) == [OPEN_DAY]
    everything_agrees(bench, PERSON)


@pytest.mark.long
def test_an_erasure_finished_after_a_run_leaves_stale_what_is_stale(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembered from its first attempt that the day was fresh, and said so although a run had brought new rows."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erasure_module, "settle_accounts", crash)
        with pytest.raises(KeyboardInterrupt):
            forget(bench)
    bench.ingest_both([OPEN_DAY], NOW)
    forget(bench)
    lookback = place_of(bench).lookback_days[JOINED_FEEDBACK.name]
    assert list(ledger.find_stale_days(bench.lake, JOINED_FEEDBACK.name, lookback, DAYS[0])) == [OPEN_DAY]
    everything_agrees(bench, PERSON)


ROUNDS = 6


def write_days(root: Path, days: Sequence[date], lands: bool, together: Barrier) -> None:
    """Materialize days once a round, on the last of them more each time."""
    bench = Workbench(root, window=WINDOW)
    for number in range(ROUNDS):
        if lands:
            land(bench, days[-1], f"round {number}", visitor(number))
        together.wait(120)
        for step in STEPS.values():
            step(bench, days)
        together.wait(120)


def visitor(number: int) -> str:
    return f"visitor {number}"


@pytest.mark.slow
def test_processes_that_write_and_rewrite_the_same_days_agree(prepared: PreparedFolder) -> None:
    """Two materialize days while a third trims, erases and rolls back; after each round accounts are those of the rows.

    No step is repeated for that: what was recorded last was right.
    """
    bench = Workbench(prepared.restored(), window=WINDOW)
    together = killable.forked.Barrier(3)
    writers = [
        killable.start(write_days, bench.root, days, lands, together)
        for days, lands in ((DAYS, True), (DAYS[:2], False))
    ]
    for number in range(ROUNDS):
        acts = [trim, partial(forget, person=visitor(number)), partial(planned_anew, roll_back)]
        together.wait(120)
        for act in (*acts[number % 3 :], *acts[: number % 3]):
            act(bench)
        together.wait(120)
        everything_agrees(bench, visitor(number))
    for process in writers:
        process.join(60)
    assert [process.exitcode for process in writers] == [0, 0]


def planned_anew(act: Callable[[Workbench], None], bench: Workbench) -> None:
    """Repeat what was planned from a head that a writer has moved since, as its error says."""
    for _ in range(50):
        try:
            return act(bench)
        except VersionConflictError:
            continue
    pytest.fail("gold was written between plan and act fifty times")
