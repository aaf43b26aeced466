"""Erasure of a person: nothing of theirs is left anywhere, everything of others is, and nothing comes back."""

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flywheel_assets.curation.resolution import ResolutionRules
from flywheel_assets.errors import InvalidRuleError, OpenSegmentError, SettingsError
from flywheel_assets.lake import erasure as erasure_module
from flywheel_assets.lake import ledger
from flywheel_assets.lake.accounting import audit_accounts
from flywheel_assets.lake.erased_people import key_file
from flywheel_assets.lake.erasure import Place, Receipt, erase, plan_erasure, receipt_path
from flywheel_assets.lake.exclusions import ExclusionRule, every_exclusion, exclude
from flywheel_assets.lake.exports import read_manifest
from flywheel_assets.lake.landing import EventKind, read_closing
from flywheel_assets.lake.pair_versions import cut_pair_version
from flywheel_assets.lake.publishing import publish
from flywheel_assets.lake.references import tags
from flywheel_assets.lake.tables import (
    CURATED_DPO_PAIRS,
    GROUND_TRUTH,
    JOINED_FEEDBACK,
    PREFERENCE_TABLES,
    RAW_PREDICTIONS,
)
from flywheel_assets.lake.verification import verify
from flywheel_assets.lake.versions import Versions
from flywheel_assets_tests.builders import APPLICATION, day, make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench

MARK = "zzyzx"
"""Is in every text and id of the person, and nowhere else."""
PERSON = f"mallory-{MARK}"
NOW = LONG_AFTER + timedelta(days=1)
DAYS = [day(0), day(1), day(2)]
TABLES = (RAW_PREDICTIONS, GROUND_TRUTH, JOINED_FEEDBACK, CURATED_DPO_PAIRS)
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


@pytest.fixture
def place(bench: Workbench) -> Place:
    """Three days of two people in two versions; the person's events are signed, half signed and anonymous."""
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
    publish(folder, str(bench.root / "elsewhere"), bench.root / "scratch", lambda: None)
    shutil.rmtree(bench.root / "elsewhere")
    exclude(bench.lake, ExclusionRule(user_id=PERSON), who="ada", reason="vandal", now=NOW)
    lookback = {
        JOINED_FEEDBACK.name: dict.fromkeys(
            (RAW_PREDICTIONS.name, GROUND_TRUTH.name), bench.window.match_lookback_days
        ),
        CURATED_DPO_PAIRS.name: {JOINED_FEEDBACK.name: bench.limits.trailing_days},
    }
    return Place(bench.lake, PREFERENCE_TABLES, versions, bench.landing, bench.start, lookback)


def forget(place: Place, grace: timedelta = timedelta(0)) -> Receipt:
    return erase(place, plan_erasure(place, PERSON), who="ada", reason="their request", now=NOW, grace=grace)


