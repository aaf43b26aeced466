"""Error rates of the promotion gate for texts: how often it promotes a model without gain, and one with a gain.

Claim: with the shipped bound a challenger without gain is promoted in at most 5 % of decisions in every scenario, also
where few people lose much, and in at most 5 % of sequences of ten turns without any gain (a proven one renews α).
Data: generated differences in [−1, 1] of 20, 50 and 200 held-out subjects; no model is trained. Three numbers of rows a
subject (3; geometric with mean 2.9; Pareto capped at 100) and four shapes: symmetric (half of the rows equal under both
models), rare gains (5 % of people gain .8, the others lose .042), rare losses (the reverse), and rare losses where the
others differ a little (σ .02 a person). Turns and routes draw wins (+1) and losses (−1) of the likelihood row by row,
half of the rows equal, 50 and 200 subjects, geometric numbers of rows.
Peers: the bound of before (bootstrap of rows clustered by subject, percentiles) and nine others of the literature; for
the turns the same level every time, and LORD (Javanmard and Montanari 2018; Ramdas et al. 2017, "LORD++").
Claim of the turns and routes: a challenger worse by the margin passes in at most 5 %, and ten of them cannot lead far.
Command: python -m benchmarks.text_gate [--replications 400] [--only bounds|turns|routes] [--plot docs/text_gate.png]
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats  # noqa: TID253  (a benchmark is started on its own)

from benchmarks.shares import Counted
from flywheel_assets.measures.texts import (
    Interval,
    SubjectMeans,
    average_by_subject,
    bootstrap_clustered_mean,
    bound_mean_below,
)
from flywheel_assets.promotion.text_limits import (
    CHAMPION,
    Decision,
    Evidence,
    Measured,
    PromotionLimits,
    Route,
    decide,
    spend_alpha,
)

Floats = npt.NDArray[np.float64]

SUBJECTS = (20, 50, 200)
SHAPES = ("symmetric", "rare gains", "rare losses", "noisy rare losses")
SIZES = ("equal", "geometric", "pareto")
GAINS = (0.0, 0.01, 0.02, 0.05)
ALPHA = 0.025
_DRAWS = 500
_RESAMPLED = 0x5EED


@dataclass(frozen=True)
class Rows:
    """The differences of one decision, incumbent − challenger; positive is better."""

    values: Floats
    subjects: list[str]


def draw_rows(shape: str, sizes: str, subjects: int, gain: float, random: np.random.Generator) -> Rows:
    """Draw the rows of one decision whose expected mean per subject is `gain`."""
    if sizes == "equal":
        counts = np.full(subjects, 3)
    elif sizes == "geometric":
        counts = random.geometric(0.35, subjects)
    else:
        counts = np.minimum(100, np.maximum(1, (random.pareto(1.2, subjects) * 1.5 + 1).astype(int)))
    member = np.repeat(np.arange(subjects), counts)
    if shape == "symmetric":
        noise = random.normal(0, 0.08, subjects)[member] + random.normal(0, 0.25, len(member))
        values = np.where(random.random(len(member)) < 0.5, 0.0, noise)
    else:
        values = np.where(random.random(subjects) < 0.05, 0.8, -0.8 * 0.05 / 0.95)[member]
        values = values if shape == "rare gains" else -values
        if shape == "noisy rare losses":
            values = values + random.normal(0, 0.02, subjects)[member]
    return Rows(np.clip(values + gain, -1, 1), member.astype(str).tolist())


def _pass_before(rows: Rows) -> bool:
    return (bootstrap_clustered_mean(rows.values, rows.subjects, draws=_DRAWS).low or 0.0) > 0


def _draw_resamples(means: Floats) -> Floats:
    random = np.random.default_rng(_RESAMPLED)
    return means[random.integers(0, len(means), (_DRAWS, len(means)))]


def _pass_percentile(means: Floats) -> bool:
    return bool(np.quantile(_draw_resamples(means).mean(axis=1), ALPHA) > 0)


def _pass_studentized(means: Floats) -> bool:
    # Efron 1979, Hall 1988. Resamples without a spread have no t; they count as the largest.
    again = _draw_resamples(means)
    spread = again.std(axis=1, ddof=1)
    pivots = np.where(spread > 0, (again.mean(axis=1) - means.mean()) / np.where(spread > 0, spread, 1), np.inf)
    largest = float(np.quantile(pivots, 1 - ALPHA, method="higher"))
    return math.isfinite(largest) and bool(means.mean() - largest * means.std(ddof=1) > 0)


def _pass_bca(means: Floats) -> bool:
    # Efron 1987.
    again = _draw_resamples(means).mean(axis=1)
    share = np.clip((again < means.mean()).mean(), 1 / _DRAWS, 1 - 1 / _DRAWS)
    centred = means - means.mean()
    spread = (centred**2).sum()
    skew = 0.0 if spread == 0 else (centred**3).sum() / (6 * spread**1.5)
    shift, tail = stats.norm.ppf(share), stats.norm.ppf(ALPHA)
    level = stats.norm.cdf(shift + (shift + tail) / (1 - skew * (shift + tail)))
    return bool(np.quantile(again, level) > 0)


def _pass_t(means: Floats) -> bool:
    return bool(means.mean() > stats.t.ppf(1 - ALPHA, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))


def _pass_johnson(means: Floats) -> bool:
    # Johnson 1978, (2.6).
    variance, count = means.var(ddof=1), len(means)
    if variance == 0:
        return bool(means.mean() > 0)
    third = ((means - means.mean()) ** 3).mean()
    corrected = means.mean() + third / (6 * variance * count) + third * means.mean() ** 2 / (3 * variance**2)
    return bool(corrected * np.sqrt(count / variance) > stats.t.ppf(1 - ALPHA, count - 1))


def _pass_hall(means: Floats) -> bool:
    # Hall 1992, with resampled quantiles.
    def transform(sample: Floats, centre: float) -> Floats:
        spread = sample.std(axis=-1)
        safe = np.where(spread > 0, spread, 1)
        skew = ((sample - sample.mean(axis=-1, keepdims=True)) ** 3).mean(axis=-1) / safe**3
        w = (sample.mean(axis=-1) - centre) / safe
        found = w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * sample.shape[-1])
        return np.where(spread > 0, found, np.inf * np.sign(sample.mean(axis=-1) - centre + 1e-12))

    limit = np.quantile(transform(_draw_resamples(means), float(means.mean())), 1 - ALPHA, method="higher")
    return bool(transform(means[None, :], 0.0)[0] > limit)


def _pass_empirical_likelihood(means: Floats) -> bool:
    # Owen 1988: −2 log of the ratio at a mean of 0 is χ² with one degree of freedom.
    if means.mean() <= 0:
        return False
    if means.min() >= 0:
        return True
    low, high = 0.0, -1 / means.min() * (1 - 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        if (means / (1 + middle * means)).sum() > 0:
            low = middle
        else:
            high = middle
    return bool(2 * np.log1p(low * means).sum() > stats.chi2.ppf(1 - 2 * ALPHA, 1))


def _pass_bernstein(means: Floats) -> bool:
    # Maurer and Pontil 2009, theorem 4; the range of a difference is 2.
    count, log = len(means), np.log(2 / ALPHA)
    return bool(means.mean() > np.sqrt(2 * means.var(ddof=1) * log / count) + 2 * 7 * log / (3 * (count - 1)))


def _pass_betting(means: Floats) -> bool:
    # Waudby-Smith and Ramdas 2023 with a mixture of bets (Orabona and Jun 2021): no order of the subjects matters.
    bets = np.linspace(0.005, 0.995, 100)
    prior = stats.beta.pdf(bets, 0.5, 0.5)
    wealth = np.log1p(bets[:, None] * means[None, :]).sum(axis=1)
    return bool(np.log((np.exp(np.minimum(wealth, 600)) * prior).sum() / prior.sum()) > np.log(1 / ALPHA))


def _pass_shipped(means: Floats) -> bool:
    return bound_mean_below(means, least=-1, alpha=ALPHA, draws=2 * _DRAWS) > 0


SHIPPED = "Gaffke (shipped)"
TESTS: dict[str, Callable[[Floats], bool]] = {
    "percentiles": _pass_percentile,
    "t": _pass_t,
    "studentized": _pass_studentized,
    "BCa": _pass_bca,
    "Johnson's t": _pass_johnson,
    "Hall": _pass_hall,
    "empirical likelihood": _pass_empirical_likelihood,
    "empirical Bernstein": _pass_bernstein,
    "betting": _pass_betting,
    SHIPPED: _pass_shipped,
}
BEFORE = "rows, percentiles (before)"


Bounds = dict[tuple[str, str, int, float], dict[str, Counted]]
"""Decisions with a lower bound above 0, by shape, sizes, subjects, true gain and test."""


def measure_bounds(replications: int) -> Bounds:
    """Count the decisions with a lower bound above 0."""
    found = {}
    for shape in SHAPES:
        for sizes in SIZES:
            for subjects in SUBJECTS:
                for gain in GAINS if sizes == "geometric" else GAINS[:1]:
                    random = np.random.default_rng([subjects, int(gain * 1000)])
                    passed = dict.fromkeys([BEFORE, *TESTS], 0)
                    for _ in range(replications):
                        rows = draw_rows(shape, sizes, subjects, gain, random)
                        by_subject = average_by_subject(rows.values, rows.subjects)
                        assert by_subject is not None
                        means = np.asarray(by_subject.values)
                        passed[BEFORE] += _pass_before(rows)
                        for name, test in TESTS.items():
                            passed[name] += test(means)
                    counted = {name: Counted(count, replications) for name, count in passed.items()}
                    found[shape, sizes, subjects, gain] = counted
    return found


def find_worst(found: Bounds, shape: str, subjects: int, test: str) -> Counted:
    """Find the numbers of rows at which a test is wrong most often."""
    return max((found[shape, sizes, subjects, 0.0][test] for sizes in SIZES), key=lambda counted: counted.count)


def print_bounds(found: Bounds) -> None:
    """Print one line per test, its largest type I error and its power, then every scenario of the shipped one."""
    header = [f"{shape} {n}" for shape in SHAPES for n in SUBJECTS]
    print(f"| without gain, the worst of {len(SIZES)} sizes | {' | '.join(header)} |")
    print("|---" * (len(header) + 1) + "|")
    for name in [BEFORE, *TESTS]:
        cells = [find_worst(found, shape, n, name).share for shape in SHAPES for n in SUBJECTS]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |", flush=True)
    print("\n| shipped, without gain | " + " | ".join(f"{sizes} {n}" for sizes in SIZES for n in SUBJECTS) + " |")
    print("|---" * (len(SIZES) * len(SUBJECTS) + 1) + "|")
    for shape in SHAPES:
        shown = [found[shape, sizes, n, 0.0][SHIPPED].describe() for sizes in SIZES for n in SUBJECTS]
        print(f"| {shape} | {' | '.join(shown)} |", flush=True)
    without = {cell: counted[SHIPPED] for cell, counted in found.items() if cell[3] == 0}
    (shape, sizes, n, _), worst = max(without.items(), key=lambda item: item[1].count)
    print(f"\nworst case, shipped: {worst.describe()}, {shape}, {sizes} numbers of rows, {n} subjects", flush=True)
    for shape in SHAPES:
        header = [f"{gain} at {n}" for n in SUBJECTS for gain in GAINS[1:]]
        print(f"\n| power, geometric sizes, {shape} | {' | '.join(header)} |")
        print("|---" * (len(header) + 1) + "|")
        for name in [BEFORE, *TESTS]:
            cells = [found[shape, "geometric", n, gain][name].share for n in SUBJECTS for gain in GAINS[1:]]
            print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def draw_wins(wins: float, subjects: int, random: np.random.Generator) -> SubjectMeans:
    """Draw the wins less losses of one decision, whose expectation for each subject is `wins` on average."""
    counts = random.geometric(0.35, subjects)
    member = np.repeat(np.arange(subjects), counts)
    level = np.clip(wins + random.normal(0, 0.15, subjects), -0.5, 0.5)[member]
    decided = random.random(len(member)) < 0.5
    # Half of the rows are decided, so their expectation is twice that of all rows.
    values = np.where(decided, np.where(random.random(len(member)) < 0.5 + level, 1.0, -1.0), 0.0)
    found = average_by_subject(values, member.astype(str).tolist())
    assert found is not None
    return found


def _level_always(promoted: list[bool]) -> float:
    return 0.025


def _level_spent(promoted: list[bool]) -> float:
    since = promoted[::-1].index(True) if True in promoted else len(promoted)
    return spend_alpha(0.05, since + 1)


def _level_lord(promoted: list[bool]) -> float:
    # LORD++ with α .05, first wealth .025 and the same series 1 / (j (j + 1)).
    turn = len(promoted) + 1
    found = spend_alpha(0.025, turn)
    for number, earlier in enumerate(place + 1 for place, was in enumerate(promoted) if was):
        found += spend_alpha(0.05 - 0.025 if number == 0 else 0.05, turn - earlier)
    return found


LEVELS = {"same level .025": _level_always, "spent, reset by promotion (shipped)": _level_spent, "LORD++": _level_lord}


def bound_many(means: list[SubjectMeans], level: float) -> Floats:
    """Compute `bound_mean_below` of many decisions with equal numbers of subjects, with the weights drawn once.

    The product draws the same weights for each of them, because its seed is fixed.
    """
    draws = max(2 * _DRAWS, int(20 / level))
    ordered = np.array([[-1.0, *each.values] for each in means]).T
    weights = np.random.default_rng(0).standard_exponential((draws, len(ordered)))
    weights /= weights.sum(axis=1, keepdims=True)
    found: Floats = np.quantile(weights @ ordered, level, axis=0, method="lower")
    return found


def measure_turns(replications: int, subjects: int) -> None:
    """Print how ten turns go under each way of choosing a turn's level."""
    streams = {"no gain in ten turns": [0.0] * 10, "a gain of .2 every third turn": [0.2, 0.0, 0.0] * 3 + [0.2]}
    print(f"\n| ten turns, {subjects} subjects | any without a gain | promotions without a gain | gains promoted |")
    print("|---|---|---|---|")
    for stream, wins in streams.items():
        for name, level_of in LEVELS.items():
            random = np.random.default_rng(subjects)
            promoted: list[list[bool]] = [[] for _ in range(replications)]
            for true in wins:
                drawn = [draw_wins(true, subjects, random) for _ in promoted]
                by_level: dict[float, list[int]] = {}
                for place, before in enumerate(promoted):
                    by_level.setdefault(level_of(before), []).append(place)
                for level, places in by_level.items():
                    lows = bound_many([drawn[place] for place in places], level)
                    for place, low in zip(places, lows, strict=True):
                        promoted[place].append(bool(low > 0))
            wrong = [sum(was and true == 0 for was, true in zip(of, wins, strict=True)) for of in promoted]
            proven = sum(was and true > 0 for of in promoted for was, true in zip(of, wins, strict=True))
            gains = Counted(proven, sum(true > 0 for true in wins) * replications) if any(wins) else None
            any_false = Counted(sum(each > 0 for each in wrong), replications).describe()
            shown = "–" if gains is None else f"{gains.share:.2f}"
            print(f"| {stream}: {name} | {any_false} | {sum(wrong) / replications:.3f} | {shown} |", flush=True)


