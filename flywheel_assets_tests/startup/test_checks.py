"""The checks before a start find what would break it, and change nothing."""

import socket
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flywheel_assets
from flywheel_assets import cli
from flywheel_assets.capture.doctor import Finding, Verdict
from flywheel_assets.lake.tables.specs import LEDGER
from flywheel_assets.settings import Settings, isolate_settings, read_settings
from flywheel_assets.startup import checks
from flywheel_assets.startup.checks import check_catalog, check_disk, check_instance, check_object_stores, check_port
from flywheel_assets.stores import Stores
from flywheel_assets_tests.s3_server import s3_server

ROOT = Path(flywheel_assets.__file__).parent.parent


def test_a_new_installation_is_fine_and_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stores = Stores(isolate_settings(tmp_path))
    found = checks.check_places(stores, ["assistant"], [])
    assert {each.verdict for each in found} == {Verdict.FINE}, found
    assert list(tmp_path.iterdir()) == []


def test_an_instance_without_a_daemon_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from flywheel_assets.defs.running import open_instance

    with open_instance(tmp_path / "dagster"):
        pass
    (finding,) = check_instance(tmp_path / "dagster")
    assert finding.verdict is Verdict.LOOK
    assert "no sign of life of any of its daemons" in finding.sentence
    (tmp_path / "dagster" / "dagster.yaml").write_text("storage: {nothing: here}")
    assert check_instance(tmp_path / "dagster")[0].verdict is Verdict.BROKEN


def test_a_taken_port_is_named_with_another_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = check_port("dagster", port)
    assert finding.verdict is Verdict.LOOK
    assert f"`flywheel dev --webserver-port {port + 1}`" in finding.remedy


def test_a_disk_that_cannot_be_written_and_one_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert check_disk(Settings(home=blocked / "home")).verdict is Verdict.BROKEN
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 2**70)
    assert check_disk(Settings(home=tmp_path)).verdict is Verdict.LOOK


def test_a_disk_with_another_clock_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.time, "time", lambda: datetime.now(UTC).timestamp() - 60)
    finding = check_disk(Settings(home=tmp_path))
    assert finding.verdict is Verdict.LOOK
    assert "60 s ahead of this machine's time" in finding.sentence


def test_a_catalog_that_somebody_holds_is_broken(tmp_path: Path) -> None:
    stores = Stores(
        isolate_settings(tmp_path).model_copy(update={"catalog_uri": f"sqlite:///{tmp_path}/catalog.db?timeout=0.1"})
    )
    stores.lake("assistant").read(LEDGER)
    assert check_catalog(stores, "assistant").verdict is Verdict.FINE
    holder = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    found = checks.check_places(stores, ["assistant"], [])
    holder.close()
    assert [each.verdict for each in found if each.subject == "catalog of assistant"] == [Verdict.BROKEN]


@pytest.mark.parametrize(
    ("seconds", "verdict", "way"), [(60, Verdict.LOOK, "60 s ahead"), (-3600, Verdict.BROKEN, "3,600 s behind")]
)
def test_clocks_are_judged_by_their_distance(seconds: float, verdict: Verdict, way: str) -> None:
    finding = checks._judge_skew("disk", timedelta(seconds=seconds).total_seconds(), "files are stamped")
    assert finding.verdict is verdict
    assert way in finding.sentence


def test_an_object_store_takes_gives_and_forgets_the_probe(tmp_path: Path) -> None:
    with s3_server() as server:
        where = isolate_settings(tmp_path).model_copy(
            update={"landing_s3": f"s3://{server.bucket}/deep/prefix", "s3_endpoint": server.endpoint}
        )
        (finding,) = check_object_stores(Stores(where))
        assert finding.verdict is Verdict.FINE, finding
        assert server.client.list_objects_v2(Bucket=server.bucket).get("KeyCount") == 0
        missing = Stores(where.model_copy(update={"landing_s3": "s3://no-such-bucket/x"}))
        (finding,) = check_object_stores(missing)
    assert finding.verdict is Verdict.BROKEN
    assert "FLYWHEEL_S3_ENDPOINT" in finding.remedy


def run_doctor(home: Path, *options: str, **environment: str) -> tuple[int, dict[str, list[Finding]]]:
    import msgspec

    read_settings.cache_clear()
    given = {"FLYWHEEL_HOME": str(home), "FLYWHEEL_CAPTURE_PORT": "0", **environment}
    try:
        run = CliRunner().invoke(cli.app, ["doctor", "--json", *options], env=given)
    finally:
        read_settings.cache_clear()
    answer = msgspec.json.decode(run.stdout)
    assert answer["broken"] == bool(run.exit_code)
    findings = msgspec.convert(answer["findings"], list[Finding])
    return run.exit_code, {
        subject: [f for f in findings if f.subject == subject] for subject in {f.subject for f in findings}
    }


def test_the_findings_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, found = run_doctor(tmp_path)
    assert code == 0
    assert found["workspace"][0].verdict is Verdict.FINE
    assert found["base model of assistant"][0].verdict is Verdict.LOOK, "it is not there, and may be on the hub"
    code, found = run_doctor(tmp_path, FLYWHEEL_HUB_OFFLINE="true")
    assert code == 1
    assert "keeps trainings away from the hub" in found["base model of assistant"][0].sentence
    monkeypatch.chdir(tmp_path)
    assert run_doctor(tmp_path)[1]["workspace"][0].verdict is Verdict.LOOK
