"""Cuts classification versions: sampled, weighted training rows and all evaluation rows, as Parquet."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from flywheel_assets.curation.labels.example_resolution import (
    MOST_WEEKS,
    Calendar,
    TrainingSpan,
    write_evaluation_rows_sql,
    write_judged_examples_sql,
    write_label_propensity_sql,
    write_training_rows_sql,
)
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import write_sample_weight_sql
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.breaker import find_tripped_days
from flywheel_assets.lake.daily.ledger import ClosedDay
from flywheel_assets.lake.storage.duckdb_engine import write_parquet
from flywheel_assets.lake.storage.failures import translate_outages
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import BREAKER_DAYS, HARD_EXAMPLES, JOINED_LABELS, RAW_SCORES
from flywheel_assets.lake.versions.cutting import cut_version
from flywheel_assets.lake.versions.exclusions import (
    Exclusion,
    find_exclusions,
    list_exclusions_in_force,
    write_not_excluded_sql,
)
from flywheel_assets.lake.versions.exports import EARLIER, ExportedFile, ExportSet, Manifest, read_manifest
from flywheel_assets.lake.versions.folders import Pin, Versions
from flywheel_assets.lake.versions.label_delay import (
    find_effective_maturity,
    read_delay,
    read_delay_curves,
    register_known_shares,
)
from flywheel_assets.lake.versions.net_new import find_fresh_days
from flywheel_assets.lake.versions.pins import register_pinned_days
from flywheel_assets.measures.label_delay import DelayCurve
from flywheel_assets.ranges import Checked, Count
from flywheel_assets.records import Reason, Signal

LEAST_POSITIVES = 100
"""Known positives of the model that is judged on an older week; a model of fewer proves nothing."""
LEAST_POSITIVE_SHARE = 0.5
"""The same, of those that the newest judged model has: one of a few weeks' rows stood for one of many, and was found
.22 of AP worse than what served, where the newest alone was as good."""
ENOUGH_POSITIVES = 2_000
"""Known positives among the evaluation rows with which no older week is added: they show a gain of .015, and each week
costs a fit and a copy of the rows."""
_RATE_DAYS = 28
_ROW_GROUP_ROWS = 100_000
_ROWS_CHECKED = 20_000
"""Predictions of the evaluation weeks that are looked at for a reason why rows are refused."""
_COUNTED = [
    "completed_date",
    "prediction_id",
    "label_event_id",
    "prediction_received_date",
    "predicted_at",
    "is_positive",
    "labeling_source",
    "label_known_at",
    "label_received_at",
    "label_received_date",
    "model_version",
    "subject",
    "subject_kind",
    "score",
    "discrepancy",
    "inclusion_probability",
    "draw",
    "label_propensity",
    "label_class",
]
"""The columns that decide about an example; features are nearly all bytes of the others."""


@dataclass(frozen=True, kw_only=True)
class ExampleRules(Checked):
    """Holds the rules that make a version of closed days of examples."""

    contract: ScoreContract
    mining: MiningRules = field(default_factory=MiningRules)
    evaluation_weeks: Count = 2
    """Matured weeks after the training rows on which champion and challenger meet; one week decides by chance."""

    def plan_calendar(self, last_day: date, curves: Iterable[DelayCurve] = ()) -> Calendar:
        """Plan the days that a version trains on and is judged on.

        Args:
            last_day: the last closed day.
            curves: of the label delay; without them `maturity_days` is believed, the soonest that a row can count.
        """
        maturity_days = find_effective_maturity(curves, self.mining.waiting_days)
        return Calendar.plan(last_day, maturity_days, self.evaluation_weeks)

    def as_json(self) -> dict[str, Any]:
        """Return the rules as a manifest records them."""
        rules = asdict(self)
        for field_name in ("features", "retired_features"):
            kinds = rules["contract"][field_name]
            rules["contract"][field_name] = {name: kind.value for name, kind in kinds.items()}
        first_days = self.contract.features_since.items()
        rules["contract"]["features_since"] = {name: first.isoformat() for name, first in first_days}
        del rules["contract"]["trusted_sources"]  # capture's; the tiers are in the mining rules
        rules["contract"]["blocking_actions"] = sorted(self.contract.blocking_actions)
        if self.contract.classes:
            rules["contract"]["classes"] = list(self.contract.classes)
        else:  # as manifests of two classes were before there were more
            del rules["contract"]["classes"], rules["contract"]["mapping"]["scores"]
        return rules


def cut_example_version(
    lake: Lake, versions: Versions, version: str, rules: ExampleRules, code_version: str
) -> Manifest:
    """Pin, resolve and export the closed days of `hard_examples`; raises the errors of `cut_version`."""
    resolve = partial(_resolve_pin, version=version, rules=rules)
    also_read = (RAW_SCORES, JOINED_LABELS, BREAKER_DAYS)
    return cut_version(lake, versions, version, HARD_EXAMPLES, resolve, rules.as_json(), code_version, also_read)


@dataclass(frozen=True)
class NewExamples:
    """Counts the examples that a training now would add to the last successful one."""

    positives: int
    hard_examples: int
    """Discrepancies of either class."""
    rows: int
    """New rows of both classes, hard or not."""
    since: str | None
    """The last successfully trained version."""
    train_until: date | None
    """Last day of predictions that the judged model of a version cut now would train on; None: no closed day."""
    age_days: int | None = None
    """From the last day that was closed for the last trained version to the last one now."""
    is_exact: bool = True
    """False: `hard_examples` and the other two are upper bounds, from the accounts of the days and Iceberg's metadata
    alone, and too few."""


def count_new_examples(
    lake: Lake, versions: Versions, rules: ExampleRules, enough_hard_examples: int = 0, pause_days: int | None = None
) -> NewExamples:
    """Count the examples that a version cut now would train on and the last trained one did not.

    Args:
        lake: the application's tables.
        versions: the application's versions.
        rules: of a version that is cut now.
        enough_hard_examples: while an upper bound is below it, no row is read …
        pause_days: … unless the last training is this many days old; None: its age does not matter.
    """
    trained = versions.find_last_trained()
    manifest = read_manifest(trained.export) if trained else None
    since = trained.version if trained else None
    closed = ledger.read_closed_accounts(lake, HARD_EXAMPLES.name)
    if not closed:
        return NewExamples(0, 0, 0, since, None, is_exact=False)
    days = list(closed)
    calendar = rules.plan_calendar(days[-1])
    age_days = None
    if manifest:
        age_days = (calendar.known_until - date.fromisoformat(manifest.details["known_until"])).days
    is_paused = age_days is None or pause_days is None or age_days < pause_days
    if enough_hard_examples and is_paused:
        rows_at_most, hard_at_most = _bound_new_examples(lake, manifest, rules, closed, calendar, enough_hard_examples)
        if hard_at_most < enough_hard_examples:
            at_most = (rows_at_most, hard_at_most, rows_at_most)
            return NewExamples(*at_most, since, calendar.train_until, age_days, is_exact=False)
    with lake.connect() as connection:
        _register_examples_of_today(lake, connection, days, _COUNTED)
        calendar = _plan_delayed(connection, rules, days[-1])
        judged = _write_judged_sql(rules, calendar.judged)
        known = "SELECT NULL::VARCHAR AS prediction_id, NULL::BOOLEAN AS is_positive"
        if trained and manifest:
            file = trained.export / manifest.files[ExportSet.TRAIN].name
            known = f"SELECT prediction_id, is_positive FROM read_parquet({quote(str(file))})"
        found = connection.execute(
            "SELECT count(*) FILTER (is_positive), count(*) FILTER (discrepancy IS NOT NULL), count(*) FROM "
            f"(SELECT * FROM ({judged}) WHERE reason IS NULL) ANTI JOIN ({known}) USING (prediction_id, is_positive)"
        ).fetchone()
    assert found is not None
    positives, hard_examples, rows = map(int, found)
    return NewExamples(positives, hard_examples, rows, since, calendar.train_until, age_days)


def count_examples_to_train(lake: Lake, rules: ExampleRules, days: Sequence[date]) -> int:
    """Count the rows that a version cut now over the closed days `days`, at least one, would train on."""
    with lake.connect() as connection:
        _register_examples_of_today(lake, connection, days, _COUNTED)
        calendar = _plan_delayed(connection, rules, days[-1])
        judged = _write_judged_sql(rules, calendar.judged)
        found = connection.execute(f"SELECT count(*) FROM ({judged}) WHERE reason IS NULL").fetchone()
    assert found is not None
    return int(found[0])


@dataclass(frozen=True)
class JudgedPositives:
    """Counts what a version that is cut now would be judged on."""

    weeks: int
    """Matured evaluation weeks of which gold has days."""
    positives: int
    """Known positives among them."""
    trained_positives: int
    """Known positives that the model judged on the newest week trains on."""
    per_week: float | None
    """Known positives of a matured week, over the newest four at most; None: there is no whole week."""


def count_judged_positives(lake: Lake, rules: ExampleRules, days: Sequence[date]) -> JudgedPositives:
    """Count the evaluation of a version that is cut now over the closed days `days`, ascending and at least one.

    The weeks are those of the cut, the older ones included. Labels that are disputed or superseded are counted as well.
    """
    with lake.connect() as connection:
        _register_examples_of_today(lake, connection, days, _COUNTED)
        calendar = _add_older_weeks(connection, _plan_delayed(connection, rules, days[-1]))
        until = calendar.evaluate_until
        first = max(calendar.evaluated_from, days[0])
        recent = max(until - timedelta(days=_RATE_DAYS - 1), days[0])
        rate_days = (until - recent).days + 1
        per_week = None
        if rate_days >= 7:
            per_week = 7 * _count_positives(connection, calendar.refit, recent, until) / rate_days
        return JudgedPositives(
            weeks=max(0, math.ceil(((until - first).days + 1) / 7)),
            positives=_count_positives(connection, calendar.refit, first, until),
            trained_positives=_count_positives(connection, calendar.judged),
            per_week=per_week,
        )


def _bound_new_examples(
    lake: Lake,
    trained: Manifest | None,
    rules: ExampleRules,
    closed: Mapping[date, ClosedDay],
    calendar: Calendar,
    enough_hard_examples: int,
) -> tuple[int, int]:
    """Return upper bounds of the new rows and of the new hard examples; reads no row.

    They come from the ledger, and where that is not enough from manifests.

    A prediction is new only with a row that was not there, or too late, for the last training: on a day that changed
    or that lies behind that training's last one. Such a row is a discrepancy itself, or a label that lets an older
    row hold again which had been superseded or disputed.
    """
    days = find_fresh_days(lake, trained, rules.as_json(), closed)
    revivable = 0
    if trained:
        before = date.fromisoformat(trained.details["train_until"])
        days |= {day: each for day, each in closed.items() if day > before}
        revivable = sum(trained.dropped.get(reason.value, 0) for reason in (Reason.SUPERSEDED, Reason.DISPUTED))
    timely = {day: each.rows_kept for day, each in days.items() if day < calendar.evaluate_from and each.rows_kept}
    rows = sum(timely.values())
    if rows < enough_hard_examples:
        return rows, rows
    discrepancies, labels = _count_known_values(lake, list(timely), ("discrepancy", "label_event_id"))
    return rows, min(rows, discrepancies + min(labels, revivable))


@translate_outages()
def _count_known_values(lake: Lake, days: Sequence[date], columns: Sequence[str]) -> list[int]:
    """Count the rows of the days with a value in each of the columns, by the counts in Iceberg's manifests."""
    table = lake.load_table(HARD_EXAMPLES)
    ids = [table.schema().find_field(column).field_id for column in columns]
    where = lake.filter_partitions(HARD_EXAMPLES, days)
    files = [task.file for task in table.scan(row_filter=where).plan_files()]
    return [sum(file.record_count - (file.null_value_counts or {}).get(each, 0) for file in files) for each in ids]


