"""Six weeks of payments and disputes of one small bank, and the application that learns from them."""

import random
from datetime import UTC, date, datetime, time, timedelta

from flywheel_assets.application import ClassificationApplication, ExampleTrigger
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.measures.drift import DriftLimits
from flywheel_assets.models.boosting import ClassifierRecipe
from flywheel_assets.promotion.classifier_limits import ClassifierLimits
from flywheel_assets_tests.builders import make_label, make_score
from flywheel_assets_tests.lake.workbench import Workbench

FIRST = date(2026, 9, 1)
DAYS = 46  # a training week, twice a maturity of 7 days, two weeks of evaluation, and some more
LAST = FIRST + timedelta(days=DAYS - 1)
NOW = datetime.combine(LAST + timedelta(days=1), time(9), UTC)
APPLICATION = ClassificationApplication(
    name="fraud",
    description="test",
    start_date=FIRST,
    contract=ScoreContract(features={"risk": FeatureType.NUMBER, "country": FeatureType.TEXT}),
    mining=MiningRules(maturity_days=7, sampling=SamplingRules(floor=0.2)),
    trigger=ExampleTrigger(min_new_positives=20, min_new_hard_examples=20),
    recipe=ClassifierRecipe(trees=40, leaves=7),
    limits=ClassifierLimits(min_positives=30, min_calibration_ratio=0.5, max_calibration_ratio=2),
    drift=DriftLimits(min_rows=50),
    threshold=None,
    cards_per_day=5,
)


def land_traffic(bench: Workbench) -> None:
    """Payments whose risk the served model hardly looks at; most frauds are disputed after a few days."""
    rng = random.Random(5)
    labels: dict[date, list[dict[str, object]]] = {}
    for offset in range(DAYS):
        on = FIRST + timedelta(days=offset)
        at = datetime.combine(on, time(12), UTC)
        scores = []
        for number in range(100):
            risk = rng.random()
            is_fraud = rng.random() < (0.6 if risk > 0.92 else 0.005)
            name = f"{on}-{number}"
            features = f'{{"risk":{risk + (offset >= DAYS - 2):.4f},"country":"{rng.choice(["NL", "DE"])}"}}'
            served = min(1.0, 0.02 + 0.1 * rng.random() + (0.2 if is_fraud and rng.random() < 0.3 else 0))
            who = {"prediction_id": name, "event_id": name, "user_id": f"card-{rng.randrange(60)}"}
            when = {"received_at": at, "occurred_at": at}
            scores.append(make_score(**who, **when, features=features, score=served))
            if is_fraud and (known := on + timedelta(days=rng.randint(1, 6))) <= LAST:
                said = datetime.combine(known, time(13), UTC)
                event = make_label(
                    event_id=f"label-{name}", prediction_id=name, received_at=said, occurred_at=said, user_id=None
                )
                labels.setdefault(known, []).append(event)
        bench.land(EventKind.PREDICTION, on, scores)
    for on, events in labels.items():
        bench.land(EventKind.FEEDBACK, on, events)
