"""The home of each release, kept as its own code wrote it, is upgraded to the present at every commit."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets import __version__
from flywheel_assets.errors import DamagedFileError, NewerReleaseError
from flywheel_assets.evaluation.requests import ClassifierEvaluationReport, EvaluationReport
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.iceberg import write_schema_version
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, LEDGER, PREFERENCE_TABLES, list_tables
from flywheel_assets.lake.versions.exports import verify_manifest
from flywheel_assets.lake.versions.folders import read_pin
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets.models.own_process import read_report, write_report
from flywheel_assets.training.requests import ClassifierTrainingReport, TrainingReport, read_training_report
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.lake.killable import ASSISTANT, FIRST_CUT_DAYS, FRAUD, Step, Wheel, land_day

HERE = Path(__file__).parent
RELEASES = sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz"))
FIRST = day(0)
TABLES = {ASSISTANT: PREFERENCE_TABLES, FRAUD: CLASSIFICATION_TABLES}


def unpack(release: str, folder: Path) -> Path:
    """The home at another place than where it was made, its paths mended."""
    with tarfile.open(HERE / f"{release}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    home = folder / "home"
    moved = flywheel(home, "move", "--yes")
    assert moved.returncode == 0, moved.stderr
    return home


def test_a_release_refuses_what_a_newer_one_wrote(tmp_path: Path) -> None:
    """Home, table, pin, closing and manifest: each refuses by itself, with the command that helps."""
    home = unpack(RELEASES[-1], tmp_path)
    marker = home / "home.json"
    kept = marker.read_bytes()
    marker.write_text(json.dumps({**json.loads(kept), "schema_version": 2, "release": "9.1.0", "id": None}))
    refused = flywheel(home, "gold", "list", "-a", "assistant")
    assert refused.returncode == 1
    assert "home.json has schema version 2" in refused.stderr
    assert 'pip install "flywheel_assets>=9.1.0"' in refused.stderr
    assert flywheel(home, "capture").returncode == 1
    marker.write_bytes(kept)

    wheel = Wheel(home)
    bench, folder = wheel.benches[ASSISTANT], next(iter(wheel.versions[ASSISTANT]))
    for path, read in (
        (folder.pin, lambda: read_pin(folder)),
        (folder.export / "manifest.json", lambda: verify_manifest(folder.export)),
        (next((home / "landing" / "fraud").rglob("_CLOSED.json")), lambda: wheel.benches[FRAUD].ingest_both([FIRST])),
    ):
        kept = path.read_bytes()
        path.write_text(json.dumps({**json.loads(kept), "schema_version": 2}))
        with pytest.raises(NewerReleaseError, match=f"{path.name} has schema version 2"):
            read()
        path.write_bytes(kept)

    newer = replace(LEDGER, schema_version=2)
    bench.lake.commit(LEDGER, lambda table: write_schema_version(table, newer))
    with pytest.raises(NewerReleaseError, match=r"assistant\.ledger has schema version 2"):
        bench.open_lake().load_table(LEDGER)
    refused = flywheel(home, "upgrade", "--yes")
    assert "assistant.ledger has schema version 2" in refused.stderr


REPORTS: dict[str, tuple[type, Callable[[Path], Any]]] = {
    "TrainingReport": (TrainingReport, read_training_report),
    "ClassifierTrainingReport": (
        ClassifierTrainingReport,
        lambda path: read_report(path, ClassifierTrainingReport),
    ),
    "EvaluationReport": (EvaluationReport, lambda path: read_report(path, EvaluationReport)),
    "ClassifierEvaluationReport": (
        ClassifierEvaluationReport,
        lambda path: read_report(path, ClassifierEvaluationReport),
    ),
}
"""By name what a training or an evaluation leaves in a version's folder, and its reader."""


