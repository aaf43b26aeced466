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
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats  # noqa: TID253  (a benchmark is started on its own)

from benchmarks.shares import Counted
from flywheel_assets.measures.texts import Interval, SubjectMeans
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
Passed = npt.NDArray[np.bool_]

SUBJECTS = (20, 50, 200)
SHAPES = ("symmetric", "rare gains", "rare losses", "noisy rare losses")
SIZES = ("equal", "geometric", "pareto")
GAINS = (0.0, 0.01, 0.02, 0.05)
ALPHA = 0.025
_DRAWS = 500
_RESAMPLED = 0x5EED
_CHI_SQUARE = float(stats.chi2.ppf(1 - 2 * ALPHA, 1))


@dataclass(frozen=True)
class Drawn:
    """The differences of decisions (rows) by subject (columns), incumbent − challenger; positive is better."""

    sums: Floats
    counts: Floats

    @property
    def means(self) -> Floats:
        """The mean of each subject's rows."""
        return self.sums / self.counts


def draw_decisions(
    shape: str, sizes: str, subjects: int, gain: float, replications: int, random: np.random.Generator
) -> Drawn:
    """Draw the rows of decisions whose expected mean per subject is `gain`."""
    sums, counts = np.empty((replications, subjects)), np.empty((replications, subjects))
    for place in range(replications):
        if sizes == "equal":
            of_each = np.full(subjects, 3)
        elif sizes == "geometric":
            of_each = random.geometric(0.35, subjects)
        else:
            of_each = np.minimum(100, np.maximum(1, (random.pareto(1.2, subjects) * 1.5 + 1).astype(int)))
        member = np.repeat(np.arange(subjects), of_each)
        if shape == "symmetric":
            noise = random.normal(0, 0.08, subjects)[member] + random.normal(0, 0.25, len(member))
            values = np.where(random.random(len(member)) < 0.5, 0.0, noise)
        else:
            values = np.where(random.random(subjects) < 0.05, 0.8, -0.8 * 0.05 / 0.95)[member]
            values = values if shape == "rare gains" else -values
            if shape == "noisy rare losses":
                values = values + random.normal(0, 0.02, subjects)[member]
        sums[place] = np.bincount(member, weights=np.clip(values + gain, -1, 1))
        counts[place] = of_each
    return Drawn(sums, counts)


# Seeds are fixed, as the product's is: equal weights and resamples serve all decisions of a cell.
@cache
def _draw_resamples(subjects: int) -> Floats:
    """Draw how often each subject (column) is in each resample (row)."""
    drawn = np.random.default_rng(_RESAMPLED).integers(0, subjects, (_DRAWS, subjects))
    return np.stack([np.bincount(row, minlength=subjects) for row in drawn]).astype(np.float64)


def _resample(values: Floats) -> Floats:
    """Compute the mean of each resample (row) of each decision (column)."""
    found: Floats = _draw_resamples(values.shape[1]) @ values.T / values.shape[1]
    return found


def _pass_before(drawn: Drawn) -> Passed:
    resamples = _draw_resamples(drawn.sums.shape[1])
    ratios = (resamples @ drawn.sums.T) / (resamples @ drawn.counts.T)
    return np.quantile(ratios, ALPHA, axis=0) > 0


def _pass_percentile(means: Floats) -> Passed:
    return np.quantile(_resample(means), ALPHA, axis=0) > 0


def _pass_studentized(means: Floats) -> Passed:
    # Efron 1979, Hall 1988. Resamples without a spread have no t; they count as the largest.
    again, count = _resample(means), means.shape[1]
    spread = np.sqrt(np.maximum(0.0, _resample(means**2) - again**2) * count / (count - 1))
    has_spread = spread > 1e-9
    pivots = np.where(has_spread, (again - means.mean(axis=1)) / np.where(has_spread, spread, 1), np.inf)
    largest = np.quantile(pivots, 1 - ALPHA, axis=0, method="higher")
    with np.errstate(invalid="ignore"):
        low = means.mean(axis=1) - largest * means.std(axis=1, ddof=1)
    return np.isfinite(largest) & (low > 0)


