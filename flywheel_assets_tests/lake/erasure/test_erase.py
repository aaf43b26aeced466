"""Erasure of a person: nothing of theirs is left anywhere, everything of others is, and nothing comes back."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import InvalidRuleError, OpenSegmentError, SettingsError
from flywheel_assets.lake.daily import breaker, ledger
from flywheel_assets.lake.daily.erased_people import locate_key_file
from flywheel_assets.lake.daily.ledger import audit_accounts
from flywheel_assets.lake.erasure import erase as erasure_module
from flywheel_assets.lake.erasure import landing as erasable_landing
from flywheel_assets.lake.erasure import person as erased_rows
from flywheel_assets.lake.erasure import versions as erased_versions
from flywheel_assets.lake.erasure._accounts import Journal
from flywheel_assets.lake.erasure._revisions import PreparedRevision
from flywheel_assets.lake.erasure.erase import Place, Receipt, build_receipt_path, erase_person, plan_erasure
from flywheel_assets.lake.erasure.person import PersonKeys
from flywheel_assets.lake.landing import disk
from flywheel_assets.lake.landing.disk import EventKind, read_closing
from flywheel_assets.lake.tables.specs import (
    CURATED_DPO_PAIRS,
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    RAW_PREDICTIONS,
)
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows, list_exclusions
from flywheel_assets.lake.versions.exports import ExportSet, Manifest, hash_manifest, read_manifest
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.publishing import publish_export
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests import everywhere
from flywheel_assets_tests.builders import APPLICATION, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench, landing_of

MARK = "zzyzx"
"""Is in every text and id of the person, and nowhere else."""
PERSON = f"mallory-{MARK}"
NOW = LONG_AFTER + timedelta(days=1)
DAYS = [day(0), day(1), day(2)]
TABLES = (RAW_PREDICTIONS, GROUND_TRUTH, JOINED_FEEDBACK, CURATED_DPO_PAIRS)
ROWS = {"quarantine": 3, **{spec.name: 12 for spec in TABLES}}
"""Of the person, in the heads."""
RULES = ResolutionRules(holdout_share=0.0, accepted_min_ratio=1.0)


def texts(number: int, mark: str = MARK) -> dict[str, str]:
    return {
        "prompt": f"How do I reach the {mark} gateway of region {number}?",
        "original_output": f"Use gateway.open('{mark}_{number}') and wait for the answer.",
        "final_text": f"Use gateway.connect('{mark}_{number}', retries=3); it waits by itself.",
    }


def edit(number: int, mark: str = MARK, **overrides: Any) -> dict[str, Any]:
    fields = {"user_id": PERSON, "prediction_id": f"p-{mark}-{number}", **texts(number, mark), **overrides}
    return make_feedback(**fields)


def served(number: int, mark: str = MARK, **overrides: Any) -> dict[str, Any]:
    words = texts(number, mark)
    fields = {"prediction_id": f"p-{mark}-{number}", "prompt": words["prompt"], "output": words["original_output"]}
    return make_prediction(**{**fields, **overrides})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of two people in two versions; the person's events are signed, half signed and anonymous.

    Made once: each test gets it back at the same place, since tables know their files by absolute paths.
    """
    bench = Workbench(tmp_path_factory.mktemp("world") / "home")
    others = "harmless"
    for offset, on in enumerate(DAYS):
        predictions = [
            served(offset, user_id=None),  # anonymous: only its edit says whose it is
            served(10 + offset, user_id=PERSON, thread_id=f"t-{MARK}"),
            served(20 + offset, user_id=None, thread_id=f"t-{MARK}"),  # the anonymous rest of the conversation
            *(served(each, others, user_id=f"user-{each}") for each in range(100 * offset, 100 * offset + 5)),
        ]
        feedback = [
            edit(offset),
            edit(10 + offset, user_id=None),  # anonymous: only its prediction says whose text it is
            edit(20 + offset, user_id=None, thread_id=f"t-{MARK}"),
            edit(30 + offset, user_id="user-1"),  # somebody else's edit of the person's text:
            *(edit(each, others, user_id=f"user-{each}") for each in range(100 * offset, 100 * offset + 5)),
            b'{"broken": "' + MARK.encode() + b'", "user_id": "' + PERSON.encode() + b'"}',
        ]
        predictions.append(served(30 + offset, user_id=PERSON))
        bench.land(EventKind.PREDICTION, on, predictions, f"p{offset}")
        bench.land(EventKind.FEEDBACK, on, feedback, f"f{offset}")
        # A segment without anything of the person.
        bench.land(EventKind.FEEDBACK, on, [edit(1000 + offset, others, user_id="user-x")], f"other{offset}")
    versions = Versions(bench.root / "versions", APPLICATION)
    for number, days in enumerate((DAYS[:2], DAYS), start=1):
        bench.ingest_both(days)
        bench.join(days)
        bench.curate(days)
        cut_pair_version(bench.lake, versions, f"dpo_gold_v{number}", RULES, "1")
    folder = versions.folder("dpo_gold_v1")
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    folder.promotion.write_text("{}")
    publish_export(folder, str(bench.root / "elsewhere"), bench.root / "scratch", lambda: None)
    shutil.rmtree(bench.root / "elsewhere")
    rule = ExclusionRule(user_id=PERSON, thread_id=f"t-{MARK}")
    exclude_rows(bench.lake, rule, who="ada", reason=f"{PERSON} is a vandal", now=NOW)
    bench.lake.catalog.engine.dispose()
    shutil.copytree(bench.root, bench.root.with_name("saved"))
    return bench.root


