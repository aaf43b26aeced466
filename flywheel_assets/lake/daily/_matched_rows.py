"""Fetches the rows of `joined_feedback` for matches that were found by keys.

Texts are nearly all of a prediction's bytes. They are read only where the feedback does not carry them. Of a large
day with few wanted predictions only the row groups that hold one are read.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_assets.curation.arrow import Array, ChunkedArray, values_of
from flywheel_assets.lake.storage.failures import translate_outages
from flywheel_assets.lake.tables.lake import Lake, add_absent_columns
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, ApplicationTables, PlannedFile, TableSpec, make_nullable
from flywheel_assets.records import PromptFormat, Signal, identify_score_subject, identify_subject

if TYPE_CHECKING:
    from pyiceberg.io import FileIO


@translate_outages()
def look_up_rows(io: "FileIO", id_column: str, ids_by_uri: Mapping[str, Array]) -> list[pa.Table]:
    """Return the rows of each data file whose id is wanted, with all columns of the file.

    A file of an earlier release may lack columns of its table.

    Args:
        io: opens them.
        id_column: which column holds the ids.
        ids_by_uri: data files with their wanted ids; an id may be of several rows or none.

    Raises:
        StorageUnavailableError: the warehouse's S3 does not answer.
    """

    def read_wanted(uri: str) -> pa.Table:
        # Buffering ahead asks S3 once for a row group, not once for each of its columns; on a disk it only costs.
        is_remote = not uri.startswith(("file:", "/"))
        with io.new_input(uri).open() as stream, pq.ParquetFile(stream, pre_buffer=is_remote) as file:  # type: ignore[arg-type]
            return _select_rows(file, id_column, ids_by_uri[uri])

    # More threads than cores decompress slower: their buffers go back and forth.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(read_wanted, ids_by_uri))


def _select_rows(file: pq.ParquetFile, id_column: str, ids: Array) -> pa.Table:
    all_ids = file.read([id_column], use_threads=False)[id_column]
    numbers = np.flatnonzero(pc.is_in(all_ids, ids).to_numpy())
    ends = np.cumsum([file.metadata.row_group(each).num_rows for each in range(file.num_row_groups)])
    groups = np.searchsorted(ends, numbers, side="right")
    found = [file.schema_arrow.empty_table()]
    for group in np.unique(groups).tolist():
        rows = file.read_row_group(group, use_threads=False)
        found.append(rows.take(numbers[groups == group] - (ends[group] - rows.num_rows)))
    return pa.concat_tables(found)


_LARGE_BYTES = 4 * 2**20
"""A smaller day has few row groups; to find the right ones does not make it cheaper to read."""
_FEW_ROWS = 2000
"""More rows of a day are in nearly all of its row groups."""
_TEXTS = ("prompt", "prompt_format", "output", "tools", "output_message")


def fetch_matched_rows(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    tables: ApplicationTables,
    matches: pa.Table,
    planned: Mapping[str, Mapping[date, Sequence[PlannedFile]]],
) -> pa.Table:
    """Fetch the joined rows of matches, in the columns of `tables.joined`.

    Args:
        lake: the application's tables.
        connection: to read with.
        tables: of the application's kind.
        matches: columns `joining.MATCHES`.
        planned: by table name, the result of `Lake.plan_days` for all days of the matches.
    """
    if not matches.num_rows:
        return tables.joined.schema.empty_table()
    connection.register("matched", matches)
    lake.register(connection, GROUND_TRUTH, list_days_in(matches["feedback_date"]), planned=planned[GROUND_TRUTH.name])
    connection.execute(_FEEDBACK)
    carried = _CARRIED if tables.is_text else "false"
    wanted = connection.sql(_WANTED.format(is_carried=carried)).to_arrow_table()
    receipts = _fetch_receipts(lake, connection, tables.predictions, wanted, planned[tables.predictions.name])
    connection.register("receipts", receipts)
    columns = _TEXT_COLUMNS if tables.is_text else _SCORE_COLUMNS
    return _add_subjects(connection.sql(_JOINED_ROWS.format(columns=columns)).to_arrow_table(), tables)


def _fetch_receipts(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    wanted: pa.Table,
    planned: Mapping[date, Sequence[PlannedFile]],
) -> pa.Table:
    """Fetch all receipts of the wanted predictions, with nulls for texts that all of their feedback carries."""
    schema = make_nullable(spec.schema)
    found = [schema.empty_table()]
    for unread in ((), _TEXTS):
        asked = wanted.filter(pc.equal(wanted["is_carried"], pa.scalar(bool(unread))))
        ids = {day: _select_ids(asked, day) for day in list_days_in(asked["prediction_date"])}
        large = [day for day in ids if sum(file.bytes for file in planned.get(day, ())) > _LARGE_BYTES]
        sparse = [day for day in large if len(ids[day]) <= _FEW_ROWS and not unread]
        by_file = {file.uri: ids[day] for day in sparse for file in planned[day]}
        if by_file:
            found += [
                add_absent_columns(rows, spec, schema.names).cast(schema)
                for rows in look_up_rows(lake.load_table(spec).io, "prediction_id", by_file)
            ]
        whole = [[day] for day in large if day not in sparse] + [[day for day in ids if day not in large]]
        columns = [name for name in schema.names if name not in unread]
        selected = ", ".join(f"NULL::VARCHAR AS {name}" if name in unread else name for name in schema.names)
        for days in filter(None, whole):
            keys = asked.filter(pc.is_in(asked["prediction_date"], pa.array(days, pa.date32())))
            connection.register("wanted_ids", keys.select(["prediction_id", "prediction_date"]))
            lake.register(connection, spec, days, columns, view="raw_days", planned=planned)
            # By day as well: the same prediction may be wanted with its texts on one day, without them on another.
            query = (
                f"SELECT {selected} FROM raw_days SEMI JOIN wanted_ids ON raw_days.prediction_id = "
                "wanted_ids.prediction_id AND received_date = prediction_date"
            )
            found.append(connection.sql(query).to_arrow_table().cast(schema))
    return pa.concat_tables(found)


def _select_ids(wanted: pa.Table, day: date) -> Array:
    return wanted.filter(pc.equal(wanted["prediction_date"], pa.scalar(day)))["prediction_id"].combine_chunks()


_FEEDBACK = """
CREATE OR REPLACE TEMP TABLE feedback AS
SELECT m.completed_date, m.prediction_date, g.*
FROM ground_truth g JOIN matched m ON g.event_id = m.feedback_event_id AND g.received_date = m.feedback_date
"""
# A demonstration is about no model's text, so that none is read for it.
_CARRIED = f"""prompt IS NOT NULL AND prompt_format IS NOT NULL
    AND (original_output IS NOT NULL OR signal = '{Signal.DEMONSTRATION}')"""
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


# The texts that the user saw and changed come first; the server's log fills in those that the event did not carry.
# Tools and messages belong to a text: they come from the event that the text comes from. A retraction may have neither.
_TEXT_COLUMNS = f"""
       coalesce(f.prompt, p.prompt, '') AS prompt,
       CASE WHEN f.prompt IS NOT NULL THEN coalesce(f.prompt_format, '{PromptFormat.TEXT}')
            ELSE coalesce(p.prompt_format, '{PromptFormat.TEXT}') END AS prompt_format,
       CASE WHEN f.signal = '{Signal.DEMONSTRATION}' THEN '' ELSE coalesce(f.original_output, p.output, '') END
           AS output,
       f.final_text,
       coalesce(f.statement_id, f.event_id) AS statement_id, f.revision, f.sibling_id, f.retracts,
       CASE WHEN f.prompt IS NULL THEN p.tools ELSE f.tools END AS tools,
       CASE WHEN f.signal = '{Signal.DEMONSTRATION}' THEN NULL WHEN f.original_output IS NULL THEN p.output_message
            ELSE f.original_message END AS output_message,
       f.final_message, f.attested_source, f.is_attested"""
_SCORE_COLUMNS = """
       f.labeling_source, f.known_at,
       p.features, p.score, p.amount, p.segment, p.action, p.allow_propensity,
       p.label_propensity, p.scores"""


def _add_subjects(rows: pa.Table, tables: ApplicationTables) -> pa.Table:
    last_resort, decide = ("prompt", identify_subject) if tables.is_text else ("prediction_id", identify_score_subject)
    identities = zip(
        values_of(rows["user_id"]), values_of(rows["thread_id"]), values_of(rows[last_resort]), strict=True
    )
    subjects = [decide(user_id, thread_id, otherwise) for user_id, thread_id, otherwise in identities]
    rows = rows.append_column("subject", pa.array([subject for subject, _ in subjects], pa.string()))
    rows = rows.append_column("subject_kind", pa.array([kind.value for _, kind in subjects], pa.string()))
    return rows.select(tables.joined.schema.names).cast(tables.joined.schema)


def list_days_in(column: ChunkedArray) -> list[date]:
    """List the days in a column, each once."""
    return [day for day in pc.unique(column).to_pylist() if day is not None]
