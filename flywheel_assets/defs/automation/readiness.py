"""Says in one sentence what a training still lacks: for `flywheel turn` and `flywheel retrain`.

The thresholds of the trigger are no such thing: `flywheel retrain` is there to pass them. What is lacking here would
make the version's run fail: no row to train on, or none to judge the result by.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from flywheel_assets.application import ClassificationApplication, FlywheelApplication, PreferenceApplication
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.landing.disk import CLOSING_DELAY
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.example_versions import count_examples_to_train
from flywheel_assets.lake.versions.pair_versions import count_pairs, count_pairs_to_cut


def find_cut_problem(application: FlywheelApplication, lake: Lake, now: datetime) -> str | None:
    """Return why a version that is cut now could not be trained or judged; None: nothing speaks against it.

    Only the closed days count. What the base model's tokenizer refuses is found when the version is cut.
    """
    problem = _find_problem(application, lake)
    waiting = describe_open_days(application, lake, now)
    return f"{problem}; {waiting}" if problem and waiting else problem


def _find_problem(application: FlywheelApplication, lake: Lake) -> str | None:
    closed = ledger.read_closed_accounts(lake, application.tables.gold.name)
    if not any(each.rows_kept + each.rows_held for each in closed.values()):
        return f"gold has no row on any of its {len(closed):,} closed days" if closed else "gold has no closed day"
    match application:
        case PreferenceApplication():
            count = count_pairs_to_cut(lake, application.resolution, closed)
            if not count.train:
                return f"{len(closed):,} closed days hold no pair to train on{_describe_most_dropped(count.dropped)}"
            if not count.judged:
                if application.resolution.cross_fit_folds:
                    return f"no fold of the users has a row to judge {count.train:,} pairs by: more users are needed"
                return (
                    f"none of {count.train:,} pairs is of a held-out user, so nothing could judge the model "
                    f"({application.resolution.holdout_share:.0%} of the users are held out): more users are needed"
                )
        case ClassificationApplication():
            if not count_examples_to_train(lake, application.examples, list(closed)):
                until = application.examples.plan_calendar(max(closed)).train_until
                return (
                    f"no prediction up to {until} can be trained on: the last closed day is {max(closed)}, and later "
                    "predictions wait for their labels or judge the model"
                )
    return None


def _describe_most_dropped(dropped: dict[str, int]) -> str:
    reason = max(dropped, key=lambda each: dropped[each], default=None)
    return "" if reason is None else f" ({dropped[reason]:,} rows were left out as `{reason}`)"


def describe_open_days(application: FlywheelApplication, lake: Lake, now: datetime) -> str | None:
    """Describe the gold rows of days that are not closed yet, and when they count; None: there are none."""
    entries = ledger.read_entries(lake, application.tables.gold.name)
    rows = {day: each.rows_kept for day, each in entries.items() if not each.is_closed and each.rows_kept}
    if not rows:
        return None
    what = _describe_rows(application, lake, rows)
    last = max(rows)
    closes_at = datetime.combine(last + timedelta(days=1), datetime.min.time(), UTC) + CLOSING_DELAY
    if closes_at <= now:
        return f"{what} up to {last} count after the next `flywheel turn`, which closes their days"
    left = f"{_describe_duration(closes_at - now)}"
    which = _name_days(rows, now)
    return f"{which} {what} count when the day closes at {closes_at:%H:%M} UTC (in {left})"


def _describe_rows(application: FlywheelApplication, lake: Lake, rows: Mapping[date, int]) -> str:
    number = sum(rows.values())
    if not isinstance(application, PreferenceApplication):
        return f"{number:,} examples"
    pairs = count_pairs(lake, rows)
    return f"{number:,} pairs" if pairs == number else f"{number:,} rows of gold, {pairs:,} of them pairs,"


def _name_days(days: Mapping[date, int], now: datetime) -> str:
    if set(days) == {now.date()}:
        return "today's"
    return f"the {len(days):,} open days'"


def _describe_duration(duration: timedelta) -> str:
    minutes = -(-int(duration.total_seconds()) // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
