"""Processes killed anywhere, full disks, several at once: nothing is lost, nothing is half, and all of it is told."""

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.errors import CommitContentionError, DiskFullError, UnknownNameError
from flywheel_assets.lake.erasure.erase import Place, erase_person, plan_erasure
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.lake.storage.failures import translate_disk_full
from flywheel_assets.lake.tables import lake as tables
from flywheel_assets.lake.tables.specs import (
    CLASSIFICATION_TABLES,
    CURATED_DPO_PAIRS,
    JOINED_LABELS,
    PREFERENCE_TABLES,
    RAW_SCORES,
    list_tables,
)
from flywheel_assets.lake.tables.tags import list_tags
from flywheel_assets.lake.upkeep.garbage import expire_snapshots, sweep_table
from flywheel_assets.lake.versions.exports import ExportSet, read_rows
from flywheel_assets.lake.versions.folders import Versions, encode_pin, read_pin
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.pins import list_kept_versions, release_ended_cuts, release_snapshots
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets_tests.builders import APPLICATION, day
from flywheel_assets_tests.everywhere import quoting
from flywheel_assets_tests.lake import killable
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.killable import (
    AFTER_ALL,
    ASSISTANT,
    CUT_POINTS,
    FRAUD,
    POINTS,
    Step,
    Wheel,
    forked,
    landed,
    plan,
)
from flywheel_assets_tests.lake.workbench import Workbench, landing_of
from flywheel_assets_tests.mounted_disk import MountedDisk, mount_disk
from flywheel_assets_tests.prepared import PreparedFolder

KILLED = -9
GOLD = CURATED_DPO_PAIRS
ROOMS = [*EventKind, "join", "curate"]
SLOW = pytest.mark.slow
RULES = ResolutionRules(holdout_share=0.0)
FIRST_FRAUD_CUT = plan(0, 0, 1)[-1]


def assert_sound(wheel: Wheel) -> None:
    """Every version verifies, nothing is held for a cut, and once garbage was collected there is none."""
    for name, bench in wheel.benches.items():
        assert list_kept_versions(bench.lake, list_tables(bench.tables)) == set()
        assert verify_versions(bench.lake, wheel.versions[name], bench.tables.gold).differences == ()
        wheel.collect(name)
    assert wheel.strays() == []


def days_of(steps: Iterable[Step]) -> tuple[Any, ...]:
    return tuple(sorted({on for step in steps for on in step.days}))


