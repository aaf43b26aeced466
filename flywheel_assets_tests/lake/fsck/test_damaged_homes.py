"""`flywheel fsck` over a real small home: each kind of file is damaged in turn, found, and nothing else is reported."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from flywheel_assets import cli
from flywheel_assets.lake.daily.ledger import read_entries
from flywheel_assets.lake.tables.home import find_local_path
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.lake.fsck.homes import (
    DAMAGES,
    DAYS,
    NAME,
    TRACED,
    V1,
    V2,
    inspect,
    make_home,
    open_stores,
)
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.prepared import PreparedFolder

_VERSION = f"versions/{NAME}/{V1}"
_LANDED = f"landing/{NAME}/feedback/received_date={DAYS[1]}"
FILES = {
    "landed segment": f"{_LANDED}/segment.jsonl",
    "closing": f"{_LANDED}/_CLOSED.json",
    "first day of history": f"landing/{NAME}/_HISTORY.json",
    "mark of landing": "landing/_HOME.json",
    "mark of the home": "home.json",
    "mark of the warehouse": "warehouse/_HOME.json",
    "catalog": "catalog.db",
    "MLflow's store": "mlflow.db",
    "Dagster's runs": "dagster/history/runs.db",
    "pin": f"{_VERSION}/pin.json",
    "manifest of an export": f"{_VERSION}/export/manifest.json",
    "exported rows": f"{_VERSION}/export/{V1}.jsonl",
    "decision": f"{_VERSION}/promotion.json",
    "trainer's report": f"{_VERSION}/training/training.json",
    "weights": f"{_VERSION}/training/adapter/adapter_model.safetensors",
    "adapter's settings": f"{_VERSION}/training/adapter/adapter_config.json",
    "MLflow's copy": f"mlartifacts/{NAME}/*/artifacts/adapter/adapter_model.safetensors",
    "receipt": f"versions/{NAME}/erasures/*.json",
    "erasure key": "erasure.key",
    "capture keys": "capture_keys.json",
    "maintenance's memory": f"scratch/garbage/{NAME}.ledger.json",
    "fsck's memory": f"fsck/{NAME}.json",
}
TABLES = ("raw_predictions", "joined_feedback", "curated_dpo_pairs", "ledger", "erasures")
PARTS = ("metadata", "manifest list", "manifest", "data", "earlier metadata")
KINDS = [*FILES, *(f"{part} of {table}" for table in TABLES for part in PARTS)]
FEW_KINDS = [*FILES, *(f"{part} of curated_dpo_pairs" for part in PARTS)]
UNNOTICED = {
    # Nothing needs them, or they are made again.
    ("mark of landing", "deleted"),
    ("Dagster's runs", "deleted"),
    ("maintenance's memory", "deleted"),
    ("fsck's memory", "deleted"),
    *((f"earlier metadata of {table}", "deleted") for table in TABLES),
    # Nothing else says that they were there.
    ("first day of history", "deleted"),
    ("capture keys", "deleted"),
}
# SQLite keeps no sum of its pages: where the byte in the middle lies in free space or in a text, nothing is wrong.
LUCK = {("catalog", "flipped"), ("MLflow's store", "flipped"), ("Dagster's runs", "flipped")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    home = tmp_path_factory.mktemp("home")
    make_home(home)
    # The first look keeps the sha256 of every file of the tables.
    assert [str(each) for each in inspect(home).findings] == []
    return PreparedFolder(home)


@pytest.fixture(scope="module")
def files(prepared: PreparedFolder) -> Mapping[str, str]:
    """By kind one file, relative to the home."""
    home = prepared.restored()
    found = {kind: str(next(home.glob(pattern)).relative_to(home)) for kind, pattern in FILES.items()}
    lake = open_stores(home).lake(NAME)
    for name in TABLES:
        table = lake.catalog.load_table((NAME, name))
        head = table.current_snapshot()
        assert head is not None
        uris = {
            "metadata": table.metadata_location,
            "manifest list": head.manifest_list,
            "manifest": head.manifests(table.io)[0].manifest_path,
            "data": next(iter(table.scan().plan_files())).file.file_path,
            "earlier metadata": table.metadata.metadata_log[-1].metadata_file,
        }
        for part, uri in uris.items():
            path = find_local_path(uri)
            assert path is not None
            found[f"{part} of {name}"] = str(path.relative_to(home))
    return found


def damage(prepared: PreparedFolder, files: Mapping[str, str], kind: str, how: str) -> tuple[Path, Path]:
    home = prepared.restored()
    path = home / files[kind]
    DAMAGES[how](path)
    return home, path


def find(prepared: PreparedFolder, files: Mapping[str, str], kind: str, how: str) -> None:
    """Damage a file and expect one finding, of it."""
    home, path = damage(prepared, files, kind, how)
    findings = inspect(home).findings
    if (kind, how) in UNNOTICED or ((kind, how) in LUCK and not findings):
        assert [str(each) for each in findings] == []
        return
    (finding,) = findings
    assert finding.file == str(path) or str(path).startswith(f"{finding.file}/"), str(finding)
    assert finding.problem
    assert finding.cause
    assert finding.repair


def test_a_home_as_it_was_made_has_no_finding(prepared: PreparedFolder) -> None:
    report = inspect(prepared.restored())
    assert [str(each) for each in report.findings] == []
    assert report.looked_at["versions"] == 2
    assert report.looked_at["registered models"] == 1
    assert report.looked_at["closed landing days"] == 6
    assert report.looked_at["receipts"] == 1


@pytest.mark.long
@pytest.mark.parametrize(("number", "kind"), list(enumerate(FEW_KINDS)))
def test_a_damaged_file_is_found_and_nothing_else_is(
    prepared: PreparedFolder, files: Mapping[str, str], number: int, kind: str
) -> None:
    """Each kind of file in one way of four; `test_every_file_in_every_way` has the others."""
    how = list(DAMAGES)[number % len(DAMAGES)]
    if (kind, how) in UNNOTICED | LUCK:
        how = "garbage"
    find(prepared, files, kind, how)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
def test_every_file_in_every_way(prepared: PreparedFolder, files: Mapping[str, str], how: str) -> None:
    for kind in KINDS:
        find(prepared, files, kind, how)


@pytest.mark.long
def test_a_sample_looks_at_every_file_and_reads_some(prepared: PreparedFolder, files: Mapping[str, str]) -> None:
    home, path = damage(prepared, files, "data of joined_feedback", "truncated")
    report, whole = inspect(home, share=0.05), inspect(home)
    assert [each.file for each in report.findings] == [str(path)]
    assert report.looked_at == whole.looked_at
    assert report.bytes_read < whole.bytes_read / 2


@pytest.mark.long
def test_a_writer_at_work_is_no_finding(prepared: PreparedFolder) -> None:
    """Rows are committed before their account, and files of states that are gone may go while they are looked at."""
    home = prepared.restored()
    stop = threading.Event()

    def write() -> None:
        bench = Workbench(home, application=NAME)
        while not stop.is_set():
            bench.ingest_both(DAYS)
            bench.join(DAYS)
            bench.curate(DAYS)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [str(each) for _ in range(3) for each in inspect(home, share=0.05).findings]
    finally:
        stop.set()
        writer.join()
    assert found == []


READING = (
    ["stale"],
    ["gold", "list"],
    ["gold", "show", V2],
    ["verify"],
    ["trace", TRACED],
    ["gold", "rows", "--day", str(DAYS[0])],
    ["retrain", "--reason", "r"],
    ["maintain"],
)


def read_in_sentences(prepared: PreparedFolder, files: Mapping[str, str], kind: str, how: str) -> None:
    """Run commands over a damaged file; `flywheel` raises what would be a traceback."""
    home, path = damage(prepared, files, kind, how)
    for arguments in READING:
        ended = flywheel(home, *arguments, "--application", NAME)
        assert "Traceback" not in ended.stderr
        if ended.returncode and ended.stderr:
            assert "error:" in ended.stderr or "known" in ended.stderr, (arguments, ended.stderr)
            assert str(path) in ended.stderr or "UnknownName" in ended.stderr, (arguments, ended.stderr)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("data of curated_dpo_pairs", "garbage"),
        ("decision", "garbage"),
        *(pytest.param(kind, "truncated", marks=pytest.mark.slow) for kind in FEW_KINDS),
    ],
)
def test_no_command_ends_in_a_traceback(
    prepared: PreparedFolder, files: Mapping[str, str], kind: str, how: str
) -> None:
    read_in_sentences(prepared, files, kind, how)


def test_a_bug_in_a_damaged_home_leaves_its_traceback(
    prepared: PreparedFolder, files: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The damage was printed instead of it, and of a fault of ours nothing was left to report."""

    quoted = " ".join(["the user wrote: attack at", "dawn"])

    def run() -> None:
        try:
            raise ValueError(quoted)
        except ValueError as error:
            raise ZeroDivisionError from error

    home, path = damage(prepared, files, "data of curated_dpo_pairs", "truncated")
    monkeypatch.setattr(cli, "app", run)
    ended = flywheel(home, "stale")
    assert ended.returncode == 1
    assert str(path) in ended.stderr
    (kept,) = (home / "scratch" / "tracebacks").iterdir()
    assert f"{kept} has the traceback" in ended.stderr
    text = kept.read_text()
    assert text.index("builtins.ValueError: ") < text.index("which led to") < text.index("ZeroDivisionError")
    assert "in run" in text
    assert "dawn" not in text
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["manifest of an export", "pin", "decision", "trainer's report"])
def test_one_damaged_version_does_not_hide_the_others(
    prepared: PreparedFolder, files: Mapping[str, str], kind: str
) -> None:
    """`flywheel gold list` once ended in a traceback over one manifest."""
    home, path = damage(prepared, files, kind, "garbage")
    listed = flywheel(home, "gold", "list", "--application", NAME)
    assert listed.returncode == 0, listed.stderr
    assert V2 in listed.stdout
    assert kind == "pin" or str(path) in listed.stdout
    verified = flywheel(home, "verify", "--application", NAME)
    assert f"{V2}:" not in verified.stdout, verified.stdout
    assert "not looked at: landing" in verified.stdout
    assert ("in 2 versions" in verified.stdout) == (kind in ("manifest of an export", "pin"))