@dataclass(frozen=True)
class LiveCalibration:
    """Compares the served scores with the outcomes of the newest matured days."""

    model_version: str | None
    ratio: float | None
    """Σp / Σy, Σy with the positives that are not known yet; None without a positive."""
    positives: int
    """Those that are known."""


def measure_live_calibration(lake: Lake, rules: ExampleRules, days: int) -> LiveCalibration:
    """Measure Σp / Σy of the newest model on its predictions of the last `days` matured days.

    Each example stands for 1/π rows, so that the two sums are unbiased for those over all predictions that were not
    blocked (Horvitz and Thompson). Where silence is unknown, over all labelled ones; over all of them where
    `label_propensity` is known.
    """
    closed = list(ledger.read_closed_days(lake, HARD_EXAMPLES.name))
    nothing = LiveCalibration(None, None, 0)
    if not closed:
        return nothing
    with lake.connect() as connection:
        delay = read_delay(lake, connection, closed) if rules.mining.is_silence_negative else []
        calendar = rules.plan_calendar(closed[-1], delay)
        first = calendar.evaluate_until - timedelta(days=days)
        read = [day for day in closed if day > first]
        _register_examples_of_today(lake, connection, read, _COUNTED)
        register_known_shares(connection, delay)
        newest = calendar.evaluate_until
        sampling = replace(rules.mining.sampling, recency_half_life_days=None)
        mining = replace(rules.mining, sampling=sampling, labels=rules.mining.labels.with_one_class)
        weight = write_sample_weight_sql(
            mining.sampling,
            inclusion_probability="final_probability",
            allow_propensity="NULL",
            label_propensity=write_label_propensity_sql(mining),
        )
        found = connection.execute(
            f"""
WITH judged AS ({_write_judged_sql(replace(rules, mining=mining), calendar.refit)}),
recent AS (
    SELECT * FROM judged
    WHERE reason IS NULL AND prediction_received_date > DATE {quote(newest.isoformat())} - {days:d}
),
live AS (SELECT arg_max(model_version, predicted_at) AS model_version FROM recent)
SELECT any_value(live.model_version), sum(score * {weight}), count(*) FILTER (is_positive),
       sum({weight} / coalesce(known_share, 1e0)) FILTER (is_positive)
FROM recent JOIN live ON recent.model_version IS NOT DISTINCT FROM live.model_version
LEFT JOIN known_shares
    ON known_shares.age = date_diff('day', prediction_received_date, DATE {quote(closed[-1].isoformat())})
"""
        ).fetchone()
    if found is None or not found[2]:
        return nothing
    return LiveCalibration(found[0], float(found[1]) / float(found[3]), int(found[2]))