def contents(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file under `root` as text, Parquet and Avro decoded."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix == ".parquet":
            yield path, str(duckdb.sql(f"SELECT * FROM read_parquet('{path}')").fetchall())
        elif path.suffix == ".avro":
            yield path, inflated(path.read_bytes()).decode("latin-1")
        else:
            yield path, path.read_bytes().decode("utf-8", "replace")
        yield path, path.read_bytes().decode("latin-1")


def inflated(avro: bytes) -> bytes:
    """The blocks of an Avro file, between its sync markers: two lengths of a few bytes each, then raw deflate."""
    blocks = []
    for block in avro.split(avro[-16:])[1:-1]:
        for begin in range(2, 12):
            try:
                blocks.append(zlib.decompress(block[begin:], -15))
                break
            except zlib.error:
                continue
        else:
            raise AssertionError("a block that cannot be read might hide anything")
    return b"".join(blocks)


def quoting(root: Path, word: str = MARK) -> list[str]:
    return sorted({str(path.relative_to(root)) for path, text in contents(root) if word in text or word in path.name})


def rows_of_others(place: Place) -> dict[str, list[str]]:
    found = {}
    for spec in TABLES:
        rows = place.lake.read(spec).to_pylist()
        found[spec.name] = sorted(str(row) for row in rows if MARK not in str(row))
    return found


def test_nothing_of_the_person_is_left_on_disk_and_everything_of_others_is(bench: Workbench, place: Place) -> None:
    assert len(quoting(bench.root)) > 20
    before = rows_of_others(place)
    receipt = forget(place)
    assert quoting(bench.root) == []
    assert rows_of_others(place) == before
    assert {name: rows for name, rows in receipt.rows.items() if rows} == {
        "quarantine": 3,
        "curated_dpo_pairs": 12,
        "joined_feedback": 12,
        "raw_predictions": 12,
        "ground_truth": 12,
    }
    assert receipt.landed_lines == {"prediction": 12, "feedback": 15}
    assert receipt.landed_segments == 6
    assert json.loads(receipt_path(place.versions, receipt.id).read_bytes())["reason"] == "their request"


def test_versions_say_what_changed_and_still_verify(bench: Workbench, place: Place) -> None:
    """Trap 9: after a plain delete the rows are readable at every tag and on disk."""
    before = {name: read_manifest(place.versions.folder(name).export) for name in ("dpo_gold_v1", "dpo_gold_v2")}
    receipt = forget(place)
    found = verify(bench.lake, place.versions, CURATED_DPO_PAIRS)
    assert (found.versions, found.differences) == (2, ())
    assert [version.tag for version in receipt.versions] == ["dpo_gold_v1", "dpo_gold_v2"]
    for version in receipt.versions:
        folder = place.versions.folder(version.tag)
        manifest = read_manifest(folder.export)
        assert (manifest.revision, folder.export.name) == (2, "export.r2")
        assert manifest.erasures[0].manifest_sha256_before == version.manifest_sha256_before
        assert all(".r2." in file.name for file in manifest.files.values())
        assert version.snapshot_before == before[version.tag].snapshot_id
        assert tags(bench.lake, CURATED_DPO_PAIRS)[version.tag] == version.snapshot_after == manifest.snapshot_id
        assert not (folder.path / "export").exists()
        assert cut_pair_version(bench.lake, place.versions, version.tag, RULES, "2") == manifest
    assert [version.trained for version in receipt.versions] == [True, False]
    assert receipt.versions[0].copies == [str(bench.root / "elsewhere")]
    assert {"erasing_dpo_gold_v1", "erasing_dpo_gold_v2"}.isdisjoint(bench.lake.table(CURATED_DPO_PAIRS).metadata.refs)


def test_accounts_add_up_and_nothing_looks_stale(bench: Workbench, place: Place) -> None:
    forget(place)
    for spec in TABLES:
        assert audit_accounts(bench.lake, spec).discrepancies == (), spec.name
    for asset, lookback in place.lookback_days.items():
        assert ledger.stale_days(bench.lake, asset, lookback, place.start) == {}, asset


def test_the_days_can_be_made_again_from_what_is_left(bench: Workbench, place: Place) -> None:
    forget(place)
    before = rows_of_others(place)
    bench.ingest_both(DAYS)
    bench.join(DAYS)
    bench.curate(DAYS)
    assert rows_of_others(place) == before
    closing = read_closing(bench.zone(EventKind.FEEDBACK).day_folder(day(0)) / "_CLOSED.json")
    assert len(closing.erasures) == 1


def test_a_replay_does_not_bring_the_person_back_and_a_new_event_does(bench: Workbench, place: Place) -> None:
    old = edit(0, event_id="replayed")
    segment = next(bench.zone(EventKind.FEEDBACK).day_folder(day(0)).glob("f0.jsonl"))
    replayed = [line for line in segment.read_bytes().splitlines() if b"broken" not in line]
    forget(place)
    again = day(5)
    new = edit(77, received_at=NOW + timedelta(hours=1))
    bench.land(EventKind.FEEDBACK, again, [old, *replayed, new], "replay")
    entry = bench.ingest(EventKind.FEEDBACK, [again], NOW + timedelta(days=90))[again]
    users = [row["user_id"] for row in bench.rows(GROUND_TRUTH, [again])]
    assert users.count(PERSON) == 1, "what came after the erasure is theirs to give"
    # The unknown old event, and the four of the segment that the erasure had found.
    assert entry.rows_by_reason["erased"] == 5
    assert entry.balance == 0
    assert entry.rows_kept == 6


def test_without_its_key_nothing_is_ingested(bench: Workbench, place: Place) -> None:
    forget(place)
    key_file(bench.lake).unlink()
    with pytest.raises(SettingsError, match="FLYWHEEL_ERASURE_KEY"):
        bench.ingest(EventKind.FEEDBACK, DAYS)


def test_a_plan_counts_and_changes_nothing(bench: Workbench, place: Place) -> None:
    before = rows_of_others(place)
    plan = plan_erasure(place, PERSON)
    assert plan.landed_lines == 27
    assert plan.rows["curated_dpo_pairs"] == 12
    assert set(plan.tagged_rows) == {"dpo_gold_v1", "dpo_gold_v2"}
    assert MARK not in repr(plan)
    assert rows_of_others(place) == before
    assert not key_file(bench.lake).exists()


def test_files_wait_out_their_grace(bench: Workbench, place: Place) -> None:
    receipt = forget(place, grace=timedelta(hours=24))
    assert (receipt.files_deleted, receipt.files_waiting > 10) == (0, True)
    left = quoting(bench.root)
    assert left
    assert all(path.startswith("warehouse/") for path in left), left


def test_an_exclusion_of_the_person_names_nobody_afterwards(bench: Workbench, place: Place) -> None:
    receipt = forget(place)
    (exclusion,) = every_exclusion(bench.lake)
    assert exclusion.rule.user_id == f"erased:{receipt.id}"
    assert exclusion.reason == "vandal"


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        "_rewritten",
        "_revised",
        "_move_tag",
        "_forget_in_exclusions",
        "_erase_head",
        "erase_lines",
        "_set_ledger",
        "sweep",
    ],
)
def test_an_erasure_that_was_killed_is_finished_by_the_next(
    bench: Workbench, place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed the second time that the step is reached, or the first where it is reached once."""
    real = getattr(erasure_module, step)
    calls: list[str] = []

    def crash(*arguments: Any, **keywords: Any) -> Any:
        calls.append(step)
        if len(calls) == (1 if step in {"_forget_in_exclusions", "_set_ledger"} else 2):
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    before = rows_of_others(place)
    with monkeypatch.context() as patched:
        patched.setattr(erasure_module, step, crash)
        with pytest.raises(KeyboardInterrupt):
            forget(place)
    forget(place)
    assert quoting(bench.root) == []
    assert rows_of_others(place) == before
    assert verify(bench.lake, place.versions, CURATED_DPO_PAIRS).differences == ()


def test_what_cannot_be_done_now_changes_nothing(bench: Workbench, place: Place) -> None:
    plan = plan_erasure(place, PERSON)
    with pytest.raises(InvalidRuleError, match="names the person"):
        erase(place, plan, who="ada", reason=f"{PERSON} asked", now=NOW, grace=timedelta(0))
    with pytest.raises(InvalidRuleError, match="needs a user id"):
        plan_erasure(place, "")
    open_folder = bench.zone(EventKind.FEEDBACK).open_folder
    open_folder.mkdir(exist_ok=True)
    (open_folder / "now.jsonl").write_bytes(json.dumps({"user_id": PERSON, "event_id": "e"}).encode() + b"\n")
    with pytest.raises(OpenSegmentError, match=re.escape("now.jsonl")):
        forget(place)
    assert not key_file(bench.lake).exists()


def test_a_small_edit_that_waits_in_gold_is_erased_with_its_account(bench: Workbench) -> None:
    """Held rows lie in gold and in quarantine; the ledger forgot them, and the day no longer added up."""
    original = texts(1)["original_output"]
    small = original.replace("the answer", "the answers")
    kept = [edit(number, "harmless", user_id=f"user-{number}") for number in range(3)]
    bench.land(EventKind.FEEDBACK, day(0), [edit(1, final_text=small), edit(2), *kept])
    bench.ingest_both([day(0)])
    bench.join([day(0)])
    before = bench.curate([day(0)])[day(0)]
    assert (before.rows_kept, before.rows_held) == (4, 1)
    place = Place(
        bench.lake, PREFERENCE_TABLES, Versions(bench.root / "versions", APPLICATION), bench.landing, bench.start, {}
    )
    erase(place, plan_erasure(place, PERSON), who="ada", reason="asked", now=NOW, grace=timedelta(0))
    after = ledger.entries_of(bench.lake, CURATED_DPO_PAIRS.name)[day(0)]
    assert (after.rows_kept, after.rows_held, after.rows_in) == (3, 0, 3)
    assert audit_accounts(bench.lake, CURATED_DPO_PAIRS).discrepancies == ()