def decide_wins(champion: SubjectMeans, anchor: SubjectMeans | None, look: int = 1) -> Decision:
    """Apply the shipped limits to a challenger whose other measurements are in order."""
    none_lost = SubjectMeans((0.0,) * len(champion.values), champion.rows)
    evidence = Evidence(
        incumbent=CHAMPION,
        ned_gain=Interval(None, None, None, 0, 0),
        likelihood=Measured(gain=champion, lost=none_lost),
        anchor=None if anchor is None else "anchor",
        anchor_likelihood_gain=anchor,
        missing_end=0.0,
        incumbent_missing_end=0.0,
        challenger_ned=0.0,
        sft_ned=0.0,
        canary_ratio=0.0,
    )
    return decide(evidence, PromotionLimits(), look)


def measure_routes(replications: int) -> dict[tuple[int, float], dict[str, Counted]]:
    """Count the promotions by each route, by subjects and true wins; the champion is the anchor."""
    found = {}
    for subjects in SUBJECTS:
        for wins in (-0.2, -0.1, -0.05, 0.0, 0.1, 0.2, 0.35):
            random = np.random.default_rng([subjects, int(100 * wins + 100)])
            routes: dict[str, int] = dict.fromkeys(Route, 0)
            for _ in range(replications):
                means = draw_wins(wins, subjects, random)
                if (route := decide_wins(means, means).route) is not None:
                    routes[route] += 1
            found[subjects, wins] = {route: Counted(count, replications) for route, count in routes.items()}
    return found


