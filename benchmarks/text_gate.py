"""Error rates of the promotion gate for texts: how often it promotes a model without gain, and one with a gain.

Claim: with the shipped bound a challenger without gain is promoted in at most 5 % of decisions in every scenario, also
where few people lose much, and in at most 5 % of sequences of ten turns.
Data: generated differences in edit distance of 20, 50 and 200 held-out subjects; no model is trained. Three numbers of
rows a subject (3; geometric with mean 2.9; Pareto capped at 100) and three shapes: symmetric (half of the rows equal
under both models), rare gains (5 % of people gain .8, the others lose .042) and rare losses (the reverse). The wins of
the likelihood are drawn a row: 35 % more likely, 15 % less, the rest equal, with a spread between people.
Peers: the bound of before (bootstrap of rows clustered by subject, percentiles) and eight others of the literature.
Command: python -m benchmarks.text_gate [--replications 600] [--only bounds turns routes] [--plot docs/text_gate.png]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # noqa: TID253  (a benchmark is started on its own)

from flywheel_assets.measures.texts import average_by_subject, bootstrap_clustered_mean, bound_mean_below

Floats = npt.NDArray[np.float64]

SUBJECTS = (20, 50, 200)
SHAPES = ("symmetric", "rare gains", "rare losses")
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
    return bool(means.mean() - np.quantile(pivots, 1 - ALPHA, method="higher") * means.std(ddof=1) > 0)


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
    "Gaffke (shipped)": _pass_shipped,
}
BEFORE = "rows, percentiles (before)"


def measure_bounds(replications: int) -> dict[tuple[str, str, int, float], dict[str, float]]:
    """Measure the share of decisions with a lower bound above 0: by shape, sizes, subjects, true gain and test."""
    found = {}
    for shape in SHAPES:
        for sizes in SIZES:
            for subjects in SUBJECTS:
                for gain in GAINS if sizes == "geometric" else GAINS[:1]:
                    random = np.random.default_rng([subjects, int(gain * 1000)])
                    passed = dict.fromkeys([BEFORE, *TESTS], 0)
                    for _ in range(replications):
                        rows = draw_rows(shape, sizes, subjects, gain, random)
                        means = np.asarray(average_by_subject(rows.values, rows.subjects).values)
                        passed[BEFORE] += _pass_before(rows)
                        for name, test in TESTS.items():
                            passed[name] += test(means)
                    found[shape, sizes, subjects, gain] = {name: count / replications for name, count in passed.items()}
    return found


def print_bounds(found: dict[tuple[str, str, int, float], dict[str, float]]) -> None:
    """Print one line per test: its largest type I error by shape and subjects, then its power."""
    header = [f"{shape} {n}" for shape in SHAPES for n in SUBJECTS]
    print(f"| without gain, the worst of {len(SIZES)} sizes | {' | '.join(header)} |")
    print("|---" * (len(header) + 1) + "|")
    for name in [BEFORE, *TESTS]:
        cells = [max(found[shape, sizes, n, 0.0][name] for sizes in SIZES) for shape in SHAPES for n in SUBJECTS]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |", flush=True)
    for shape in SHAPES:
        header = [f"{gain} at {n}" for n in SUBJECTS for gain in GAINS[1:]]
        print(f"\n| power, geometric sizes, {shape} | {' | '.join(header)} |")
        print("|---" * (len(header) + 1) + "|")
        for name in [BEFORE, *TESTS]:
            cells = [found[shape, "geometric", n, gain][name] for n in SUBJECTS for gain in GAINS[1:]]
            print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def main() -> None:
    """Print the tables, and draw the plot if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=600)
    options = parser.parse_args()
    print_bounds(measure_bounds(options.replications))


if __name__ == "__main__":
    main()
