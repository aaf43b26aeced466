"""Lays out the charts: shapes only, in a box that is stretched to the page's width. The templates draw them.

Fill and pattern show a row's fate, dashes tell lines apart, so that a chart is read in grey, too. Words stay outside of
the box, where they keep their size on a narrow screen, and every chart has its numbers in a table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from flywheel_assets.wheel._accounts import Period
from flywheel_assets.wheel._trends import ALL_MODELS, MOST_LINES, Trend

WIDTH, HEIGHT = 1000.0, 200.0
_GAP = 0.2
DASHES = ("", "8 5", "2 4", "12 4 2 4", "5 3 1 3")
"""One for each model version, the newest first."""


@dataclass(frozen=True)
class Shape:
    """A rectangle of one fate."""

    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Bars:
    """A chart of stacked bars."""

    shapes: tuple[Shape, ...]
    top: int
    """The number at the upper edge."""
    first: date
    last: date
    by_week: bool
    label: str
    """The chart in a sentence, for those who do not see it."""


@dataclass(frozen=True)
class Line:
    """One line with its dashes: runs of points as SVG reads them, and points that stand alone."""

    name: str
    dash: str
    runs: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    last: str
    """Its last value."""
    is_champion: bool
    is_sum: bool
    """All models together: a broad band below the others."""


@dataclass(frozen=True)
class Lines:
    """A chart of lines."""

    lines: tuple[Line, ...]
    top: str
    first: date
    last: date
    more: int
    """Lines that only the table has."""
    label: str


def draw_bars(periods: Sequence[Period]) -> Bars | None:
    """Stack each period's gold, waiting and refused rows; None: there is nothing to draw."""
    if not periods:
        return None
    top = _round_up(max(period.rows for period in periods))
    step = WIDTH / len(periods)
    shapes = []
    for number, period in enumerate(periods):
        below = 0.0
        for name, rows in (("kept", period.kept), ("waiting", period.waiting), ("refused", period.refused)):
            height = HEIGHT * rows / top
            if rows:
                y = HEIGHT - below - height
                x, width = step * (number + _GAP / 2), step * (1 - _GAP)
                shapes.append(Shape(name, round(x, 2), round(y, 2), round(width, 2), round(height, 2)))
            below += height
    kept, waiting, refused = (
        sum(getattr(period, name) for period in periods) for name in ("kept", "waiting", "refused")
    )
    by_week = periods[0].last != periods[0].first
    return Bars(
        shapes=tuple(shapes),
        top=top,
        first=periods[0].first,
        last=periods[-1].last,
        by_week=by_week,
        label=f"Bars by {'week' if by_week else 'day'} from {periods[0].first} to {periods[-1].last}: {kept:,} rows in "
        f"gold, {waiting:,} waiting, {refused:,} not kept. The numbers are in the table below.",
    )


def draw_lines(trend: Trend, periods: Sequence[Period], champion: str | None) -> Lines | None:
    """Draw a line for each of the newest models; None: no point has a value."""
    values = [point.value for point in trend.points if point.value is not None]
    if not values:
        return None
    highest = max(values)
    top = math.ceil(highest * 10) / 10 or 0.1 if trend.is_share else _round_up_small(highest)
    places = {period.first: number for number, period in enumerate(periods)}
    together = trend.lines[:1] if trend.lines[0] == ALL_MODELS else []
    single = trend.lines[len(together) :]
    names = [*together, *single[::-1][: MOST_LINES - len(together)]]
    lines = []
    dashes = dict(zip(names[len(together) :], DASHES, strict=False))
    for name in names:
        at = {places[point.first]: point.value for point in trend.points if point.line == name}
        known = {place: value for place, value in sorted(at.items()) if value is not None}
        if not known:
            continue
        runs: list[list[tuple[float, float]]] = []
        previous = None
        for place, value in known.items():
            if previous is None or place != previous + 1:
                runs.append([])
            runs[-1].append(_place(place, value, len(periods), top))
            previous = place
        last = list(known.values())[-1]
        lines.append(
            Line(
                name=name,
                dash=dashes.get(name, ""),
                is_sum=name == ALL_MODELS,
                runs=tuple(" ".join(f"{x},{y}" for x, y in run) for run in runs if len(run) > 1),
                dots=tuple(run[0] for run in runs if len(run) == 1),
                last=f"{last:.1%}" if trend.is_share else f"{last:.3f}",
                is_champion=name == champion,
            )
        )
    if not lines:
        return None
    shown = "; ".join(f"{line.name}, last {line.last}" for line in lines)
    return Lines(
        lines=tuple(lines),
        top=f"{top:.0%}" if trend.is_share else f"{top:g}",
        first=periods[0].first,
        last=periods[-1].last,
        more=len(trend.lines) - len(names),
        label=f"{trend.says}. {shown}. The numbers are in the table below.",
    )


def _place(place: int, value: float, places: int, top: float) -> tuple[float, float]:
    return round(WIDTH * (place + 0.5) / places, 2), round(HEIGHT * (1 - value / top), 2)


def _round_up(rows: int) -> int:
    """Return the next number of 1, 2 or 5 times a power of ten."""
    power: int = 10 ** (len(str(max(rows, 1))) - 1)
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rows)


def _round_up_small(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 0.1
    return next((round(factor * power, 9) for factor in (1, 2, 5, 10) if factor * power >= value), 10 * power)
