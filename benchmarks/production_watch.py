"""Error rates of the watch over a model in production: false take-backs, and how soon a worse model is taken back.

Claim: with two models that serve equally well, at most 5 % are taken back over 90 days with a look every day, whatever
the shape of people's rates and whatever the split; a model whose answers are edited .2 more often is taken back.
Data: generated; 90 days of 400 and 2,000 people, each assigned to an arm by chance, on average one interaction a person
and day. Shapes without a difference: alike (edit rates Beta(2, 4)); prolific (activity lognormal with σ 1.5, rates
Beta(.5, 1), prolific people edit less); rare sufferers (3 % of people edit 95 %, all others 2 %); rare losses (the
current model costs 3 % of people .6 more edits and gives all others .019 back: equal means); weekly (half of the
activity on weekends, rates .15 higher there); newcomers (people begin on any day, later ones edit more).
Peers: a t-test of interactions every day at level .05 (what a dashboard shows), a t-test of people every day, a t-test
of people with the shipped levels, an asymptotic confidence sequence (Waudby-Smith et al. 2021), and the shipped bound
at α / (k (k + 1)) every day.
Command: python -m benchmarks.production_watch [--replications 400] [--only errors|power] [--plot FILE.png]
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats  # noqa: TID253  (a benchmark is started on its own)

from benchmarks.shares import Counted
from flywheel_assets.measures.live_arms import Arm, compute_p_value, find_look

Floats = npt.NDArray[np.float64]

DAYS = 90
ALPHA = 0.05
MARGIN = 0.1
SHAPES = ("alike", "prolific", "rare sufferers", "rare losses", "weekly", "newcomers")
SPLITS = (0.05, 0.5, 0.95)
SHARES = (0.05, 0.1, 0.5)
PEOPLE = (400, 2000)
HARMS = (0.05, 0.1, 0.2)
# A bound for any distribution lies below that of a normal one; it is not computed where even this one shows nothing.
_WORTH_A_BOUND = 1.0


@dataclass(frozen=True)
class Moments:
    """By day: the difference of the arms' means over people, its standard error, and the numbers of people."""

    difference: Floats
    error: Floats
    current: Floats
    predecessor: Floats


@dataclass(frozen=True)
class Traffic:
    """Cumulative counts of each person (rows) by day (columns)."""

    hits: Floats
    served: Floats
    is_current: npt.NDArray[np.bool_]

    @cached_property
    def moments(self) -> Moments:
        """Compute Welch's statistics of people's means, for every day."""
        is_served = self.served > 0
        means = np.where(is_served, self.hits / np.maximum(self.served, 1), 0.0)
        found = []
        for chosen in (self.is_current, ~self.is_current):
            count = is_served[chosen].sum(axis=0).astype(np.float64)
            mean = means[chosen].sum(axis=0) / np.maximum(count, 1)
            squares = ((means[chosen] - mean) ** 2 * is_served[chosen]).sum(axis=0)
            found.append((mean, squares / np.maximum(count - 1, 1) / np.maximum(count, 1), count))
        (one, one_square, one_count), (other, other_square, other_count) = found
        return Moments(one - other, np.sqrt(one_square + other_square), one_count, other_count)

    def arms(self, day: int) -> tuple[Arm, Arm]:
        """Return the current model's people and its predecessor's, with all interactions up to a day from 1."""
        hits, served = self.hits[:, day - 1], self.served[:, day - 1]
        chosen = self.is_current
        return Arm.from_counts(hits[chosen], served[chosen]), Arm.from_counts(hits[~chosen], served[~chosen])


def draw_traffic(shape: str, people: int, share: float, harm: float, random: np.random.Generator) -> Traffic:
    """Draw 90 days; `share` of people get the current model, whose answers are edited `harm` more often."""
    is_current = random.random(people) < share
    activity = np.ones(people)
    rates = random.beta(2, 4, people)
    change = np.full(people, harm)
    by_day = np.zeros(DAYS)
    season = np.ones(DAYS)
    begins = np.zeros(people)
    if shape == "prolific":
        deviates = random.normal(0, 1, people)
        activity = np.exp(1.5 * deviates - 1.125)
        rates = random.beta(0.5, 1, people) * np.where(deviates > 1, 0.5, 1.0)
    elif shape == "rare sufferers":
        rates = np.where(random.random(people) < 0.03, 0.95, 0.02)
    elif shape == "rare losses":
        rates = np.full(people, 0.3)
        change = np.where(random.random(people) < 0.03, 0.6, -0.6 * 0.03 / 0.97) + harm
    elif shape == "weekly":
        weekend = np.arange(DAYS) % 7 >= 5
        season, by_day = np.where(weekend, 1.75, 0.7), np.where(weekend, 0.15, 0.0)
    elif shape == "newcomers":
        begins = random.integers(0, DAYS, people) * (random.random(people) < 0.7)
        rates = np.clip(rates + begins / DAYS * 0.3, 0, 1)
    is_there = np.arange(DAYS)[None, :] >= begins[:, None]
    served = random.poisson(activity[:, None] * season[None, :] * is_there)
    level = rates[:, None] + by_day[None, :] + (is_current * change)[:, None]
    hits = random.binomial(served, np.clip(level, 0, 1))
    return Traffic(np.cumsum(hits, axis=1, dtype=np.float64), np.cumsum(served, axis=1, dtype=np.float64), is_current)


