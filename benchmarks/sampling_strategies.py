"""Which rows to train on, in a closed loop: every strategy's own deployed model logs the scores it samples by.

Claim: surprise sampling comes within 1 % of the average precision of training on all rows, with at most 5 % of them and
calibrated scores; hard examples alone destroy the model. On the data as it is a static model nearly keeps up; where one
fraud pattern emerges after it was trained, it does not.
Data: fraud_handbook, 584,471 transactions of 61 days. A week to warm the windows up, 14 days of seed (their scores
cross-fitted by card: no model scores what it was trained on), labels known after 7 days, retrained every week, each
model tested on the week it serves.
Command: python -m benchmarks.sampling_strategies [--emerging SCENARIO]
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.labels.discrepancies import DiscrepancyRules, write_discrepancy_sql
from flywheel_assets.curation.labels.sampling import (
    SamplingRules,
    draw_uniform,
    write_draw_sql,
    write_inclusion_probability_sql,
    write_sample_weight_sql,
)
from flywheel_assets.measures.classifiers import Scores, bootstrap_average_precision_gain, score_rows
from flywheel_assets.models.boosting import TrainedClassifier, fit_classifier
from flywheel_assets.promotion.classifier_evidence import EvaluationRows, measure_evidence
from flywheel_assets.promotion.classifier_limits import ClassifierLimits, decide_classifier
from flywheel_assets_tests.handbook import FEATURES, LABEL_DELAY_DAYS, EmergingFraud, between, decisions

SEED_BEGINS, SEED_ENDS, DATA_ENDS = date(2018, 6, 22), date(2018, 7, 6), date(2018, 8, 15)
FIRST_WEEK = SEED_ENDS + timedelta(days=LABEL_DELAY_DAYS)
HARD = f"({write_discrepancy_sql(DiscrepancyRules())}) IS NOT NULL"


@dataclass(frozen=True)
class Strategy:
    """Which logged rows are trained on: an SQL condition on `score`, `is_positive`, `draw`, and each one's weight."""

    name: str
    condition: str
    weight: str = "1"
    is_static: bool = False


def sampled(name: str, rules: SamplingRules, *, is_weighted: bool = True) -> Strategy:
    """By the project's own probability, hash and weight."""
    probability = write_inclusion_probability_sql(rules)
    weight = write_sample_weight_sql(rules, inclusion_probability=probability, allow_propensity="NULL")
    return Strategy(name, f"draw < {probability}", weight if is_weighted else "1")


STRATEGIES = [
    Strategy("static", "TRUE", is_static=True),
    Strategy("all rows", "TRUE"),
    Strategy("hard only", HARD),
    sampled("frauds + random 5 %", SamplingRules(surprise_factor=0, floor=0.05)),
    sampled("surprise, floor 1 %", SamplingRules(floor=0.01)),
    sampled("surprise, floor 2 %", SamplingRules(floor=0.02)),
    sampled("surprise, floor 5 %", SamplingRules(floor=0.05)),
    sampled("surprise, floor 1 %, unweighted", SamplingRules(floor=0.01), is_weighted=False),
]


@dataclass(frozen=True)
class Week:
    """One week that a model served: how it was trained, and how it did."""

    begins: date
    rows_logged: int
    rows_used: int
    fit_s: float
    scores: Scores
    new_fraud: Scores | None
    """On the emerging pattern against everything that is no fraud."""
    logged: npt.NDArray[np.float64]
    """The scores themselves."""


def weeks() -> Iterator[tuple[date, date]]:
    """(first day, day after the last) of each week that is served."""
    day = FIRST_WEEK
    while day < DATA_ENDS:
        yield day, min(day + timedelta(days=7), DATA_ENDS)
        day += timedelta(days=7)


def fit(rows: pa.Table, weights: npt.NDArray[np.float64] | None = None) -> TrainedClassifier:
    """The default recipe on rows of `decisions`."""
    return fit_classifier(rows.select(FEATURES), rows["is_fraud"].to_numpy(), weights)


def logged_before_the_first_week(rows: pa.Table) -> npt.NDArray[np.float64]:
    """Scores of the seed by the half of its cards that a row is not of; of the following week by the whole seed."""
    seed, gap = between(rows, SEED_BEGINS, SEED_ENDS), between(rows, SEED_ENDS, FIRST_WEEK)
    is_half = np.array([draw_uniform("halves", card) < 0.5 for card in seed["customer"].to_pylist()])
    scores = np.empty(seed.num_rows)
    for half in (is_half, ~is_half):
        scores[~half] = fit(seed.filter(pa.array(half))).predict(seed.filter(pa.array(~half)).select(FEATURES))
    return np.concatenate([scores, fit(seed).predict(gap.select(FEATURES))])


