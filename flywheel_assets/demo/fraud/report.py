"""Defines the fraud demo's report: each chapter's results, and the whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_assets.demo.fraud.bank import StaticModel
from flywheel_assets.demo.fraud.play import PlayedDay
from flywheel_assets.demo.fraud.world import Bools, Floats
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.measures.classifiers import bootstrap_average_precision_gain, score_rows
from flywheel_assets.measures.texts import Interval

DAYS_PER_WEEK = 7


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """One model on one stretch of days; None where there was no such fraud."""

    ap: float | None
    """Average precision on all payments."""
    ap_emerging: float | None
    """The same on honest payments and frauds of the emerging pattern alone."""
    calibration: float | None
    """Σ score / Σ fraud; 1 is right."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both models on the same payments."""

    payments: int
    frauds: int
    emerging: int
    static: ModelScores
    live: ModelScores


@dataclass(frozen=True, kw_only=True)
class Week:
    """One week of the story."""

    first_day: date
    model_versions: tuple[str, ...]
    """The serving versions, in order."""
    scores: Comparison


def group_weeks(days: Sequence[PlayedDay]) -> list[Week]:
    """Group the played days into weeks, from the first day on; days after the last whole week are left out."""
    whole = len(days) - len(days) % DAYS_PER_WEEK
    stretches = [days[start : start + DAYS_PER_WEEK] for start in range(0, whole, DAYS_PER_WEEK)]
    return [
        Week(
            first_day=stretch[0].day,
            model_versions=tuple(dict.fromkeys(day.model_version for day in stretch)),
            scores=compare_models(stretch),
        )
        for stretch in stretches
    ]


def compare_models(days: Sequence[PlayedDay]) -> Comparison:
    """Score both models on all payments of the days."""
    is_fraud = np.concatenate([day.is_fraud for day in days])
    is_emerging = np.concatenate([day.is_emerging for day in days])
    static, live = _join_scores(days)
    return Comparison(
        payments=len(is_fraud),
        frauds=int(is_fraud.sum()),
        emerging=int(is_emerging.sum()),
        static=_score_payments(is_fraud, is_emerging, static),
        live=_score_payments(is_fraud, is_emerging, live),
    )


def compute_gain(days: Sequence[PlayedDay], seed: int) -> Interval:
    """Compute the deployed model's average precision minus the static one's, with a 95 % interval by card.

    The interval is bootstrapped.
    """
    static, live = _join_scores(days)
    is_fraud = np.concatenate([day.is_fraud for day in days])
    cards = [str(card) for day in days for card in day.card]
    return bootstrap_average_precision_gain(is_fraud, static, live, cards, seed=seed)


def _join_scores(days: Sequence[PlayedDay]) -> tuple[Floats, Floats]:
    return np.concatenate([day.static_scores for day in days]), np.concatenate([day.live_scores for day in days])


def _score_payments(is_fraud: Bools, is_emerging: Bools, scores: Floats) -> ModelScores:
    alone = is_emerging | ~is_fraud
    of_all = score_rows(is_fraud, scores)
    return ModelScores(
        ap=of_all.average_precision,
        ap_emerging=score_rows(is_fraud[alone], scores[alone]).average_precision,
        calibration=of_all.calibration_ratio,
    )


@dataclass(frozen=True, kw_only=True)
class MinedDays:
    """Counts a range of days' rows into gold."""

    rows: int
    """Labelled predictions, and predictions whose silence became old enough to count as honest."""
    kept: int
    """Rows that were drawn for training."""
    dropped: Mapping[str, int]
    """Reason → rows; with `kept` they make up `rows`."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTurn:
    """One gold version, from its export to the decision about its classifier."""

    version: str
    reason: str
    """The reason that it was cut, in the trigger's words."""
    train_rows: int
    train_positives: int
    test_rows: int
    """Later, matured, unsampled rows that both models were scored on."""
    test_positives: int
    ap_incumbent: float | None
    """Average precision of the serving model on the test rows; None without a positive there, like the next one."""
    ap_challenger: float | None
    promoted: bool
    sentence: str
    seconds: float
    """Wall time from the trigger to the decision."""
    champion: Path | None
    """The folder of the model that serves after the decision; None: still the static one."""
    fit_seconds: float = 0.0
    """Wall time of the trainer's process: the deployed model's and the judged ones' fits."""
    threshold: float | None = None
    """Score from which the new model alerts, as its promotion says; None: from the old one's."""


