"""Mines `joined_feedback` and matured `raw_predictions` into `hard_examples` and `quarantine`, each day by itself.

A day of labels that the breaker trips on is mined like any other, and none of its labels is kept: they are in
quarantine, until a person resets the day and it is mined again. Its silence stays, since no label is among it: a
prediction with a label on any day is `labelled`, whatever became of that day.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import duckdb

from flywheel_assets import records
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.label_breaker import LabelBreakerLimits, LabelCounts, judge_labels
from flywheel_assets.curation.labels.label_resolution import write_label_events_sql, write_resolved_labels_sql
from flywheel_assets.curation.labels.mining import MiningRules, examine
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.curation.trips import MOST_EXAMPLES, Trip
from flywheel_assets.lake.daily import breaker, ledger
from flywheel_assets.lake.daily.daily_steps import run_as_daily_step
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.home import find_local_path
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    GROUND_TRUTH,
    HARD_EXAMPLES,
    JOINED_LABELS,
    QUARANTINE,
    RAW_SCORES,
    PlannedFile,
    TableSpec,
    list_columns,
)
from flywheel_assets.records import Reason, Signal

DISPUTE_STAGE = "disputes"
"""Quarantine's copies of labels that contradict others; their rows stay in `hard_examples`."""


_DEFAULT_LIMITS = LabelBreakerLimits()


def compute_mining_lookback(
    window: JoinWindow, rules: MiningRules, limits: LabelBreakerLimits = _DEFAULT_LIMITS
) -> Mapping[str, int]:
    """Return by input how many days before D a day of hard examples reads."""
    return {
        JOINED_LABELS.name: max(window.match_lookback_days, limits.trailing_days),
        RAW_SCORES.name: rules.maturity_days + window.dedupe_days,
        GROUND_TRUTH.name: rules.maturity_days + window.longest_wait_days,
    }


@run_as_daily_step
def mine_days(
    lake: Lake,
    days: Sequence[date],
    start: date,
    window: JoinWindow,
    contract: ScoreContract,
    rules: MiningRules,
    stamp: RunStamp,
    limits: LabelBreakerLimits = _DEFAULT_LIMITS,
) -> dict[date, LedgerEntry]:
    """Replace partitions `days` of `hard_examples` by the labels and the silence that became known on them.

    Where the rules name no sampling floor, each day's follows from the number of predictions that mature on it. The
    labels of the day have the same: they are about other days, of which each has about as many predictions.

    The breaker judges the labels of each closed day by those of the days before it; see `label_breaker`.

    Args:
        lake: the application's tables.
        days: the days to replace.
        start: the application's first day; no look-back reaches behind it.
        window: of the join.
        contract: declared features and label words.
        rules: of mining.
        stamp: who writes.
        limits: the breaker's.

    Raises:
        MissingInputError: a day of the look-back was never materialized.
    """
    lookback = compute_mining_lookback(window, rules, limits)
    inputs = {
        asset: ledger.require_entries(lake, asset, _list_lookback(start, min(days), reach, max(days)))
        for asset, reach in lookback.items()
    }
    files: dict[date, Path] = {}
    refused: dict[date, Path] = {}
    disputed: dict[date, Path] = {}
    entries: list[LedgerEntry] = []
    with lake.connect() as connection:
        shown = _Inputs.open(lake, connection, {asset: list(of_days) for asset, of_days in inputs.items()})
        judge = _DayJudge.open(shown, days, inputs[JOINED_LABELS.name], contract, rules, limits, stamp)
        for day in sorted(days):
            matured = [each for each in [day - timedelta(days=rules.maturity_days)] if each >= start]
            rows_in = inputs[JOINED_LABELS.name][day].rows_kept
            rows_in += sum(inputs[RAW_SCORES.name][each].rows_kept for each in matured)
            # Where silence says nothing, labels are all that there is to keep.
            kept_from = RAW_SCORES if rules.is_silence_negative else JOINED_LABELS
            # Before anything matures, the first day's predictions say how many there are.
            volume = inputs[kept_from.name][max(start, day - timedelta(days=rules.waiting_days))].rows_kept
            mined = _NOTHING
            if rows_in:
                mined = _mine_day(
                    shown, day, start, window, contract, rules, rules.sampling.settle_floor(volume), judge
                )
                for path, made in (
                    (mined.file, files),
                    (mined.quarantine_file, refused),
                    (mined.dispute_file, disputed),
                ):
                    if path:
                        made[day] = path
            read = {asset: _list_lookback(start, day, reach, day) for asset, reach in lookback.items()}
            entries.append(
                LedgerEntry(
                    asset=HARD_EXAMPLES.name,
                    day=day,
                    is_closed=all(inputs[asset][each].is_closed for asset, some in read.items() for each in some),
                    content_hash=mined.content_hash,
                    input_hashes={asset: ledger.hash_window(inputs[asset], read[asset]) for asset in lookback},
                    rows_in=rows_in,
                    rows_kept=mined.rows_kept,
                    rows_by_reason=mined.rows_by_reason,
                )
            )
    properties = {**stamp.properties, "flywheel.mining-version": rules.version}
    lake.replace_days(HARD_EXAMPLES, days, files, properties)
    lake.replace_days(QUARANTINE, days, refused, properties, stage=HARD_EXAMPLES.name)
    lake.replace_days(QUARANTINE, days, disputed, properties, stage=DISPUTE_STAGE)
    unjudged = set(days) - {each.day for each in judge.judged}
    breaker.record_judged_days(lake, judge.judged, sorted(unjudged), stamp)
    ledger.record_entries(lake, entries, stamp)
    return {entry.day: entry for entry in entries}