def _plan_delayed(connection: duckdb.DuckDBPyConnection, rules: ExampleRules, last_day: date) -> Calendar:
    """Plan the calendar of a version, with the label delay of the registered examples."""
    return rules.plan_calendar(last_day, _read_delay_curves(connection, rules, last_day))


def _write_judged_sql(rules: ExampleRules, span: TrainingSpan) -> str:
    """Select the registered examples, each with the reason that a model of this span is not trained on it."""
    return write_judged_examples_sql(rules.mining, span, "pinned_examples", rules.contract.said_column)


def _list_spans(calendar: Calendar) -> list[tuple[ExportSet, TrainingSpan]]:
    """List the training sets of a version, each with the span of its model."""
    judged = (ExportSet.TRAIN, *EARLIER)
    return [*zip(judged, calendar.list_judged(), strict=False), (ExportSet.REFIT, calendar.refit)]


def _add_older_weeks(connection: duckdb.DuckDBPyConnection, calendar: Calendar) -> Calendar:
    """Add weeks before the calendar's while their models have enough positives to train on, and more are needed."""
    needed = max(LEAST_POSITIVES, LEAST_POSITIVE_SHARE * _count_positives(connection, calendar.judged))
    while calendar.older_weeks + 1 < MOST_WEEKS:
        longer = replace(calendar, older_weeks=calendar.older_weeks + 1)
        if _count_positives(connection, longer.list_judged()[-1]) < needed:
            break
        evaluated = calendar.evaluated_from, calendar.evaluate_until
        if _count_positives(connection, calendar.refit, *evaluated) >= ENOUGH_POSITIVES:
            break
        calendar = longer
    return calendar