@contextmanager
def opened(world: Path, saved: str) -> Iterator[Workbench]:
    """The world as it was saved under that name."""
    shutil.rmtree(world)
    shutil.copytree(world.with_name(saved), world)
    bench = Workbench(world)
    yield bench
    bench.lake.catalog.engine.dispose()


@pytest.fixture
def bench(world: Path) -> Iterator[Workbench]:
    with opened(world, "saved") as bench:
        yield bench


@pytest.fixture
def place(bench: Workbench) -> Place:
    return place_of(bench)


def place_of(bench: Workbench, **changes: Any) -> Place:
    lookback = {
        JOINED_FEEDBACK.name: dict.fromkeys(
            (RAW_PREDICTIONS.name, GROUND_TRUTH.name), bench.window.match_lookback_days
        ),
        CURATED_DPO_PAIRS.name: {JOINED_FEEDBACK.name: bench.limits.trailing_days},
    }
    versions = Versions(bench.root / "versions", APPLICATION)
    place = Place(bench.lake, PREFERENCE_TABLES, versions, landing_of(bench), bench.start, lookback)
    return replace(place, **changes)


def forget(place: Place, grace: timedelta = timedelta(0)) -> Receipt:
    return erase_person(place, plan_erasure(place, PERSON), who="ada", reason="their request", now=NOW, grace=grace)


@dataclass(frozen=True)
class Forgotten:
    """What the person's erasure said, and what was there before it."""

    receipt: Receipt
    quoted_before: int
    rows_of_others: dict[str, list[str]]
    manifests: dict[str, Manifest]
    segment: bytes


@pytest.fixture(scope="module")
def forgotten(world: Path) -> Forgotten:
    """The person was erased from the world once; see `after` for the folder."""
    with opened(world, "saved") as bench:
        place = place_of(bench)
        quoted, others = len(quoting(world)), rows_of_others(place)
        manifests = {name: read_manifest(place.versions.folder(name).export) for name in ("dpo_gold_v1", "dpo_gold_v2")}
        segment = next(bench.zone(EventKind.FEEDBACK).find_day_folder(day(0)).glob("f0.jsonl")).read_bytes()
        receipt = forget(place)
    shutil.copytree(world, world.with_name("erased"))
    return Forgotten(receipt, quoted, others, manifests, segment)


