"""Defines the report of a backtest, and writes it as JSON, as Markdown and as a plot."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import msgspec

REPORT_FILE, TEXT_FILE, PLOT_FILE = "backtest.json", "backtest.md", "backtest.png"

# Okabe and Ito's palette, distinct with every common form of colour blindness; markers differ as well.
_LINES = (
    ("#555555", "o"),
    ("#0072B2", "s"),
    ("#D55E00", "^"),
    ("#009E73", "v"),
    ("#CC79A7", "D"),
    ("#E69F00", "P"),
    ("#56B4E9", "X"),
    ("#000000", "*"),
)
_SIZE_INCHES = (9.0, 4.5)
_DOTS_PER_INCH = 110

HEADER = (
    "strategy",
    "AP",
    "against static",
    "against weekly, all rows",
    "AP by value",
    "precision@k",
    "Σp/Σy",
    "alerts",
    "last training rows",
    "fits",
    "fit s",
)


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of average precision with its 95 % interval, bootstrapped over entities."""

    mean: float
    low: float
    high: float


class StrategyReport(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy on the measured days; None where a measure is not defined."""

    name: str
    average_precision: float | None
    over_static: Gain | None
    """None for static itself."""
    over_weekly: Gain | None
    """Against weekly training on all rows; None for that strategy itself."""
    average_precision_by_value: float | None
    """A positive counts by its amount; None where amounts are unknown."""
    precision_at_budget: float | None
    """Mean over the days of the precision among `cards_per_day` entities."""
    calibration_ratio: float | None
    """Σ score / Σ positives, corrected for those that are not known yet."""
    alerts: int | None
    """Rows from the live threshold on: the flywheel's promotions may carry one; None without a threshold."""
    last_training_rows: int
    last_training_positives: int
    fits: int
    """Trainings in all; the flywheel's are its versions, promoted or not."""
    fit_seconds: float
    """Of all fits: CPU seconds, of the flywheel wall seconds in its trainers' processes."""
    promotions: int | None
    """None for rivals: each of their models serves without a gate."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A gold version of the replay, and the decision about its model."""

    version: str
    reason: str
    promoted: bool
    sentence: str
    train_rows: int
    train_positives: int
    fit_seconds: float
    wall_seconds: float
    """From the cut to the decision."""


class WeekReport(msgspec.Struct, frozen=True, kw_only=True):
    """One week: the decision at its start, and every strategy's average precision on it."""

    first: date
    last: date
    predictions: int
    positives: int
    """Known at the end of history."""
    known_share: float | None
    """Share of its positives that is known then, by the delay curve."""
    serving: str | None
    """Gold version of the flywheel's model; None: the scores of history."""
    decision: Decision | None
    waited: str
    """Why the trigger asked for nothing; empty where it did."""
    average_precision: dict[str, float | None]


class BacktestReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a backtest found."""

    application: str
    flywheel_version: str
    first: date
    last: date
    history_first_day: date
    """The warm start trains on the days from here to the day before `first`."""
    history_last_day: date
    """Labels are known until its end."""
    predictions: int
    """With those before `first`."""
    labels: int
    """Label events of all history."""
    seed: int
    draws: int
    """Bootstrap samples."""
    maturity_days: int
    settled_days: int
    """Age at which 95 % of the positives are known; the maturity where too few are known to estimate it."""
    measured_until: date
    """Last measured day."""
    is_settled: bool
    """False: no week is old enough, so that all are measured."""
    measured_rows: int
    measured_positives: int
    measured_known_share: float | None
    alert_threshold: float | None
    cards_per_day: int
    strategies: list[StrategyReport]
    weeks: list[WeekReport]
    wall_seconds: float
    cpu_seconds: float
    """Of this process; trainers' processes are not in it."""
    stage_seconds: dict[str, float]
    """Wall time by stage."""

    def find(self, name: str) -> StrategyReport:
        """Return one strategy."""
        return next(each for each in self.strategies if each.name == name)


def list_cells(report: BacktestReport) -> list[list[str]]:
    """List the table's rows, in the order of `HEADER`."""
    return [
        [
            each.name if each.promotions is None else f"{each.name} ({each.promotions} promoted)",
            format_number(each.average_precision),
            format_gain(each.over_static),
            format_gain(each.over_weekly),
            format_number(each.average_precision_by_value),
            format_number(each.precision_at_budget),
            format_number(each.calibration_ratio, 2),
            "–" if each.alerts is None else f"{each.alerts:,}",
            f"{each.last_training_rows:,}" if each.fits else "–",
            str(each.fits),
            f"{each.fit_seconds:.1f}",
        ]
        for each in report.strategies
    ]


def describe_days(report: BacktestReport) -> str:
    """Describe the measured days, and what is not known of the others."""
    found = (
        f"{report.measured_rows:,} predictions and {report.measured_positives:,} positives of "
        f"{report.first} … {report.measured_until}"
    )
    if not report.is_settled:
        return (
            f"{found}: no week is {report.settled_days} days old, when 95 % of the positives are known; "
            f"{_format_share(report.measured_known_share)} of these are"
        )
    open_weeks = [week for week in report.weeks if week.last > report.measured_until]
    if not open_weeks:
        return f"{found}, of which at least 95 % are known"
    open_text = ", ".join(f"{week.first}: {_format_share(week.known_share)} known" for week in open_weeks)
    return f"{found}; later days are not measured, since 95 % are known after {report.settled_days} days ({open_text})"


def describe_week(week: WeekReport) -> str:
    """Say what the trigger and the promotion gate decided at the week's start."""
    if week.decision is None:
        return week.waited
    return f"{week.decision.version}: {week.decision.sentence}"


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a measure; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_gain(gain: Gain | None) -> str:
    """Format a difference with its interval."""
    return "–" if gain is None else f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def write_backtest(report: BacktestReport, folder: Path) -> None:
    """Write `backtest.json`, `backtest.md` and `backtest.png` into `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (folder / TEXT_FILE).write_text(_write_text(report), encoding="utf-8")
    _plot(report, folder / PLOT_FILE)


def read_backtest(folder: Path) -> BacktestReport:
    """Read a report that `write_backtest` wrote."""
    return msgspec.json.decode((folder / REPORT_FILE).read_bytes(), type=BacktestReport)


def _write_text(report: BacktestReport) -> str:
    weeks = [
        [
            f"{week.first} … {week.last}",
            f"{week.predictions:,}",
            f"{week.positives:,}",
            _format_share(week.known_share),
            week.serving or "as in history",
            "yes" if week.decision is not None and week.decision.promoted else "no",
            describe_week(week),
        ]
        for week in report.weeks
    ]
    names = [each.name for each in report.strategies]
    by_week = [
        [str(week.first), *(format_number(week.average_precision.get(name)) for name in names)] for week in report.weeks
    ]
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.stage_seconds.items())
    return f"""# Backtest of {report.application}, {report.first} … {report.last}

{describe_days(report)}.

{_write_table(HEADER, list_cells(report))}

Precision@k: k = {report.cards_per_day} entities a day. Intervals: 95 %, bootstrap over entities, {report.draws} draws,
seed {report.seed}. History: {report.predictions:,} predictions from {report.history_first_day} on, {report.labels:,}
labels until {report.history_last_day}.

## Decisions of the flywheel

{_write_table(("week", "predictions", "positives", "of them known", "served by", "promoted", "decision"), weeks)}

## Average precision by week

![Average precision by week, one line per strategy]({PLOT_FILE})

{_write_table(("week of", *names), by_week)}

flywheel_assets {report.flywheel_version}; {report.wall_seconds:.0f} s wall ({stages}).
"""


def _write_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _format_share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _plot(report: BacktestReport, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(report.weeks))
    for number, each in enumerate(report.strategies):
        colour, marker = _LINES[number % len(_LINES)]
        found = [week.average_precision.get(each.name) for week in report.weeks]
        heights = [float("nan") if value is None else value for value in found]
        axes.plot(places, heights, color=colour, marker=marker, label=each.name)
    for place, week in enumerate(report.weeks):
        if week.decision is not None and week.decision.promoted:
            axes.axvline(place - 0.5, color="#555555", linestyle="-.", linewidth=1)
            axes.annotate(f"{week.decision.version}\npromoted", (place - 0.5, 1.01), ha="center", fontsize=7,
                          xycoords=("data", "axes fraction"), annotation_clip=False)  # fmt: skip
    if not report.is_settled or report.weeks[-1].last > report.measured_until:
        first_open = next((n for n, week in enumerate(report.weeks) if week.last > report.measured_until), None)
        if first_open is not None:
            axes.axvspan(
                first_open - 0.5, len(report.weeks) - 0.5, color="#eeeeee", zorder=0, label="labels still come"
            )
    axes.set(xlabel="week of", ylabel="average precision", ylim=(0, 1))
    axes.set_xticks(list(places), [f"{week.first:%d %b}" for week in report.weeks], rotation=60, fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    figure.savefig(path, dpi=_DOTS_PER_INCH)
