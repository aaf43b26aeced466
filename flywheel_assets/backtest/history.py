"""Reads an application's landed predictions and labels, and says what was known of them on which day.

Predictions are read from landing, so that history which was imported and never materialized can be replayed, too. The
label that holds, blocked predictions, disputes and consent follow the rules of the evaluation
(`curation.labels.example_resolution`). Features stay in memory: rows × features × 8 bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.labels.discrepancies import write_severity_sql
from flywheel_assets.curation.labels.example_resolution import (
    write_label_propensity_sql,
    write_matured_predictions_sql,
)
from flywheel_assets.curation.labels.mining import write_subject_sql
from flywheel_assets.curation.labels.sampling import (
    write_draw_sql,
    write_inclusion_probability_sql,
    write_sample_weight_sql,
)
from flywheel_assets.curation.labels.score_contract import unpack_features
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import EmptyVersionError, InvalidRuleError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.measures.label_delay import DelayCurve, estimate_delay_curve

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_PREDICTION_COLUMNS = {
    "event_id": "VARCHAR",
    "received_at": "TIMESTAMPTZ",
    "occurred_at": "TIMESTAMPTZ",
    "prediction_id": "VARCHAR",
    "user_id": "VARCHAR",
    "thread_id": "VARCHAR",
    "do_not_train": "BOOLEAN",
    "features": "VARCHAR",
    "score": "DOUBLE",
    "amount": "DOUBLE",
    "segment": "VARCHAR",
    "action": "VARCHAR",
    "allow_propensity": "DOUBLE",
    "label_propensity": "DOUBLE",
}
_LABEL_COLUMNS = {
    "event_id": "VARCHAR",
    "received_at": "TIMESTAMPTZ",
    "occurred_at": "TIMESTAMPTZ",
    "known_at": "TIMESTAMPTZ",
    "source": "VARCHAR",
    "prediction_id": "VARCHAR",
    "signal": "VARCHAR",
    "label": "VARCHAR",
    "labeling_source": "VARCHAR",
    "do_not_train": "BOOLEAN",
}


@dataclass(frozen=True)
class Outcomes:
    """Labels and silence of some predictions; one element each, ordered by number."""

    numbers: Integers
    """Rows of `History.features`."""
    is_positive: Booleans
    """False for silence, too."""
    weights: Floats
    """Predictions of its kind that a row stands for: 1 / allow_propensity where an action policy drew, and
    1 / label_propensity where silence is unknown."""
    probabilities: dict[float, Floats]
    """Inclusion probability by sampling floor."""
    draws: Floats
    """Uniform in [0, 1): a row is sampled where its draw is below its probability."""


@dataclass(frozen=True)
class History:
    """Predictions in the order of their days, first receipts only, with the labels that came."""

    application: ClassificationApplication
    first_day: date
    """Of the predictions."""
    last_day: date
    """The last day on which a prediction or a label landed: what is known is known until its end."""
    features: pa.Table
    """One column per feature, one row per prediction."""
    ordinals: Integers
    """Day of receipt of each prediction, as the proleptic Gregorian ordinal."""
    ids: Sequence[str]
    entities: Sequence[str]
    scores: Floats
    """The scores that were served."""
    amounts: Floats
    """NaN where there is none."""
    labels: int
    """Label events."""
    connection: duckdb.DuckDBPyConnection

    def find_rows(self, first: date, last: date) -> Integers:
        """Find the numbers of the predictions of some days, ends included."""
        begin, end = np.searchsorted(self.ordinals, [first.toordinal(), last.toordinal() + 1])
        return np.arange(begin, end)

    def resolve(self, known_before: date, until: date, floors: Sequence[float] = ()) -> Outcomes:
        """Resolve the labels that landed before a day, of the predictions up to another one.

        Predictions whose truth is unknown are left out: blocked, disputed, no consent, silent where silence is unknown.

        Args:
            known_before: a label that lands on this day or later is not known.
            until: last day of predictions.
            floors: sampling floors whose inclusion probabilities are wanted.
        """
        contract, rules = self.application.contract, self.application.mining
        self._open_views(known_before, until)
        weight = write_sample_weight_sql(
            rules.sampling,
            inclusion_probability="1e0",
            allow_propensity=f"CASE WHEN {contract.write_blocked_sql()} THEN NULL ELSE allow_propensity END",
            label_propensity=write_label_propensity_sql(rules),
        )
        shares = [write_inclusion_probability_sql(replace(rules.sampling, floor=floor)) for floor in floors]
        found = self.connection.execute(f"""