@pytest.fixture(scope="module")
def prepared_assistant(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """Two days of the assistant up to gold."""
    steps = plan(2, 0, 0)
    [wheel] = landed(steps, tmp_path_factory.mktemp("assistant"))
    for action in ROOMS:
        wheel.run(Step(ASSISTANT, action, days_of(steps)))
    return close(wheel)


@pytest.fixture(scope="module")
def prepared_fraud(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """As many days of the fraud application, up to its examples, as a first version needs."""
    *writes, _ = plan(0, 0, 1)
    [wheel] = landed(writes, tmp_path_factory.mktemp("fraud"))
    for step in writes:
        wheel.run(step)
    return close(wheel)


def close(wheel: Wheel) -> PreparedFolder:
    for bench in wheel.benches.values():
        bench.lake.catalog.engine.dispose()
    return PreparedFolder(wheel.root)


@pytest.fixture
def assistant(prepared_assistant: PreparedFolder) -> Wheel:
    return Wheel(prepared_assistant.restored())


@pytest.fixture
def fraud(prepared_fraud: PreparedFolder) -> Wheel:
    return Wheel(prepared_fraud.restored())


def told_by(listener: Connection) -> Iterator[Any]:
    """What a process has told, up to its end."""
    try:
        while True:
            yield listener.recv()
    except EOFError:
        return


def kill_at(name: str, wheel: Wheel, step: Step) -> None:
    killed = killable.start(killable.die_at, name, wheel.root, step)
    killed.join(120)
    assert killed.exitcode == KILLED, f"{step} did not come by {name!r}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("room", "points"),
    [
        ("curate", ["data file placed, no manifest", "committed, unlocked, quarantine of before"]),
        *(pytest.param(room, list(POINTS), marks=SLOW) for room in ROOMS),
    ],
    ids=str,
)
def test_a_write_that_was_killed_is_made_whole_by_the_next(tmp_path: Path, room: str, points: list[str]) -> None:
    """A day for each point at which a write can be cut in two; then everything is as if nothing had happened."""
    steps = plan(len(points), 0, 0)
    days = days_of(steps)
    clean, victim = landed(steps, tmp_path / "clean", tmp_path / "victim")
    before = ROOMS.index(room)
    for action in ROOMS:
        clean.run(Step(ASSISTANT, action, days))
    for action in ROOMS[:before]:
        victim.run(Step(ASSISTANT, action, days))
    # So that what is killed creates no table on its way.
    victim.run(Step(ASSISTANT, room, days[:1]))
    for on, name in zip(days, points, strict=True):
        kill_at(name, victim, Step(ASSISTANT, room, (on,)))
        victim.run(Step(ASSISTANT, room, (on,)))
    for action in ROOMS[before + 1 :]:
        victim.run(Step(ASSISTANT, action, days))
    assert victim.contents() == clean.contents()
    assert {".parquet"} <= {path.suffix for path in victim.strays()}
    assert_sound(victim)


@pytest.mark.long
@pytest.mark.parametrize(
    "points", [["tagged", "export written, without its name"], pytest.param(list(CUT_POINTS), marks=SLOW)], ids=len
)
def test_a_cut_that_was_killed_is_made_whole_by_the_next(prepared_assistant: PreparedFolder, points: list[str]) -> None:
    cuts = [Step(ASSISTANT, "cut", version=f"dpo_gold_v{number}") for number in range(1, len(points) + 1)]
    clean = Wheel(prepared_assistant.restored())
    for cut in cuts:
        clean.run(cut)
    expected = clean.contents()
    victim = Wheel(prepared_assistant.restored())
    for number, (name, cut) in enumerate(zip(points, cuts, strict=True), start=1):
        kill_at(name, victim, cut)
        assert victim.verified_exports() == (number if "export visible" in name or "let go" in name else number - 1)
        victim.run(cut)
    assert victim.contents() == expected
    assert_sound(victim)


@pytest.mark.long
@pytest.mark.parametrize(
    "point",
    [
        "pinned",
        *(
            pytest.param(name, marks=SLOW)
            for name in (
                "resolved, not tagged",
                "tagged",
                "one file of the export written",
                "export visible, nobody told",
            )
        ),
    ],
)
def test_a_repeated_cut_reads_what_was_pinned_whatever_has_changed_since(
    prepared_fraud: PreparedFolder, point: str
) -> None:
    """Evaluation rows were read from the heads of the raw tables: a cut that was repeated saw what a backfill wrote."""
    cut = FIRST_FRAUD_CUT
    clean = Wheel(prepared_fraud.restored())
    clean.run(cut)
    expected = clean.contents()[cut.version]
    victim = Wheel(prepared_fraud.restored())
    kill_at(point, victim, cut)
    change_evaluation_rows(victim)
    victim.run(cut)
    assert victim.contents()[cut.version] == expected
    assert_sound(victim)


def change_evaluation_rows(wheel: Wheel) -> None:
    """Scores of a day that a version is judged on are others, labels of another one are gone; nothing old is left."""
    bench = wheel.benches[FRAUD]
    other = [{**row, "score": 0.9} for row in bench.rows(RAW_SCORES, [day(4)])]
    assert other
    assert bench.rows(JOINED_LABELS, [day(5)])
    bench.write(RAW_SCORES, day(4), other)
    bench.write(JOINED_LABELS, day(5), [])
    assert wheel.collect(FRAUD)


@pytest.mark.long
def test_a_pin_of_older_code_says_from_then_on_what_is_read(fraud: Wheel) -> None:
    wheel, cut = fraud, FIRST_FRAUD_CUT
    kill_at("pinned", wheel, cut)
    lake, folder = wheel.benches[FRAUD].lake, wheel.versions[FRAUD].folder(cut.version)
    pin = read_pin(folder)
    folder.pin.write_bytes(encode_pin(msgspec.structs.replace(pin, also_read={})))
    release_snapshots(lake, cut.version, list_tables(CLASSIFICATION_TABLES))
    kill_at("resolved, not tagged", wheel, cut)
    assert read_pin(folder) == pin, "the heads are what it read before"
    change_evaluation_rows(wheel)
    wheel.run(cut)
    assert read_pin(folder) == pin
    assert_sound(wheel)


def test_a_pin_whose_rows_are_gone_says_so(fraud: Wheel) -> None:
    wheel, cut = fraud, FIRST_FRAUD_CUT
    kill_at("tagged", wheel, cut)
    release_snapshots(wheel.benches[FRAUD].lake, cut.version, list_tables(CLASSIFICATION_TABLES))
    change_evaluation_rows(wheel)
    with pytest.raises(UnknownNameError, match=r"unknown snapshot of raw_predictions .* `flywheel abandon"):
        wheel.run(cut)


@pytest.mark.parametrize(
    ("point", "is_over"),
    [("gold held, nothing pinned", True), ("pinned", False), ("export visible, nobody told", True)],
)
def test_the_upkeep_lets_go_of_what_ended_cuts_held(fraud: Wheel, point: str, is_over: bool) -> None:
    wheel, cut = fraud, FIRST_FRAUD_CUT
    kill_at(point, wheel, cut)
    lake, versions = wheel.benches[FRAUD].lake, wheel.versions[FRAUD]
    specs = list_tables(CLASSIFICATION_TABLES)
    assert list_kept_versions(lake, specs) == {cut.version}
    release_ended_cuts(lake, versions, CLASSIFICATION_TABLES)
    assert list_kept_versions(lake, specs) == (set() if is_over else {cut.version})
    versions.folder(cut.version).path.mkdir(parents=True, exist_ok=True)
    versions.folder(cut.version).promotion.write_text("{}")
    release_ended_cuts(lake, versions, CLASSIFICATION_TABLES)
    assert list_kept_versions(lake, specs) == set(), "it was abandoned"


@pytest.mark.long
@pytest.mark.parametrize("steps", [plan(1, 1, 0), pytest.param(plan(15, 10, 10), marks=SLOW)], ids=len)
def test_kills_at_random_moments_change_nothing(tmp_path: Path, steps: list[Step]) -> None:
    """Killed about as often as there are steps, at moments drawn by lot, and started again until all are done.

    The large plan is 100 writes, 20 version cuts and 10 collections of garbage of two applications.
    """
    clean, victim = landed(steps, tmp_path / "clean", tmp_path / "victim")
    listener, teller = forked.Pipe(duplex=False)
    undisturbed = killable.start(killable.work, clean.root, steps, 0, teller)
    teller.close()
    assert listener.recv() == -1
    began = time.monotonic()
    assert list(told_by(listener)) == list(range(len(steps)))
    mean_s = (time.monotonic() - began) / len(steps)
    undisturbed.join(60)

    lots = random.Random(20261121)
    kills: Counter[str] = Counter()
    first = fruitless = 0
    while first < len(steps):
        listener, teller = forked.Pipe(duplex=False)
        process = killable.start(killable.work, victim.root, steps, first, teller)
        teller.close()
        assert listener.recv() == -1, "it failed before it began"
        # Longer after each attempt that finished no step, so that a busy machine gets there, too.
        process.join(lots.uniform(0, 2 * mean_s) * (1 + fruitless))
        process.kill()
        process.join(60)
        done = list(told_by(listener))
        first += len(done)
        fruitless = 0 if done else fruitless + 1
        assert process.exitcode == KILLED or first == len(steps), f"{steps[first]} failed by itself"
        kills.update([steps[first].action] if process.exitcode == KILLED and first < len(steps) else [])
        # Whatever was killed: an export that is seen under its name is whole.
        victim.verified_exports()
    print(f"{len(steps)} steps of {mean_s:.2f} s, killed in {dict(kills)}")
    assert kills.total() >= len(steps) // 2
    assert victim.contents() == clean.contents()
    assert_sound(victim)


@pytest.mark.long
@pytest.mark.parametrize("number", [3, pytest.param(20, marks=SLOW)])
def test_two_cuts_at_once_agree(assistant: Wheel, number: int) -> None:
    """The second one asked whether the export was there, was overtaken, and died of `Directory not empty`."""
    wheel = assistant
    cuts = [Step(ASSISTANT, "cut", version=f"dpo_gold_v{each}") for each in range(1, number + 1)]
    first, second = told_at_once(wheel.root, cuts, cuts)
    assert first == second
    assert all(len(sha256) == 64 for sha256 in first), first
    assert wheel.verified_exports() == len(cuts)
    assert_sound(wheel)


@SLOW
def test_cuts_of_two_versions_at_once_are_two_versions(assistant: Wheel) -> None:
    wheel = assistant
    cuts = [Step(ASSISTANT, "cut", version=f"dpo_gold_v{each}") for each in range(1, 21)]
    first, second = told_at_once(wheel.root, cuts[::2], cuts[1::2])
    assert len(set(first + second)) == len(cuts), "each manifest names its version"
    assert set(list_tags(wheel.benches[ASSISTANT].lake, GOLD)) == {cut.version for cut in cuts}
    assert_sound(wheel)


def told_at_once(root: Path, *steps: Sequence[Step]) -> list[list[str]]:
    """What processes tell of their steps, each step begun at the same moment as those of the others."""
    together = forked.Barrier(len(steps))
    pipes = [forked.Pipe(duplex=False) for _ in steps]
    for its_steps, (_, teller) in zip(steps, pipes, strict=True):
        killable.start(killable.cut_together, root, its_steps, together, teller)
        teller.close()
    return [list(told_by(listener)) for listener, _ in pipes]


@pytest.mark.long
def test_two_cuts_of_nothing_are_both_told_so(tmp_path: Path) -> None:
    """Each takes the pin back, and neither the other's."""
    bench = Workbench(tmp_path, application=ASSISTANT)
    write_gold(bench, day(0), 1)
    write_gold(bench, day(0), 0)
    cuts = [Step(ASSISTANT, "cut", version="dpo_gold_v1")] * 3
    first, second = told_at_once(tmp_path, cuts, cuts)
    nothing = "EmptyVersionError: dpo_gold_v1 has no training row in 1 closed days: nothing to train on"
    assert first + second == 6 * [nothing]
    write_gold(bench, day(1), 30)
    first, second = told_at_once(tmp_path, cuts, cuts)
    assert len(set(first + second)) == 1
    assert Wheel(tmp_path).verified_exports() == 1


def test_a_cut_says_that_another_one_takes_long(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gold(bench, day(0), 3)
    monkeypatch.setattr(tables, "_LOCK_TIMEOUT_S", 0.1)
    versions = Versions(bench.root / "versions", APPLICATION)
    with (
        bench.open_lake().lock_versions(),
        pytest.raises(CommitContentionError, match=r"assistant\.versions was locked"),
    ):
        cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    assert list(versions) == []


@pytest.mark.long
@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=SLOW)])
def test_a_tag_keeps_its_snapshot_whatever_expires_meanwhile(tmp_path: Path, rounds: int) -> None:
    """Trap 3 with real processes: two write and tag, one expires and sweeps without any grace.

    The sweep once took the file of a writer between its placing and its commit.
    """
    wheel = Wheel(tmp_path)
    lake = wheel.benches[ASSISTANT].lake
    lake.load_table(GOLD)
    over = forked.Event()
    swept, sweeper = forked.Pipe(duplex=False)
    collector = killable.start(killable.collect_until, tmp_path, over, sweeper)
    pipes = [forked.Pipe(duplex=False) for _ in range(2)]
    writers = []
    for number, (_, teller) in enumerate(pipes):
        writers.append(killable.start(killable.write_and_tag, tmp_path, day(number), rounds, teller))
        teller.close()
    told = [each for listener, _ in pipes for each in told_by(listener)]
    over.set()
    deleted = swept.recv()
    for process in (*writers, collector):
        process.join(60)
    assert [process.exitcode for process in (*writers, collector)] == [0, 0, 0]
    texts = {name: text for name, text in told if name}
    untagged = [problem for name, problem in told if not name]
    assert all("It expired before it was tagged" in problem for problem in untagged), untagged
    assert len(told) == 2 * rounds
    assert deleted > 0
    known = list_tags(lake, GOLD)
    assert set(known) == set(texts)
    for name, text in texts.items():
        assert text in lake.read(GOLD, None, ["chosen"], known[name])["chosen"].to_pylist()
    print(f"{len(texts)} of {len(told)} tagged, {deleted} files swept meanwhile")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MountedDisk]:
    with mount_disk(tmp_path / "disk", megabytes=32) as mounted:
        yield mounted


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize(
    ("on_disk", "step_bytes"),
    [
        (".", 96 * 1024),
        pytest.param(".", 6 * 1024, marks=SLOW),
        pytest.param("warehouse", 12 * 1024, marks=SLOW),
        *(pytest.param(name, 4 * 1024, marks=SLOW) for name in ("scratch", "versions", "landing")),
    ],
)
def test_a_full_disk_is_told_and_loses_nothing(
    tmp_path: Path, disk: MountedDisk, on_disk: str, step_bytes: int
) -> None:
    """A day and a cut, each with a little more room than when it failed before, until it fits."""
    steps = plan(2, 1, 0)
    root = disk.folder
    if on_disk != ".":
        root = tmp_path / "victim"
        root.mkdir()
        (root / on_disk).symlink_to(disk.folder, target_is_directory=True)
    clean, victim = landed(steps, tmp_path / "clean", root)
    for step in steps:
        clean.run(step)
    for step in steps[:4]:
        victim.run(step)
    before = {name: victim.benches[ASSISTANT].rows(spec) for name, spec in COMMITTED.items()}
    failures = Counter[str]()
    for step in steps[4:]:
        free = 0
        while True:
            disk.leave_free(free)
            try:
                victim.run(step)
            except DiskFullError as error:
                told = str(error)
            else:
                break
            assert re.search(rf"no space left at {root}/{'' if on_disk == '.' else on_disk}.*then run it again", told)
            free += step_bytes
            failures[step.action] += 1
            assert not list((root / "scratch").rglob("*.parquet")), "each attempt would leave less room"
            assert not list((root / "versions").rglob(".*"))
            # The days of before are as they were, read from the full disk.
            assert {name: victim.benches[ASSISTANT].rows(spec, [day(0)]) for name, spec in COMMITTED.items()} == before
    print(f"{on_disk}: full {dict(failures)}")
    assert failures.total() >= (8 if on_disk == "." else 1)
    disk.ballast.unlink()
    assert victim.contents() == clean.contents()
    assert_sound(victim)


