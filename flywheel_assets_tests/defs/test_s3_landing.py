"""Events that lie on S3 reach the raw tables through dagster-aws's S3Resource."""

from datetime import date
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.defs.feedback import feedback_assets
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.lake.landing import EventKind
from flywheel_assets.lake.object_landing import ObjectLanding
from flywheel_assets.lake.tables import GROUND_TRUTH
from flywheel_assets_tests.builders import make_feedback
from flywheel_assets_tests.s3_server import s3_server

DAY = date(2026, 9, 1)
APPLICATION = PreferenceApplication(name="assistant", description="test", start_date=DAY, base_model="base")


def test_a_day_on_s3_is_materialized_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = tmp_path / "segment.jsonl"
    segment.write_bytes(msgspec.json.encode(make_feedback(event_id="on-s3")) + b"\n")
    with s3_server() as server:
        monkeypatch.setenv("FLYWHEEL_LANDING_S3", f"s3://{server.bucket}/landing")
        monkeypatch.setenv("FLYWHEEL_S3_ENDPOINT", server.endpoint)
        landing = ObjectLanding.at(f"s3://{server.bucket}/landing", server.client)
        landing.zone(APPLICATION.name, EventKind.FEEDBACK).publish(segment, DAY)
        stores = Stores(home=str(tmp_path / "home"))
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                feedback_assets(APPLICATION),
                selection=[dg.AssetKey([APPLICATION.name, GROUND_TRUTH.name])],
                partition_key=DAY.isoformat(),
                instance=instance,
                resources={"stores": stores, "clock": Clock(fixed="2026-09-02T01:00:00+00:00")},
            )
        assert result.success
        listed = server.client.list_objects_v2(Bucket=server.bucket)["Contents"]
    rows = stores.lake(APPLICATION.name).read(GROUND_TRUTH, [DAY]).to_pylist()
    assert [row["event_id"] for row in rows] == ["on-s3"]
    assert any(each["Key"].endswith(f"received_date={DAY}/_CLOSED.json") for each in listed)