SELECT number, is_positive, {weight} AS weight, {write_draw_sql(self.application.name)} AS draw
       {"".join(f", {share} AS share_{place}" for place, share in enumerate(shares))}
FROM (
    SELECT *, coalesce({write_severity_sql(rules.discrepancies)}, 0e0) AS severity
    FROM ({write_matured_predictions_sql(contract, rules)})
)
WHERE NOT do_not_train AND NOT is_label_withheld
ORDER BY number
""").fetchnumpy()
        return Outcomes(
            numbers=np.asarray(found["number"], dtype=np.int64),
            is_positive=np.asarray(found["is_positive"], dtype=bool),
            weights=np.asarray(found["weight"], dtype=np.float64),
            probabilities={
                floor: np.asarray(found[f"share_{place}"], dtype=np.float64) for place, floor in enumerate(floors)
            },
            draws=np.asarray(found["draw"], dtype=np.float64),
        )

    @cached_property
    def delay(self) -> DelayCurve | None:
        """Estimate how late positives become known; None with too few of them, or where silence says nothing."""
        contract = self.application.contract
        if not self.application.mining.is_silence_negative:
            return None
        self._open_views(self.last_day + timedelta(days=1), self.last_day)
        rows = self.connection.execute(f"""
SELECT delay, age, count(*) FROM (
    SELECT greatest(0, min(f.feedback_received_date - p.received_date)) AS delay,
           DATE {quote(self.last_day.isoformat())} - any_value(p.received_date) AS age
    FROM joined_feedback f JOIN raw_predictions p USING (prediction_id)
    WHERE f.label = {quote(contract.positive_label)} GROUP BY prediction_id
) GROUP BY ALL ORDER BY ALL
""").fetchall()
        if not rows:
            return None
        delays, ages, counts = zip(*rows, strict=True)
        return estimate_delay_curve(delays, ages, counts)

    def _open_views(self, known_before: date, until: date) -> None:
        window = self.application.window
        self.connection.execute(
            "CREATE OR REPLACE TEMP VIEW raw_predictions AS SELECT * FROM replayed "
            f"WHERE received_date <= DATE {quote(until.isoformat())}"
        )
        self.connection.execute(f"""
CREATE OR REPLACE TEMP VIEW joined_feedback AS
SELECT l.prediction_id, l.event_id AS feedback_event_id, l.label, l.labeling_source, l.source, l.known_at,
       l.occurred_at, l.received_at AS feedback_received_at, l.received_date AS feedback_received_date,
       greatest(l.received_date, p.received_date) AS completed_date, p.received_date AS prediction_received_date,
       l.do_not_train, l.signal
FROM landed_labels l JOIN replayed p USING (prediction_id)
WHERE l.received_date < DATE {quote(known_before.isoformat())}
  AND l.received_date - p.received_date
      BETWEEN {-window.longest_wait_days:d} AND {window.join_days + window.late_days:d}
