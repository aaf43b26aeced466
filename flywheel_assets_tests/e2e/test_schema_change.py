"""The classification wheel goes on across a change of its features: one is new, another is no longer read."""

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.curation.labels.score_contract import FeatureType
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.evaluation.classifier import read_evaluation
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, DRIFT_REPORTS
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets_tests.builders import make_label, make_score
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION, FIRST
from flywheel_assets_tests.lake.workbench import Workbench

pytestmark = pytest.mark.long

BEFORE, DAYS = 46, 64
CHANGE = FIRST + timedelta(days=50)
"""From here on the service sends `device` and no longer `country`: within the second version's evaluation weeks."""
CHANGED = replace(
    APPLICATION,
    contract=replace(
        APPLICATION.contract,
        features={"risk": FeatureType.NUMBER, "device": FeatureType.TEXT},
        features_since={"device": CHANGE},
        retired_features={"country": FeatureType.TEXT},
    ),
)


def land_traffic(bench: Workbench) -> None:
    rng = random.Random(7)
    labels: dict[date, list[dict[str, object]]] = {}
    for offset in range(DAYS):
        on = FIRST + timedelta(days=offset)
        at = datetime.combine(on, time(12), UTC)
        scores = []
        for number in range(80):
            risk, name = rng.random(), f"{on}-{number}"
            is_fraud = rng.random() < (0.6 if risk > 0.9 else 0.005)
            other = {"device": rng.choice(["phone", "desk"])} if on >= CHANGE else {"country": rng.choice(["NL", "DE"])}
            scores.append(
                make_score(
                    prediction_id=name,
                    event_id=name,
                    user_id=f"card-{rng.randrange(60)}",
                    received_at=at,
                    occurred_at=at,
                    features=json.dumps({"risk": risk, **other}),
                    score=0.02 + 0.1 * rng.random(),
                )
            )
            if is_fraud and (known := on + timedelta(days=rng.randint(1, 6))) < FIRST + timedelta(days=DAYS):
                said = datetime.combine(known, time(13), UTC)
                event = make_label(event_id=f"l-{name}", prediction_id=name, received_at=said, occurred_at=said)
                labels.setdefault(known, []).append(event)
        bench.land(EventKind.PREDICTION, on, scores)
    for on, events in labels.items():
        bench.land(EventKind.FEEDBACK, on, events)


def drive(
    application: ClassificationApplication, stores: Stores, days: int, instance: dg.DagsterInstance, first: int = 0
) -> Driver:
    until = FIRST + timedelta(days=days - 1)
    now = datetime.combine(until + timedelta(days=1), time(9), UTC)
    wheel = Driver(application, classification_flywheel(application, stores, Clock(fixed=now.isoformat())), instance)
    daily = wheel.materialize(FIRST + timedelta(days=first), until)
    assert daily.succeeded, daily.error
    return wheel


def test_the_wheel_turns_across_a_change_of_features(tmp_path: Path) -> None:
    """One new feature emptied the evaluation set, and no model could be promoted for about five weeks."""
    land_traffic(Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud"))
    stores = Stores(home=str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        wheel = drive(APPLICATION, stores, BEFORE, instance)
        first = wheel.tick()
        assert first.version is not None, first.reason
        assert wheel.turn(first.version, first.tags).succeeded
        assert read_promotion(stores.versions("fraud").folder(first.version).promotion).promoted

        wheel = drive(CHANGED, stores, DAYS, instance, first=BEFORE)
        second = wheel.tick()
        assert second.version is not None, second.reason
        turn = wheel.turn(second.version, second.tags)
        assert turn.succeeded, turn.error
    folder = stores.versions("fraud").folder(second.version)
    report = read_evaluation(folder.evaluation)
    assert report.champion_version == first.version
    assert report.rows == 28 * 80  # two blocks of two weeks: the older one has positives enough to train on
    assert report.evidence.feature_problem is None
    # The champion reads `country` where it was sent, and is as good as it was.
    assert report.scores["incumbent"].overall.average_precision > 0.4
    rows = pq.read_table(folder.export / read_manifest(folder.export).files[ExportSet.EVALUATION].name).to_pylist()
    for row in rows:
        is_after = row["prediction_received_date"] >= CHANGE
        assert (row["features"]["device"] is not None, row["features"]["country"] is not None) == (
            is_after,
            not is_after,
        )
    assert {row["prediction_received_date"] >= CHANGE for row in rows} == {True, False}
    reported = stores.lake("fraud").read(DRIFT_REPORTS).to_pylist()
    newest = max(row["day"] for row in reported)
    drifted = {row["field"]: row["breach"] for row in reported if row["day"] == newest}
    assert "missing in" in drifted["country"]