def _pass_bca(means: Floats) -> Passed:
    # Efron 1987.
    again, centre = _resample(means), means.mean(axis=1)
    share = np.clip((again < centre).mean(axis=0), 1 / _DRAWS, 1 - 1 / _DRAWS)
    centred = means - centre[:, None]
    spread = (centred**2).sum(axis=1)
    skew = np.where(spread > 0, (centred**3).sum(axis=1) / (6 * np.where(spread > 0, spread, 1) ** 1.5), 0.0)
    shift, tail = stats.norm.ppf(share), stats.norm.ppf(ALPHA)
    levels = stats.norm.cdf(shift + (shift + tail) / (1 - skew * (shift + tail)))
    return np.array([np.quantile(again[:, place], level) > 0 for place, level in enumerate(levels)])


def _pass_t(means: Floats) -> Passed:
    count = means.shape[1]
    passed: Passed = means.mean(axis=1) > stats.t.ppf(1 - ALPHA, count - 1) * means.std(axis=1, ddof=1) / np.sqrt(count)
    return passed


def _pass_johnson(means: Floats) -> Passed:
    # Johnson 1978, (2.6).
    centre, variance, count = means.mean(axis=1), means.var(axis=1, ddof=1), means.shape[1]
    safe = np.where(variance > 0, variance, 1)
    third = ((means - centre[:, None]) ** 3).mean(axis=1)
    corrected = centre + third / (6 * safe * count) + third * centre**2 / (3 * safe**2)
    return np.where(variance > 0, corrected * np.sqrt(count / safe) > stats.t.ppf(1 - ALPHA, count - 1), centre > 0)


def _pass_hall(means: Floats) -> Passed:
    # Hall 1992, with resampled quantiles.
    count = means.shape[1]

    def transform(first: Floats, second: Floats, third: Floats, centre: Floats) -> Floats:
        spread = np.sqrt(np.maximum(0.0, second - first**2))
        safe = np.where(spread > 1e-9, spread, 1)
        skew = (third - 3 * first * second + 2 * first**3) / safe**3
        w = (first - centre) / safe
        found = w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * count)
        return np.where(spread > 1e-9, found, np.inf * np.sign(first - centre + 1e-12))

    centre = means.mean(axis=1)
    again = transform(_resample(means), _resample(means**2), _resample(means**3), centre)
    limit = np.quantile(again, 1 - ALPHA, axis=0, method="higher")
    own = transform(centre, (means**2).mean(axis=1), (means**3).mean(axis=1), np.zeros_like(centre))
    return own > limit


