"""Nine weeks of payments whose risk the served model hardly looks at; disputes come days later."""

import random
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets_tests.builders import make_label, make_score
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION
from flywheel_assets_tests.lake.workbench import Workbench

FIRST = APPLICATION.start_date
GO_LIVE = FIRST + timedelta(days=42)
LAST = GO_LIVE + timedelta(days=20)


def land_history(home: Path, per_day: int = 60) -> DiskLanding:
    """Land predictions of FIRST … LAST, and every label, the latest ten days after LAST."""
    bench = Workbench(home, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud")
    rng = random.Random(5)
    labels: dict[date, list[dict[str, object]]] = {}
    for offset in range((LAST - FIRST).days + 1):
        on = FIRST + timedelta(days=offset)
        at = datetime.combine(on, time(12), UTC)
        scores = []
        for number in range(per_day):
            risk = rng.random()
            is_fraud = rng.random() < (0.6 if risk > 0.9 else 0.005)
            name = f"{on}-{number}"
            features = f'{{"risk":{risk:.4f},"country":"{rng.choice(["NL", "DE"])}"}}'
            who = {"prediction_id": name, "event_id": name, "user_id": f"card-{rng.randrange(60)}"}
            served = {"score": 0.02 + 0.1 * rng.random(), "features": features, "amount": 10.0 + number}
            scores.append(make_score(**who, **served, received_at=at, occurred_at=at))
            if is_fraud:
                known = on + timedelta(days=rng.randint(1, 10))
                said = datetime.combine(known, time(13), UTC)
                when = {"received_at": said, "occurred_at": said}
                event = make_label(event_id=f"label-{name}", prediction_id=name, user_id=None, **when)
                labels.setdefault(known, []).append(event)
        bench.land(EventKind.PREDICTION, on, scores)
    for on, events in labels.items():
        bench.land(EventKind.FEEDBACK, on, events)
    return DiskLanding(home / "landing")