COMMITTED = {spec.name: spec for spec in (PREFERENCE_TABLES.predictions, PREFERENCE_TABLES.joined, GOLD)}


def test_a_spill_that_finds_no_room_is_a_full_disk(disk: MountedDisk) -> None:
    """DuckDB does not speak of the disk then, but of a setting that it derived from what was free."""
    disk.leave_free(1024 * 1024)
    with connect(disk.folder / "spill") as connection:
        connection.execute("SET threads = 1")
        connection.execute("SET memory_limit = '40MB'")
        with pytest.raises(DiskFullError, match="KiB free"), translate_disk_full(disk.folder):
            connection.execute("CREATE TEMP TABLE t AS SELECT md5(i::VARCHAR) AS x FROM range(3000000) t(i) ORDER BY x")


def test_an_error_that_only_quotes_the_words_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No space left"), translate_disk_full(tmp_path):
        raise ValueError("a user wrote: No space left on device")


def interrupted_cut(bench: Workbench, point: str) -> Versions:
    """A version that was killed at a point, and gold that has gone on since."""
    kill_at(point, Wheel(bench.root), Step(ASSISTANT, "cut", version="dpo_gold_v1"))
    return Versions(bench.root / "versions", ASSISTANT)


def test_a_pin_keeps_its_snapshot_while_gold_is_maintained(bench: Workbench) -> None:
    """Killed between pin and tag, and a week later maintained: the version could never be cut."""
    write_gold(bench, day(0), 30)
    versions = interrupted_cut(bench, "pinned")
    write_gold(bench, day(1), 30)
    expire_snapshots(bench.lake, GOLD, AFTER_ALL)
    sweep_table(bench.lake, GOLD, timedelta(0), AFTER_ALL)
    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    assert manifest.files[ExportSet.TRAIN].rows == 30
    assert list_tags(bench.lake, GOLD) == {"dpo_gold_v1": manifest.snapshot_id}