""")


@contextmanager
def open_history(
    application: ClassificationApplication, landing: LandingPlace, first: date, last: date, scratch: Path
) -> Iterator[History]:
    """Read the predictions up to `last` and every label that has landed.

    Args:
        application: whose history it is.
        landing: of all applications; only read.
        first: go-live.
        last: last day of predictions that is wanted.
        scratch: a folder for work in progress.

    Raises:
        InvalidRuleError: no predictions landed in the range.
        EmptyVersionError: no label has landed.
        LandingRetiredError: segments of a day were removed by retention.
    """
    zones = {kind: landing.open_zone(application.name, kind) for kind in EventKind}
    days = {kind: zones[kind].list_days() for kind in EventKind}
    scratch.mkdir(parents=True, exist_ok=True)
    # Without it the rows of a sorted query come in the order in which threads finish: scores then meet other labels.
    connection = connect(scratch, keeps_order=True)
    empty = application.contract.write_struct_sql("'{}'")
    try:
        connection.execute(_write_create_sql("landed_predictions", _PREDICTION_COLUMNS, empty))
        connection.execute(_write_create_sql("landed_labels", _LABEL_COLUMNS))
        for kind, wanted in (
            (EventKind.PREDICTION, [day for day in days[EventKind.PREDICTION] if day <= last]),
            (EventKind.FEEDBACK, days[EventKind.FEEDBACK]),
        ):
            for day in wanted:
                with zones[kind].fetch(zones[kind].look(day), scratch) as paths:
                    if paths:
                        connection.execute(_write_insert_sql(kind, day, paths, application))
        yield _build_history(application, connection, first, last)
    finally:
        connection.close()


def _write_create_sql(name: str, columns: dict[str, str], features: str | None = None) -> str:
    fields = [f"NULL::{kind} AS {column}" for column, kind in columns.items() if column != "features"]
    fields += [] if features is None else [f"{features} AS features"]
    return f"CREATE TEMP TABLE {name} AS SELECT NULL::DATE AS received_date, {', '.join(fields)} LIMIT 0"


def _write_insert_sql(kind: EventKind, day: date, paths: Sequence[Path], application: ClassificationApplication) -> str:
    is_prediction = kind is EventKind.PREDICTION
    columns = _PREDICTION_COLUMNS if is_prediction else _LABEL_COLUMNS
    fields = ", ".join(f"{name}: {quote(type_)}" for name, type_ in columns.items())
    files = ", ".join(quote(str(path)) for path in paths)
    # A line that is no event is one that ingest puts into quarantine.
    source = f"read_json([{files}], format = 'newline_delimited', columns = {{{fields}}}, ignore_errors = true)"
    names = ", ".join(name for name in columns if name != "features")
    if not is_prediction:
        return f"INSERT INTO landed_labels SELECT DATE {quote(day.isoformat())}, {names} FROM {source}"
    contract = application.contract
    return (
        f"INSERT INTO landed_predictions SELECT DATE {quote(day.isoformat())}, {names}, {contract.write_struct_sql()} "
        f"FROM {source} WHERE {contract.write_problem_sql()} IS NULL"
    )


def _build_history(
    application: ClassificationApplication, connection: duckdb.DuckDBPyConnection, first: date, last: date
) -> History:
    connection.execute("""
CREATE TEMP TABLE first_receipts AS
SELECT * EXCLUDE receipt, row_number() OVER (ORDER BY received_date, occurred_at, prediction_id) - 1 AS number
FROM (
    SELECT *, row_number() OVER (PARTITION BY prediction_id ORDER BY received_date, received_at, event_id) AS receipt
    FROM landed_predictions
)
WHERE receipt = 1
""")
    connection.execute("DROP TABLE landed_predictions")
    connection.execute("CREATE TEMP TABLE replayed AS SELECT * EXCLUDE features FROM first_receipts")
    rows = connection.sql(
        f"SELECT features, received_date, prediction_id, {write_subject_sql('p')} AS entity, score, amount "
        "FROM first_receipts p ORDER BY number"
    ).to_arrow_table()
    connection.execute("DROP TABLE first_receipts")
    found = connection.execute(
        "SELECT min(received_date), max(received_date), (SELECT max(received_date) FROM landed_labels), "
        f"(SELECT count(*) FROM landed_labels WHERE signal = 'label'), "
        f"count(*) FILTER (received_date >= DATE {quote(first.isoformat())}) FROM replayed"
    ).fetchone()
    assert found is not None
    first_day, last_prediction, last_label, labels, in_range = found
    _check_history(application.name, first_day, last_prediction, in_range, labels, first, last)
    ordinals = np.array([day.toordinal() for day in values_of(rows["received_date"])], dtype=np.int64)
    return History(
        application=application,
        first_day=first_day,
        last_day=max(last_prediction, last_label),
        features=unpack_features(rows),
        ordinals=ordinals,
        ids=values_of(rows["prediction_id"]),
        entities=values_of(rows["entity"]),
        scores=rows["score"].to_numpy(),
        amounts=rows["amount"].to_numpy(),
        labels=labels,
        connection=connection,
    )


def _check_history(
    name: str, first_day: date | None, last_day: date | None, in_range: int, labels: int, first: date, last: date
) -> None:
    if not in_range:
        there = f"its predictions are of {first_day} … {last_day}" if first_day else "it has no predictions at all"
        raise InvalidRuleError(
            f"no prediction of {name} landed on {first} … {last}; {there}. Choose other days, or bring history: "
            f"`flywheel import FILE --history --reason backtest --application {name}`"
        )
    if not labels:
        raise EmptyVersionError(
            f"no label of {name} has landed, so that nothing can be trained or judged; bring labels with their times: "
            f"`flywheel import FILE --history --reason backtest --application {name}`"
        )