def _find_first(worse: npt.NDArray[np.bool_]) -> int | None:
    return int(np.argmax(worse)) + 1 if worse.any() else None


def take_back_by_interactions(traffic: Traffic) -> int | None:
    """Return the first day with p < .05 of a t-test of interactions."""
    arms = []
    for chosen in (traffic.is_current, ~traffic.is_current):
        served = np.maximum(traffic.served[chosen].sum(axis=0), 1)
        rate = traffic.hits[chosen].sum(axis=0) / served
        arms.append((rate, rate * (1 - rate) / served, served))
    (one, one_square, one_count), (other, other_square, other_count) = arms
    error = np.sqrt(one_square + other_square)
    degrees = np.maximum(np.minimum(one_count, other_count) - 1, 1)
    return _find_first((error > 0) & (one - other > stats.t.ppf(1 - ALPHA, degrees) * error))


def _has_people(moments: Moments) -> npt.NDArray[np.bool_]:
    return (moments.current >= 2) & (moments.predecessor >= 2) & (moments.error > 0)


def _limit_t(moments: Moments, levels: Floats) -> Floats:
    degrees = np.maximum(np.minimum(moments.current, moments.predecessor) - 1, 1)
    limits: Floats = stats.t.ppf(1 - levels, degrees)
    return limits


def take_back_by_people(traffic: Traffic) -> int | None:
    """Return the first day with p < .05 of a t-test of people."""
    moments = traffic.moments
    limit = _limit_t(moments, np.full(DAYS, ALPHA))
    return _find_first(_has_people(moments) & (moments.difference > limit * moments.error))


def take_back_by_spent_t(traffic: Traffic) -> int | None:
    """Return the first scheduled look with p below the shipped level, of a t-test of people."""
    moments = traffic.moments
    looks = [find_look(day) for day in range(1, DAYS + 1)]
    levels = np.array([look.spend(ALPHA) if look and look.day == day else 1e-300 for day, look in enumerate(looks, 1)])
    return _find_first(_has_people(moments) & (moments.difference > _limit_t(moments, levels) * moments.error))


def take_back_by_sequence(traffic: Traffic) -> int | None:
    """Return the first day on which an asymptotic confidence sequence of people's means lies above 0.

    Waudby-Smith et al. 2021 (arXiv 2103.06476), one-sided, with the harmonic number of people for the sample size.
    """
    moments = traffic.moments
    size = moments.current * moments.predecessor / np.maximum(moments.current + moments.predecessor, 1)
    scaled = np.maximum(size, 1e-9) * 10 / 50
    width = np.sqrt(2 * (scaled + 1) / scaled * np.log1p(np.sqrt(scaled + 1) / (2 * ALPHA)))
    return _find_first(_has_people(moments) & (moments.difference > width * moments.error))


def _take_back_by_bound(traffic: Traffic, levels: dict[int, float]) -> int | None:
    moments = traffic.moments
    for day, level in levels.items():
        place = day - 1
        has_people = moments.current[place] > 0 and moments.predecessor[place] > 0
        if has_people and moments.difference[place] > _WORTH_A_BOUND * moments.error[place]:
            current, predecessor = traffic.arms(day)
            if compute_p_value(current.means, predecessor.means) < level:
                return day
    return None


def _plan_looks() -> dict[int, float]:
    looks = {look.day: look for day in range(1, DAYS + 1) if (look := find_look(day)) is not None}
    return {day: look.spend(ALPHA) for day, look in looks.items()}


def take_back_daily(traffic: Traffic) -> int | None:
    """Return the first day on which the shipped bound at α / (k (k + 1)), each day a look, lies above 0."""
    return _take_back_by_bound(traffic, {day: ALPHA / (day * (day + 1)) for day in range(1, DAYS + 1)})


def take_back_shipped(traffic: Traffic) -> int | None:
    """Return the day on which the shipped watch takes the current model back."""
    return _take_back_by_bound(traffic, _plan_looks())