def place_of(bench: Workbench, versions: Versions) -> Place:
    return Place(bench.lake, PREFERENCE_TABLES, versions, landing_of(bench), bench.start, {})


@pytest.mark.long
def test_an_erasure_between_tag_and_export_leaves_a_version_that_can_be_cut(assistant: Wheel) -> None:
    """The tag had moved, the pin had not: the next cut found a conflict, and so did every one after it."""
    wheel = assistant
    bench = wheel.benches[ASSISTANT]
    versions = interrupted_cut(bench, "tagged")
    place = place_of(bench, versions)
    erase_person(place, plan_erasure(place, "user 1"), who="ada", reason="asked", now=AFTER_ALL, grace=timedelta(0))
    manifest = cut_pair_version(bench.lake, versions, "dpo_gold_v1", RULES, "1")
    export = versions.folder("dpo_gold_v1").export
    exported = [row for which in manifest.files for row in read_rows(export, manifest, which)]
    assert exported
    assert "user 1" not in {row.subject for row in exported}
    assert verify_versions(bench.lake, versions, GOLD).differences == ()


@pytest.mark.long
@pytest.mark.parametrize("point", ["all held, nothing pinned", "pinned", "tagged"])
def test_an_erasure_reaches_the_snapshots_that_a_killed_cut_held(fraud: Wheel, point: str) -> None:
    wheel, cut = fraud, FIRST_FRAUD_CUT
    kill_at(point, wheel, cut)
    bench, versions = wheel.benches[FRAUD], wheel.versions[FRAUD]
    person = f"card {day(4)} 1"
    place = Place(bench.lake, CLASSIFICATION_TABLES, versions, landing_of(bench), bench.start, {})
    assert quoting(wheel.root / "warehouse", person)
    erase_person(place, plan_erasure(place, person), who="ada", reason="asked", now=AFTER_ALL, grace=timedelta(0))
    assert quoting(wheel.root / "warehouse", person) == []
    wheel.run(cut)
    assert quoting(wheel.root, person) == []
    assert_sound(wheel)