def select(rows: pa.Table, scores: npt.NDArray[np.float64], strategy: Strategy) -> pa.Table:
    """Positions and weights of the rows that a strategy trains on, in the order of time."""
    logged = pa.table(
        {
            "position": np.arange(rows.num_rows),
            "transaction_id": rows["transaction_id"],
            "score": scores,
            "is_positive": rows["is_fraud"],
        }
    )
    with duckdb.connect() as connection:
        connection.register("logged", logged)
        return connection.sql(f"""
            SELECT position, ({strategy.weight})::DOUBLE AS weight
            FROM (SELECT *, {write_draw_sql("handbook", "transaction_id")} AS draw FROM logged)
            WHERE {strategy.condition} ORDER BY position""").to_arrow_table()


def served(rows: pa.Table, scores: npt.NDArray[np.float64], strategy: Strategy, emerging: int | None) -> list[Week]:
    """Walk the weeks: train on what is labelled by then, serve, log the scores, be tested on them a week later."""
    logged, model, found = scores, None, []
    for first, end in weeks():
        known = between(rows, SEED_BEGINS, first - timedelta(days=LABEL_DELAY_DAYS))
        if model is None or not strategy.is_static:
            chosen = select(known, logged[: known.num_rows], strategy)
            started = time.process_time()
            model = fit(known.take(chosen["position"]), chosen["weight"].to_numpy())
            fit_s = time.process_time() - started
        week = between(rows, first, end)
        now = model.predict(week.select(FEATURES))
        logged = np.concatenate([logged, now])
        is_fraud, scenario = week["is_fraud"].to_numpy(), week["scenario"].to_numpy()
        new = ~is_fraud | (scenario == emerging)
        found.append(
            Week(
                first,
                known.num_rows,
                chosen.num_rows,
                fit_s,
                score_rows(is_fraud, now),
                score_rows(is_fraud[new], now[new]) if emerging else None,
                now,
            )
        )
    return found


def verdict(rows: pa.Table, static: list[Week], walked: list[Week]) -> str:
    """What the gate says of the last two served weeks, the static model being the incumbent."""
    parts = [between(rows, first, end) for first, end in weeks()][-2:]
    later = pa.concat_tables(parts)
    rows_of_both = EvaluationRows(
        labels=later["is_fraud"].to_numpy(),
        incumbent_scores=np.concatenate([week.logged for week in static[-2:]]),
        challenger_scores=np.concatenate([week.logged for week in walked[-2:]]),
        weeks=[str(number) for number, part in enumerate(parts) for _ in range(part.num_rows)],
        entities=later["customer"].to_pylist(),
    )
    evidence = measure_evidence(rows_of_both, incumbent="static model", threshold=0.5)
    return decide_classifier(evidence, ClassifierLimits()).sentence


def main() -> None:
    """Print one line per strategy: means over the weeks, the last training, and what the gate says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--emerging", type=int, choices=(1, 2, 3), help="this fraud pattern begins with the first week")
    emerging = parser.parse_args().emerging
    rows = between(decisions(EmergingFraud(emerging, FIRST_WEEK) if emerging else None), SEED_BEGINS, DATA_ENDS)
    scores = logged_before_the_first_week(rows)
    print(f"{rows.num_rows:,} rows, {len(list(weeks()))} weeks; emerging fraud: {emerging or 'none'}")
    print(
        f"{'':33}rows, last   share  fit CPU s   AP    Σp/Σy   AP by week"
        + ("  | on the new fraud" if emerging else "")
    )
    walks = {}
    for strategy in STRATEGIES:
        walks[strategy.name] = walked = served(rows, scores, strategy, emerging)
        last = walked[-1]
        precisions = [week.scores.average_precision or 0 for week in walked]
        positives = sum(week.scores.positives for week in walked)
        predicted = sum((week.scores.calibration_ratio or 0) * week.scores.positives for week in walked)
        by_week = " ".join(f"{value:.3f}" for value in precisions)
        on_new = " ".join(f"{week.new_fraud.average_precision or 0:.3f}" for week in walked if week.new_fraud)
        print(
            f"{strategy.name:33}{last.rows_used:9,}  {last.rows_used / last.rows_logged:6.1%}  {last.fit_s:8.2f}  "
            f"{np.mean(precisions):7.4f}  {predicted / positives:6.2f}   {by_week}{'  | ' if on_new else ''}{on_new}",
            flush=True,
        )
    everything = np.concatenate([week.logged for week in walks["all rows"]])
    tested = between(rows, FIRST_WEEK, DATA_ENDS)
    for name, walked in walks.items():
        logged = np.concatenate([week.logged for week in walked])
        gain = bootstrap_average_precision_gain(
            tested["is_fraud"].to_numpy(), everything, logged, tested["customer"].to_pylist()
        )
        print(f"{name}: AP of all weeks together − all rows' = {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
        if name != "static":
            print(f"    {verdict(rows, walks['static'], walked)}")


if __name__ == "__main__":
    main()
