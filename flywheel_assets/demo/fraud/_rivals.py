"""Compares the played flywheel with simpler ways to retrain, on the payments and labels of the demo's own stream.

The rivals and the table are those of `flywheel backtest`. What the flywheel served is taken from the stream, so nothing
is replayed: the comparison costs three fits a week.
"""

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.backtest.history import History, open_history
from flywheel_assets.backtest.measuring import build_report
from flywheel_assets.backtest.plan import BacktestPlan, Week
from flywheel_assets.backtest.replay import Played, PlayedWeek, Turned, Waited, play_rivals
from flywheel_assets.backtest.report import BacktestReport
from flywheel_assets.backtest.rivals import FLYWHEEL, STATIC, Fitted
from flywheel_assets.demo.fraud.bank import STATIC_VERSION
from flywheel_assets.demo.fraud.report import ClassifierTurn, FraudDemoReport
from flywheel_assets.demo.staging import Skipped
from flywheel_assets.models.boosting import load_classifier
from flywheel_assets.stores import Stores

_DRAWS = 100
"""Bootstrap samples of each interval; 300 would take as long as half of the fits."""


@dataclass(frozen=True)
class RivalsReport:
    """The same strategies on two spans of the stream."""

    since_emergence: BacktestReport
    """From the new fraud's first day on."""
    since_promotion: BacktestReport | None
    """From the first promotion on; None where there was none."""


def compare_with_rivals(application: ClassificationApplication, demo: FraudDemoReport, stores: Stores) -> RivalsReport:
    """Fit every rival at the start of each week since the new fraud's first day, and measure all strategies.

    Args:
        application: of the demo.
        demo: what was played.
        stores: of the demo's home.
    """
    begin, cpu = time.monotonic(), time.process_time()

    def spend() -> tuple[float, float]:
        return time.monotonic() - begin, time.process_time() - cpu

    plan = BacktestPlan(first=demo.emerges_on, last=demo.last_day, draws=_DRAWS, seed=demo.seed)
    scratch = stores.scratch("rivals")
    with open_history(application, stores.landing(), plan.first, plan.last, scratch) as history:
        played = _play_weeks(demo, plan, history, scratch)
        promoted = [week for week in played.weeks if week.serving is not None]
        later = None
        if promoted:
            since = replace(plan, first=promoted[0].week.first)
            later = build_report(since, history, replace(played, weeks=promoted), spend)
        return RivalsReport(build_report(plan, history, played, spend), later)


def _play_weeks(demo: FraudDemoReport, plan: BacktestPlan, history: History, work_dir: Path) -> Played:
    application, static = history.application, load_classifier(demo.static.folder)
    played, last_models = Played(), dict[str, Fitted]()
    played.open_scores(plan, len(history.scores))
    for week in plan.list_weeks():
        numbers = history.find_rows(week.first, week.last)
        played.scores[STATIC][numbers] = static.predict(history.features.take(numbers))
        played.scores[FLYWHEEL][numbers] = history.scores[numbers]
        fitted = play_rivals(plan, history, week, played, last_models, application.recipe, work_dir)
        played.weeks.append(_describe_week(application, demo, week, fitted))
    return played


def _describe_week(
    application: ClassificationApplication, demo: FraudDemoReport, week: Week, fitted: dict[str, Fitted | None]
) -> PlayedWeek:
    """Take the serving model, its threshold, and the decision before the week from the chapters."""
    turn: Turned | Waited = Waited("the demo asks the trigger at the end of a chapter")
    threshold = application.threshold
    for before, chapter in pairwise(demo.chapters):
        if chapter.first_day > week.first:
            break
        asked = before.turn
        if isinstance(asked, ClassifierTurn) and asked.promoted and asked.threshold is not None:
            threshold = asked.threshold
        if chapter.first_day == week.first:
            turn = _describe_turn(asked)
    served = next(chapter for chapter in demo.chapters if chapter.first_day <= week.first <= chapter.last_day)
    version = None if served.model_version == STATIC_VERSION else served.model_version
    return PlayedWeek(week, turn, version, threshold, fitted)


def _describe_turn(asked: ClassifierTurn | Skipped) -> Turned | Waited:
    if isinstance(asked, Skipped):
        return Waited(asked.reason)
    return Turned(
        version=asked.version,
        reason=asked.reason,
        promoted=asked.promoted,
        sentence=asked.sentence,
        train_rows=asked.train_rows,
        train_positives=asked.train_positives,
        fit_seconds=asked.fit_seconds,
        wall_seconds=asked.seconds,
    )
