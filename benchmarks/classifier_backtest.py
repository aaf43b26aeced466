"""The flywheel against simple ways to retrain, on delayed labels, at the defaults that are shipped.

Aim: in every delay the flywheel's average precision is at least that of weekly training on all rows less .005, its
first promotion comes within two weeks of go-live, and two months are replayed in at most three minutes on two cores.
What was reached, and where it was missed: docs/backtest.md.
Data: fraud_handbook, 584,471 transactions of 61 days (15 June to 14 August 2018), of which the first 28 days are
history before go-live; labels of frauds come 7 + Exp(3) days later ("late"), 7 days later ("fixed"), or Exp(14) days
later ("slow"). "disputes": a generated stream of 40 weeks (`demo.fraud.world`, a new fraud in week 20) whose labels
come 45 + Gamma(3, 5) days later, 12 weeks of it before go-live.
The application is `applications/fraud.py` with other names. Static is a model of the third week by its
true labels, more than anybody knew then; its scores of that week are out of fold. Before it a terminal's risk, which
looks back seven days and more, is not known.
Peer: the rivals of `flywheel backtest`, in the same run.
Command: python -m benchmarks.classifier_backtest late fixed slow disputes [--share 0.4] [--output DIR]
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.applications import fraud
from flywheel_assets.backtest.plan import BacktestPlan
from flywheel_assets.backtest.replay import PlayedWeek
from flywheel_assets.backtest.report import (
    HEADER,
    BacktestReport,
    describe_days,
    describe_week,
    list_cells,
    write_backtest,
)
from flywheel_assets.backtest.rivals import FLYWHEEL
from flywheel_assets.backtest.wheel import run_backtest
from flywheel_assets.capture.events.scores import ScoreLine
from flywheel_assets.capture.events.texts import FeedbackLine
from flywheel_assets.config import FeatureType
from flywheel_assets.demo.fraud._features import FEATURES as GENERATED_FEATURES
from flywheel_assets.demo.fraud._features import FeatureStore
from flywheel_assets.demo.fraud.world import FraudWorld, Pattern
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.models.boosting import fit_classifier
from flywheel_assets.records import Signal
from flywheel_assets_tests.handbook import FEATURES, decisions

Delays = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class World:
    """Predictions in the order of time, their truth, and the day on which each fraud becomes known."""

    application: ClassificationApplication
    features: pa.Table
    ids: list[str]
    entities: list[str]
    segments: list[str]
    seconds: npt.NDArray[np.float64]
    """Since 1970, UTC."""
    is_fraud: npt.NDArray[np.bool_]
    known_seconds: npt.NDArray[np.float64]
    """When a fraud's label comes; infinity for the others."""
    go_live: date
    last: date


DELAYS: dict[str, Delays] = {
    "late": lambda random, count: 7 + random.exponential(3, count),
    "fixed": lambda random, count: np.full(count, 7.0),
    "slow": lambda random, count: random.exponential(14, count),
    "disputes": lambda random, count: 45 + random.gamma(3, 5, count),
}


