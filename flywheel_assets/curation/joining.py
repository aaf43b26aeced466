"""Joins feedback with its predictions over key columns; each match belongs to exactly one day.

Over the days `[D − w − k, D]` (w = join window, k = dedupe window) take the *first receipt* of each feedback event and
of each prediction; a match belongs to day `max(first_p, first_f) = D` and needs `first_f − first_p ≤ w`, or
`first_p − first_f ≤ v` (v = wait) where the feedback came first. Feedback
that comes before its prediction, or weeks after it, is therefore matched once; a retry across midnight changes nothing;
a past day never changes; and a range of days gives the same rows as its days one by one. What the first receipt of
an event id says is what counts, and it is matched at most once, even where ids come again behind the dedupe window.

Feedback that *carries its text* (an edit with prompt and original output, a choice, a demonstration) needs no
prediction: it is complete on its own first receipt, with the prediction attached where that is known by then. See
docs/adr/0003. A retraction is complete in the same way: it takes back statements, which are found by their ids, however
old they are. Taken from one named statement, it is about no prediction: its `prediction_id` is empty and joins nothing.

Accounting: `received + carried_in = duplicates + matched + expired + waiting` holds for every day, and `carried_in(D)`
is `waiting(D − 1)`. It looks `v` days further back than the matches do, to know what was matched before.

A label may come later than the window. Where the caller gives the keys of older predictions, feedback that finds no
prediction within the window is looked up among them, and matched *after the window* on the day it arrives.
See docs/adr/0040.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import pyarrow as pa

from flywheel_assets.ranges import Checked, CountOrZero

MATCHES = pa.schema(
    [  # type: ignore[arg-type]
        ("completed_date", pa.date32()),
        ("feedback_event_id", pa.string()),
        ("feedback_date", pa.date32()),
        ("prediction_id", pa.string()),
        ("prediction_date", pa.date32()),
    ]
)
EXPIRIES = pa.schema([("day", pa.date32()), ("feedback_event_id", pa.string()), ("feedback_date", pa.date32())])  # type: ignore[arg-type]


@dataclass(frozen=True)
class JoinWindow(Checked):
    """Limits the time between a prediction and its feedback, and the age of a retry."""

    join_days: CountOrZero = 30
    """w: a label or an edit may arrive this many days after its prediction."""
    dedupe_days: CountOrZero = 7
    """k: a retry of an event is recognised for this many days beyond the join window."""
    wait_days: CountOrZero = 30
    """v: a label or an edit that arrives before its prediction waits this many days for it, at most `join_days`."""
    late_days: CountOrZero = 180
    """Labels only: for this many days beyond the join window the prediction of a label is looked for. Found, it is
    joined all the same and reported as `label_after_window`. 0: such a label waits, and is refused."""

    @property
    def longest_wait_days(self) -> int:
        """Days for which feedback waits for its prediction, before it is refused."""
        return min(self.wait_days, self.join_days)

    @property
    def match_lookback_days(self) -> int:
        """Days before D that decide which matches within the window belong to D."""
        return self.join_days + self.dedupe_days

    @property
    def account_lookback_days(self) -> int:
        """Days before D that decide what of the earlier feedback still waited on D."""
        return self.longest_wait_days + self.match_lookback_days

    def compute_lookback_days(self, *, is_text: bool) -> int:
        """Compute the days before D on which the rows of D depend; for texts those of the window alone."""
        return self.match_lookback_days if is_text else max(self.match_lookback_days, self.join_days + self.late_days)

    def compute_reading_days(self, *, is_text: bool) -> int:
        """Compute the days before D whose keys are read to join D, and to account for what was joined before."""
        return self.longest_wait_days + self.compute_lookback_days(is_text=is_text)


@dataclass(frozen=True)
class DayAccount:
    """Counts the feedback events of day D by what became of them."""

    received: int
    carried_in: int
    duplicates: int
    matched: int
    """Those after the window included."""
    expired: int
    waiting: int


@dataclass(frozen=True)
class JoinedKeys:
    """The matches of a range of days, what expired on them, and each day's account."""

    matches: pa.Table
    """One row per matched feedback event; columns `MATCHES`, `prediction_date` null where the text was carried."""
    expiries: pa.Table
    """One row per feedback event whose wait ended without a prediction; columns `EXPIRIES`."""
    accounts: dict[date, DayAccount]


