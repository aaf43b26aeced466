"""Which sampling floor a measured rule would choose, week by week, and how often chance chooses for it.

Claim: the smallest floor that costs at most .005 of average precision on the newest matured week changes from week to
week and from draw to draw; below 2,000,000 rows it saves seconds. So the floor follows from a row budget instead.
Data: fraud_handbook, all cards (9,600 predictions a day) and two fifths of them (3,900). The model of all rows serves
and logs the scores; labels are known after 7 days; each of five weeks is tested, unsampled, with models of all rows and
of each floor, in five draws.
Command: python -m benchmarks.sampling_floors
"""

import time
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.sampling_strategies import DATA_ENDS, SEED_BEGINS, fit, logged_before_the_first_week, weeks
from flywheel_assets.curation.labels.sampling import (
    SamplingRules,
    draw_uniform,
    write_draw_sql,
    write_inclusion_probability_sql,
)
from flywheel_assets.measures.classifiers import bootstrap_average_precision_gain, score_rows
from flywheel_assets_tests.handbook import FEATURES, LABEL_DELAY_DAYS, between, decisions

FLOORS = (0.01, 0.03, 0.1, 0.3, 1.0)
DRAWS = 5
MOST_COST = 0.005


@dataclass(frozen=True)
class Try:
    """One floor, one week, one draw."""

    week: date
    draw: int
    floor: float
    rows: int
    fit_s: float
    average_precision: float
    cost: float
    """AP of all rows minus AP of these, on the same week."""
    half_width: float
    """Of the cost's 95 % interval, by a bootstrap over cards."""


def choose_rows(known: pa.Table, scores: npt.NDArray[np.float64], floor: float, draw: int) -> pa.Table:
    """Positions and weights of the rows that a floor keeps."""
    logged = pa.table(
        {
            "position": np.arange(known.num_rows),
            "id": known["transaction_id"],
            "score": scores,
            "is_positive": known["is_fraud"],
        }
    )
    with duckdb.connect() as connection:
        connection.register("logged", logged)
        return connection.sql(f"""
            SELECT position, 1 / pi AS weight
            FROM (SELECT *, {write_draw_sql(f"draw {draw}", "id")} AS draw,
                         {write_inclusion_probability_sql(SamplingRules(floor=floor))} AS pi FROM logged)
            WHERE draw < pi ORDER BY position""").to_arrow_table()


def try_floors(rows: pa.Table) -> list[Try]:
    """Walk the weeks; the model of all rows serves and logs."""
    logged, found = logged_before_the_first_week(rows), []
    for first, end in weeks():
        known, week = between(rows, SEED_BEGINS, first - timedelta(days=LABEL_DELAY_DAYS)), between(rows, first, end)
        is_fraud, cards = week["is_fraud"].to_numpy(), week["customer"].to_pylist()
        started = time.process_time()
        everything = fit(known)
        fit_s = time.process_time() - started
        all_scores = everything.predict(week.select(FEATURES))
        best = score_rows(is_fraud, all_scores).average_precision or 0.0
        found.append(Try(first, 0, 1.0, known.num_rows, fit_s, best, 0.0, 0.0))
        for floor in FLOORS[:-1]:
            for draw in range(DRAWS):
                chosen = choose_rows(known, logged[: known.num_rows], floor, draw)
                started = time.process_time()
                model = fit(known.take(chosen["position"]), chosen["weight"].to_numpy())
                fit_s = time.process_time() - started
                scores = model.predict(week.select(FEATURES))
                gain = bootstrap_average_precision_gain(is_fraud, all_scores, scores, cards, draws=400)
                half = ((gain.high or 0) - (gain.low or 0)) / 2
                ap = score_rows(is_fraud, scores).average_precision or 0.0
                found.append(Try(first, draw, floor, chosen.num_rows, fit_s, ap, -(gain.mean or 0), half))
        logged = np.concatenate([logged, all_scores])
    return found


def choose_floor(costs: dict[float, float]) -> float:
    """The issue's rule: the smallest floor that costs at most .005."""
    return min([floor for floor, cost in costs.items() if cost <= MOST_COST], default=1.0)


def print_report(name: str, tries: list[Try]) -> None:
    """Print costs by floor, then what the rule chose by week and draw."""
    begun = sorted({each.week for each in tries})
    print(f"\n{name}: last training {max(each.rows for each in tries):,} rows")
    print("floor   rows, last   fit CPU s    AP     cost   s. d. of one week's cost   95 % half width of one week")
    true = {}
    for floor in FLOORS:
        of_floor = [each for each in tries if each.floor == floor]
        last = [each for each in of_floor if each.week == begun[-1]]
        true[floor] = float(np.mean([each.cost for each in of_floor]))
        spread = np.std([each.cost for each in of_floor], ddof=1)
        print(
            f"{floor:5g} {np.mean([e.rows for e in last]):12,.0f} {np.mean([e.fit_s for e in last]):11.2f} "
            f"{np.mean([e.average_precision for e in of_floor]):8.4f} {true[floor]:+8.4f} {spread:15.4f} "
            f"{np.mean([e.half_width for e in of_floor]):24.4f}"
        )
    right = choose_floor(true)
    print(f"by the mean of all weeks and draws the rule chooses {right:g}")
    chosen = {}
    for week in begun:
        for draw in range(DRAWS):
            costs = {e.floor: e.cost for e in tries if e.week == week and (e.draw == draw or e.floor == 1)}
            chosen[week, draw] = choose_floor(costs)
        print(f"    week of {week}: " + " ".join(f"{chosen[week, draw]:g}" for draw in range(DRAWS)))
    picks = list(chosen.values())
    print(f"other than {right:g}: {np.mean([p != right for p in picks]):.0%} of {len(picks)};", end=" ")
    print(f"too small a floor (its mean cost > {MOST_COST}): {np.mean([true[p] > MOST_COST for p in picks]):.0%};")
    moved = [chosen[a, draw] != chosen[b, draw] for a, b in pairwise(begun) for draw in range(DRAWS)]
    print(f"another floor than in the week before: {np.mean(moved):.0%}")


def main() -> None:
    """Print both sizes."""
    rows = between(decisions(), SEED_BEGINS, DATA_ENDS)
    is_kept = [draw_uniform("two fifths", card) < 0.4 for card in rows["customer"].to_pylist()]
    for name, some in (("3,900 a day", rows.filter(pa.array(is_kept))), ("9,600 a day", rows)):
        print_report(name, try_floors(some))


if __name__ == "__main__":
    main()
