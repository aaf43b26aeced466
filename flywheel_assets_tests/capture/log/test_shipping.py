"""From this machine's disk to the landing zone on S3: nothing sealed is lost, whatever S3 or the process does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.capture.log.shipping import Shipper, open_shipper, wait_until_shipped
from flywheel_assets.errors import LandingUnavailableError, SettingsError
from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets.lake.landing.s3 import ObjectLanding, ObjectLandingZone
from flywheel_assets.settings import Settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.capture.broker_processes import eventually
from flywheel_assets_tests.capture.samples import NOON, Clock, edit
from flywheel_assets_tests.s3_server import S3Server, s3_server

SERVICE = (
    "from flywheel_assets.capture.service import serve\n"
    "from flywheel_assets.stores import Stores\n"
    "stores = Stores()\n"
    "ready = lambda url: print(url, flush=True)\n"
    "serve(stores.where, ['assistant'], on_ready=ready, ship_to=stores.shipping())\n"
)


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def landing(server: S3Server) -> ObjectLanding:
    return ObjectLanding.from_uri(f"s3://{server.bucket}/landing", server.client)


def seal(root: Path, name: str, content: bytes = b'{"n":1}\n') -> Path:
    zone = LandingZone(root, "assistant", EventKind.FEEDBACK)
    zone.open_folder.mkdir(parents=True, exist_ok=True)
    path = zone.open_folder / f"{name}.jsonl"
    path.write_bytes(content)
    return zone.publish(path, NOON.date())


def shipped(landing: ObjectLanding) -> dict[str, bytes]:
    """Content by received date and segment."""
    found = landing.client.list_objects_v2(Bucket=landing.bucket).get("Contents", [])
    return {
        "/".join(each["Key"].split("/")[-2:]).partition(".")[0]: landing.client.get_object(
            Bucket=landing.bucket, Key=each["Key"]
        )["Body"].read()
        for each in found
    }


def test_segments_are_shipped_under_the_day_of_the_upload(tmp_path: Path, landing: ObjectLanding) -> None:
    seal(tmp_path, "a", b"1\n")
    seal(tmp_path, "b", b"2\n")
    clock = Clock(NOON + timedelta(days=1))
    assert Shipper(tmp_path, landing, clock).ship() == 2
    assert shipped(landing) == {"received_date=2026-03-03/a": b"1\n", "received_date=2026-03-03/b": b"2\n"}
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_segment_that_is_still_written_stays(tmp_path: Path, landing: ObjectLanding) -> None:
    with SegmentLog(tmp_path, clock=Clock()) as log:
        from flywheel_assets.capture.events.texts import LandedRow

        log.submit("assistant", [LandedRow(EventKind.FEEDBACK, b"{}\n")]).result(20)
        assert Shipper(tmp_path, landing).ship() == 0


def test_shipping_again_after_a_kill_before_the_removal_changes_nothing(
    tmp_path: Path, landing: ObjectLanding, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(tmp_path, "a")
    shipper = Shipper(tmp_path, landing, Clock())
    monkeypatch.setattr(Path, "unlink", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shipper.ship()
    monkeypatch.undo()
    assert shipper.list_unshipped()
    assert shipper.ship() == 1
    assert list(shipped(landing)) == ["received_date=2026-03-02/a"]


def test_shippers_side_by_side_ship_everything_once(
    tmp_path: Path, landing: ObjectLanding, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[str] = []
    publish = ObjectLandingZone.publish
    monkeypatch.setattr(
        ObjectLandingZone, "publish", lambda self, path, day: (uploads.append(path.name), publish(self, path, day))[1]
    )
    for number in range(20):
        seal(tmp_path, f"s{number}")
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(lambda _: Shipper(tmp_path, landing, Clock()).ship(), range(4))) == 20
    assert sorted(uploads) == sorted(f"s{number}.jsonl" for number in range(20))
    assert len(shipped(landing)) == 20


def test_what_s3_does_not_take_stays_and_is_shipped_later(
    tmp_path: Path, landing: ObjectLanding, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> str:
        raise LandingUnavailableError("S3 does not answer")

    seal(tmp_path, "a")
    monkeypatch.setattr(ObjectLandingZone, "publish", away)
    with Shipper(tmp_path, landing, Clock(), look_s=0.02) as shipper:
        eventually(lambda: shipper.problem == "S3 does not answer", "the failure")
        assert shipper.list_unshipped()
        monkeypatch.undo()
        eventually(lambda: not shipper.list_unshipped(), "the shipping")
        eventually(lambda: shipper.problem is None, "the end of the problem")
    assert list(shipped(landing)) == ["received_date=2026-03-02/a"]


def test_a_folder_that_was_a_landing_zone_itself_is_refused(tmp_path: Path, landing: ObjectLanding) -> None:
    seal(tmp_path, "a")
    LandingZone(tmp_path, "assistant", EventKind.FEEDBACK).read(NOON.date(), NOON + timedelta(days=9))
    with pytest.raises(SettingsError, match="received a second time"):
        Shipper(tmp_path, landing)


def test_without_the_setting_nothing_is_shipped(tmp_path: Path) -> None:
    assert Stores(Settings(home=tmp_path)).shipping() is None
    assert open_shipper(Settings(home=tmp_path), None) is None
    seal(tmp_path / "landing", "a")
    assert wait_until_shipped(Settings(home=tmp_path), "assistant", 0.0)
    assert not wait_until_shipped(Settings(home=tmp_path, landing_s3="s3://b/c"), "assistant", 0.0)


def test_a_setting_that_nobody_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing ships"):
        open_shipper(Settings(home=tmp_path, landing_s3="s3://b/c"), None)


@pytest.mark.long
@pytest.mark.parametrize("kill_signal", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_service_acknowledged_is_on_s3_at_last(
    kill_signal: int, tmp_path: Path, server: S3Server, landing: ObjectLanding
) -> None:
    """SIGTERM seals and ships; what SIGKILL left behind is recovered and shipped by the next one."""
    environment = os.environ | {
        "FLYWHEEL_HOME": str(tmp_path),
        "FLYWHEEL_CAPTURE_PORT": "0",
        "FLYWHEEL_LANDING_S3": f"s3://{server.bucket}/landing",
        "FLYWHEEL_S3_ENDPOINT": server.endpoint,
    }
    acknowledged = set()
    for turn, ending in enumerate((kill_signal, signal.SIGTERM)):
        command = [sys.executable, "-c", SERVICE]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            for number in range(20):
                name = f"{turn}-{number}"
                assert httpx.post(f"{url}/v1/assistant/edits", json=edit(id=name)).status_code == 202
                acknowledged.add(name)
            process.send_signal(ending)
    lines = b"".join(shipped(landing).values()).splitlines()
    assert {json.loads(line)["prediction_id"] for line in lines} == acknowledged
    assert list((tmp_path / "landing").rglob("*.jsonl")) == []