def _pass_empirical_likelihood(means: Floats) -> Passed:
    # Owen 1988: −2 log of the ratio at a mean of 0 is χ² with one degree of freedom.
    least = means.min(axis=1)
    low, high = np.zeros(len(means)), -1 / np.minimum(least, -1e-12) * (1 - 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        is_above = (means / (1 + middle[:, None] * means)).sum(axis=1) > 0
        low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
    ratio = 2 * np.log1p(low[:, None] * means).sum(axis=1)
    return np.where(least >= 0, means.mean(axis=1) > 0, (means.mean(axis=1) > 0) & (ratio > _CHI_SQUARE))


def _pass_bernstein(means: Floats) -> Passed:
    # Maurer and Pontil 2009, theorem 4; the range of a difference is 2.
    count, log = means.shape[1], np.log(2 / ALPHA)
    width = np.sqrt(2 * means.var(axis=1, ddof=1) * log / count) + 2 * 7 * log / (3 * (count - 1))
    passed: Passed = means.mean(axis=1) > width
    return passed


def _pass_betting(means: Floats) -> Passed:
    # Waudby-Smith and Ramdas 2023 with a mixture of bets (Orabona and Jun 2021): no order of the subjects matters.
    bets = np.linspace(0.005, 0.995, 100)
    prior = stats.beta.pdf(bets, 0.5, 0.5)
    wealth = np.stack([np.log1p(bet * means).sum(axis=1) for bet in bets])
    mixed = (np.exp(np.minimum(wealth, 600)) * prior[:, None]).sum(axis=0) / prior.sum()
    return np.log(mixed) > np.log(1 / ALPHA)


def find_passing(means: Floats, floor: float, level: float, draws: int) -> Passed:
    """Find the decisions whose `bound_mean_below` exceeds `floor`, with the product's weights drawn once for all."""
    weights = np.random.default_rng(0).standard_exponential((draws, means.shape[1] + 1))
    weights /= weights.sum(axis=1, keepdims=True)
    ordered = np.concatenate([np.full((len(means), 1), -1.0), np.sort(means, axis=1)], axis=1)
    # The bound is a quantile: it exceeds the floor where few enough of the random means do not.
    below: Passed = (weights @ ordered.T <= floor).sum(axis=0) <= math.floor(level * (draws - 1))
    return below


def _pass_shipped(means: Floats) -> Passed:
    return find_passing(means, 0.0, ALPHA, 2 * _DRAWS)


SHIPPED = "Gaffke (shipped)"
TESTS: dict[str, Callable[[Floats], Passed]] = {
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
    cells = {}
    for shape in SHAPES:
        for sizes in SIZES:
            for subjects in SUBJECTS:
                for gain in GAINS if sizes == "geometric" else GAINS[:1]:
                    random = np.random.default_rng([subjects, int(gain * 1000)])
                    drawn = draw_decisions(shape, sizes, subjects, gain, replications, random)
                    passed = {BEFORE: _pass_before(drawn)} | {name: test(drawn.means) for name, test in TESTS.items()}
                    counted = {name: Counted(int(found.sum()), replications) for name, found in passed.items()}
                    cells[shape, sizes, subjects, gain] = counted
    return cells


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


def draw_wins(wins: float, subjects: int, replications: int, random: np.random.Generator) -> Floats:
    """Draw the wins less losses of each subject (column) of decisions, whose expectation is `wins` on average."""
    found = np.empty((replications, subjects))
    for place in range(replications):
        counts = random.geometric(0.35, subjects)
        member = np.repeat(np.arange(subjects), counts)
        level = np.clip(wins + random.normal(0, 0.15, subjects), -0.5, 0.5)[member]
        decided = random.random(len(member)) < 0.5
        # Half of the rows are decided, so their expectation is twice that of all rows.
        values = np.where(decided, np.where(random.random(len(member)) < 0.5 + level, 1.0, -1.0), 0.0)
        found[place] = np.bincount(member, weights=values) / counts
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
                drawn = draw_wins(true, subjects, replications, random)
                by_level: dict[float, list[int]] = {}
                for place, before in enumerate(promoted):
                    by_level.setdefault(level_of(before), []).append(place)
                for level, places in by_level.items():
                    passed = find_passing(drawn[places], 0.0, level, max(2 * _DRAWS, int(20 / level)))
                    for place, is_proven in zip(places, passed, strict=True):
                        promoted[place].append(bool(is_proven))
            wrong = [sum(was and true == 0 for was, true in zip(of, wins, strict=True)) for of in promoted]
            proven = sum(was and true > 0 for of in promoted for was, true in zip(of, wins, strict=True))
            gains = Counted(proven, sum(true > 0 for true in wins) * replications) if any(wins) else None
            any_false = Counted(sum(each > 0 for each in wrong), replications).describe()
            shown = "–" if gains is None else f"{gains.share:.2f}"
            print(f"| {stream}: {name} | {any_false} | {sum(wrong) / replications:.3f} | {shown} |", flush=True)


def decide_wins(means: Floats) -> Decision:
    """Apply the shipped limits to one challenger whose other measurements are in order; the champion is the anchor."""
    wins = SubjectMeans(tuple(np.sort(means).tolist()), len(means))
    evidence = Evidence(
        incumbent=CHAMPION,
        ned_gain=Interval(None, None, None, 0, 0),
        likelihood=Measured(gain=wins, lost=SubjectMeans((0.0,) * len(means), len(means))),
        anchor="anchor",
        anchor_likelihood_gain=wins,
        missing_end=0.0,
        incumbent_missing_end=0.0,
        challenger_ned=0.0,
        sft_ned=0.0,
        canary_ratio=0.0,
    )
    return decide(evidence, PromotionLimits())


def measure_routes(replications: int) -> dict[tuple[int, float], dict[str, Counted]]:
    """Count the promotions by each route, by subjects and true wins; the champion is the anchor.

    The shipped decision is made for the first decision of each cell, and must be the same.
    """
    limits = PromotionLimits()
    level, margin = spend_alpha(limits.alpha, 1), limits.newer_data_margin or 0.0
    found = {}
    for subjects in SUBJECTS:
        for wins in (-0.2, -0.1, -0.05, 0.0, 0.1, 0.2, 0.35):
            random = np.random.default_rng([subjects, int(100 * wins + 100)])
            means = draw_wins(wins, subjects, replications, random)
            proven, as_good = (find_passing(means, floor, level, 20_000) for floor in (0.0, -margin))
            expected = Route.PROVEN_GAIN if proven[0] else Route.NEWER_DATA if as_good[0] else None
            assert decide_wins(means[0]).route == expected, (subjects, wins)
            counts = {Route.PROVEN_GAIN: proven.sum(), Route.NEWER_DATA: (as_good & ~proven).sum()}
            found[subjects, wins] = {route.value: Counted(int(count), replications) for route, count in counts.items()}
    return found


def measure_slips(replications: int, subjects: int = 200) -> None:
    """Print where ten challengers lead, each of them .05 worse than the champion that it met."""
    limits = PromotionLimits()
    newer, margin = spend_alpha(limits.alpha, 1), limits.newer_data_margin or 0.0
    print(f"\n| ten challengers, each .05 worse than its champion, {subjects} subjects | promotions | last champion |")
    print("|---|---|---|")
    for name in ("with the anchor (shipped)", "against the champion alone"):
        random = np.random.default_rng(3)
        fallen, looks, promotions = np.zeros(replications, dtype=int), np.ones(replications, dtype=int), 0
        for _ in range(10):
            champion = draw_wins(-0.05, subjects, replications, random)
            as_good = find_passing(champion, -margin, newer, 2 * _DRAWS)
            proven = np.zeros(replications, dtype=bool)
            for look in np.unique(looks):
                level, places = spend_alpha(limits.alpha, int(look)), looks == look
                proven[places] = find_passing(champion[places], 0.0, level, max(2 * _DRAWS, int(20 / level)))
            if "with" in name:
                # The anchor is better than the champion by all that was lost since it was promoted.
                for lost in np.unique(fallen):
                    places = fallen == lost
                    anchor = draw_wins(-0.05 * (lost + 1), subjects, int(places.sum()), random)
                    as_good[places] &= find_passing(anchor, -margin, newer, 2 * _DRAWS)
            promoted = proven | as_good
            looks = np.where(proven, 1, looks + 1)
            fallen, promotions = fallen + promoted, promotions + int(promoted.sum())
        print(f"| {name} | {promotions / replications:.2f} | {-0.05 * fallen.mean():+.3f} |", flush=True)


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
    # The name of a shape stands under its middle number of subjects.
    named = [f"{n}\n{shape if n == SUBJECTS[1] else ''}" for shape, n in cells]
    left.set_xticks(range(len(cells)), named)
    left.set_xlabel("subjects; the worst numbers of rows", fontsize=8)
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
        measure_slips(options.replications)
    if options.only in (None, "bounds"):
        bounds = measure_bounds(options.replications)
        print_bounds(bounds)
    if options.plot:
        plot_gate(bounds, routes, options.plot)


if __name__ == "__main__":
    main()
