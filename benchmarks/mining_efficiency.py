"""Surprise sampling where it pays: a stream of 500,000 predictions a day, against all rows and against random ones.

Claim: with the floor that the row budget gives, average precision is within 1 % of that of all rows, on at most 5 % of
them, and the fit takes at most a tenth of the CPU time.
Data: a generated stream, 3,500,000 predictions a week with 12 features and .56 % positives, whose patterns move each
week; a fourth pattern appears in week 2. The first model has seen one day; every strategy then trains weekly, on the
rows that it kept of all weeks whose labels are known after 7 days, and its own model logs the scores by which it
samples. Weeks 3, 4 and 5 are tests, unsampled. Every strategy runs in a process of its own, whose peak memory counts.
Command: python -m benchmarks.mining_efficiency
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.measures.classifiers import score_rows
from flywheel_assets.models.boosting import TrainedClassifier, fit_classifier

ROWS_PER_DAY, WEEKS, FIRST_TEST = 500_000, 5, 3
NEW_PATTERN_WEEK = 2

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


def generate_day(week: int, day: int) -> tuple[pa.Table, Booleans, Floats]:
    """Features, labels, and one uniform draw a row, of one day."""
    random = np.random.default_rng([15, week, day])
    size = ROWS_PER_DAY
    columns = {
        "amount": random.lognormal(3.3, 1.0, size),
        "amount_ratio": random.lognormal(0.0, 0.6, size),
        "hour": random.normal(13, 5, size) % 24,
        "device_age": random.exponential(200, size),
        "velocity": random.gamma(1.5, 1.2, size),
        "terminal_risk": random.beta(0.5, 20, size),
        "distance": random.exponential(30, size),
        "account_age": random.exponential(900, size),
        "merchant": random.integers(0, 40, size).astype(np.float64),
        "channel": random.integers(0, 4, size).astype(np.float64),
        "noise_1": random.normal(size=size),
        "noise_2": random.normal(size=size),
    }
    # A stolen card pays a lot from a new device; a terminal is compromised; a card number is tried quickly; and from
    # one week on an account is taken over. How much is a lot, and which merchants are liked, moves.
    stolen = 3.2 * np.log(columns["amount_ratio"]) - columns["device_age"] / 25 + 0.9 * (columns["channel"] == week % 4)
    terminal = 55 * columns["terminal_risk"] - 0.15 * np.abs(columns["hour"] - 3 - week % 3) - 6.5
    tried = 1.1 * columns["velocity"] - 1.2 * np.log(columns["amount"]) - 2.0 - 0.2 * week
    patterns = [stolen, terminal, tried]
    if week >= NEW_PATTERN_WEEK:
        liked = np.isin(columns["merchant"], [(7 * week + k) % 40 for k in range(8)])
        patterns.append(columns["distance"] / 18 + 2.5 * liked - columns["account_age"] / 150 - 6.0)
    logit = 2.2 * np.maximum.reduce(patterns) - 10.0 + 0.5 * random.normal(size=size)
    is_positive = random.random(size) < 1 / (1 + np.exp(-logit))
    table = pa.table({name: pa.array(values.astype(np.float32)) for name, values in columns.items()})
    return table, is_positive, random.random(size)


def generate_week(week: int) -> Iterator[tuple[pa.Table, Booleans, Floats]]:
    """Its seven days."""
    for day in range(7):
        yield generate_day(week, day)


def run_strategy(rules: SamplingRules) -> dict[str, Any]:
    """Walk the weeks; the JSON that the parent prints."""
    first_rows, first_labels, _ = generate_day(0, 0)
    model: TrainedClassifier = fit_classifier(first_rows, first_labels)
    kept: dict[int, tuple[list[pa.Table], list[Booleans], list[Floats]]] = {}
    weeks = []
    floor = rules.settle_floor(ROWS_PER_DAY).floor or 1.0
    for week in range(1, WEEKS + 1):
        facts: dict[str, Any] = {"week": week}
        if week >= FIRST_TEST:
            known = [kept[each] for each in range(1, week - 1)]
            rows = pa.concat_tables([table for tables, _, _ in known for table in tables])
            labels = np.concatenate([each for _, some, _ in known for each in some])
            weights = np.concatenate([each for _, _, some in known for each in some])
            started = time.process_time()
            model = fit_classifier(rows, labels, weights)
            facts |= {"fit_s": time.process_time() - started, "rows": len(labels)}
        tables, labels_of_week, weights_of_week, scores_of_week, truth = [], [], [], [], []
        for table, is_positive, draws in generate_week(week):
            scores = model.predict(table)
            shares = np.where(is_positive, 1.0, np.clip(rules.surprise_factor * scores, floor, 1.0))
            chosen = draws < shares
            tables.append(table.filter(pa.array(chosen)))
            labels_of_week.append(is_positive[chosen])
            weights_of_week.append(1 / shares[chosen])
            scores_of_week.append(scores)
            truth.append(is_positive)
        kept[week] = (tables, labels_of_week, weights_of_week)
        found = score_rows(np.concatenate(truth), np.concatenate(scores_of_week))
        facts |= {"positives": found.positives, "ap": found.average_precision, "ratio": found.calibration_ratio}
        facts["kept"] = sum(map(len, labels_of_week))
        weeks.append(facts)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"floor": floor, "weeks": weeks, "peak_gib": peak_gib}


def run_apart(rules: SamplingRules) -> dict[str, Any]:
    """Run a strategy in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mining_efficiency", "--factor", str(rules.surprise_factor)]
    command += [] if rules.floor is None else ["--floor", str(rules.floor)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def print_strategy(name: str, found: dict[str, Any], everything: dict[str, Any]) -> None:
    """Print one line, of the test weeks together, its last training, and AP by week."""
    tests, rivals = found["weeks"][FIRST_TEST - 1 :], everything["weeks"][FIRST_TEST - 1 :]
    fit_share = sum(w["fit_s"] for w in tests) / sum(w["fit_s"] for w in rivals)
    mean, best = (float(np.mean([w["ap"] for w in some])) for some in (tests, rivals))
    last = tests[-1]
    print(
        f"{name:28} {found['floor']:6.3f} {last['rows']:12,} {last['rows'] / rivals[-1]['rows']:7.1%} "
        f"{last['fit_s']:8.1f} {fit_share:7.1%} {found['peak_gib']:6.2f} {mean:8.4f} {mean / best - 1:+7.2%} "
        f"{np.mean([w['ratio'] for w in tests]):6.2f}   " + " ".join(f"{w['ap']:.4f}" for w in tests),
        flush=True,
    )


def main() -> None:
    """Print one line per strategy, or run one and print its JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--factor", type=float, help="run one strategy in this process")
    parser.add_argument("--floor", type=float)
    given = parser.parse_args()
    if given.factor is not None:
        print(json.dumps(run_strategy(SamplingRules(surprise_factor=given.factor, floor=given.floor))))
        return
    surprise = run_apart(SamplingRules())
    weeks = surprise["weeks"]
    rows, positives = 7 * ROWS_PER_DAY * WEEKS, sum(w["positives"] for w in weeks)
    share = (sum(w["kept"] for w in weeks) - positives) / (rows - positives)
    everything = run_apart(SamplingRules(floor=1.0))
    shares = ", ".join(f"{w['positives'] / (7 * ROWS_PER_DAY):.2%}" for w in weeks)
    print(f"{rows:,} predictions, positives by week {shares}")
    print(f"{'':28}  floor   rows, last   share  fit CPU s  of all    GiB       AP  vs all  Σp/Σy   AP by week")
    print_strategy("all rows", everything, everything)
    print_strategy("surprise, floor by budget", surprise, everything)
    print_strategy("surprise, floor 1 %", run_apart(SamplingRules(floor=0.01)), everything)
    random = run_apart(SamplingRules(surprise_factor=0, floor=share))
    print_strategy("positives + as many random", random, everything)


if __name__ == "__main__":
    main()