def join_keys(
    connection: duckdb.DuckDBPyConnection, days: Sequence[date], window: JoinWindow, *, finds_late: bool = False
) -> JoinedKeys:
    """Match feedback and predictions for `days`.

    Args:
        connection: holds two views over at least `[first day − account_lookback_days, last day]`, as Arrow tables or
            Parquet files: `prediction_keys(prediction_id, received_date)` and
            `feedback_keys(event_id, prediction_id, received_date, carries_text)`; rows may repeat across days.
        days: the days to complete, ascending; gaps are allowed.
        window: the application's windows.
        finds_late: whether the view `old_prediction_keys`, of the same columns over at least `[first day −
            longest_wait_days − join_days − late_days, last day − join_days)`, is there to match feedback after the
            window. It is read only if some feedback finds no prediction within the window.
    """
    first = min(days) - timedelta(days=window.account_lookback_days)
    parameters = {
        "w": window.join_days,
        "v": window.longest_wait_days,
        "late": window.join_days + window.late_days,
        "span": window.match_lookback_days,
        "first": first,
        "wanted_from": min(days),
        "last": max(days),
    }
    connection.register("wanted_days", pa.table({"day": pa.array(days, pa.date32())}))
    connection.execute(_FEEDBACK_RECEIPTS, select_parameters(_FEEDBACK_RECEIPTS, parameters))
    connection.execute(_PREDICTION_RECEIPTS, select_parameters(_PREDICTION_RECEIPTS, parameters))
    connection.execute(_COMPLETIONS, select_parameters(_COMPLETIONS, parameters))
    if finds_late:
        _match_after_window(connection, parameters)
    matches = connection.sql(_MATCHES).to_arrow_table().cast(MATCHES)
    expiries = (
        connection.sql(_EXPIRIES, params=select_parameters(_EXPIRIES, parameters)).to_arrow_table().cast(EXPIRIES)
    )
    account_rows = connection.execute(_ACCOUNTS, select_parameters(_ACCOUNTS, parameters)).fetchall()
    return JoinedKeys(matches, expiries, {row[0]: DayAccount(*row[1:]) for row in account_rows})


def _match_after_window(connection: duckdb.DuckDBPyConnection, parameters: dict[str, object]) -> None:
    """Add to `completions` what the older predictions complete."""
    connection.execute(_UNMATCHED)
    ((first, last),) = connection.execute("SELECT min(feedback_date), max(feedback_date) FROM unmatched").fetchall()
    if first is None:
        return
    late = {**parameters, "first_unmatched": first, "last_unmatched": last}
    for statement in (_LATE_MATCHES, _DROP_SUPERSEDED, _ADD_LATE_MATCHES):
        connection.execute(statement, select_parameters(statement, late))


def select_parameters(query: str, parameters: dict[str, object]) -> dict[str, object]:
    """The parameters that a query names: DuckDB refuses surplus ones."""
    return {name: value for name, value in parameters.items() if re.search(rf"\${name}\b", query)}


# One row per feedback event and day it was received on; is_first: not received in the `span` days before. Feedback from
# before the windows of the wanted days tells only that. `needs_prediction`: the wanted days' matches or accounts depend
# on when its prediction came, unlike those of an earlier event that was complete when it arrived.
_FEEDBACK_RECEIPTS = """
CREATE OR REPLACE TEMP TABLE feedback_receipts AS
SELECT *, previous IS NULL OR day - previous > $span AS is_first,
       day >= $wanted_from OR (day >= $wanted_from - $v AND NOT carries_text) AS needs_prediction
FROM (
    SELECT event_id, prediction_id, received_date AS day, carries_text,
           lag(received_date) OVER (PARTITION BY event_id ORDER BY received_date) AS previous
    FROM feedback_keys
    WHERE received_date BETWEEN $first AND $last
)
"""

# The same for predictions, of which only those that feedback needs are kept.
_PREDICTION_RECEIPTS = """
CREATE OR REPLACE TEMP TABLE prediction_receipts AS
SELECT *, previous IS NULL OR day - previous > $span AS is_first
FROM (
    SELECT prediction_id, day, lag(day) OVER (PARTITION BY prediction_id ORDER BY day) AS previous
    FROM (
        SELECT DISTINCT prediction_id, received_date AS day
        FROM prediction_keys
        SEMI JOIN (SELECT prediction_id FROM feedback_receipts WHERE needs_prediction) USING (prediction_id)
        WHERE received_date BETWEEN $first AND $last
    )
)
"""