@dataclass(frozen=True)
class _Mined:
    """Holds one day's files, none for no rows, and its account."""

    file: Path | None
    quarantine_file: Path | None
    dispute_file: Path | None
    content_hash: str
    rows_kept: int
    rows_by_reason: Mapping[str, int]


_NOTHING = _Mined(None, None, None, "", 0, {})


def _mine_day(
    inputs: "_Inputs",
    day: date,
    start: date,
    window: JoinWindow,
    contract: ScoreContract,
    rules: MiningRules,
    sampling: SamplingRules,
    judge: "_DayJudge",
) -> _Mined:
    lake, connection = inputs.lake, inputs.connection
    _create_views(inputs, day, start, window, rules, judge.kept_out)
    examine(connection, day, lake.application, contract, replace(rules, sampling=sampling))
    known = write_label_events_sql(contract, "known_labels")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE recent_labels AS SELECT * FROM {known} "
        "WHERE prediction_id IN (SELECT prediction_id FROM examined_labels)"
    )
    if found := judge.trip(day):
        connection.execute(
            f"UPDATE examined_labels SET reason = {quote(Reason.BREAKER_TRIPPED)}, detail = {quote(found)} "
            "WHERE reason IS NULL"
        )
    kept, reasons = _count_rows(connection)
    rows = connection.sql(_write_kept_sql(rules)).to_arrow_table()
    return _Mined(
        file=lake.write_rows(connection, HARD_EXAMPLES, day, rows),
        quarantine_file=lake.write_day(connection, QUARANTINE, day, _write_refused_sql(day, rules)),
        dispute_file=lake.write_day(connection, QUARANTINE, day, _write_disputed_sql(day, contract, rules)),
        content_hash=ledger.hash_content(rows, connection),
        rows_kept=kept,
        rows_by_reason=reasons,
    )


