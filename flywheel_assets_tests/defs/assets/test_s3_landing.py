"""Events that lie on S3 reach the raw tables, and `flywheel erase` reaches them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.cli.upkeep import build_erasure_place
from flywheel_assets.defs.assets.daily import build_feedback_assets
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.erasure.erase import erase_person, plan_erasure
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.lake.tables.specs import GROUND_TRUTH
from flywheel_assets_tests.builders import make_feedback
from flywheel_assets_tests.s3_server import s3_server

DAY = date(2026, 9, 1)
APPLICATION = PreferenceApplication(name="assistant", description="test", start_date=DAY, base_model="base")


@pytest.mark.long
def test_a_day_on_s3_is_materialized_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = tmp_path / "segment.jsonl"
    segment.write_bytes(msgspec.json.encode(make_feedback(event_id="on-s3")) + b"\n")
    with s3_server() as server:
        monkeypatch.setenv("FLYWHEEL_LANDING_S3", f"s3://{server.bucket}/landing")
        monkeypatch.setenv("FLYWHEEL_S3_ENDPOINT", server.endpoint)
        landing = ObjectLanding.from_uri(f"s3://{server.bucket}/landing", server.client)
        landing.open_zone(APPLICATION.name, EventKind.FEEDBACK).publish(segment, DAY)
        stores = Stores(home=str(tmp_path / "home"))
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                build_feedback_assets(APPLICATION),
                selection=[dg.AssetKey([APPLICATION.name, GROUND_TRUTH.name])],
                partition_key=DAY.isoformat(),
                instance=instance,
                resources={"stores": stores, "clock": Clock(fixed="2026-09-02T01:00:00+00:00")},
            )
        assert result.success
        listed = server.client.list_objects_v2(Bucket=server.bucket)["Contents"]
        # A person whose events are there is erased from there, from this machine's spool and from the tables.
        spooled = stores.landing_folder() / APPLICATION.name / EventKind.FEEDBACK / f"received_date={DAY}"
        spooled.mkdir(parents=True)
        (spooled / "waits.jsonl").write_bytes(msgspec.json.encode(make_feedback(user_id="mallory")) + b"\n")
        gone = tmp_path / "gone.jsonl"
        gone.write_bytes(msgspec.json.encode(make_feedback(user_id="mallory")) + b"\n")
        zone = landing.open_zone(APPLICATION.name, EventKind.FEEDBACK)
        zone.publish(gone, date(2026, 9, 2))
        place = build_erasure_place(APPLICATION, stores)
        plan = plan_erasure(place, "mallory")
        assert plan.landed_lines == 2
        now = datetime(2026, 9, 2, 12, tzinfo=UTC)
        receipt = erase_person(place, plan, who="ada", reason="asked", now=now, grace=timedelta(0))
        assert not list(spooled.iterdir())
        assert zone.list_segments(date(2026, 9, 2)) == []
        assert len(zone.list_segments(DAY)) == 1
    assert receipt.landed_lines == {"prediction": 0, "feedback": 2}
    assert any("other capture machines" in sentence for sentence in receipt.out_of_reach)
    rows = stores.lake(APPLICATION.name).read(GROUND_TRUTH, [DAY]).to_pylist()
    assert [row["event_id"] for row in rows] == ["on-s3"]
    assert any(each["Key"].endswith(f"received_date={DAY}/_CLOSED.json") for each in listed)
