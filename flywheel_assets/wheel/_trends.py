"""Reads how the models do in production, per day or week, from the daily reports.

Of texts: the share of answers with feedback that people changed, per model version. Of scores: how far the week's
scores have moved from those of the champion's training rows, and the fields that breached a limit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from flywheel_assets.lake.daily.ledger import list_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS, FEEDBACK_SUMMARY, ApplicationTables
from flywheel_assets.wheel._accounts import Period

ALL_MODELS = "all models together"
MOST_LINES = 5
"""Lines of a chart: all models together and the newest versions; the table has all of them."""
_SCORE = "score"
_NO_VERSION = "unknown"


@dataclass(frozen=True)
class Point:
    """One value of one line; None: too little to say."""

    first: date
    line: str
    rows: int
    value: float | None
    more: str
    """What else the table says."""


@dataclass(frozen=True)
class Trend:
    """One figure of production over time."""

    title: str
    says: str
    column: str
    """Head of the values' column."""
    more_column: str
    rows_column: str
    points: tuple[Point, ...]
    is_share: bool

    @property
    def lines(self) -> list[str]:
        """Return the lines' names in order of their first point, `ALL_MODELS` first."""
        return list(dict.fromkeys(point.line for point in self.points))


def read_trend(lake: Lake, tables: ApplicationTables, periods: tuple[Period, ...], days_of_gold: int) -> Trend | None:
    """Read the production trend over the page's periods; None: no report was made yet."""
    spec = FEEDBACK_SUMMARY if tables.is_text else DRIFT_REPORTS
    if not periods or not lake.has_table(spec):
        return None
    shown = list_days(periods[0].first, periods[-1].last)
    # To choose 365 partitions by their days costs as much as to read them: 80 ms.
    days = shown if days_of_gold > len(shown) else None
    trend = _read_edits(lake, days, periods) if tables.is_text else _read_drift(lake, days, periods)
    return trend if trend.points else None


def read_breaches(lake: Lake) -> tuple[date, list[str]] | None:
    """Read the fields that drifted on the newest reported day; None: no day was reported, or nothing drifted."""
    if not lake.has_table(DRIFT_REPORTS):
        return None
    counted = lake.count_rows_per_day(DRIFT_REPORTS)
    if not counted:
        return None
    day = max(counted)
    rows = lake.read(DRIFT_REPORTS, [day], ["day", "field", "breach"], where="breach IS NOT NULL").to_pylist()
    return (day, sorted(f"{row['field']}: {row['breach']}" for row in rows)) if rows else None


def _read_edits(lake: Lake, days: list[date] | None, periods: tuple[Period, ...]) -> Trend:
    columns = ["completed_date", "model_version", "interactions", "edits", "edits_unchanged", "thumbs_down"]
    totals: dict[tuple[date, str], list[int]] = {}
    first_seen: dict[str, date] = {}
    find = _index(periods)
    for row in lake.read(FEEDBACK_SUMMARY, days, columns).to_pylist():
        if row["completed_date"] not in find:
            continue
        line = row["model_version"] or _NO_VERSION
        first_seen[line] = min(row["completed_date"], first_seen.get(line, row["completed_date"]))
        total = totals.setdefault((find[row["completed_date"]], line), [0, 0, 0])
        total[0] += row["interactions"]
        total[1] += row["edits"] - row["edits_unchanged"]
        total[2] += row["thumbs_down"]
    if len(first_seen) > 1:
        for (first, _), counts in list(totals.items()):
            total = totals.setdefault((first, ALL_MODELS), [0, 0, 0])
            total[:] = [one + more for one, more in zip(total, counts, strict=True)]
        first_seen[ALL_MODELS] = date.min
    points = [
        Point(
            first=first,
            line=line,
            rows=answers,
            value=min(1.0, changed / answers) if answers else None,
            more=f"{down / answers:.1%}" if answers else "",
        )
        for (first, line), (answers, changed, down) in sorted(
            totals.items(), key=lambda each: (first_seen[each[0][1]], each[0][1], each[0][0])
        )
    ]
    return Trend(
        title="In production",
        says="Share of the answers with feedback that people changed, per model version; lower is better",
        column="changed",
        more_column="thumbs down",
        rows_column="answers",
        points=tuple(points),
        is_share=True,
    )


def _read_drift(lake: Lake, days: list[date] | None, periods: tuple[Period, ...]) -> Trend:
    columns = ["day", "field", "reference_version", "rows", "psi", "breach"]
    found: dict[tuple[date, str], list[float]] = {}
    breached: dict[date, set[str]] = {}
    rows_of: dict[tuple[date, str], int] = {}
    find = _index(periods)
    for row in lake.read(DRIFT_REPORTS, days, columns).to_pylist():
        if row["day"] not in find:
            continue
        first = find[row["day"]]
        if row["breach"] is not None:
            breached.setdefault(first, set()).add(row["field"])
        if row["field"] == _SCORE:
            key = (first, row["reference_version"])
            rows_of[key] = max(row["rows"], rows_of.get(key, 0))
            found.setdefault(key, []).extend([] if row["psi"] is None else [row["psi"]])
    points = [
        Point(first, line, rows_of[first, line], max(psi, default=None), ", ".join(sorted(breached.get(first, ()))))
        for (first, line), psi in sorted(found.items(), key=lambda each: (each[0][0], each[0][1]))
    ]
    return Trend(
        title="In production",
        says="Population stability index of the scores against the rows that the model was trained on; lower is better",
        column="PSI of the score",
        more_column="fields over their limit",
        rows_column="predictions",
        points=tuple(points),
        is_share=False,
    )


def _index(periods: Iterable[Period]) -> Mapping[date, date]:
    """Map each day to the first day of its period."""
    return {day: period.first for period in periods for day in list_days(period.first, period.last)}