@dataclass(frozen=True)
class _DayJudge:
    """Judges the labels of the days of a run, in their order; knows what was decided about the days before."""

    connection: duckdb.DuckDBPyConnection
    counts: Mapping[date, LabelCounts]
    """Of each closed day with labels, of those that the days of the run are compared with."""
    joined: Mapping[date, LedgerEntry]
    let_in: Collection[tuple[date, str]]
    """The day and the joined rows of each reset."""
    kept_out: set[date]
    """The days that tripped and were not reset; those of the run are judged again."""
    rules: MiningRules
    limits: LabelBreakerLimits
    stamp: RunStamp
    judged: list[breaker.JudgedDay] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        inputs: "_Inputs",
        days: Sequence[date],
        joined: Mapping[date, LedgerEntry],
        contract: ScoreContract,
        rules: MiningRules,
        limits: LabelBreakerLimits,
        stamp: RunStamp,
    ) -> "_DayJudge":
        """Count the labels of all these days at once, by two narrow columns."""
        lake, connection = inputs.lake, inputs.connection
        first = min(days) - timedelta(days=limits.trailing_days)
        counted_rows = inputs.show(JOINED_LABELS, [day for day in joined if day >= first], "counted_labels")
        counted = connection.execute(
            "SELECT completed_date, count(*), count(*) FILTER (is_positive) "
            f"FROM {write_label_events_sql(contract, counted_rows)} GROUP BY ALL"
        ).fetchall()
        let_in = {(each.day, each.joined_hash) for each in breaker.list_resets(lake)}
        tripped = [(each.day, each.joined_hash) for each in breaker.find_tripped_days(lake)]
        return cls(
            connection,
            {day: LabelCounts(day, *found) for day, *found in counted if joined[day].is_closed},
            joined,
            let_in,
            {day for day, content in tripped if (day, content) not in let_in and day not in days},
            rules,
            limits,
            stamp,
        )

    def trip(self, day: date) -> str | None:
        """Judge a day whose `recent_labels` are there; return the limits that keep it out, None: it is let in."""
        if not self.joined[day].is_closed:
            return None
        counts = self.counts.get(day, LabelCounts(day, 0, 0))
        before = ledger.list_days(day - timedelta(days=self.limits.trailing_days), day - timedelta(days=1))
        trailing = [self.counts[each] for each in before if each in self.counts and each not in self.kept_out]
        is_judged = counts.labels >= self.limits.min_labels
        figures = judge_labels(counts, self._count_reversals(day) if is_judged else 0, trailing, self.limits)
        figures = replace(figures, trips=tuple(self._add_examples(trip, day) for trip in figures.trips))
        is_reset = (day, self.joined[day].content_hash) in self.let_in
        self.judged.append(breaker.JudgedDay(day, self.joined[day].content_hash, figures, is_reset, self.stamp.now))
        if not self.judged[-1].is_tripped:
            return None
        self.kept_out.add(day)
        return figures.describe()

    def _count_reversals(self, day: date) -> int:
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE reversals AS {_write_reversals_sql(day, self.rules)}")
        ((found,),) = self.connection.execute("SELECT count(*) FROM reversals").fetchall()
        return int(found)

    def _add_examples(self, trip: Trip, day: date) -> Trip:
        of_day = f"SELECT label_event_id FROM recent_labels WHERE completed_date = {_quote_day(day)}"
        rows = {
            "reversals": "FROM reversals",
            "positive_burst": f"{of_day} AND is_positive",
            "positive_share": f"{of_day} AND is_positive = {trip.value > trip.limit}",
        }[trip.rule]
        found = self.connection.execute(f"{rows} ORDER BY label_event_id LIMIT {MOST_EXAMPLES:d}").fetchall()
        return replace(trip, examples=tuple(event for (event,) in found))