def measure_slips(replications: int, subjects: int = 200) -> None:
    """Print where ten challengers lead, each of them .05 worse than the champion that it met."""
    print(f"\n| ten challengers, each .05 worse than its champion, {subjects} subjects | promotions | last champion |")
    print("|---|---|---|")
    for name in ("with the anchor (shipped)", "against the champion alone"):
        random = np.random.default_rng(3)
        promotions = slipped = 0.0
        for _ in range(replications):
            quality, look = 0.0, 1
            for _ in range(10):
                champion = draw_wins(-0.05, subjects, random)
                anchor = draw_wins(quality - 0.05, subjects, random) if "with" in name else champion
                decision = decide_wins(champion, anchor, look)
                look = 1 if decision.promote else look + 1
                if decision.promote:
                    quality -= 0.05
                    promotions += 1
            slipped += quality
        print(f"| {name} | {promotions / replications:.2f} | {slipped / replications:+.3f} |", flush=True)


def plot_gate(bounds: Bounds, routes: dict[tuple[int, float], dict[str, Counted]], path: Path) -> None:
    """Draw the errors of the bounds, their power, and the promotions by route.

    Forms and line styles tell the series apart without colours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    peers = {BEFORE: "s", "BCa": "^", "studentized": "D", "betting": "x"}
    cells = [(shape, n) for shape in SHAPES for n in SUBJECTS]
    for name, form in peers.items():
        worst = [find_worst(bounds, shape, n, name).share for shape, n in cells]
        left.plot(range(len(cells)), worst, form, color="#666666", label=name, markersize=4, fillstyle="none")
    shipped = [find_worst(bounds, shape, n, SHIPPED) for shape, n in cells]
    reach = [[each.share - each.low for each in shipped], [each.high - each.share for each in shipped]]
    shares = [each.share for each in shipped]
    left.errorbar(range(len(cells)), shares, reach, fmt="o", color="#0072B2", label=SHIPPED, markersize=5, linewidth=1)
    left.axhline(0.05, color="#000000", linewidth=0.8, linestyle="--")
    left.annotate(".05", (len(cells) - 0.6, 0.05), fontsize=7, va="bottom")
    left.set_xticks(range(len(cells)), [str(n) for _, n in cells])
    left.set_xlabel("subjects: " + ", ".join(SHAPES) + "; the worst numbers of rows", fontsize=7)
    left.set_ylabel("gains that are none, proven at .025", fontsize=8)
    styles = dict(zip(SUBJECTS, ((":", "^"), ("--", "s"), ("-", "o")), strict=True))
    for subjects, (style, form) in styles.items():
        for name, grey in ((SHIPPED, "#0072B2"), ("t", "#999999")):
            found = [bounds["symmetric", "geometric", subjects, gain][name].share for gain in GAINS]
            middle.plot(GAINS, found, style, marker=form, color=grey, label=f"{name}, {subjects}", markersize=4)
        wins = sorted(true for n, true in routes if n == subjects)
        gained = [routes[subjects, true][Route.PROVEN_GAIN].share for true in wins]
        newer = [routes[subjects, true][Route.NEWER_DATA].share for true in wins]
        right.plot(wins, gained, style, marker=form, color="#0072B2", label=f"proven gain, {subjects}", markersize=4)
        either = [one + other for one, other in zip(gained, newer, strict=True)]
        right.plot(wins, either, style, color="#999999", label=f"or newer data, {subjects}", linewidth=2)
    middle.set_xlabel("true fall of distance, symmetric", fontsize=8)
    middle.set_ylabel("gains proven at .025", fontsize=8)
    right.axvline(-0.1, color="#000000", linewidth=0.8, linestyle="--")
    right.annotate("margin", (-0.1, 1.0), fontsize=7, ha="right", rotation=90, va="top")
    right.set_xlabel("true wins less losses against champion and anchor", fontsize=8)
    right.set_ylabel("promoted at the first look", fontsize=8)
    for axes in (left, middle, right):
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables, and draw the plot if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=400)
    parser.add_argument("--only", choices=["bounds", "turns", "routes"])
    parser.add_argument("--plot", type=Path, help="a PNG of bounds and routes; not with --only")
    options = parser.parse_args()
    if options.plot and options.only:
        parser.error("--plot shows bounds and routes: leave --only out")
    bounds, routes = {}, {}
    if options.only in (None, "turns"):
        for subjects in SUBJECTS[1:]:
            measure_turns(options.replications, subjects)
    if options.only in (None, "routes"):
        routes = measure_routes(options.replications)
        print("\n| true wins | " + " | ".join(f"{n}: proven gain | {n}: newer data" for n in SUBJECTS) + " |")
        print("|---" * (2 * len(SUBJECTS) + 1) + "|")
        for wins in sorted({true for _, true in routes}):
            cells = [routes[n, wins][route].describe() for n in SUBJECTS for route in Route]
            print(f"| {wins:+.2f} | {' | '.join(cells)} |", flush=True)
        measure_slips(options.replications // 4)
    if options.only in (None, "bounds"):
        bounds = measure_bounds(options.replications)
        print_bounds(bounds)
    if options.plot:
        plot_gate(bounds, routes, options.plot)


if __name__ == "__main__":
    main()
