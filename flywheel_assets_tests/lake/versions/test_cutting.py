"""Cutting a gold version: pin, tag, export; crashes between them, repeats, and names that are taken."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from flywheel_assets.curation.texts.breaker import DayFigures
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.curation.trips import Trip
from flywheel_assets.errors import EmptyVersionError, ManifestMismatchError, UnknownNameError, VersionConflictError
from flywheel_assets.lake.daily.breaker import JudgedDay, record_judged_days
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.upkeep.garbage import expire_snapshots
from flywheel_assets.lake.versions import cutting as versions_module
from flywheel_assets.lake.versions import pair_versions
from flywheel_assets.lake.versions.exports import ExportSet, Manifest, read_rows
from flywheel_assets.lake.versions.folders import Pin, Versions, parse_version_number
from flywheel_assets.lake.versions.pair_versions import cut_pair_version, read_trained_pair_ids
from flywheel_assets.lake.versions.pins import list_kept_versions, list_tagged_versions, release_snapshots
from flywheel_assets_tests.builders import APPLICATION, DAY, day, make_gold
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench, stamp

RULES = ResolutionRules(holdout_share=0.0)
VERSION = "dpo_gold_v1"


@pytest.fixture
def versions(bench: Workbench) -> Versions:
    return Versions(bench.root / "versions", APPLICATION)


def cut(bench: Workbench, versions: Versions, version: str = VERSION, rules: ResolutionRules = RULES) -> Manifest:
    return cut_pair_version(bench.lake, versions, version, rules, "1")


def test_a_version_holds_the_closed_days_and_nothing_else(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    write_gold(bench, day(1), 4, is_closed=False)
    write_gold(bench, day(2), 0)
    manifest = cut(bench, versions)
    assert manifest.days == {"2026-03-02": "2026-03-02 3 ", "2026-03-04": "2026-03-04 0 "}
    assert {which.value: file.rows for which, file in manifest.files.items()} == {
        "train": 3,
        "accepted": 0,
        "holdout": 0,
        "regression": 0,
        "demonstrations": 0,
        "objections": 0,
    }
    rows = read_rows(versions.folder(VERSION).export, manifest, ExportSet.TRAIN)
    assert {row.completed_date for row in rows} == {"2026-03-02"}
    assert {(row.prompt, row.chosen, row.rejected) for row in rows} == {
        (f"prompt {DAY} {number}", f"chosen {DAY} {number} ", f"rejected {DAY} {number}") for number in range(3)
    }
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {VERSION: manifest.snapshot_id}
    assert read_trained_pair_ids(versions.folder(VERSION)) == {row.pair_id for row in rows}


def test_every_row_is_exported_or_dropped_for_a_reason(bench: Workbench, versions: Versions) -> None:
    shared = {"prompt_hash": "same", "content_hash": "same"}
    rows = [
        make_gold(prediction_id="twice"),
        make_gold(prediction_id="twice"),
        *(make_gold(**shared) for _ in range(3)),
        *(make_gold(subject="busy") for _ in range(5)),
        *(make_gold(example_kind="accepted_output") for _ in range(4)),
    ]
    write_gold(bench, DAY, 0)
    bench.write(CURATED_DPO_PAIRS, DAY, rows)
    manifest = cut(bench, versions, rules=replace(RULES, per_user_cap=2, accepted_share=0.0))
    assert manifest.files[ExportSet.TRAIN].rows == 4
    assert sum(file.rows for file in manifest.files.values()) + sum(manifest.dropped.values()) == len(rows)
    assert manifest.dropped["outvoted"] == 1
    assert manifest.dropped["user_cap"] == 3


def test_texts_are_fetched_some_at_a_time_and_rows_stay_with_theirs(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of a million pairs took 10 GB while its rows were all in memory at once."""
    monkeypatch.setattr(pair_versions, "_ROWS_AT_ONCE", 2)
    for offset in range(3):
        write_gold(bench, day(offset), 5)
    manifest = cut(bench, versions, rules=ResolutionRules(holdout_share=0.5))
    folder = versions.folder(VERSION).export
    exported = {which: read_rows(folder, manifest, which) for which in (ExportSet.TRAIN, ExportSet.HOLDOUT)}
    assert all(rows for rows in exported.values())
    assert sum(map(len, exported.values())) == 15
    for rows in exported.values():
        assert rows == sorted(rows, key=lambda row: row.pair_id)
        for row in rows:
            number = row.prompt.removeprefix("prompt ")
            assert (row.subject, row.chosen, row.rejected) == (
                f"user {number}",
                f"chosen {number} ",
                f"rejected {number}",
            )


