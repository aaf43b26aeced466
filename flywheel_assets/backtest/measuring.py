"""Compares all strategies on the same predictions, by the labels that are known at the end of history.

Days are measured that are old enough for 95 % of their positives to be known; a known positive weighs 1 / F(age).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from flywheel_assets import __version__
from flywheel_assets.backtest.history import Booleans, Floats, History, Integers
from flywheel_assets.backtest.plan import DAYS_PER_WEEK, BacktestPlan
from flywheel_assets.backtest.replay import Played, PlayedWeek, Turned
from flywheel_assets.backtest.report import BacktestReport, Decision, Gain, StrategyReport, WeekReport
from flywheel_assets.backtest.rivals import FLYWHEEL, STATIC, WEEKLY, Fitted
from flywheel_assets.measures.classifiers import (
    bootstrap_average_precision_gain,
    count_alerts,
    precision_at_k,
    score_rows,
)

ENOUGH_KNOWN = 0.95
LEAST_KNOWN_SHARE = 0.2
"""No known positive stands for more than five."""


@dataclass(frozen=True)
class _Judged:
    """Predictions with the truth as far as it is known at the end; one element each."""

    numbers: Integers
    is_positive: Booleans
    weights: Floats
    positive_weights: Floats
    known_shares: Floats
    amounts: Floats
    days: Sequence[str]
    entities: Sequence[str]

    def choose(self, first: date, last: date, history: History) -> "_Judged":
        """Return the predictions of some days, ends included."""
        ordinals = history.ordinals[self.numbers]
        rows = np.flatnonzero((ordinals >= first.toordinal()) & (ordinals <= last.toordinal()))
        return _Judged(
            self.numbers[rows],
            self.is_positive[rows],
            self.weights[rows],
            self.positive_weights[rows],
            self.known_shares[rows],
            self.amounts[rows],
            [self.days[row] for row in rows.tolist()],
            [self.entities[row] for row in rows.tolist()],
        )


def build_report(
    plan: BacktestPlan, history: History, played: Played, spend: Callable[[], tuple[float, float]]
) -> BacktestReport:
    """Measure every strategy and build the report.

    Args:
        plan: the days and the seed.
        history: features, entities, amounts, and the labels.
        played: every strategy's scores.
        spend: returns wall and CPU seconds since the backtest began.
    """
    judged = _judge(plan, history)
    delay = history.delay
    settled_days = history.application.mining.waiting_days if delay is None else delay.find_age(ENOUGH_KNOWN)
    measured_until = min(plan.last, history.last_day - timedelta(days=settled_days))
    is_settled = measured_until >= plan.first + timedelta(days=DAYS_PER_WEEK - 1)
    if not is_settled:
        measured_until = plan.last
    measured = judged.choose(plan.first, measured_until, history)
    strategies = [_measure(name, plan, history, played, measured) for name in played.scores]
    weeks = [_measure_week(week, history, played, judged) for week in played.weeks]
    wall_s, cpu_s = spend()
    return BacktestReport(
        application=history.application.name,
        flywheel_version=__version__,
        first=plan.first,
        last=plan.last,
        history_first_day=history.first_day,
        history_last_day=history.last_day,
        predictions=len(history.scores),
        labels=history.labels,
        seed=plan.seed,
        draws=plan.draws,
        maturity_days=history.application.mining.maturity_days,
        settled_days=settled_days,
        measured_until=measured_until,
        is_settled=is_settled,
        measured_rows=len(measured.numbers),
        measured_positives=int(measured.is_positive.sum()),
        measured_known_share=_compute_known_share(measured),
        alert_threshold=history.application.threshold,
        cards_per_day=history.application.cards_per_day,
        strategies=strategies,
        weeks=weeks,
        wall_seconds=round(wall_s, 1),
        cpu_seconds=round(cpu_s, 1),
        stage_seconds={stage: round(seconds, 1) for stage, seconds in played.seconds.items()},
    )


def _judge(plan: BacktestPlan, history: History) -> _Judged:
    known = history.resolve(history.last_day + timedelta(days=1), plan.last)
    served = np.flatnonzero(history.ordinals[known.numbers] >= plan.first.toordinal())
    numbers, weights = known.numbers[served], known.weights[served]
    ages = history.last_day.toordinal() - history.ordinals[numbers]
    delay = history.delay
    shares = np.ones(len(numbers))
    if delay is not None:
        by_age = np.array([delay.share_known(age) for age in range(int(ages.max(initial=0)) + 1)])
        shares = np.maximum(LEAST_KNOWN_SHARE, by_age[ages])
    return _Judged(
        numbers=numbers,
        is_positive=known.is_positive[served],
        weights=weights,
        positive_weights=weights / shares,
        known_shares=shares,
        amounts=history.amounts[numbers],
        days=[date.fromordinal(ordinal).isoformat() for ordinal in history.ordinals[numbers].tolist()],
        entities=[history.entities[number] for number in numbers],
    )


def _measure(name: str, plan: BacktestPlan, history: History, played: Played, judged: _Judged) -> StrategyReport:
    scores = played.scores[name][judged.numbers]
    fit = score_rows(judged.is_positive, scores, judged.weights, judged.positive_weights)
    fits = _list_fits(name, played.weeks)
    by_value = None
    if np.nansum(judged.amounts[judged.is_positive]) > 0:
        values = np.nan_to_num(np.maximum(judged.amounts, 0))
        by_value = score_rows(
            judged.is_positive, scores, judged.weights * values, judged.positive_weights * values
        ).average_precision
    at_k = precision_at_k(judged.days, judged.entities, judged.is_positive, scores, history.application.cards_per_day)
    last = fits[-1] if fits else (0, 0, 0.0)
    return StrategyReport(
        name=name,
        average_precision=fit.average_precision,
        over_static=_compare(name, STATIC, plan, played, judged),
        over_weekly=_compare(name, WEEKLY, plan, played, judged),
        average_precision_by_value=by_value,
        precision_at_budget=at_k.mean,
        calibration_ratio=fit.calibration_ratio,
        alerts=_count_alerts(name, history, played, judged),
        last_training_rows=last[0],
        last_training_positives=last[1],
        fits=len(fits),
        fit_seconds=round(sum(seconds for _, _, seconds in fits), 2),
        promotions=sum(isinstance(week.turn, Turned) and week.turn.promoted for week in played.weeks)
        if name == FLYWHEEL
        else None,
    )


def _compare(name: str, other: str, plan: BacktestPlan, played: Played, judged: _Judged) -> Gain | None:
    if name == other:
        return None
    found = bootstrap_average_precision_gain(
        judged.is_positive,
        played.scores[other][judged.numbers],
        played.scores[name][judged.numbers],
        judged.entities,
        weights=judged.weights,
        positive_weights=judged.positive_weights,
        draws=plan.draws,
        seed=plan.seed,
    )
    return (
        None
        if found.mean is None or found.low is None or found.high is None
        else Gain(mean=found.mean, low=found.low, high=found.high)
    )


def _count_alerts(name: str, history: History, played: Played, judged: _Judged) -> int | None:
    if history.application.threshold is None and name != FLYWHEEL:
        return None
    total = 0
    for week in played.weeks:
        chosen = judged.choose(week.week.first, week.week.last, history)
        threshold = week.threshold if name == FLYWHEEL else history.application.threshold
        if threshold is None:
            return None
        total += count_alerts(played.scores[name][chosen.numbers], threshold)
    return total


def _list_fits(name: str, weeks: Sequence[PlayedWeek]) -> list[tuple[int, int, float]]:
    """List rows, positives and seconds of each training of a strategy."""
    if name == FLYWHEEL:
        turns = [week.turn for week in weeks if isinstance(week.turn, Turned) and week.turn.train_rows]
        return [(turn.train_rows, turn.train_positives, turn.fit_seconds) for turn in turns]
    fitted = [week.fitted.get(name) for week in weeks]
    return [(each.rows, each.positives, each.cpu_seconds) for each in fitted if isinstance(each, Fitted)]


def _measure_week(played_week: PlayedWeek, history: History, played: Played, judged: _Judged) -> WeekReport:
    week, turn = played_week.week, played_week.turn
    rows = judged.choose(week.first, week.last, history)
    decision = None
    if isinstance(turn, Turned):
        decision = Decision(
            version=turn.version,
            reason=turn.reason,
            promoted=turn.promoted,
            sentence=turn.sentence,
            train_rows=turn.train_rows,
            train_positives=turn.train_positives,
            fit_seconds=round(turn.fit_seconds, 2),
            wall_seconds=round(turn.wall_seconds, 1),
        )
    return WeekReport(
        first=week.first,
        last=week.last,
        predictions=len(history.find_rows(week.first, week.last)),
        positives=int(rows.is_positive.sum()),
        known_share=_compute_known_share(rows),
        serving=played_week.serving,
        decision=decision,
        waited="" if isinstance(turn, Turned) else turn.reason,
        average_precision={
            name: score_rows(
                rows.is_positive, scores[rows.numbers], rows.weights, rows.positive_weights
            ).average_precision
            for name, scores in played.scores.items()
        },
    )


def _compute_known_share(judged: _Judged) -> float | None:
    """Compute the share of the positives that is known, by the delay curve; None without a known one."""
    positives = judged.is_positive
    if not positives.any():
        return None
    return float(positives.sum() / (1 / judged.known_shares[positives]).sum())
