"""Error rates of the classifiers' promotion gate: how often it promotes an equal model, and a better one.

Claim: at the shipped limits an equal model is promoted in at most 5 % of decisions, in every scenario; at 200 positives
the gate promotes at least as many of the much better models as ΔAP's interval lets pass, less .10.
Data: generated decisions, 1 % positives, 20 a card, four segments, a live threshold of .5. Both models see the true
log-odds with a shared noise of .5 and a noise of their own; "−60 %" is a challenger whose own noise is 60 % smaller.
Both are calibrated in expectation, unless the scenario says otherwise. No model is trained.
Peer: the point limits of before (Σp/Σy in .9 to 1.1, alerts at the live threshold within 25 %, no segment's AP lower
by .05, two-sided 95 % interval of ΔAP), on the same rows.
Command: python -m benchmarks.classifier_gate [--decisions 400] [--draws 400] [--positives 100 200 400 1000]
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.measures.classifiers import bootstrap_average_precision_gain, count_alerts
from flywheel_assets.promotion.classifier_evidence import EvaluationRows, measure_evidence
from flywheel_assets.promotion.classifier_limits import ClassifierLimits, StatedReason, decide_classifier

Floats = npt.NDArray[np.float64]

BASE_RATE = 0.01
ROWS_PER_CARD = 20
LIVE_THRESHOLD = 0.5


@dataclass(frozen=True)
class Scenario:
    """A relation of challenger to incumbent, and what is known of the labels."""

    name: str
    less_noise: float = 0.0
    """Share by which the challenger's own noise is smaller."""
    incumbent_odds: float = 1.0
    """Factor on the incumbent's odds: below 1 it predicts too little."""
    challenger_odds: float = 1.0
    known_share: float = 1.0
    """Share of positives that are known when the gate decides."""
    is_equal: bool = False
    lost_segment: bool = False
    """Whether the challenger is blind in one of the four segments."""


SCENARIOS = [
    Scenario("equal", is_equal=True),
    Scenario("equal, incumbent predicts .6 of the positives", incumbent_odds=0.5, is_equal=True),
    Scenario("equal, 75 % of positives known", known_share=0.75, is_equal=True),
    Scenario("noise −30 %", 0.3),
    Scenario("noise −60 %", 0.6),
    Scenario("noise −60 %, incumbent predicts .6 of the positives", 0.6, incumbent_odds=0.5),
    Scenario("noise −60 %, 75 % of positives known", 0.6, known_share=0.75),
    Scenario("noise +60 %", -0.6),
    Scenario("noise −60 %, predicts twice the positives", 0.6, challenger_odds=2.4),
    Scenario("noise −60 %, blind in one segment", 0.6, lost_segment=True),
]


def generate_rows(scenario: Scenario, positives: int, random: np.random.Generator) -> EvaluationRows:
    """Generate the evaluation rows of one decision, about `positives` of them positive."""
    rows = int(positives / BASE_RATE)
    cards = max(200, rows // ROWS_PER_CARD)
    card = random.integers(0, cards, rows)
    risk = random.normal(0, 1.9, rows) + random.normal(0, 0.7, cards)[card] - 7.0
    p = 1 / (1 + np.exp(-risk))
    p = np.clip(p * BASE_RATE / p.mean(), 0, 0.98)
    labels = random.random(rows) < p
    odds, shared = np.log(p / (1 - p)), random.normal(0, 0.5, rows)
    segments = random.integers(0, 4, rows)
    incumbent = odds + shared + random.normal(0, 0.8, rows)
    challenger = odds + shared + random.normal(0, 0.8 * (1 - scenario.less_noise), rows)
    if scenario.lost_segment:
        challenger = np.where(segments == 0, random.permutation(challenger), challenger)
    known = labels & (random.random(rows) < scenario.known_share)
    return EvaluationRows(
        labels=known,
        incumbent_scores=_calibrate(incumbent, p, scenario.incumbent_odds),
        challenger_scores=_calibrate(challenger, p, scenario.challenger_odds),
        weeks=np.where(np.arange(rows) < rows // 2, "first", "second").tolist(),
        entities=card.astype(str).tolist(),
        segments=[f"segment {each}" for each in segments],
        known_shares=np.full(rows, scenario.known_share),
    )


def _calibrate(log_odds: Floats, p: Floats, odds: float) -> Floats:
    """Return probabilities that sum to the true ones, with their odds changed by a factor."""
    found = 1 / (1 + np.exp(-log_odds))
    found = np.clip(found * p.sum() / found.sum(), 1e-6, 1 - 1e-6)
    changed = odds * found / (1 - found)
    return changed / (1 + changed)


def decide_by_points(rows: EvaluationRows, draws: int) -> bool:
    """Decide as the gate did before: by point limits."""
    y = np.asarray(rows.labels)
    old, new = np.asarray(rows.incumbent_scores), np.asarray(rows.challenger_scores)
    gain = bootstrap_average_precision_gain(y, old, new, rows.entities, draws=draws)
    before, after = count_alerts(old, LIVE_THRESHOLD), count_alerts(new, LIVE_THRESHOLD)
    is_calibrated = 0.9 <= new.sum() / max(1, y.sum()) <= 1.1
    is_same_volume = abs(after / before - 1) <= 0.25 if before else after == 0
    names = np.asarray(rows.segments)
    falls = []
    for name in np.unique(names):
        among = names == name
        if y[among].sum() >= 50:
            entities = np.asarray(rows.entities)[among].tolist()
            part = bootstrap_average_precision_gain(y[among], old[among], new[among], entities, draws=1)
            falls.append(-(part.mean or 0.0))
    return (
        gain.low is not None and gain.low > 0 and is_calibrated and is_same_volume and max(falls, default=0.0) <= 0.05
    )


def main() -> None:
    """Print one line per scenario and number of positives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=400)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--positives", type=int, nargs="+", default=[100, 200, 400, 1000])
    options = parser.parse_args()
    limits = ClassifierLimits(min_positives=0)
    print("| scenario | positives | ΔAP alone | promoted | maintenance | as a refresh | point limits | refused by |")
    print("|---|---|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        for positives in options.positives:
            random = np.random.default_rng(positives)
            passed = promoted = maintained = refreshed = by_points = 0
            refused = Counter[str]()
            for _ in range(options.decisions):
                rows = generate_rows(scenario, positives, random)
                evidence = measure_evidence(rows, incumbent="champion", threshold=LIVE_THRESHOLD, draws=options.draws)
                decision = decide_classifier(evidence, limits)
                failed = [check.name for check in decision.checks if not check.ok]
                passed += "ap_gain" not in failed
                promoted += decision.promote
                maintained += decide_classifier(evidence, limits, StatedReason.CALIBRATION).promote
                refreshed += decide_classifier(evidence, limits, StatedReason.AGE).promote
                by_points += decide_by_points(rows, options.draws)
                refused.update(name for name in failed if name != "ap_gain")
            shares = [each / options.decisions for each in (passed, promoted, maintained, refreshed, by_points)]
            names = ", ".join(f"{name} {count / options.decisions:.2f}" for name, count in refused.most_common())
            cells = " | ".join(f"{share:.3f}" for share in shares)
            print(f"| {scenario.name} | {positives} | {cells} | {names} |", flush=True)


if __name__ == "__main__":
    main()