def test_a_repeated_cut_verifies_and_returns(bench: Workbench, versions: Versions) -> None:
    """Gold, rules and code have changed since: the version has not."""
    write_gold(bench, day(0), 3)
    first = cut(bench, versions)
    write_gold(bench, day(0), 1, text="edited")
    write_gold(bench, day(1), 4)
    assert cut_pair_version(bench.lake, versions, VERSION, replace(RULES, per_user_cap=1), "2") == first


def test_a_repeated_cut_finds_a_damaged_export(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 3)
    cut(bench, versions)
    file = versions.folder(VERSION).export / f"{VERSION}.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ManifestMismatchError, match=r"dpo_gold_v1\.jsonl has sha256"):
        cut(bench, versions)


def test_a_later_version_holds_what_came_since(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    cut(bench, versions)
    write_gold(bench, day(1), 4)
    assert cut(bench, versions, "dpo_gold_v2").files[ExportSet.TRAIN].rows == 7
    assert set(list_tagged_versions(bench.lake, CURATED_DPO_PAIRS)) == {VERSION, "dpo_gold_v2"}


@pytest.mark.long
@pytest.mark.parametrize("step", ["create_tag", "resolve", "write_export"])
def test_a_cut_that_crashed_is_finished_with_what_was_pinned(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Between the crash and the repeated cut gold goes on; the version is what it was when it was begun."""
    write_gold(bench, day(0), 3)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pair_versions if step == "resolve" else versions_module, step, crash)
        with pytest.raises(KeyboardInterrupt):
            cut(bench, versions)
    write_gold(bench, day(0), 2, text="edited")
    write_gold(bench, day(1), 4)
    manifest = cut(bench, versions)
    assert (list(manifest.days), manifest.files[ExportSet.TRAIN].rows) == (["2026-03-02"], 3)
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {VERSION: manifest.snapshot_id}
    assert [folder.version for folder in versions] == [VERSION]


@pytest.mark.long
def test_a_pin_outlives_expiry_until_its_version_is_exported(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut crashed before it tagged; many commits later the pinned snapshot had expired, and every retry failed."""
    write_gold(bench, day(0), 3)
    crash_before_the_tag(bench, versions, monkeypatch)
    write_gold(bench, day(1), 2)
    expire_snapshots(bench.lake, CURATED_DPO_PAIRS, datetime.now(UTC) + timedelta(days=1))
    assert list_kept_versions(bench.lake, [CURATED_DPO_PAIRS]) == {VERSION}
    manifest = cut(bench, versions)
    assert list(manifest.days) == [day(0).isoformat()]
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {VERSION: manifest.snapshot_id}
    assert list_kept_versions(bench.lake, [CURATED_DPO_PAIRS]) == set()


def test_a_pin_of_older_code_whose_snapshot_was_forgotten_is_taken_again(
    bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gold(bench, day(0), 3)
    crash_before_the_tag(bench, versions, monkeypatch)
    release_snapshots(bench.lake, VERSION, [CURATED_DPO_PAIRS])
    write_gold(bench, day(1), 2)
    expire_snapshots(bench.lake, CURATED_DPO_PAIRS, datetime.now(UTC) + timedelta(days=1))
    manifest = cut(bench, versions)
    assert list(manifest.days) == [day(0).isoformat(), day(1).isoformat()]
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {VERSION: manifest.snapshot_id}


def crash_before_the_tag(bench: Workbench, versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(versions_module, "create_tag", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cut(bench, versions)


def test_a_tag_on_another_snapshot_is_never_moved(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, day(0), 3)
    tagged = bench.lake.load_table(CURATED_DPO_PAIRS).current_snapshot()
    assert tagged is not None
    bench.lake.load_table(CURATED_DPO_PAIRS).manage_snapshots().create_tag(tagged.snapshot_id, VERSION).commit()
    write_gold(bench, day(1), 3)
    with pytest.raises(VersionConflictError, match=f"the tag {VERSION} points to snapshot {tagged.snapshot_id}"):
        cut(bench, versions)
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {VERSION: tagged.snapshot_id}
    assert not versions.folder(VERSION).export.exists()


def edit_pin(versions: Versions, change: Callable[[Pin], Pin]) -> None:
    path = versions.folder(VERSION).pin
    path.write_bytes(msgspec.json.encode(change(msgspec.json.decode(path.read_bytes(), type=Pin))))


def test_an_export_of_another_pin_is_a_conflict(bench: Workbench, versions: Versions) -> None:
    write_gold(bench, DAY, 3)
    cut(bench, versions)
    edit_pin(versions, lambda pin: msgspec.structs.replace(pin, days={}))
    with pytest.raises(VersionConflictError, match="1 days, its pin says"):
        cut(bench, versions)


def test_gold_without_a_closed_day_makes_no_version(bench: Workbench, versions: Versions) -> None:
    for _ in range(2):
        with pytest.raises(EmptyVersionError, match="gold has no closed day yet"):
            cut(bench, versions)
        write_gold(bench, DAY, 3, is_closed=False)
    assert list(versions) == []
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {}


def test_where_the_breaker_keeps_every_day_out_the_sentence_says_so(bench: Workbench, versions: Versions) -> None:
    """A sender tripped each of ten days, and the cut said that no day was closed: people looked at the schedule."""
    figures = DayFigures(900, 3, 0.4, 0.9, 20.0, 300, (Trip("top_user_ratio", 0.9, 0.5, ()),))
    record_judged_days(bench.lake, [JudgedDay(DAY, "hash", figures, False, stamp().now)], [], stamp())
    with pytest.raises(EmptyVersionError, match=r"breaker keeps out 1 days, the first of them .*flywheel breaker list"):
        cut(bench, versions)
    assert list(versions) == []


def test_a_version_that_was_empty_can_be_cut_when_there_is_something(bench: Workbench, versions: Versions) -> None:
    """The first edit fell into the holdout: pinned to nothing, the version could never have been retried."""
    write_gold(bench, day(0), 1)
    with pytest.raises(EmptyVersionError, match="no training row in 1 closed days"):
        cut(bench, versions, rules=ResolutionRules(holdout_share=1.0))
    assert list_tagged_versions(bench.lake, CURATED_DPO_PAIRS) == {}
    assert list_kept_versions(bench.lake, [CURATED_DPO_PAIRS]) == set()
    write_gold(bench, day(1), 3)
    assert cut(bench, versions).files[ExportSet.TRAIN].rows == 4


def test_versions_are_listed_in_the_order_of_their_numbers(versions: Versions) -> None:
    for name in ("dpo_gold_v10", "dpo_gold_v9", "dpo_gold_v01", "other", "dpo_gold_v0", "dpo_gold_v1"):
        (versions.root / APPLICATION / name).mkdir(parents=True)
    assert [folder.version for folder in versions] == ["dpo_gold_v1", "dpo_gold_v9", "dpo_gold_v10"]
    assert versions.find_last_trained() is None
    for number in (1, 9):
        training = versions.folder(f"dpo_gold_v{number}").training
        training.mkdir()
        (training / "training.json").write_text("{}")
    trained = versions.find_last_trained()
    assert trained is not None
    assert trained.version == "dpo_gold_v9"
    assert (trained.is_trained, trained.is_finished) == (True, False)


@pytest.mark.parametrize("name", ["", "dpo_gold_v0", "dpo_gold_v01", "dpo_gold_v1/../x", "dpo_gold_v1\n", "v1"])
def test_other_names_are_no_versions(versions: Versions, name: str) -> None:
    assert parse_version_number(name) == 0
    with pytest.raises(UnknownNameError, match="known: <word>_gold_v<N>"):
        versions.folder(name)
