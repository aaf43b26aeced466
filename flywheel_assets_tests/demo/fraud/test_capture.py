"""The played events against the real capture service: everything is accepted, and lies under its own day."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from flywheel_assets.capture.service import running_capture
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.demo.capture_client import CaptureDoor, SimulatedClock
from flywheel_assets.demo.fraud._features import FEATURES
from flywheel_assets.demo.fraud.bank import Bank, Policy
from flywheel_assets.demo.fraud.labels import Outside
from flywheel_assets.demo.fraud.play import play_days
from flywheel_assets.demo.fraud.world import FraudWorld
from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets_tests.demo.fraud.scripted import Scripted

FIRST = date(2026, 3, 2)
DAYS = [FIRST + timedelta(days=offset) for offset in range(12)]
CONTRACT = ScoreContract(
    features={
        feature.name: FeatureType.BOOLEAN if pa.types.is_boolean(feature.type) else FeatureType.NUMBER
        for feature in FEATURES
    },
    mapping=FieldMapping(
        key="transaction_id",
        label="ground_truth.is_fraud",
        labeling_source="ground_truth.labeling_source",
        label_time="ground_truth.timestamp",
    ),
)


def test_what_was_acknowledged_lies_under_its_own_day(tmp_path: Path) -> None:
    world = FraudWorld(cards=120, terminals=150, terminals_compromised_per_day=0.002, emerges_on=date.min)
    bank = Bank(world, Outside(disputed_honest_share=0.01), Policy(review_from=0.05), FIRST)
    clock = SimulatedClock(datetime.combine(FIRST, datetime.min.time(), UTC))
    with running_capture(tmp_path, {"fraud": CONTRACT}, clock) as capture:
        door = CaptureDoor(capture.url, capture.seal, clock, "fraud")
        played = list(play_days(bank, Scripted(), Scripted(), DAYS, door))
    sources = set()
    for day in played:
        predictions, labels = (landed(tmp_path, kind, day.day) for kind in (EventKind.PREDICTION, EventKind.FEEDBACK))
        assert len(predictions) == day.predictions_acknowledged == len(day.is_fraud)
        assert len(labels) == day.labels_acknowledged
        assert {line["received_at"][:10] for line in predictions + labels} == {day.day.isoformat()}
        assert {line["label"] for line in labels} <= {"true", "false"}
        sources |= {(line["source"], line["labeling_source"]) for line in labels}
    assert sources == {
        ("claims-system", "chargeback"),
        ("claims-system", "user_dispute"),
        ("labels-api", "analyst"),
    }
    assert clock() == datetime(2026, 3, 14, 0, 30, tzinfo=UTC)


def landed(root: Path, kind: EventKind, day: date) -> list[dict[str, str]]:
    files = sorted(LandingZone(root, "fraud", kind).find_day_folder(day).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