def _count_positives(
    connection: duckdb.DuckDBPyConnection, span: TrainingSpan, first: date = date.min, last: date = date.max
) -> int:
    """Count the positives of a span that are known, received from `first` to `last`."""
    found = connection.execute(
        "SELECT count(DISTINCT prediction_id) FROM pinned_examples WHERE is_positive AND completed_date < ? "
        "AND prediction_received_date <= ? AND prediction_received_date BETWEEN ? AND ?",
        [span.known_before, span.predictions_until, first, last],
    ).fetchall()
    return int(found[0][0])


@contextmanager
def _resolve_pin(lake: Lake, pin: Pin, *, version: str, rules: ExampleRules) -> Iterator["_ResolvedExamples"]:
    exclusions = find_exclusions(lake, pin.exclusions)
    with lake.connect() as connection:
        _register_examples(lake, connection, pin.dates, exclusions, pin.snapshot_id, HARD_EXAMPLES.schema.names)
        tripped = _find_tripped_days(lake, pin)
        register_pinned_days(lake, connection, pin, JOINED_LABELS, tripped)
        _keep_withheld_labels(connection)
        curves = _read_delay_curves(connection, rules, pin.dates[-1])
        calendar = _add_older_weeks(connection, rules.plan_calendar(pin.dates[-1], curves))
        for which, span in _list_spans(calendar):
            examples = _write_judged_sql(rules, span)
            connection.execute(f"CREATE TEMP TABLE {which.value}_examples AS {examples}")
        evaluated = ledger.list_days(calendar.evaluated_from, calendar.evaluate_until)
        register_pinned_days(lake, connection, pin, RAW_SCORES, evaluated)
        known = ledger.list_days(calendar.evaluated_from, calendar.known_until)
        register_pinned_days(lake, connection, pin, JOINED_LABELS, known)
        counted = dict(connection.sql("SELECT reason, count(*) FROM train_examples GROUP BY reason").fetchall())
        yield _ResolvedExamples(connection, version, rules, calendar, counted, exclusions, curves, tripped)