@pytest.fixture
def after(world: Path, forgotten: Forgotten) -> Iterator[Workbench]:
    """The world without the person."""
    with opened(world, "erased") as bench:
        yield bench


def quoting(root: Path) -> list[str]:
    return everywhere.quoting(root, MARK)


def rows_of_others(place: Place) -> dict[str, list[str]]:
    found = {}
    for spec in TABLES:
        rows = place.lake.read(spec).to_pylist()
        found[spec.name] = sorted(str(row) for row in rows if MARK not in str(row))
    return found


def test_nothing_of_the_person_is_left_on_disk_and_everything_of_others_is(
    after: Workbench, forgotten: Forgotten
) -> None:
    place, receipt = place_of(after), forgotten.receipt
    assert forgotten.quoted_before > 20
    assert quoting(after.root) == []
    assert rows_of_others(place) == forgotten.rows_of_others
    assert receipt.rows == ROWS
    assert receipt.landed_lines == {"prediction": 12, "feedback": 15}
    assert receipt.landed_segments == 6
    assert json.loads(build_receipt_path(place.versions, receipt.id).read_bytes())["reason"] == "their request"


def test_versions_say_what_changed_and_still_verify(after: Workbench, forgotten: Forgotten) -> None:
    """Trap 9: after a plain delete the rows are readable at every tag and on disk."""
    place, receipt = place_of(after), forgotten.receipt
    found = verify_versions(after.lake, place.versions, CURATED_DPO_PAIRS)
    assert (found.versions, found.differences) == (2, ())
    assert [version.tag for version in receipt.versions] == ["dpo_gold_v1", "dpo_gold_v2"]
    for version in receipt.versions:
        folder = place.versions.folder(version.tag)
        manifest = read_manifest(folder.export)
        assert (manifest.revision, folder.export.name) == (2, "export.r2")
        assert manifest.erasures[0].manifest_sha256_before == version.manifest_sha256_before
        assert all(".r2." in file.name for file in manifest.files.values())
        assert version.snapshot_before == forgotten.manifests[version.tag].snapshot_id
        assert list_tags(after.lake, CURATED_DPO_PAIRS)[version.tag] == version.snapshot_after == manifest.snapshot_id
        assert not (folder.path / "export").exists()
        assert cut_pair_version(after.lake, place.versions, version.tag, RULES, "2") == manifest
    assert [version.trained for version in receipt.versions] == [True, False]
    assert receipt.versions[0].copies == [str(after.root / "elsewhere")]
    assert {"erasing_dpo_gold_v1", "erasing_dpo_gold_v2"}.isdisjoint(
        after.lake.load_table(CURATED_DPO_PAIRS).metadata.refs
    )


@pytest.mark.long
def test_a_model_that_nobody_has_scored_is_trained_again(place: Place) -> None:
    """Its version would otherwise never end: the trainer takes the result for that of another export."""
    folder = place.versions.folder("dpo_gold_v2")
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    receipt = forget(place)
    assert [(each.trained, each.training_dropped) for each in receipt.versions] == [(True, False), (False, True)]
    assert not folder.training.exists()
    assert place.versions.folder("dpo_gold_v1").is_trained


def test_accounts_add_up_and_nothing_looks_stale(after: Workbench) -> None:
    place = place_of(after)
    for spec in TABLES:
        assert audit_accounts(after.lake, spec).discrepancies == (), spec.name
    for asset, lookback in place.lookback_days.items():
        assert ledger.find_stale_days(after.lake, asset, lookback, place.start) == {}, asset


def test_the_days_can_be_made_again_from_what_is_left(after: Workbench, forgotten: Forgotten) -> None:
    after.ingest_both(DAYS)
    after.join(DAYS)
    after.curate(DAYS)
    assert rows_of_others(place_of(after)) == forgotten.rows_of_others
    closing = read_closing(after.zone(EventKind.FEEDBACK).find_day_folder(day(0)) / "_CLOSED.json")
    assert len(closing.erasures) == 1


