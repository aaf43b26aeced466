"""What matched feedback and its predictions say: the rows of `joined_feedback`, for matches that were found by keys.

Texts are nearly all of a prediction's bytes. They are read only where the feedback does not carry them, and of past
days, of which few predictions are asked for, only the row groups that hold one.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.sql_literals import quoted
from flywheel_assets.lake.tables import GROUND_TRUTH, ApplicationTables, Lake, TableSpec, nullable
from flywheel_assets.records import subject_of, subject_of_score

_FEW_IDS = 2000
"""Of so many DuckDB compares each with the bounds of every row group; for a join it reads all row groups."""
_TEXTS = ("prompt", "prompt_format", "output")


def fetch_matched(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    tables: ApplicationTables,
    matches: pa.Table,
    planned: Mapping[str, Mapping[date, Sequence[Path]] | None],
) -> pa.Table:
    """The joined rows of matches, in the columns of `tables.joined`.

    Args:
        lake: the application's tables.
        connection: to read with.
        tables: of the application's kind.
        matches: columns `joining.MATCHES`.
        planned: by table name, what `Lake.plan_days` said about all days of the matches.
    """
    if not matches.num_rows:
        return tables.joined.schema.empty_table()
    connection.register("matched", matches)
    lake.register(connection, GROUND_TRUTH, _days_in(matches["feedback_date"]), planned=planned[GROUND_TRUTH.name])
    connection.execute(_FEEDBACK)
    carried = _CARRIED if tables.is_text else "false"
    wanted = connection.sql(_WANTED.format(is_carried=carried)).to_arrow_table()
    receipts = _receipts(lake, connection, tables.predictions, wanted, planned[tables.predictions.name])
    connection.register("receipts", receipts)
    columns = _TEXT_COLUMNS if tables.is_text else _SCORE_COLUMNS
    return _with_subject(connection.sql(_JOINED_ROWS.format(columns=columns)).to_arrow_table(), tables)


def _receipts(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    wanted: pa.Table,
    planned: Mapping[date, Sequence[Path]] | None,
) -> pa.Table:
    """All receipts of the wanted predictions, with nulls for texts that all of their feedback carries."""
    found = []
    days = _days_in(wanted["prediction_date"])
    for some in [days] if wanted.num_rows <= _FEW_IDS else [[day] for day in days]:
        lake.register(connection, spec, some, view="raw_days", planned=planned)
        on_days = wanted.filter(pc.is_in(wanted["prediction_date"], pa.array(some, pa.date32())))
        for unread in ((), _TEXTS):
            ids = on_days.filter(pc.equal(on_days["is_carried"], bool(unread)))["prediction_id"]
            if len(ids):
                columns = [f"NULL::VARCHAR AS {name}" if name in unread else name for name in spec.schema.names]
                query = f"SELECT {', '.join(columns)} FROM raw_days WHERE prediction_id IN {_ids(connection, ids)}"
                found.append(connection.sql(query).to_arrow_table().cast(nullable(spec.schema)))
    return pa.concat_tables([nullable(spec.schema).empty_table(), *found])


def _ids(connection: duckdb.DuckDBPyConnection, ids: pa.ChunkedArray) -> str:
    if len(ids) <= _FEW_IDS:
        return f"({', '.join(map(quoted, ids.to_pylist()))})"
    connection.register("wanted_ids", pa.table({"prediction_id": ids}))
    return "(SELECT prediction_id FROM wanted_ids)"


_FEEDBACK = """
CREATE OR REPLACE TEMP TABLE feedback AS
SELECT m.completed_date, m.prediction_date, g.*
FROM ground_truth g JOIN matched m ON g.event_id = m.feedback_event_id AND g.received_date = m.feedback_date
"""
_CARRIED = "prompt IS NOT NULL AND prompt_format IS NOT NULL AND original_output IS NOT NULL"
_WANTED = """
SELECT prediction_id, prediction_date, bool_and({is_carried}) AS is_carried
FROM feedback WHERE prediction_date IS NOT NULL
GROUP BY ALL
"""
_JOINED_ROWS = """
WITH prediction AS (  -- several events for one prediction: the one received first
    SELECT * FROM receipts
    SEMI JOIN matched ON receipts.prediction_id = matched.prediction_id AND received_date = prediction_date
    QUALIFY row_number() OVER (PARTITION BY prediction_id, received_date ORDER BY received_at, event_id) = 1
)
SELECT f.completed_date,
       f.event_id AS feedback_event_id,
       f.prediction_id,
       f.prediction_date AS prediction_received_date,
       f.received_date AS feedback_received_date,
       f.received_at AS feedback_received_at,
       f.occurred_at,
       p.occurred_at AS predicted_at,
       f.signal,
       f.source,
       coalesce(p.model_version, f.model_version) AS model_version,
       coalesce(nullif(f.user_id, ''), nullif(p.user_id, '')) AS user_id,
       coalesce(nullif(f.thread_id, ''), nullif(p.thread_id, '')) AS thread_id,
       f.do_not_train OR coalesce(p.do_not_train, false) AS do_not_train,
       {columns},
       f.value, f.label, f.comment, f.sampling_probability
FROM feedback f
LEFT JOIN prediction p ON p.prediction_id = f.prediction_id AND p.received_date = f.prediction_date
"""


# What the user saw and changed comes first; what the server logged fills in where the event did not carry it.
_TEXT_COLUMNS = """
       coalesce(f.prompt, p.prompt) AS prompt,
       coalesce(f.prompt_format, p.prompt_format) AS prompt_format,
       coalesce(f.original_output, p.output, '') AS output,
       f.final_text"""
_SCORE_COLUMNS = """
       f.labeling_source, f.known_at,
       p.features, p.score, p.amount, p.segment, p.action, p.allow_propensity"""


def _with_subject(rows: pa.Table, tables: ApplicationTables) -> pa.Table:
    last_resort, decide = ("prompt", subject_of) if tables.is_text else ("prediction_id", subject_of_score)
    identities = zip(
        rows["user_id"].to_pylist(), rows["thread_id"].to_pylist(), rows[last_resort].to_pylist(), strict=True
    )
    subjects = [decide(user_id, thread_id, otherwise) for user_id, thread_id, otherwise in identities]
    rows = rows.append_column("subject", pa.array([subject for subject, _ in subjects], pa.string()))
    rows = rows.append_column("subject_kind", pa.array([kind.value for _, kind in subjects], pa.string()))
    return rows.select(tables.joined.schema.names).cast(tables.joined.schema)


def _days_in(column: pa.ChunkedArray) -> list[date]:
    return [day for day in pc.unique(column).to_pylist() if day is not None]