def make_handbook(name: str, share: float) -> World:
    """Make a world of the handbook's transactions, of a share of the cards."""
    rows = decisions()
    chosen = np.array([int(card) % 100 < 100 * share for card in rows["customer"].to_pylist()])
    rows = rows.filter(pa.array(chosen))
    seconds = rows["decided_at"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    is_fraud = rows["is_fraud"].to_numpy(zero_copy_only=False)
    kinds = {each: FeatureType.BOOLEAN if each.startswith("is_") else FeatureType.NUMBER for each in FEATURES}
    first = date(2018, 6, 15)
    application = replace(
        fraud.APPLICATION,
        name="cards",
        start_date=first,
        contract=replace(fraud.APPLICATION.contract, features=kinds),
    )
    return World(
        application=application,
        features=rows.select(FEATURES),
        ids=rows["transaction_id"].to_pylist(),
        entities=[f"c{card}" for card in rows["customer"].to_pylist()],
        segments=["weekend" if weekend else "weekday" for weekend in rows["is_weekend"].to_pylist()],
        seconds=seconds,
        is_fraud=is_fraud,
        known_seconds=_delay_labels(name, seconds, is_fraud),
        go_live=first + timedelta(days=28),
        last=date(2018, 8, 14),
    )


def make_disputes(share: float) -> World:
    """Make a generated world of 40 weeks, of a share of the usual number of cards."""
    first, weeks = date(2026, 1, 5), 40
    world = FraudWorld(
        cards=int(1_000 * share),
        terminals=int(1_600 * share),
        emerging=Pattern.COMPROMISED_CARD,
        emerges_on=first + timedelta(weeks=20),
    )
    store = FeatureStore(first)
    tables, ids, entities, segments, seconds, frauds = [], [], [], [], [], []
    for day in (first + timedelta(days=number) for number in range(7 * weeks)):
        payments = world.simulate_day(day)
        tables.append(store.compute_features(payments))
        # Labels come later than the store looks back: a terminal's risk stays unknown.
        store.remember(payments, np.ones(len(payments), dtype=bool))
        ids += payments.ids
        entities += [f"c{card}" for card in payments.card.tolist()]
        segments += world.name_regions(payments.terminal)
        seconds.append(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + payments.second)
        frauds.append(payments.is_fraud)
    at, is_fraud = np.concatenate(seconds), np.concatenate(frauds)
    return World(
        application=replace(fraud.APPLICATION, name="cards", start_date=first),
        features=pa.concat_tables(tables).select(GENERATED_FEATURES.names),
        ids=ids,
        entities=entities,
        segments=segments,
        seconds=at,
        is_fraud=is_fraud,
        known_seconds=_delay_labels("disputes", at, is_fraud),
        go_live=first + timedelta(weeks=12),
        last=first + timedelta(days=7 * weeks - 1),
    )


def _delay_labels(
    name: str, seconds: npt.NDArray[np.float64], is_fraud: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    delays = DELAYS[name](np.random.default_rng(7), len(seconds))
    return np.where(is_fraud, seconds + 86_400 * delays, np.inf)


def score_statically(world: World) -> npt.NDArray[np.float64]:
    """Score every prediction by a model of the third week, that week's out of two folds."""
    begin = world.seconds[0] // 86_400 * 86_400 + 14 * 86_400
    week = (world.seconds >= begin) & (world.seconds < begin + 7 * 86_400)
    scores = _fit(world, week).predict(world.features)
    fold = np.arange(len(week)) % 2 == 0
    for half in (fold, ~fold):
        rows = week & half
        scores[rows] = _fit(world, week & ~half).predict(world.features.filter(pa.array(rows)))
    return scores


def _fit(world: World, rows: npt.NDArray[np.bool_]):
    return fit_classifier(world.features.filter(pa.array(rows)), world.is_fraud[rows])


def land(world: World, scores: npt.NDArray[np.float64], root: Path) -> DiskLanding:
    """Land every prediction and label on its day, as `flywheel import --history` would."""
    landing = DiskLanding(root)
    predictions: dict[date, list[bytes]] = {}
    for number, features in enumerate(_list_features(world.features)):
        at = datetime.fromtimestamp(float(world.seconds[number]), UTC)
        line = ScoreLine(
            event_id=f"{number:032x}",
            received_at=at.isoformat(),
            occurred_at=at.isoformat(),
            source="predictions-api",
            prediction_id=world.ids[number],
            do_not_train=False,
            features=features,
            score=float(scores[number]),
            model_version="static",
            user_id=world.entities[number],
            amount=float(world.features["amount"][number].as_py()),
            segment=world.segments[number],
        )
        predictions.setdefault(at.date(), []).append(_encode(line))
    labels: dict[date, list[bytes]] = {}
    for number in np.flatnonzero(world.is_fraud).tolist():
        at = datetime.fromtimestamp(float(world.known_seconds[number]), UTC)
        label = FeedbackLine(
            event_id=f"f{number:031x}",
            received_at=at.isoformat(),
            occurred_at=at.isoformat(),
            source="labels-api",
            prediction_id=world.ids[number],
            signal=Signal.LABEL,
            do_not_train=False,
            sampling_probability=1.0,
            label="true",
            labeling_source="chargeback",
        )
        labels.setdefault(at.date(), []).append(_encode(label))
    for kind, by_day in ((EventKind.PREDICTION, predictions), (EventKind.FEEDBACK, labels)):
        zone = landing.open_zone(world.application.name, kind)
        zone.open_folder.mkdir(parents=True)
        for day, lines in by_day.items():
            file = zone.open_folder / "history-000001.jsonl"
            file.write_bytes(b"\n".join(lines) + b"\n")
            zone.publish(file, day)
    return landing


def _list_features(features: pa.Table) -> Iterator[str]:
    for batch in features.to_batches(max_chunksize=50_000):
        for row in batch.to_pylist():
            yield _encode(row).decode()


def print_report(name: str, report: BacktestReport, wall_s: float, cpu_s: float) -> None:
    """Print one world's table, the decisions, and the cost."""
    print(f"\n## {name}: {describe_days(report)}")
    for cells in (HEADER, ["---"] * len(HEADER), *list_cells(report)):
        print("| " + " | ".join(cells) + " |")
    for number, week in enumerate(report.weeks, 1):
        print(f"week {number} ({week.first}), served by {week.serving or 'static'}: {describe_week(week)}")
    promoted = [n for n, week in enumerate(report.weeks, 1) if week.decision and week.decision.promoted]
    print(f"promotions {report.find(FLYWHEEL).promotions}, the first in week {promoted[0] if promoted else '–'}")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.stage_seconds.items())
    print(f"{wall_s:.0f} s wall, {cpu_s:.0f} s CPU with child processes ({stages})", flush=True)


def print_week(played: PlayedWeek) -> None:
    """Print one line of progress."""
    print(f"  {played.week.first}: served by {played.serving or 'static'}", flush=True)


def measure_cpu_s() -> float:
    """Add up the CPU seconds of this process and its ended children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """Run the worlds and print their tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("worlds", nargs="*", choices=[*DELAYS, []], default=list(DELAYS))
    parser.add_argument("--share", type=float, default=1.0, help="of the cards")
    parser.add_argument("--maturity", type=int, help="days; default: as shipped")
    parser.add_argument("--floor", type=float, action="append", default=[], help="of a further rival")
    parser.add_argument("--output", type=Path, help="folder for each world's report")
    options = parser.parse_args()
    for name in options.worlds:
        world = make_disputes(options.share) if name == "disputes" else make_handbook(name, options.share)
        application = world.application
        if options.maturity:
            application = replace(application, mining=replace(application.mining, maturity_days=options.maturity))
        with TemporaryDirectory() as folder:
            landing = land(world, score_statically(world), Path(folder))
            begin, cpu = time.monotonic(), measure_cpu_s()
            plan = BacktestPlan(first=world.go_live, last=world.last, floors=tuple(options.floor))
            report = run_backtest(application, landing, plan, on_week=print_week)
            print_report(name, report, time.monotonic() - begin, measure_cpu_s() - cpu)
        if options.output:
            write_backtest(report, options.output / name)


if __name__ == "__main__":
    main()