def _write_reversals_sql(day: date, rules: MiningRules) -> str:
    """Write the query of D's labels that overturn the class that held before D; reads `recent_labels`.

    Where sources vote, a label that contradicts the majority and does not change it is none.
    """
    labels = rules.labels.with_one_class
    before = f"(SELECT * FROM recent_labels WHERE completed_date < {_quote_day(day)})"
    return f"""
WITH before AS (SELECT prediction_id, is_positive FROM ({write_resolved_labels_sql(labels, before)}) WHERE holds),
after AS (
    SELECT prediction_id, is_positive FROM ({write_resolved_labels_sql(labels, "recent_labels")}) WHERE holds
)
SELECT r.label_event_id
FROM recent_labels r JOIN before USING (prediction_id) LEFT JOIN after USING (prediction_id)
WHERE r.completed_date = {_quote_day(day)} AND r.is_positive <> before.is_positive
  AND after.is_positive IS DISTINCT FROM before.is_positive
"""


def _list_lookback(start: date, first: date, reach: int, last: date) -> list[date]:
    return ledger.list_days(max(start, first - timedelta(days=reach)), last)


@dataclass(frozen=True)
class _Inputs:
    """Shows a connection the rows of a day's inputs."""

    lake: Lake
    connection: duckdb.DuckDBPyConnection
    planned: Mapping[str, Mapping[date, Sequence[PlannedFile]]] | None
    """The files of every day by table; None: they are not on this machine, and the range was read as a whole."""

    @classmethod
    def open(cls, lake: Lake, connection: duckdb.DuckDBPyConnection, read: Mapping[str, Sequence[date]]) -> "_Inputs":
        """Plan all tables of the range once: loading a table's metadata costs more than a small day's rows."""
        planned = {spec.name: lake.plan_days(spec, read[spec.name]) for spec in _COLUMNS_READ}
        uris = (file.uri for files_of in planned.values() for files in files_of.values() for file in files)
        if all(find_local_path(uri) for uri in uris):
            return cls(lake, connection, planned)
        for spec, columns in _COLUMNS_READ.items():
            lake.register(connection, spec, read[spec.name], columns, view=f"all_{spec.name}")
        return cls(lake, connection, None)

    def show(self, spec: TableSpec, days: Sequence[date], view: str) -> str:
        """Create a view of some days of the range and return its name.

        A view of the whole range would open every file of it in every statement, for its statistics: of a small day
        that took more time than its rows (measured: 60 % of a day's mining in a range of ten weeks).
        """
        if self.planned is not None:
            self.lake.register(
                self.connection, spec, days, _COLUMNS_READ[spec], view=view, planned=self.planned[spec.name]
            )
        else:
            wanted = ", ".join(map(_quote_day, days)) or "NULL"
            self.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {view} AS "
                f"SELECT * FROM all_{spec.name} WHERE {spec.day_column} IN ({wanted})"
            )
        return view


_COLUMNS_READ: Mapping[TableSpec, Sequence[str] | None] = {
    JOINED_LABELS: None,
    RAW_SCORES: None,
    GROUND_TRUTH: ["prediction_id", "signal", "received_date"],
}


def _create_views(
    inputs: _Inputs, day: date, start: date, window: JoinWindow, rules: MiningRules, kept_out: Collection[date]
) -> None:
    """Create the views of one day that `examine` reads, and `known_labels`."""
    matured = day - timedelta(days=rules.maturity_days)
    before = _list_lookback(start, matured, window.dedupe_days, matured - timedelta(days=1))
    inputs.show(JOINED_LABELS, [day], "joined_feedback")
    inputs.show(RAW_SCORES, [matured] if matured >= start else [], "raw_predictions")
    inputs.show(RAW_SCORES, before, "earlier_predictions")
    signals = inputs.show(
        GROUND_TRUTH, _list_lookback(start, matured, window.longest_wait_days, day), "signals_of_the_wait"
    )
    known = [each for each in _list_lookback(start, day, window.match_lookback_days, day) if each not in kept_out]
    inputs.show(JOINED_LABELS, known, "known_labels")
    inputs.connection.execute(
        "CREATE OR REPLACE TEMP VIEW labelled_predictions AS "
        f"SELECT DISTINCT prediction_id FROM {signals} WHERE signal = {quote(Signal.LABEL)}"
    )