@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_the_first_release_are_read_and_newer_ones_refused(name: str, tmp_path: Path) -> None:
    """The first release wrote no version into them; a newer one's numbers were once read without a word."""
    kind, read = REPORTS[name]
    stored = json.loads((HERE / "v0_1_0_reports.json").read_text())[name]
    assert "schema_version" not in stored
    path = tmp_path / "dpo_gold_v1" / "training" / "training.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stored))
    report = read(path)
    assert isinstance(report, kind)
    write_report(path, report)
    written = json.loads(path.read_text())
    assert written["schema_version"] == 1
    # What lies deeper may have gained fields since.
    assert {name: written[name] for name, value in stored.items() if not isinstance(value, dict | list)} == {
        name: value for name, value in stored.items() if not isinstance(value, dict | list)
    }
    path.write_text(json.dumps({**written, "schema_version": 2, "release": "9.1.0"}))
    with pytest.raises(NewerReleaseError, match=r"training\.json has schema version 2.*Nothing was changed"):
        read(path)
    path.write_text("{")
    with pytest.raises(DamagedFileError, match=r"training\.json is damaged .*flywheel retry dpo_gold_v1"):
        read(path)


def count_rows(home: Path) -> dict[str, int]:
    return {
        f"{name}.{spec.name}": len(bench.rows(spec))
        for name, bench in Wheel(home).benches.items()
        for spec in list_tables(TABLES[name])
        if bench.lake.has_table(spec)
    }


def test_the_first_release_is_kept() -> None:
    assert "v0_1_0" in RELEASES


@pytest.mark.long
@pytest.mark.parametrize("release", RELEASES)
def test_a_home_of_a_release_is_upgraded_whole(release: str, tmp_path: Path) -> None:
    home = unpack(release, tmp_path)
    counts = json.loads((home / "counts.json").read_text())

    dry = flywheel(home, "upgrade")
    assert dry.returncode == 0, dry.stderr
    assert "assistant.ledger" in dry.stdout
    assert "--yes" in dry.stdout
    assert json.loads((home / "home.json").read_text()).get("schema_version", 1) == 1

    done = flywheel(home, "upgrade", "--yes")
    assert done.returncode == 0, done.stderr
    again = flywheel(home, "upgrade")
    assert f"nothing to do: {home} is as release {__version__} makes it" in again.stdout
    for marker in (home / "home.json", home / "warehouse" / "_HOME.json"):
        assert json.loads(marker.read_text())["release"] == __version__

    assert {name: rows for name, rows in count_rows(home).items() if name in counts} == counts
    wheel = Wheel(home)
    for name, bench in wheel.benches.items():
        assert verify_versions(bench.lake, wheel.versions[name], bench.tables.gold).differences == ()
        for folder in wheel.versions[name]:
            verify_manifest(folder.export)


@pytest.mark.long
@pytest.mark.parametrize("release", RELEASES)
def test_an_upgraded_home_goes_on(release: str, tmp_path: Path) -> None:
    """A next day of both kinds, and another version of each: old days stand next to new ones in it."""
    home = unpack(release, tmp_path)
    assert flywheel(home, "upgrade", "--yes").returncode == 0
    wheel, before = Wheel(home), count_rows(home)
    for name, first, last in ((ASSISTANT, day(3), "curate"), (FRAUD, day(FIRST_CUT_DAYS), "mine")):
        land_day([wheel], name, first)
        for action in (*EventKind, "join", last):
            wheel.run(Step(name, action, (first,)))
    wheel.run(Step(ASSISTANT, "cut", version="dpo_gold_v2"))
    wheel.run(Step(FRAUD, "cut", version="fraud_gold_v2"))

    after = count_rows(home)
    assert after["assistant.curated_dpo_pairs"] > before["assistant.curated_dpo_pairs"]
    assert after["fraud.hard_examples"] > before["fraud.hard_examples"]
    manifests = {each.version: verify_manifest(each.export) for name in wheel.versions for each in wheel.versions[name]}
    assert set(manifests) == {"dpo_gold_v1", "dpo_gold_v2", "fraud_gold_v1", "fraud_gold_v2"}
    # The erasure and the exclusion of then still hold.
    texts = "".join(path.read_text() for path in (home / "versions").rglob("*.jsonl"))
    assert "user 0" in texts
    assert "user 1" not in texts
    assert len(manifests["dpo_gold_v2"].exclusions) == 1
