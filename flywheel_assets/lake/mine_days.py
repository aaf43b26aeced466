"""`joined_feedback` + matured `raw_predictions` → `hard_examples`, `quarantine`: each day by itself, in any order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb

from flywheel_assets import records
from flywheel_assets.curation.label_resolution import resolved_labels_sql
from flywheel_assets.curation.mining import MiningRules, examine
from flywheel_assets.curation.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quoted
from flywheel_assets.joining import JoinWindow
from flywheel_assets.lake import ledger
from flywheel_assets.lake.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables import (
    GROUND_TRUTH,
    HARD_EXAMPLES,
    JOINED_LABELS,
    QUARANTINE,
    RAW_SCORES,
    Lake,
    column_list,
)
from flywheel_assets.records import Reason, Signal

DISPUTE_STAGE = "disputes"
"""Quarantine's copies of labels that contradict others; their rows stay in `hard_examples`."""


def mining_lookback_days(window: JoinWindow, rules: MiningRules) -> Mapping[str, int]:
    """Per input how many days before D a day of hard examples reads."""
    return {
        JOINED_LABELS.name: window.match_lookback_days,
        RAW_SCORES.name: rules.maturity_days,
        GROUND_TRUTH.name: rules.maturity_days + window.join_days,
    }


def mine_days(
    lake: Lake,
    days: Sequence[date],
    start: date,
    window: JoinWindow,
    contract: ScoreContract,
    rules: MiningRules,
    stamp: RunStamp,
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of `hard_examples` by what became known on them.

    Args:
        lake: the application's tables.
        days: the days to replace.
        start: the application's first day; no look-back reaches behind it.
        window: of the join.
        contract: declared features and label words.
        rules: of mining.
        stamp: who writes.

    Raises:
        MissingInputError: a day of the look-back was never materialized.
    """
    lookback = mining_lookback_days(window, rules)
    inputs = {
        asset: ledger.require(lake, asset, _lookback(start, min(days), reach, max(days)))
        for asset, reach in lookback.items()
    }
    files: dict[date, Path] = {}
    refused: dict[date, Path] = {}
    disputed: dict[date, Path] = {}
    entries: list[LedgerEntry] = []
    with lake.connect() as connection:
        for day in sorted(days):
            matured = [each for each in [day - timedelta(days=rules.maturity_days)] if each >= start]
            read = {asset: _lookback(start, day, reach, day) for asset, reach in lookback.items()}
            _register(lake, connection, day, matured, read)
            examine(connection, day, lake.application, contract, rules)
            if file := lake.write_day(connection, HARD_EXAMPLES, day, _kept_sql(rules)):
                files[day] = file
            if file := lake.write_day(connection, QUARANTINE, day, _refused_sql(day, rules)):
                refused[day] = file
            if file := lake.write_day(connection, QUARANTINE, day, _disputed_sql(day, contract, rules)):
                disputed[day] = file
            kept, reasons = _account(connection)
            entries.append(
                LedgerEntry(
                    asset=HARD_EXAMPLES.name,
                    day=day,
                    is_closed=all(
                        inputs[asset][each].is_closed for asset, each_read in read.items() for each in each_read
                    ),
                    content_hash=_content_hash(connection, rules),
                    input_hashes={asset: ledger.window_hash(inputs[asset], read[asset]) for asset in lookback},
                    rows_in=inputs[JOINED_LABELS.name][day].rows_kept
                    + sum(inputs[RAW_SCORES.name][each].rows_kept for each in matured),
                    rows_kept=kept,
                    rows_by_reason=reasons,
                )
            )
    properties = {**stamp.properties(), "flywheel.mining-version": rules.version}
    lake.replace_days(HARD_EXAMPLES, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=HARD_EXAMPLES.name)
    lake.replace_days(QUARANTINE, days, disputed, properties, stage=DISPUTE_STAGE)
    ledger.record(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


def _lookback(start: date, first: date, reach: int, last: date) -> list[date]:
    return ledger.day_range(max(start, first - timedelta(days=reach)), last)


def _register(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    day: date,
    matured: Sequence[date],
    read: Mapping[str, Sequence[date]],
) -> None:
    lake.register(connection, JOINED_LABELS, [day])
    lake.register(connection, RAW_SCORES, matured)
    window = read[GROUND_TRUTH.name]
    lake.register(connection, GROUND_TRUTH, window, columns=["prediction_id", "signal"], view="signals")
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW labelled_predictions AS "
        f"SELECT DISTINCT prediction_id FROM signals WHERE signal = {quoted(Signal.LABEL)}"
    )
    columns = ["prediction_id", "feedback_event_id", "signal", "label", "labeling_source", "source"]
    lake.register(
        connection,
        JOINED_LABELS,
        read[JOINED_LABELS.name],
        columns=[*columns, "feedback_received_at", "completed_date"],
        view="known_labels",
    )


def _kept_sql(rules: MiningRules) -> str:
    kept = column_list(records.HARD_EXAMPLES).replace(
        "sampling_version", f"{quoted(rules.version)} AS sampling_version"
    )
    return (
        f"SELECT {kept} FROM examined_labels WHERE reason IS NULL "
        f"UNION ALL SELECT {kept} FROM examined_silence WHERE reason IS NULL"
    )


def _refused_sql(day: date, rules: MiningRules) -> str:
    """What nobody could read back elsewhere: silence that is labelled, blocked or not drawn is only counted."""
    constants = (
        f"DATE {quoted(day.isoformat())} AS day, {quoted(HARD_EXAMPLES.name)} AS stage, "
        f"NULL::VARCHAR AS evidence, {quoted(rules.version)} AS policy_version, NULL::VARCHAR AS payload"
    )
    return f"""
SELECT label_event_id AS row_id, reason, detail, subject, {constants} FROM examined_labels WHERE reason IS NOT NULL
UNION ALL
SELECT event_id AS row_id, reason, detail, subject, {constants} FROM examined_silence WHERE reason IS NOT NULL
UNION ALL
SELECT event_id AS row_id, reason, NULL AS detail, user_id AS subject, {constants}
FROM silent_decisions WHERE reason = {quoted(Reason.NO_CONSENT)}
"""


def _disputed_sql(day: date, contract: ScoreContract, rules: MiningRules) -> str:
    """The labels of D whose prediction is disputed by all that is known on D; evidence: who says what."""
    events = f"""(
    SELECT prediction_id, feedback_event_id AS label_event_id, label = {quoted(contract.positive_label)} AS is_positive,
           coalesce(labeling_source, source) AS labeling_source, feedback_received_at AS label_received_at,
           completed_date
    FROM known_labels
    WHERE signal = {quoted(Signal.LABEL)}
      AND label IN ({quoted(contract.positive_label)}, {quoted(contract.negative_label)})
      AND prediction_id IN (SELECT prediction_id FROM examined_labels WHERE reason IS NULL)
)"""
    return f"""
WITH resolved AS ({resolved_labels_sql(rules.labels, events)}),
evidence AS (
    SELECT prediction_id, to_json(list({{source: labeling_source, positive: is_positive}} ORDER BY label_received_at))
           ::VARCHAR AS evidence
    FROM resolved GROUP BY prediction_id
)
SELECT DATE {quoted(day.isoformat())} AS day, {quoted(DISPUTE_STAGE)} AS stage, r.label_event_id AS row_id,
       {quoted(Reason.DISPUTED)} AS reason, 'trusted sources contradict each other' AS detail, e.evidence,
       l.subject, {quoted(rules.version)} AS policy_version, NULL::VARCHAR AS payload
FROM resolved r
JOIN evidence e USING (prediction_id)
JOIN examined_labels l ON l.label_event_id = r.label_event_id AND l.reason IS NULL
WHERE r.is_disputed AND r.completed_date = DATE {quoted(day.isoformat())}
"""


def _account(connection: duckdb.DuckDBPyConnection) -> tuple[int, dict[str, int]]:
    """Rows kept, and rows not kept by reason."""
    counted = connection.sql(
        "SELECT reason, count(*) FROM (SELECT reason FROM examined_labels "
        "UNION ALL SELECT reason FROM examined_silence "
        "UNION ALL SELECT reason FROM silent_decisions WHERE reason IS NOT NULL) GROUP BY reason"
    ).fetchall()
    counts: Counter[str | None] = Counter(dict(counted))
    kept = counts.pop(None, 0)
    return kept, {reason: rows for reason, rows in counts.items() if reason is not None}


def _content_hash(connection: duckdb.DuckDBPyConnection, rules: MiningRules) -> str:
    return ledger.content_hash(connection.sql(f"SELECT * FROM ({_kept_sql(rules)}) ORDER BY ALL").to_arrow_table())