def _quote_day(day: date) -> str:
    return f"DATE {quote(day.isoformat())}"


def _write_kept_sql(rules: MiningRules) -> str:
    kept = list_columns(records.HARD_EXAMPLES).replace(
        "sampling_version", f"{quote(rules.version)} AS sampling_version"
    )
    return (
        f"SELECT {kept} FROM examined_labels WHERE reason IS NULL "
        f"UNION ALL SELECT {kept} FROM examined_silence WHERE reason IS NULL"
    )


def _write_refused_sql(day: date, rules: MiningRules) -> str:
    """Write the query of the rows for quarantine, which no other table holds.

    Silence that is labelled, blocked or not drawn is only counted.
    """
    constants = (
        f"{_quote_day(day)} AS day, {quote(HARD_EXAMPLES.name)} AS stage, "
        f"NULL::VARCHAR AS evidence, {quote(rules.version)} AS policy_version, NULL::VARCHAR AS payload"
    )
    return f"""
SELECT label_event_id AS row_id, reason, detail, subject, {constants} FROM examined_labels WHERE reason IS NOT NULL
UNION ALL
SELECT event_id AS row_id, reason, detail, subject, {constants} FROM examined_silence WHERE reason IS NOT NULL
UNION ALL
SELECT event_id AS row_id, reason, NULL AS detail, user_id AS subject, {constants}
FROM silent_decisions WHERE reason = {quote(Reason.NO_CONSENT)}
UNION ALL
SELECT event_id AS row_id, reason, 'received again with other content; the first receipt counts' AS detail,
       user_id AS subject, {constants.replace("NULL::VARCHAR AS payload", "content AS payload")}
FROM silent_decisions JOIN repeated_predictions USING (event_id)
WHERE reason = {quote(Reason.PREDICTION_ID_REUSED)}
"""


def _write_disputed_sql(day: date, contract: ScoreContract, rules: MiningRules) -> str:
    """Write the query of D's labels whose prediction is disputed on D; evidence: each source with its label."""
    events = """(
    SELECT * FROM recent_labels
    WHERE prediction_id IN (SELECT prediction_id FROM examined_labels WHERE reason IS NULL)
)"""
    said = "{source: labeling_source, positive: is_positive}"
    if contract.classes:
        said = "{source: labeling_source, positive: is_positive, label: label_class}"
    return f"""
WITH resolved AS ({write_resolved_labels_sql(rules.labels, events, contract.said_column)}),
evidence AS (
    SELECT prediction_id, to_json(
               list({said} ORDER BY label_known_at, label_event_id)
           )::VARCHAR AS evidence
    FROM resolved GROUP BY prediction_id
)
SELECT {_quote_day(day)} AS day, {quote(DISPUTE_STAGE)} AS stage, r.label_event_id AS row_id,
       {quote(Reason.DISPUTED)} AS reason, 'trusted sources contradict each other' AS detail, e.evidence,
       l.subject, {quote(rules.version)} AS policy_version, NULL::VARCHAR AS payload
FROM resolved r
JOIN evidence e USING (prediction_id)
JOIN examined_labels l ON l.label_event_id = r.label_event_id AND l.reason IS NULL
WHERE r.is_disputed AND r.completed_date = {_quote_day(day)}
"""


def _count_rows(connection: duckdb.DuckDBPyConnection) -> tuple[int, dict[str, int]]:
    """Return the rows kept, and the rows not kept by reason."""
    counted = connection.sql(
        "SELECT reason, count(*) FROM (SELECT reason FROM examined_labels "
        "UNION ALL SELECT reason FROM examined_silence "
        "UNION ALL SELECT reason FROM silent_decisions WHERE reason IS NOT NULL) GROUP BY reason"
    ).fetchall()
    counts: Counter[str | None] = Counter(dict(counted))
    kept = counts.pop(None, 0)
    return kept, {reason: rows for reason, rows in counts.items() if reason is not None}
