"""One turn of a flywheel of three classes, with the application of docs/multi_class.md: landed days to a promotion."""

import json
import random
import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from flywheel_assets.application import ClassificationApplication, ExampleTrigger
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver
from flywheel_assets.evaluation.classifier import read_evaluation
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES, HARD_EXAMPLES
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.models.boosting import ClassifierRecipe, load_classifier
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets_tests.builders import make_label, make_score
from flywheel_assets_tests.lake.workbench import Workbench

pytestmark = pytest.mark.long

DOCS = Path(__file__).parents[2] / "docs" / "multi_class.md"
FIRST, DAYS = date(2026, 9, 1), 30
LAST = FIRST + timedelta(days=DAYS - 1)
CLASSES = ("legit", "stolen_card", "friendly_fraud")


def read_application() -> ClassificationApplication:
    """The page's application, with a world of thirty days in place of months."""
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCS), "exec"), names)
    application = names["APPLICATION"]
    assert isinstance(application, ClassificationApplication)
    return replace(
        application,
        window=JoinWindow(join_days=10),
        mining=replace(application.mining, maturity_days=3, sampling=SamplingRules(floor=0.5)),
        trigger=ExampleTrigger(min_new_positives=20, min_new_hard_examples=20),
        recipe=ClassifierRecipe(trees=20, leaves=7),
        limits=ClassifierLimits(
            min_positives=30, min_segment_positives=20, min_calibration_ratio=0.4, max_calibration_ratio=2.5
        ),
    )


def land_traffic(bench: Workbench) -> None:
    """Payments of new devices are often stolen cards, those of old customers friendly fraud; the served model guesses.

    Every prediction says the same of both classes that are no legitimate payment.
    """
    rng = random.Random(3)
    labels: dict[date, list[dict[str, object]]] = {}
    for offset in range(DAYS):
        on = FIRST + timedelta(days=offset)
        scores = []
        for number in range(80):
            kind = rng.choices(CLASSES, (0.8, 0.1, 0.1))[0]
            features = {
                "amount": rng.expovariate(0.02) * (3 if kind != "legit" else 1),
                "is_new_device": rng.random() < (0.9 if kind == "stolen_card" else 0.1),
                "earlier_orders": rng.randrange(20) + (15 if kind == "friendly_fraud" else 0),
                "country": rng.choice(["NL", "DE"]),
            }
            positive = 0.1 + 0.4 * rng.random()
            said = {"legit": 1 - positive, "stolen_card": positive / 2, "friendly_fraud": positive / 2}
            name, at = f"{on}-{number}", datetime.combine(on, time(12), UTC)
            who = {"prediction_id": name, "event_id": name, "user_id": f"card-{rng.randrange(300)}"}
            scores.append(
                make_score(
                    **who,
                    received_at=at,
                    occurred_at=at,
                    features=json.dumps(features),
                    score=positive,
                    scores=json.dumps(said),
                )
            )
            known = on + timedelta(days=rng.randint(0, 2))
            if kind != "legit" and known <= LAST:
                heard = datetime.combine(known, time(13), UTC)
                event = make_label(
                    event_id=f"label-{name}",
                    prediction_id=name,
                    label=kind,
                    received_at=heard,
                    occurred_at=heard,
                    user_id=None,
                )
                labels.setdefault(known, []).append(event)
        bench.land(EventKind.PREDICTION, on, scores)
    for on, events in labels.items():
        bench.land(EventKind.FEEDBACK, on, events)


def test_landed_days_of_three_classes_to_a_promoted_model(tmp_path: Path) -> None:
    application = read_application()
    land_traffic(Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application=application.name))
    stores = Stores(home=str(tmp_path))
    now = datetime.combine(LAST + timedelta(days=1), time(9), UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        wheel = Driver(
            application, classification_flywheel(application, stores, Clock(fixed=now.isoformat())), instance
        )
        daily = wheel.materialize(FIRST, LAST)
        assert daily.succeeded, daily.error
        mined = stores.lake(application.name).read(HARD_EXAMPLES).to_pylist()
        assert {row["label_class"] for row in mined} == set(CLASSES)
        assert {row["label_class"] for row in mined if row["labeling_source"] == "silence"} == {"legit"}
        assert all(row["is_positive"] == (row["label_class"] != "legit") for row in mined)
        assert {row["discrepancy"] for row in mined if row["label_class"] == "stolen_card"} >= {"confident_miss"}

        ticked = wheel.tick()
        assert ticked.version is not None, ticked.reason
        turn = wheel.turn(ticked.version, ticked.tags)
        assert turn.succeeded, turn.error
        folder = stores.versions(application.name).folder(ticked.version)
        promotion = read_promotion(folder.promotion)
        assert promotion.promoted, promotion.sentence
        assert "macro average precision" in promotion.sentence
        exported = pq.read_table(folder.export / f"{ticked.version}.evaluation.parquet")
        assert set(exported["label_class"].to_pylist()) == set(CLASSES)

        report = read_evaluation(folder.evaluation)
        found = report.evidence.classes
        assert found is not None
        assert found.macro_average_precision is not None
        assert found.macro_average_precision > 0.7
        assert sum(map(sum, found.confusion)) >= exported.num_rows
        assert found.incumbent_confusion[1][0] > found.confusion[1][0]
        metrics = report.list_metrics()
        assert metrics["challenger/stolen_card as stolen_card"] == found.confusion[1][1]
        assert metrics["macro_ap_gain/low"] > 0
        materialized = instance.get_latest_materialization_event(
            dg.AssetKey([application.name, "classifier_evaluation"])
        )
        assert materialized is not None
        shown = materialized.asset_materialization
        assert shown is not None
        assert {"confusion", "confusion, plot"} <= set(shown.metadata)
        # With a champion the trigger compares served scores with outcomes, and the levers fit the binary view.
        assert ticked.version in wheel.tick().reason
        levers = classification_flywheel(application, stores, Clock(fixed=now.isoformat())).resolve_assets_def(
            dg.AssetKey([application.name, "levers_report"])
        )
        assert dg.materialize([levers], instance=instance).success
        model = load_classifier(folder.training / "model")
        assert model.encoding.classes == CLASSES
