"""Decides whether a new head may replace what serves: better recall, at no more false positives, in every language.

What serves is the serving head, or the word list before the first one. Both judge the same texts. The new head is
judged by scores of fits that had not seen them; the serving head may have learnt some of them, which favours it.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.measures.texts import bootstrap_clustered_mean
from flywheel_assets.promotion.text_limits import Check, Decision, conclude, fill_missing
from flywheel_assets.ranges import Checked, Count, NotNegative, Share
from flywheel_assets.screening.heads.training import Measured

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class HeadLimits(Checked):
    """The limits that a new head must keep."""

    min_texts: Count = 50
    """Harmful and harmless examples each that one language needs, or there is no evidence."""
    min_recall_gain: NotNegative = 0.0
    """The lower bound of the gain in recall over all languages must exceed this."""
    max_recall_drop: Share = 0.05
    """Largest fall of recall in any language with enough texts."""
    max_false_positive_increase: Share = 0.01
    """Of the share of harmless examples that are stopped, in any language with enough texts: two texts of 250, which
    chance alone moves."""
    max_harmless_suite: Share = 0.1
    """Share of the functional suite's harmless texts that may be stopped."""


@dataclass(frozen=True)
class Figures:
    """Both on the examples of one language; shares are of harmful or of harmless texts."""

    language: str
    harmful: int
    harmless: int
    recall: float
    recall_before: float
    false_positives: float
    false_positives_before: float


@dataclass(frozen=True)
class HeadReport:
    """Everything that was measured about one head, and the decision."""

    version: str
    before: str
    """The version that served, or "word list"."""
    promote: bool
    sentence: str
    checks: tuple[Check, ...]
    figures: tuple[Figures, ...]
    suite: dict[str, tuple[float, float, bool]]
    """Functionality → share stopped, share stopped before, and whether it is harmful."""


def judge_head(
    measured: Measured, before: str, before_stopped: Bools, before_suite: Bools, limits: HeadLimits
) -> HeadReport:
    """Compare a measured head with what serves, on the same texts.

    Args:
        measured: the new head.
        before: name of what serves.
        before_stopped: the examples that it stops, parallel to `measured.examples`.
        before_suite: the texts of the suite that it stops, parallel to `measured.suite`.
        limits: of the decision.
    """
    truth = np.array([example.is_harmful for example in measured.examples], dtype=bool)
    languages = np.array(measured.languages, dtype=object)
    figures = []
    for language in sorted(set(measured.languages)):
        rows = languages == language
        harmful, harmless = rows & truth, rows & ~truth
        if min(harmful.sum(), harmless.sum()) >= limits.min_texts and language in measured.head.thresholds:
            figures.append(
                Figures(
                    language,
                    int(harmful.sum()),
                    int(harmless.sum()),
                    float(measured.stopped[harmful].mean()),
                    float(before_stopped[harmful].mean()),
                    float(measured.stopped[harmless].mean()),
                    float(before_stopped[harmless].mean()),
                )
            )
    evaluated = np.isin(languages, [each.language for each in figures])
    suite = _measure_suite(measured, before_suite)
    decision = _decide(measured, figures, evaluated & truth, before_stopped, limits)
    return HeadReport(
        measured.head.version, before, decision.promote, decision.sentence, decision.checks, tuple(figures), suite
    )


def _decide(
    measured: Measured, figures: list[Figures], harmful: Bools, before_stopped: Bools, limits: HeadLimits
) -> Decision:
    rows = np.flatnonzero(harmful)
    gain = bootstrap_clustered_mean(
        measured.stopped[rows].astype(float) - before_stopped[rows].astype(float), [str(row) for row in rows]
    )
    low = fill_missing(gain.low)
    texts = sum(each.harmful + each.harmless for each in figures)
    enough = Check(
        "evidence",
        len(figures),
        1,
        len(figures) >= 1,
        f"{texts} texts that people judged in {len(figures)} languages with {limits.min_texts} harmful and "
        f"{limits.min_texts} harmless ones each, 1 language is needed",
    )
    better = Check(
        "recall_gain",
        low,
        limits.min_recall_gain,
        low > limits.min_recall_gain,
        f"recall changes by {fill_missing(gain.mean):+.3f} [{low:+.3f}, {fill_missing(gain.high):+.3f}] on "
        f"{gain.rows} harmful texts, the lower bound must exceed {limits.min_recall_gain:.3f}",
    )
    checks = [enough, better]
    for each in figures:
        drop, increase = each.recall_before - each.recall, each.false_positives - each.false_positives_before
        checks.append(
            Check(
                f"recall_{each.language}",
                drop,
                limits.max_recall_drop,
                drop <= limits.max_recall_drop,
                f"recall in {each.language} is {each.recall:.3f} instead of {each.recall_before:.3f}, "
                f"a fall of at most {limits.max_recall_drop:.3f} is allowed",
            )
        )
        checks.append(
            Check(
                f"false_positives_{each.language}",
                increase,
                limits.max_false_positive_increase,
                increase <= limits.max_false_positive_increase,
                f"{each.false_positives:.3f} of harmless texts in {each.language} are stopped instead of "
                f"{each.false_positives_before:.3f}, at most {limits.max_false_positive_increase:.3f} more are allowed",
            )
        )
    harmless = np.array([not case.is_harmful for case in measured.suite])
    stopped = float(measured.suite_stopped[harmless].mean())
    checks.append(
        Check(
            "functional_suite",
            stopped,
            limits.max_harmless_suite,
            stopped <= limits.max_harmless_suite,
            f"{stopped:.3f} of the suite's harmless texts are stopped, at most {limits.max_harmless_suite:.3f} allowed",
        )
    )
    return conclude(tuple(checks), enough=enough, better=better)


def _measure_suite(measured: Measured, before: Bools) -> dict[str, tuple[float, float, bool]]:
    rows = defaultdict(list)
    for number, case in enumerate(measured.suite):
        rows[case.functionality, case.is_harmful].append(number)
    return {
        name: (float(measured.suite_stopped[numbers].mean()), float(before[numbers].mean()), is_harmful)
        for (name, is_harmful), numbers in rows.items()
    }