def _read_delay_curves(connection: duckdb.DuckDBPyConnection, rules: ExampleRules, until: date) -> Sequence[DelayCurve]:
    """Estimate how late positives come; where silence is unknown no row waits for its label, and there is none."""
    return read_delay_curves(connection, "pinned_examples", until) if rules.mining.is_silence_negative else []


@dataclass(frozen=True)
class _ResolvedExamples:
    connection: duckdb.DuckDBPyConnection
    version: str
    rules: ExampleRules
    calendar: Calendar
    counted: Mapping[str | None, int]
    exclusions: list[Exclusion]
    curves: Sequence[DelayCurve]
    tripped_days: Sequence[date]

    @property
    def training_rows(self) -> int:
        return self.counted.get(None, 0)

    @property
    def dropped(self) -> dict[str, int]:
        return {reason: rows for reason, rows in sorted(self.counted.items(), key=str) if reason is not None}

    @property
    def details(self) -> Mapping[str, Any]:
        days = {"evaluated_from": self.calendar.evaluated_from, **asdict(self.calendar)}
        facts: dict[str, Any] = {name: day.isoformat() for name, day in days.items() if isinstance(day, date)}
        judged_from = [span.known_before.isoformat() for span in self.calendar.list_judged()]
        facts["judged_from"] = judged_from
        facts["cross_fitted_from"] = judged_from[min(self.rules.evaluation_weeks, len(judged_from)) - 1]
        if self.rules.contract.classes:
            facts["classes"] = list(self.rules.contract.classes)
            facts["negative_label"] = self.rules.contract.negative_label
        facts["maturity_days"] = find_effective_maturity(self.curves, self.rules.mining.waiting_days)
        if self.curves:
            overall = self.curves[0]
            facts["label_horizon_days"] = overall.horizon_days
            facts["known_at_maturity"] = overall.share_known(facts["maturity_days"])
        if self.tripped_days:
            facts["tripped_days"] = [day.isoformat() for day in self.tripped_days]
        if not self.rules.mining.is_silence_negative:
            facts["silence"] = self.rules.mining.silence
            facts["label_propensity_known"] = self._measure_known_propensities()
        if problem := self._find_feature_problem():
            facts["feature_problem"] = problem
        return facts

    def _measure_known_propensities(self) -> float:
        """Measure the share of training rows whose `label_propensity` is known; the others stand for themselves."""
        found = self.connection.execute(
            "SELECT avg((label_propensity IS NOT NULL)::INTEGER) FROM train_examples WHERE reason IS NULL"
        ).fetchall()
        return float(found[0][0] or 0.0)

    def _find_feature_problem(self) -> str | None:
        """Find why predictions of the evaluation weeks do not fit the contract; looks at the first of them only."""
        found = self.connection.execute(
            f"SELECT mode(problem) FROM (SELECT {self.rules.contract.write_problem_sql()} AS problem "
            f"FROM (FROM raw_predictions LIMIT {_ROWS_CHECKED}))"
        ).fetchone()
        return None if found is None or found[0] is None else str(found[0])

    def write_files(self, folder: Path) -> dict[ExportSet, ExportedFile]:
        contract, mining = self.rules.contract, self.rules.mining
        evaluation = write_evaluation_rows_sql(contract, mining, self.calendar, self.tripped_days)
        kept = write_not_excluded_sql(HARD_EXAMPLES, self.exclusions)
        trained = {}
        for which, span in _list_spans(self.calendar):
            # Of the delay a model knows what was known on its day; and so its rows are the same in later versions.
            known = _read_delay_curves(self.connection, self.rules, span.known_before - timedelta(days=1))
            register_known_shares(self.connection, known)
            name = f"{self.version}.parquet" if which is ExportSet.TRAIN else f"{self.version}.{which}.parquet"
            trained[which] = self._write(
                folder / name, write_training_rows_sql(contract, mining, span, f"{which.value}_examples")
            )
        register_known_shares(self.connection, self.curves)
        return {
            **trained,
            ExportSet.EVALUATION: self._write(
                folder / f"{self.version}.evaluation.parquet",
                "SELECT * EXCLUDE (label_event_id, label_received_date, completed_date, predicted_at, subject_kind) "
                f"FROM ({evaluation}) WHERE {kept} ORDER BY prediction_id",
            ),
        }

    def _write(self, path: Path, query: str) -> ExportedFile:
        rows = write_parquet(self.connection, query, path, _ROW_GROUP_ROWS)
        if not path.exists():
            # The promotion gate decides about an evaluation without rows, not a missing file.
            self.connection.execute(f"COPY ({query}) TO {quote(str(path))} (FORMAT parquet)")
        with open(path, "rb") as written:
            os.fsync(written.fileno())
        return ExportedFile(name=path.name, rows=rows, bytes=path.stat().st_size, sha256=hash_file(path))