@dataclass(frozen=True, kw_only=True)
class FraudChapterReport:
    """One chapter: the serving model, the labels, the gold rows, and the turn of the wheel, if any."""

    title: str
    model_version: str
    first_day: date
    last_day: date
    actions: Mapping[str, int]
    labels: Mapping[str, int]
    predictions_acknowledged: int
    labels_acknowledged: int
    scores: Comparison
    """Of the model that served and of the static one."""
    mined: MinedDays
    turn: ClassifierTurn | Skipped
    seconds: Mapping[str, float]
    """Wall time by stage: play, materialize, turn."""


@dataclass(frozen=True, kw_only=True)
class FraudDemoReport:
    """Everything that the demo showed."""

    seed: int
    first_day: date
    emerges_on: date
    static: StaticModel
    chapters: tuple[FraudChapterReport, ...]
    weeks: tuple[Week, ...]
    before_promotion: Comparison | None
    """From the new fraud's first day to the first promotion; None where that came earlier."""
    after_promotion: Comparison | None
    """From the first promotion on; None where there was none."""
    gain_after_promotion: Interval | None
    """Average precision of the serving models minus the static model's, from the first promotion on."""
    seconds: float
    """Wall time of the whole story, without the prehistory."""
    hardware: Mapping[str, Any]

    @property
    def last_day(self) -> date:
        """The last day that was played."""
        return self.chapters[-1].last_day

    @property
    def turns(self) -> tuple[ClassifierTurn, ...]:
        """Every turn of the wheel."""
        return tuple(chapter.turn for chapter in self.chapters if isinstance(chapter.turn, ClassifierTurn))


# Okabe and Ito's palette, distinct with every common form of colour blindness; markers differ as well.
_VERMILLION, _BLUE, _GREY = "#D55E00", "#0072B2", "#555555"


_SIZE_INCHES = (10.0, 7.0)


_DOTS_PER_INCH = 110


def draw(weeks: Sequence[Week], path: Path) -> None:
    """Write the PNG; a vertical line marks every week in which another model serves than the week before.

    Args:
        weeks: in order.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    x = range(len(weeks))
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=_SIZE_INCHES, sharex=True, layout="constrained")
    top.set_title("All fraud: average precision on the week's payments", loc="left")
    bottom.set_title("The new fraud alone", loc="left")
    for axes, alone in ((top, False), (bottom, True)):
        for label, colour, marker, of_static in (
            ("static model", _VERMILLION, "o", True),
            ("the flywheel's deployed model", _BLUE, "s", False),
        ):
            scored = [week.scores.static if of_static else week.scores.live for week in weeks]
            values = [one.ap_emerging if alone else one.ap for one in scored]
            shown = [float("nan") if value is None else value for value in values]
            axes.plot(x, shown, color=colour, marker=marker, label=label, zorder=2 if of_static else 3)
        axes.set_ylim(0, 1.03)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    first_emerging = next((number for number, week in enumerate(weeks) if week.scores.emerging), None)
    marks = [
        (number, f"{later.model_versions[0]}\npromoted")
        for number, (earlier, later) in enumerate(pairwise(weeks), 1)
        if later.model_versions[0] != earlier.model_versions[-1]
    ]
    if first_emerging is not None:
        marks.append((first_emerging, "the new fraud\nappears"))
    for number, text in marks:
        for axes in (top, bottom):
            axes.axvline(number - 0.5, color=_GREY, linestyle="-.", linewidth=1.2)
        top.annotate(text, (number - 0.5, 1.16), ha="center", color=_GREY, fontsize=8, annotation_clip=False)
    # Under the picture, where it can hide no point.
    bottom.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    bottom.set_xticks(list(x), [f"{week.first_day:%d %b}" for week in weeks], rotation=60, fontsize=8)
    top.tick_params(axis="x", length=0, labelbottom=False)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)