SHIPPED = "melded Gaffke, spent (shipped)"
PEER = "t of interactions, daily"
TESTS: dict[str, Callable[[Traffic], int | None]] = {
    PEER: take_back_by_interactions,
    "t of people, daily": take_back_by_people,
    "t of people, spent": take_back_by_spent_t,
    "asymptotic sequence": take_back_by_sequence,
    "melded Gaffke, every day": take_back_daily,
    SHIPPED: take_back_shipped,
}


def measure_errors(replications: int) -> dict[tuple[str, int, float], dict[str, Counted]]:
    """Count the equal models taken back within 90 days: by shape, people, share and test."""
    found = {}
    for shape in SHAPES:
        for people in PEOPLE:
            for share in SPLITS:
                random = np.random.default_rng([people, int(share * 100)])
                taken = dict.fromkeys(TESTS, 0)
                for _ in range(replications):
                    traffic = draw_traffic(shape, people, share, 0.0, random)
                    for name, test in TESTS.items():
                        taken[name] += test(traffic) is not None
                found[shape, people, share] = {name: Counted(count, replications) for name, count in taken.items()}
    return found


def find_worst(found: dict[tuple[str, int, float], dict[str, Counted]], shape: str, people: int, test: str) -> Counted:
    """Find the split of people at which a test takes most equal models back."""
    of_split = (each[test] for (named, number, _), each in found.items() if (named, number) == (shape, people))
    return max(of_split, key=lambda counted: counted.count)


def print_errors(found: dict[tuple[str, int, float], dict[str, Counted]]) -> None:
    """Print one line per test, its largest share of equal models taken back, then the shipped test's intervals."""
    header = [f"{shape} {people}" for shape in SHAPES for people in PEOPLE]
    print(f"| equal models taken back, the worst of 5, 50 and 95 % | {' | '.join(header)} |")
    print("|---" * (len(header) + 1) + "|")
    for name in TESTS:
        cells = [find_worst(found, shape, people, name).share for shape in SHAPES for people in PEOPLE]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |", flush=True)
    print(
        "\n| shipped | " + " | ".join(f"{people} people, {share:.0%}" for people in PEOPLE for share in SPLITS) + " |"
    )
    print("|---" * (len(PEOPLE) * len(SPLITS) + 1) + "|")
    for shape in SHAPES:
        shown = [found[shape, people, share][SHIPPED].describe() for people in PEOPLE for share in SPLITS]
        print(f"| {shape} | {' | '.join(shown)} |", flush=True)
    (shape, people, share), worst = max(found.items(), key=lambda item: item[1][SHIPPED].count)
    print(
        f"\nworst case, shipped: {worst[SHIPPED].describe()}, {shape}, {people} people, {share:.0%} on the newer model"
    )


@dataclass(frozen=True)
class Power:
    """One cell: by replication the day of the verdict (inf: none within 90), and interactions until then."""

    days: Floats
    interactions: Floats
    suffered: Floats
    """Interactions that the current model served until then."""

    def describe(self) -> str:
        """Write the share of decided replications and the medians over all of them."""
        share = float(np.isfinite(self.days).mean())
        middle = float(np.median(self.days))
        if not math.isfinite(middle):
            return f"{share:.0%}: > {DAYS} d"
        return f"{share:.0%}: {middle:.0f} d, {np.median(self.interactions):,.0f} ({np.median(self.suffered):,.0f})"


def collect_power(
    shape: str, people: int, share: float, harm: float, replications: int, test: Callable[[Traffic], int | None]
) -> Power:
    """Collect the days and interactions until a verdict."""
    random = np.random.default_rng([people, int(share * 100), int(harm * 1000)])
    days, interactions, suffered = [], [], []
    for _ in range(replications):
        traffic = draw_traffic(shape, people, share, harm, random)
        day = test(traffic)
        days.append(math.inf if day is None else float(day))
        last = DAYS if day is None else day
        interactions.append(float(traffic.served[:, last - 1].sum()))
        suffered.append(float(traffic.served[traffic.is_current, last - 1].sum()))
    return Power(np.array(days), np.array(interactions), np.array(suffered))


def go_on_shipped(traffic: Traffic) -> int | None:
    """Return the day on which the shipped watch lets the current model serve more people."""
    moments = traffic.moments
    for day, level in _plan_looks().items():
        room = MARGIN - moments.difference[day - 1]
        has_people = moments.current[day - 1] > 0 and moments.predecessor[day - 1] > 0
        if has_people and room > _WORTH_A_BOUND * moments.error[day - 1]:
            current, predecessor = traffic.arms(day)
            if compute_p_value(predecessor.means, current.means, difference=-MARGIN) < level:
                return day
    return None