def _find_tripped_days(lake: Lake, pin: Pin) -> list[date]:
    """Find the days of the pin whose labels the breaker kept out when it was pinned."""
    snapshot_id = pin.also_read[BREAKER_DAYS.name]
    judged = [] if snapshot_id is None else find_tripped_days(lake, snapshot_id)
    return [each.day for each in judged if each.day.isoformat() in pin.days]


def _keep_withheld_labels(connection: duckdb.DuckDBPyConnection) -> None:
    """Keep the labels of `joined_feedback`, which holds the tripped days only, as `withheld_labels`."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE withheld_labels AS SELECT DISTINCT prediction_id, completed_date "
        f"FROM joined_feedback WHERE signal = {quote(Signal.LABEL)}"
    )


def _register_examples_of_today(
    lake: Lake, connection: duckdb.DuckDBPyConnection, days: Iterable[date], columns: list[str]
) -> None:
    """Register the present examples without the excluded ones, and the labels that the breaker keeps out."""
    _register_examples(lake, connection, days, list_exclusions_in_force(lake), None, columns)
    tripped = [each.day for each in find_tripped_days(lake)]
    lake.register(connection, JOINED_LABELS, tripped, ["prediction_id", "signal", "completed_date"])
    _keep_withheld_labels(connection)


def _register_examples(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    days: Iterable[date],
    exclusions: list[Exclusion],
    snapshot_id: int | None,
    columns: list[str],
) -> None:
    lake.register(connection, HARD_EXAMPLES, days, columns, view="all_examples", snapshot_id=snapshot_id)
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW pinned_examples AS "
        f"SELECT * FROM all_examples WHERE {write_not_excluded_sql(HARD_EXAMPLES, exclusions)}"
    )