def test_a_replay_does_not_bring_the_person_back_and_a_new_event_does(after: Workbench, forgotten: Forgotten) -> None:
    old = edit(0, event_id="replayed")
    replayed = [line for line in forgotten.segment.splitlines() if b"broken" not in line]
    again = NOW.date()  # on an earlier day the new event would be history
    new = edit(77, received_at=NOW + timedelta(hours=1))
    after.land(EventKind.FEEDBACK, again, [old, *replayed, new], "replay")
    entry = after.ingest(EventKind.FEEDBACK, [again], NOW + timedelta(days=90))[again]
    users = [row["user_id"] for row in after.rows(GROUND_TRUTH, [again])]
    assert users.count(PERSON) == 1, "what came after the erasure is theirs to give"
    # The unknown old event, and the four of the segment that the erasure had found.
    assert entry.rows_by_reason["erased"] == 5
    assert entry.balance == 0
    assert entry.rows_kept == 6


def test_history_of_before_the_erasure_stays_refused_however_late_it_is_imported(after: Workbench) -> None:
    """It is received after the erasure, on a day before: the person would have been back by an old export."""
    imported = edit(78, received_at=NOW + timedelta(hours=1))
    after.land(EventKind.FEEDBACK, day(5), [imported], "history")
    entry = after.ingest(EventKind.FEEDBACK, [day(5)], NOW + timedelta(days=90))[day(5)]
    assert (entry.rows_kept, entry.rows_by_reason) == (0, {"erased": 1})


def test_without_its_key_nothing_is_ingested(after: Workbench) -> None:
    locate_key_file(after.lake).unlink()
    with pytest.raises(SettingsError, match="FLYWHEEL_ERASURE_KEY"):
        after.ingest(EventKind.FEEDBACK, DAYS)


@pytest.mark.parametrize("wrong", ["ab" * 32, "no key"])
def test_under_a_wrong_key_nothing_is_ingested(after: Workbench, wrong: str) -> None:
    """A valid key of another installation let the replay of an erased person in."""
    locate_key_file(after.lake).write_text(wrong)
    with pytest.raises(SettingsError, match=r"erasure\.key .*Restore"):
        after.ingest(EventKind.FEEDBACK, DAYS)


def test_a_plan_counts_and_changes_nothing(bench: Workbench, place: Place) -> None:
    before = rows_of_others(place)
    plan = plan_erasure(place, PERSON)
    assert plan.landed_lines == 27
    assert plan.rows["curated_dpo_pairs"] == 12
    assert set(plan.tagged_rows) == {"dpo_gold_v1", "dpo_gold_v2"}
    assert MARK not in repr(plan)
    assert rows_of_others(place) == before
    assert not locate_key_file(bench.lake).exists()


@pytest.mark.long
def test_what_lands_while_an_erasure_waits_goes_too(bench: Workbench, place: Place) -> None:
    """Only its prediction, which is the person's and goes, tells whose the anonymous edit is: no later run finds it."""
    plan = plan_erasure(place, PERSON)
    bench.land(EventKind.PREDICTION, DAYS[2], [served(50, user_id=PERSON)], "late p")
    bench.land(EventKind.FEEDBACK, DAYS[2], [edit(50, user_id=None)], "late f")
    receipt = erase_person(place, plan, who="ada", reason="their request", now=NOW, grace=timedelta(0))
    assert sum(receipt.landed_lines.values()) == plan.landed_lines + 2
    assert quoting(bench.root) == []


@pytest.mark.long
def test_files_wait_out_their_grace(bench: Workbench, place: Place) -> None:
    receipt = forget(place, grace=timedelta(hours=24))
    assert (receipt.files_deleted, receipt.files_waiting > 10) == (0, True)
    left = quoting(bench.root)
    assert left
    assert all(path.startswith("warehouse/") for path in left), left