# On which day each first receipt of feedback became complete: one day at most, for all of them, wanted day or not.
_COMPLETIONS = """
CREATE OR REPLACE TEMP TABLE completions AS
WITH on_arrival AS (  -- the feedback comes last: its prediction is there already, or it needs none
    SELECT f.event_id, f.prediction_id, f.day AS feedback_date, f.day AS completed_date, f.carries_text,
           min(p.day) AS earliest
    FROM feedback_receipts f
    LEFT JOIN prediction_receipts p
        ON p.prediction_id = f.prediction_id AND f.prediction_id <> '' AND p.day BETWEEN f.day - $span AND f.day
    WHERE f.is_first AND f.day >= $wanted_from - $v
    GROUP BY ALL
),
complete_on_arrival AS (
    SELECT event_id, prediction_id, feedback_date, completed_date,
           CASE WHEN feedback_date - earliest <= $w THEN earliest END AS prediction_date
    FROM on_arrival
    WHERE carries_text OR feedback_date - earliest <= $w
),
later AS (  -- the prediction comes last: the first of its receipts, should it come again behind the dedupe window
    SELECT f.event_id, f.prediction_id, f.day AS feedback_date, min(p.day) AS completed_date,
           min(p.day) AS prediction_date
    FROM prediction_receipts p
    JOIN feedback_receipts f ON f.prediction_id = p.prediction_id AND f.day BETWEEN p.day - $v AND p.day - 1
    WHERE p.is_first AND f.is_first AND f.needs_prediction AND NOT f.carries_text
    GROUP BY ALL
)
SELECT * FROM complete_on_arrival
UNION ALL
SELECT * FROM later ANTI JOIN complete_on_arrival USING (event_id, feedback_date)
"""

_MATCHES = """
SELECT completed_date, event_id AS feedback_event_id, feedback_date, prediction_id, prediction_date
FROM completions SEMI JOIN wanted_days ON completed_date = day
ORDER BY completed_date, feedback_event_id
"""

# First receipts by the day their window ends, with the day they were completed on, if any.
_OUTCOMES = """
SELECT f.event_id, f.day AS feedback_date, min(c.completed_date) AS completed_date
FROM feedback_receipts f
LEFT JOIN completions c ON c.event_id = f.event_id AND c.completed_date BETWEEN f.day AND f.day + $v
WHERE f.is_first AND f.day >= $wanted_from - $v
GROUP BY ALL
"""

# Feedback whose prediction was not received within the window when it arrived, completed later or not.
_UNMATCHED = """
CREATE OR REPLACE TEMP TABLE unmatched AS
SELECT DISTINCT f.event_id, f.prediction_id, f.day AS feedback_date
FROM feedback_receipts f
ANTI JOIN completions c ON c.event_id = f.event_id AND c.feedback_date = f.day AND c.completed_date = f.day
WHERE f.is_first AND f.needs_prediction AND NOT f.carries_text AND f.prediction_id <> ''
"""

# The earliest receipt counts, as within the window.
_LATE_MATCHES = """
CREATE OR REPLACE TEMP TABLE late_matches AS
SELECT u.event_id, u.prediction_id, u.feedback_date, u.feedback_date AS completed_date,
       min(p.received_date) AS prediction_date
FROM unmatched u
JOIN (
    SELECT prediction_id, received_date FROM old_prediction_keys
    SEMI JOIN (SELECT prediction_id FROM unmatched) USING (prediction_id)
    WHERE received_date BETWEEN $first_unmatched - $late AND $last_unmatched - $w - 1
) p
    ON p.prediction_id = u.prediction_id
    AND p.received_date BETWEEN u.feedback_date - $late AND u.feedback_date - $w - 1
GROUP BY ALL
"""

# An id that is used again after the feedback came: the feedback is about the first prediction, which it has found.
_DROP_SUPERSEDED = """
DELETE FROM completions WHERE (event_id, feedback_date) IN (SELECT (event_id, feedback_date) FROM late_matches)
"""
_ADD_LATE_MATCHES = "INSERT INTO completions SELECT * FROM late_matches"

_EXPIRIES = f"""
SELECT day, event_id AS feedback_event_id, feedback_date
FROM ({_OUTCOMES}) JOIN wanted_days ON feedback_date + $v = day
WHERE completed_date IS NULL
ORDER BY day, feedback_event_id
"""

_ACCOUNTS = f"""
WITH outcomes AS ({_OUTCOMES}),
receipts AS (
    SELECT day, count(*) AS received, count(*) FILTER (NOT is_first) AS duplicates FROM feedback_receipts GROUP BY day
)
SELECT d.day,
       coalesce(any_value(r.received), 0),
       count(*) FILTER (o.feedback_date < d.day AND (o.completed_date IS NULL OR o.completed_date >= d.day)),
       coalesce(any_value(r.duplicates), 0),
       count(*) FILTER (o.completed_date = d.day),
       count(*) FILTER (o.completed_date IS NULL AND o.feedback_date = d.day - $v),
       count(*) FILTER ((o.completed_date IS NULL OR o.completed_date > d.day) AND o.feedback_date > d.day - $v)
FROM wanted_days d
LEFT JOIN receipts r ON r.day = d.day
LEFT JOIN outcomes o ON o.feedback_date BETWEEN d.day - $v AND d.day
GROUP BY d.day
ORDER BY d.day
"""
