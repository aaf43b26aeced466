"""Claim: the breaker of labels stops days of mass wrong labels, and in 26 ordinary weeks hardly any other.

Without monthly batches 5 of 98,280 ordinary days trip, with them .5 %: a first batch is like no day before.

Worlds: 20, 200 or 2,000 labelled predictions a day, tripling over the weeks; Poisson or overdispersed; quiet weekends,
whose labels come on Monday in part; four attacks of 5 to 14 days with two to three times the positives; 20 to 100 % of
the labels positive; labels 7 + Exp(3), Exp(14) or about 60 days late; with and without a monthly batch of 40 % of the
positives. Every stream is cold: its first label is the first there ever was. A person resets each false alarm.

Wrong days, each on a day of its own after week 13 with at least 100 labels: a flipped column, an import of 1,000
positives, and a rerun that reverses a third of as many labels as the day has.

    python -m benchmarks.label_breaker [--seeds 5]
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import product

import numpy as np
import numpy.typing as npt

from flywheel_assets.curation.labels.label_breaker import LabelBreakerLimits, LabelCounts, judge_labels

Integers = npt.NDArray[np.int64]
MONDAY = date(2026, 1, 5)
DAYS, MONTH = 182, 30
WEEK = np.array([1.1, 1.1, 1.0, 1.0, 1.2, 0.5, 0.4])
BATCHED, HELD_AT_WEEKENDS = 0.4, 0.6
IMPORTED = 1_000
LIMITS = LabelBreakerLimits()
World = tuple[int, float | None, float, str, bool]


def list_worlds() -> Iterator[World]:
    """List labels a day at first, shape of the overdispersion, share of positives, delay, and whether in batches."""
    return product((20, 200, 2_000), (None, 20.0, 5.0), (0.2, 0.5, 0.8, 1.0), ("7+3", "14", "60"), (False, True))


def draw_delays(rng: np.random.Generator, delay: str, rows: int) -> Integers:
    """Draw whole days from the prediction to its label."""
    match delay:
        case "7+3":
            days = 7 + rng.exponential(3, rows)
        case "14":
            days = rng.exponential(14, rows)
        case _:
            days = rng.gamma(9, 60 / 9, rows)
    return days.astype(np.int64)


def simulate(rng: np.random.Generator, world: World) -> tuple[Integers, Integers]:
    """Simulate the labels that arrive on each day: positives and negatives."""
    volume, shape, positive, delay, in_batches = world
    days = np.arange(DAYS)
    rate = volume * 3 ** (days / DAYS) * WEEK[days % 7]
    attack = np.ones(DAYS)
    for start in rng.choice(np.arange(14, DAYS - 14), 4, replace=False):
        attack[start : start + rng.integers(5, 15)] = rng.uniform(2, 3)
    arrived = []
    for is_positive, expected in ((True, rate * positive * attack), (False, rate * (1 - positive))):
        noise = 1.0 if shape is None else rng.gamma(shape, 1 / shape, DAYS)
        made = np.repeat(days, rng.poisson(expected * noise))
        on = made + draw_delays(rng, delay, len(made))
        held = (on % 7 >= 5) & (rng.random(len(on)) < HELD_AT_WEEKENDS)
        if in_batches and is_positive:
            batched = rng.random(len(on)) < BATCHED
            on[batched] = (on[batched] // MONTH + 1) * MONTH
            held = np.where(batched, on % 7 >= 5, held)
        on[held] += 7 - on[held] % 7
        arrived.append(np.bincount(on[on < DAYS], minlength=DAYS))
    return arrived[0], arrived[1]


def count(day: int, positives: Integers, negatives: Integers) -> LabelCounts:
    """Count the labels of a day."""
    return LabelCounts(MONDAY + timedelta(days=day), int(positives[day] + negatives[day]), int(positives[day]))


def try_stream(positives: Integers, negatives: Integers, found: Counter[str], world: World) -> None:
    """Judge each day as it is and, after week 13, as each kind of wrong day."""
    every = [count(day, positives, negatives) for day in range(DAYS)]
    kind = "batches" if world[-1] else "no batches"
    for day, counts in enumerate(every):
        before = every[max(0, day - LIMITS.trailing_days) : day]
        found[f"days, {kind}"] += 1
        if judge_labels(counts, 0, before, LIMITS).trips:
            found[f"false alarms, {kind}, labels {world[3]} days late, month {day // MONTH + 1}"] += 1
        if day < 91 or counts.labels < LIMITS.min_labels:
            continue
        share = counts.positive_share
        flipped = LabelCounts(counts.day, counts.labels, counts.labels - counts.positives)
        imported = LabelCounts(counts.day, counts.labels + IMPORTED, counts.positives + IMPORTED)
        ratio = IMPORTED / max(1.0, float(np.quantile([each.positives for each in before], 0.9)))
        size = "≥ 5 ×" if ratio >= 5 else "2 to 5 ×" if ratio >= 2 else "< 2 ×"
        for name, wrong, reversals in (
            (f"flipped, share {min(share, 1 - share):.1f}, {kind}", flipped, 0),
            (f"import of 1,000, {size} an ordinary day's positives, {kind}", imported, 0),
            ("a rerun that reverses a third of its labels", counts, -(-counts.labels // 3)),
        ):
            found[f"{name}: days"] += 1
            found[f"{name}: caught"] += bool(judge_labels(wrong, reversals, before, LIMITS).trips)


def main() -> None:
    """Run every world and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    found: Counter[str] = Counter()
    for number, world in enumerate(list_worlds()):
        for seed in range(parser.parse_args().seeds):
            rng = np.random.default_rng([seed, number])
            try_stream(*simulate(rng, world), found, world)
            found["streams"] += 1
    for name, rows in sorted(found.items()):
        print(f"{name:80} {rows:9,}")


if __name__ == "__main__":
    main()