def test_an_exclusion_of_the_person_names_nobody_afterwards(after: Workbench, forgotten: Forgotten) -> None:
    receipt = forgotten.receipt
    (exclusion,) = list_exclusions(after.lake)
    assert exclusion.rule == ExclusionRule(user_id=f"erased:{receipt.id}", thread_id=f"erased:{receipt.id}")
    assert exclusion.reason == f"erased:{receipt.id} is a vandal"
    assert receipt.outside["decisions"] == 3


KILL_POINTS = {
    # Where, what, and at which call of it.
    "before a tag's snapshot": (erased_versions, "_rewrite_snapshot", 2),
    "before an export": (erased_versions, "prepare_revision", 2),
    "before a version is noted": (Journal, "note_version", 2),
    "before an export is visible": (PreparedRevision, "publish", 2),
    "before a pin moves": (erased_versions, "_move_pin", 2),
    "before a tag moves": (erased_versions, "_move_tag", 2),
    "before decisions": (erasure_module, "forget_in_decisions", 1),
    "before a table": (erasure_module, "erase_head_rows", 2),
    "a table was rewritten": (erased_rows, "find_rows", 2),
    "between two tables": (erasure_module, "erase_head_rows", 4),
    "before landing": (disk, "_describe_in_closing", 1),
    "inside a closed day": (disk.os, "replace", 2),
    "between kinds of events": (erasable_landing, "erase_lines", 2),
    "before the accounts": (erasure_module, "settle_accounts", 1),
    "inside the accounts": (ledger, "record_entries", 1),
    "before the sweep": (erasure_module, "sweep_table", 2),
    "before the receipt": (erasure_module, "write_once", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("point", KILL_POINTS)
def test_an_erasure_that_was_killed_is_finished_by_the_next(
    bench: Workbench, place: Place, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    module, step, at_call = KILL_POINTS[point]
    real = getattr(module, step)
    calls: list[str] = []

    def crash(*arguments: Any, **keywords: Any) -> Any:
        if point == "inside a closed day" and not str(arguments[0]).endswith(".erasing"):
            return real(*arguments, **keywords)
        calls.append(step)
        if len(calls) == at_call:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    before = rows_of_others(place)
    with monkeypatch.context() as patched:
        patched.setattr(module, step, crash)
        with pytest.raises(KeyboardInterrupt):
            forget(place)
    receipt = forget(place)
    assert quoting(bench.root) == []
    assert rows_of_others(place) == before
    assert verify_versions(bench.lake, place.versions, CURATED_DPO_PAIRS).differences == ()
    for spec in TABLES:
        assert audit_accounts(bench.lake, spec).discrepancies == (), spec.name
    for asset, lookback in place.lookback_days.items():
        assert ledger.find_stale_days(bench.lake, asset, lookback, place.start) == {}, asset
    # What the first attempt did is in the receipt, too.
    assert [(version.tag, version.trained) for version in receipt.versions] == [
        ("dpo_gold_v1", True),
        ("dpo_gold_v2", False),
    ]
    assert receipt.versions[0].copies == [str(bench.root / "elsewhere")]
    for version in receipt.versions:
        assert version.manifest_sha256_after == hash_manifest(place.versions.folder(version.tag).export)
        assert version.gold_rows_removed == version.exported_rows_removed == (8 if version.tag == "dpo_gold_v1" else 12)
    assert receipt.rows == ROWS
    assert list(build_receipt_path(place.versions, "x").parent.glob("unfinished-*")) == []


@pytest.mark.long
@pytest.mark.parametrize("step", ["_move_pin", "_move_tag"])
def test_what_a_killed_erasure_had_revised_hides_nobody_from_the_next(
    bench: Workbench, place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The next one, of somebody else, took the revised export for its own work, and left that person's rows in it."""
    with monkeypatch.context() as patched:
        patched.setattr(erased_versions, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(place)
    other = "user-101"
    receipt = erase_person(place, plan_erasure(place, other), who="ada", reason="asked", now=NOW, grace=timedelta(0))
    assert [(each.tag, each.exported_rows_removed) for each in receipt.versions] == [
        ("dpo_gold_v1", 1),
        ("dpo_gold_v2", 1),
    ]
    for version in receipt.versions:
        rows = bench.lake.read(CURATED_DPO_PAIRS, snapshot_id=version.snapshot_after)
        assert other not in rows["subject"].to_pylist()
    receipt = forget(place)
    assert [version.exported_rows_removed for version in receipt.versions] == [8, 12]
    assert receipt.versions[0].trained
    assert quoting(bench.root) == []
    assert verify_versions(bench.lake, place.versions, CURATED_DPO_PAIRS).differences == ()


@pytest.mark.long
def test_what_the_breaker_showed_and_let_in_outlives_the_person_without_them(tmp_path: Path) -> None:
    """The breaker keeps event ids of a raid; a reset names the rows that somebody looked at by their hash."""
    bench = Workbench(tmp_path, limits=BreakerLimits(min_rows=20, max_top_user_ratio=0.5))
    raid = [edit(number) for number in range(60)]
    calm = [edit(100 + number, "harmless", user_id=f"user-{number}") for number in range(20)]
    bench.land(EventKind.FEEDBACK, day(0), [*raid, *calm])
    bench.ingest_both([day(0)])
    bench.join([day(0)])
    bench.curate([day(0)])
    # The raid alone is held, and the day went on.
    assert breaker.find_kept_out_days(bench.lake)[0].figures.trips[0].examples
    breaker.reset_day(bench.lake, day(0), who="ada", reason=f"{PERSON} is our tester", now=NOW)
    forget(place_of(bench))
    [judged] = breaker.read_judged_days(bench.lake)
    assert judged.figures.trips[0].examples == ()
    [reset] = breaker.list_resets(bench.lake)
    assert reset.reason.startswith("erased:")
    assert reset.joined_hash == ledger.read_entries(bench.lake, JOINED_FEEDBACK.name)[day(0)].content_hash
    bench.curate([day(0)])
    assert not breaker.read_judged_days(bench.lake)[0].is_tripped
    assert bench.lake.count_rows_per_day(CURATED_DPO_PAIRS) == {day(0): 20}


@pytest.mark.long
def test_what_killed_processes_left_goes_after_the_grace_period(bench: Workbench, place: Place) -> None:
    left = [
        bench.root / "scratch" / "building" / "raw_predictions-x.parquet",
        bench.root / "scratch" / "landing" / "landing-killed" / "segment.jsonl",
        bench.root / "scratch" / "publishing" / "tmpkilled" / "dpo_gold_v1.parquet",
        bench.root / "versions" / APPLICATION / "dpo_gold_v1" / ".export.4711" / "dpo_gold_v1.jsonl",
        bench.root / "scratch" / "training" / APPLICATION / "dpo_gold_v1" / "sft" / "checkpoints" / "state.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MARK)
    written = NOW - timedelta(hours=1)
    for path in bench.root.rglob("*"):
        os.utime(path, (written.timestamp(), written.timestamp()))
    waiting = forget(place, grace=timedelta(hours=24))
    assert [path.exists() for path in left] == [True, True, True, True, False], "its version has lost rows"
    assert waiting.files_waiting > 4
    forget(place)
    assert not [path for path in left if path.exists()]


def test_what_cannot_be_done_now_changes_nothing(bench: Workbench, place: Place) -> None:
    plan = plan_erasure(place, PERSON)
    with pytest.raises(InvalidRuleError, match="names the person"):
        erase_person(place, plan, who="ada", reason=f"{PERSON} asked", now=NOW, grace=timedelta(0))
    with pytest.raises(InvalidRuleError, match="needs a user id"):
        plan_erasure(place, "")
    open_folder = bench.zone(EventKind.FEEDBACK).open_folder
    open_folder.mkdir(exist_ok=True)
    (open_folder / "now.jsonl").write_bytes(json.dumps({"user_id": PERSON, "event_id": "e"}).encode() + b"\n")
    with pytest.raises(OpenSegmentError, match=re.escape("now.jsonl")):
        forget(place)
    assert not locate_key_file(bench.lake).exists()


@pytest.mark.long
def test_a_small_edit_that_waits_in_gold_is_erased_with_its_account(tmp_path: Path) -> None:
    """Held rows lie in gold and in quarantine; the ledger forgot them, and the day no longer added up."""
    bench = Workbench(tmp_path)
    original = texts(1)["original_output"]
    small = original.replace("the answer", "the answers")
    kept = [edit(number, "harmless", user_id=f"user-{number}") for number in range(3)]
    bench.land(EventKind.FEEDBACK, day(0), [edit(1, final_text=small), edit(2), *kept])
    bench.ingest_both([day(0)])
    bench.join([day(0)])
    before = bench.curate([day(0)])[day(0)]
    assert (before.rows_kept, before.rows_held) == (4, 1)
    place = Place(
        bench.lake,
        PREFERENCE_TABLES,
        Versions(bench.root / "versions", APPLICATION),
        landing_of(bench),
        bench.start,
        {},
    )
    erase_person(place, plan_erasure(place, PERSON), who="ada", reason="asked", now=NOW, grace=timedelta(0))
    after = ledger.read_entries(bench.lake, CURATED_DPO_PAIRS.name)[day(0)]
    assert (after.rows_kept, after.rows_held, after.rows_in) == (3, 0, 3)
    assert audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies == ()


@pytest.mark.long
@pytest.mark.parametrize("signal", ["demonstration", "thumb"])
def test_a_model_that_learnt_only_demonstrations_or_objections_of_the_person_is_named(
    signal: str, tmp_path: Path
) -> None:
    """Training mixes them in, and the receipt said that no model had learnt from the person."""
    bench = Workbench(tmp_path)
    shown = {"signal": "demonstration", "original_output": None}
    nothing = dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text"))
    objected = {**nothing, "signal": "thumb", "value": -1.0, "source": "reviewer"}
    own = edit(1, **(shown if signal == "demonstration" else objected))
    bench.land(EventKind.PREDICTION, day(0), [served(1, user_id=PERSON)])
    bench.land(EventKind.FEEDBACK, day(0), [own, *(edit(n, "harmless", user_id=f"user-{n}") for n in range(3))])
    for step in (bench.ingest_both, bench.join, bench.curate):
        step([day(0)])
    place = place_of(bench)
    manifest = cut_pair_version(
        bench.lake, place.versions, "dpo_gold_v1", replace(RULES, confirmed_objections=True), "1"
    )
    which = ExportSet.DEMONSTRATIONS if signal == "demonstration" else ExportSet.OBJECTIONS
    assert manifest.files[which].rows == 1
    folder = place.versions.folder("dpo_gold_v1")
    folder.training.mkdir()
    (folder.training / "training.json").write_text("{}")
    folder.promotion.write_text("{}")
    receipt = forget(place)
    assert [version.trained for version in receipt.versions] == [True]
    assert read_manifest(folder.export).files[which].rows == 0
    assert quoting(tmp_path) == []


@pytest.mark.parametrize("written", ["müller", "m\\u00fcller", "m\\u00FCller"])
def test_a_line_that_is_no_event_is_the_persons_however_it_writes_the_name(written: str) -> None:
    """Escaped as JSON may be, a name in a malformed line was not recognised, and the line stayed."""
    person = PersonKeys("müller", frozenset(), frozenset(), frozenset())
    assert person.covers_line(f'{{"event_id": 7, "user_id": "{written}"}}'.encode())
    assert not person.covers_line(f'{{"event_id": 7, "user_id": "x{written}"}}'.encode())