def measure_power(replications: int) -> dict[tuple[str, int, float, float], Power]:
    """Print and return how soon a worse model is taken back, and an equal one goes on."""
    found = {}
    header = " | ".join(f"{people} people, {share:.0%}" for people in PEOPLE for share in SHARES)
    print(f"\n| taken back within {DAYS} days: median day, interactions (of the current model) | {header} |")
    print("|---" * (len(PEOPLE) * len(SHARES) + 1) + "|")
    for shape in ("alike", "prolific"):
        for harm in HARMS:
            cells = []
            for people in PEOPLE:
                for share in SHARES:
                    power = collect_power(shape, people, share, harm, replications, take_back_shipped)
                    found[shape, people, share, harm] = power
                    cells.append(power.describe())
            print(f"| {shape}, +{harm} | {' | '.join(cells)} |", flush=True)
        for true in (0.0, MARGIN):
            cells = [
                collect_power(shape, people, share, true, replications, go_on_shipped).describe()
                for people in PEOPLE
                for share in SHARES
            ]
            print(f"| {shape}, +{true}: goes on (margin {MARGIN}) | {' | '.join(cells)} |", flush=True)
    return found


def plot_watch(
    errors: dict[tuple[str, int, float], dict[str, Counted]],
    power: dict[tuple[str, int, float, float], Power],
    path: Path,
) -> None:
    """Draw false take-backs by test, and the share of worse models taken back by day, apart without colours, too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    forms = zip(TESTS, "sDv^x", ("#888888", "#888888", "#555555", "#555555", "#222222"), strict=False)
    cells = [(shape, people) for shape in SHAPES for people in PEOPLE]
    for name, form, grey in forms:
        worst = [find_worst(errors, shape, people, name).share for shape, people in cells]
        left.plot(range(len(cells)), worst, form, color=grey, label=name, markersize=4, fillstyle="none")
    shipped = [find_worst(errors, shape, people, SHIPPED) for shape, people in cells]
    reach = [[each.share - each.low for each in shipped], [each.high - each.share for each in shipped]]
    shares = [each.share for each in shipped]
    left.errorbar(range(len(cells)), shares, reach, fmt="o", color="#0072B2", label=SHIPPED, markersize=5, linewidth=1)
    left.axhline(ALPHA, color="#000000", linewidth=0.8, linestyle="--")
    left.annotate(f"{ALPHA:g}", (len(cells) - 0.6, ALPHA), fontsize=7, va="bottom")
    left.set_xticks([2 * number + 0.5 for number in range(len(SHAPES))], SHAPES, fontsize=6)
    left.set_xlabel(f"for each shape first {PEOPLE[0]:,}, then {PEOPLE[1]:,} people; the worst split", fontsize=8)
    left.set_ylabel("equal models taken back in 90 days", fontsize=8)
    left.legend(frameon=False, fontsize=7, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    for share, style in zip(SHARES, (":", "--", "-"), strict=True):
        for harm, form in zip(HARMS, "o^s", strict=True):
            days = np.sort(power["prolific", PEOPLE[-1], share, harm].days)
            shown = [float((days <= day).mean()) for day in range(1, DAYS + 1)]
            colour = ("#56B4E9", "#0072B2", "#222222")[HARMS.index(harm)]
            right.step(range(1, DAYS + 1), shown, style, color=colour, where="post", linewidth=1)
            right.plot(
                [1, 3, 10, 30, 90], [shown[day - 1] for day in (1, 3, 10, 30, 90)], form, color=colour, markersize=5
            )
            right.plot(
                [], [], style, marker=form, color=colour, markersize=5, label=f"+{harm} at {share:.0%}", linewidth=1
            )
    right.set_xscale("log")
    right.set_xticks([1, 3, 10, 30, 90], ["1", "3", "10", "30", "90"])
    right.set_xlabel(f"days; {PEOPLE[-1]:,} people, one interaction a day, prolific", fontsize=8)
    right.set_ylabel("worse models taken back", fontsize=8)
    right.legend(frameon=False, fontsize=7, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables, and draw the plot if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=400)
    parser.add_argument("--only", choices=["errors", "power"])
    parser.add_argument("--plot", type=Path, help="a PNG of errors and power; not with --only")
    options = parser.parse_args()
    if options.plot and options.only:
        parser.error("--plot shows errors and power: leave --only out")
    errors, power = {}, {}
    if options.only in (None, "errors"):
        errors = measure_errors(options.replications)
        print_errors(errors)
    if options.only in (None, "power"):
        power = measure_power(options.replications)
    if options.plot:
        plot_watch(errors, power, options.plot)


if __name__ == "__main__":
    main()