@pytest.mark.long
def test_repairs_that_lose_nothing(prepared: PreparedFolder, files: Mapping[str, str]) -> None:
    home = prepared.restored()
    for kind in ("pin", "mark of the home", "earlier metadata of ledger", "maintenance's memory"):
        DAMAGES["garbage"](home / files[kind])
    pin = (home / files["pin"]).read_bytes()
    found = flywheel(home, "fsck", "--application", NAME)
    assert found.returncode == 1
    assert found.stdout.count("Repair: ") == 4, found.stdout

    done = flywheel(home, "fsck", "--repair", "--application", NAME)
    assert (done.returncode, done.stdout.count("repaired: ")) == (0, 4), done.stdout + done.stderr
    aside = [path.read_bytes() for path in (home / "set_aside").rglob("pin.json")]
    assert aside == [pin], "the damaged file is kept"
    assert flywheel(home, "verify", "--application", NAME).returncode == 0


@pytest.mark.slow
def test_a_day_is_made_again_from_landing(prepared: PreparedFolder, files: Mapping[str, str]) -> None:
    home, path = damage(prepared, files, "data of joined_feedback", "flipped")
    before = read_entries(open_stores(home).lake(NAME), "joined_feedback", DAYS)
    # A process of its own: definitions are made once a process, for the days of one home.
    command = [sys.executable, "-m", "flywheel_assets.cli", "fsck", "--repair", "--application", NAME]
    settings = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**settings, "FLYWHEEL_HOME": str(home)}
    )
    assert "made 2026-03-0" in done.stdout, done.stdout + done.stderr
    # The old state, which will expire, still has the damaged file: it is named, and needs no person.
    assert str(path) in done.stdout
    assert "Only snapshots that will expire need it" in done.stdout
    after = read_entries(open_stores(home).lake(NAME), "joined_feedback", DAYS)
    assert {day: each.content_hash for day, each in after.items()} == {
        day: each.content_hash for day, each in before.items()
    }


@pytest.mark.long
def test_findings_as_json(prepared: PreparedFolder, files: Mapping[str, str]) -> None:
    home, path = damage(prepared, files, "landed segment", "flipped")
    ended = flywheel(home, "fsck", "--json", "--application", NAME)
    told = json.loads(ended.stdout)
    (finding,) = told["findings"]
    assert ended.returncode == 1
    assert finding["file"] == str(path)
    assert "sha256" in finding["problem"]
    assert f"flywheel backfill {DAYS[1]}" in finding["repair"]
    assert flywheel(prepared.restored(), "fsck", "--json", "--application", NAME).returncode == 0