def test_an_erasure_and_a_cut_take_turns(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside each other, the cut exports what it had read before the erasure."""
    monkeypatch.setattr(tables, "_LOCK_TIMEOUT_S", 0.1)
    place = place_of(bench, Versions(bench.root / "versions", ASSISTANT))
    plan_of_user = plan_erasure(place, "user 1")
    with bench.open_lake().lock_versions(), pytest.raises(CommitContentionError, match="versions was locked"):
        erase_person(place, plan_of_user, who="ada", reason="asked", now=AFTER_ALL, grace=timedelta(0))
    assert (
        erase_person(place, plan_of_user, who="ada", reason="asked", now=AFTER_ALL, grace=timedelta(0)).versions == []
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "point", ["one file of the export written", pytest.param("rows built, table untouched", marks=SLOW)]
)
def test_an_erasure_reaches_what_a_killed_process_had_begun(assistant: Wheel, point: str) -> None:
    """Days under construction and exports without a name hold texts, and no table or manifest knows them."""
    wheel = assistant
    bench = wheel.benches[ASSISTANT]
    cut, curate = Step(ASSISTANT, "cut", version="dpo_gold_v1"), Step(ASSISTANT, "curate", days_of(plan(2, 0, 0)))
    kill_at(point, wheel, cut if point in CUT_POINTS else curate)
    assert [path for path in wheel.strays() if "warehouse" not in path.parts]
    place = place_of(bench, Versions(bench.root / "versions", ASSISTANT))
    erase_person(place, plan_erasure(place, "user 1"), who="ada", reason="asked", now=AFTER_ALL, grace=timedelta(0))
    assert wheel.strays() == []
