"""Counts per person, model version and day how answers were received, for the watch over a model in production.

The denominator is answers that were served, from `raw_predictions`; feedback counts for the answer it is about. Days
are those on which the answer was received. Answers without a user and without a thread are left out, since no hash can
assign them to a model, and so are imported ones. Reviewers' and imported feedback is no reaction of the person
who was served.

An answer that landed on two days, as by a retry over midnight, counts on both: to find it, all ids of all days would
have to be held in memory, while predictions stream past the few that have feedback.

`corrected_again` is the live wrong-answer rate: answers whose edit takes out what people's corrections had taken out
before the comparison began (`measures.texts.KnownCorrections`). Those are the newest pairs of gold, the same ones for
both versions, so that a version that was never taught them is measured alike. What people saw and did not edit is not
in it: offline every sampled answer is looked at (`wrong_answer_rate`), here only those that were edited.

Feedback is a state: of a statement's revisions the newest counts, and none that was retracted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.daily.ledger import list_days, read_closed_days
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, RAW_PREDICTIONS
from flywheel_assets.measures.live_arms import (
    Arm,
    ArmComparison,
    ArmVerdict,
    Look,
    WatchLimits,
    compare_arms,
    conclude_arms,
    find_look,
)
from flywheel_assets.measures.texts import KnownCorrections
from flywheel_assets.records import IMPORT_PREFIX, REVIEWER_SOURCE, Signal

HISTORY_DAYS = 365
"""Days back to which the versions that served are looked for."""

RECENT_DAYS = 7
"""Days within which a version must have served to be watched."""

NOTHING_KNOWN = KnownCorrections(frozenset(), frozenset())
_EDITS_AT_ONCE = 2_000
"""Edits whose texts are held in memory at once."""

MOST_CORRECTIONS = 20_000
"""Most pairs of gold whose deleted spans are looked for in live edits; the newest ones."""

COUNTS = ("edited", "kept", "thumbs_up", "thumbs_down", "regenerated", "corrected_again")
"""Columns of `read_arm_users` besides `interactions`: answers of which that was said at least once.

Kept: copied, accepted or sent unchanged, and not edited. An answer may be in several of them.
"""

_SAID = f"""
WITH served AS (
    SELECT prediction_id, model_version, received_date AS day,
           coalesce(nullif(user_id, ''), nullif(thread_id, '')) AS person
    FROM raw_predictions WHERE model_version IN ({{versions}}) AND NOT starts_with(source, '{IMPORT_PREFIX}')
),
said AS (
    SELECT * FROM joined_feedback
    WHERE source <> '{REVIEWER_SOURCE}' AND NOT starts_with(source, '{IMPORT_PREFIX}') AND prediction_id <> ''
    QUALIFY row_number() OVER (
        PARTITION BY prediction_id, coalesce(statement_id, feedback_event_id)
        ORDER BY coalesce(revision, 0) DESC, occurred_at DESC, feedback_event_id DESC
    ) = 1
),
retracted AS (SELECT * FROM joined_feedback WHERE signal = '{Signal.RETRACT}'),
standing AS (
    SELECT said.*, signal = '{Signal.EDIT}' OR trim(coalesce(final_text, '')) <> '' AS has_text
    FROM said WHERE signal <> '{Signal.RETRACT}' AND NOT EXISTS (
        FROM retracted
        WHERE retracted.occurred_at >= said.occurred_at AND (
            retracted.retracts = said.statement_id
            OR (retracted.retracts IS NULL AND retracted.prediction_id = said.prediction_id)
        )
    )
)
"""

_EDITS = f"""{_SAID}
SELECT DISTINCT prediction_id, output, final_text FROM standing SEMI JOIN served USING (prediction_id)
WHERE has_text AND final_text <> output
"""

_USERS = f"""{_SAID},
reactions AS (
    SELECT prediction_id,
           bool_or(has_text AND final_text <> output) AS edited,
           bool_or(signal IN ('{Signal.COPY}', '{Signal.ACCEPT}') OR (has_text AND final_text = output)) AS used,
           bool_or(signal = '{Signal.THUMB}' AND value > 0) AS thumbs_up,
           bool_or(signal = '{Signal.THUMB}' AND value < 0) AS thumbs_down,
           bool_or(signal = '{Signal.REGENERATE}') AS regenerated
    FROM standing GROUP BY prediction_id
)
SELECT model_version, person, day,
       count(*) AS interactions,
       count(*) FILTER (edited) AS edited,
       count(*) FILTER (used AND NOT coalesce(edited, false)) AS kept,
       count(*) FILTER (thumbs_up) AS thumbs_up,
       count(*) FILTER (thumbs_down) AS thumbs_down,
       count(*) FILTER (regenerated) AS regenerated,
       count(*) FILTER (prediction_id IN (SELECT prediction_id FROM corrected_again)) AS corrected_again
FROM served LEFT JOIN reactions USING (prediction_id)
WHERE person IS NOT NULL
GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class LiveVersions:
    """Two model versions that serve, and the first day on which both did."""

    current: str
    predecessor: str
    since: date


def find_live_versions(lake: Lake, until: date) -> LiveVersions | None:
    """Find the two versions that served most in the last week; the one that began later is current. None: fewer than 2.

    Args:
        lake: the application's tables.
        until: last day that is read.
    """
    with lake.connect() as connection:
        days = list_days(until - timedelta(days=HISTORY_DAYS - 1), until)
        columns = ["model_version", "received_date", "source"]
        lake.register(connection, RAW_PREDICTIONS, days, columns)
        rows = connection.execute(
            "SELECT model_version, min(received_date), list(DISTINCT received_date), "
            f"count(*) FILTER (received_date > DATE {quote((until - timedelta(days=RECENT_DAYS)).isoformat())}) AS n "
            "FROM raw_predictions WHERE model_version IS NOT NULL AND model_version <> '' "
            f"AND NOT starts_with(source, '{IMPORT_PREFIX}') GROUP BY model_version HAVING n > 0 "
            "ORDER BY n DESC, model_version LIMIT 2"
        ).fetchall()
    if len(rows) < 2:
        return None
    older, newer = sorted(rows, key=lambda row: (row[1], row[0]))
    both = set(older[2]) & set(newer[2])
    return LiveVersions(newer[0], older[0], min(both)) if both else None


def find_versions_on_last_day(lake: Lake) -> tuple[LiveVersions, date] | None:
    """Find the two versions that serve by the last closed day of feedback, and that day; None: fewer than two."""
    closed = list(read_closed_days(lake, JOINED_FEEDBACK.name))
    versions = find_live_versions(lake, closed[-1]) if closed else None
    return None if versions is None else (versions, closed[-1])


def read_corrections(lake: Lake, before: date) -> KnownCorrections:
    """Read what people had corrected until the day before `before`: the newest `MOST_CORRECTIONS` pairs of gold."""
    with lake.connect() as connection:
        days = list_days(before - timedelta(days=HISTORY_DAYS), before - timedelta(days=1))
        columns = ["completed_date", "pair_id", "rejected", "chosen"]
        lake.register(connection, CURATED_DPO_PAIRS, days, columns)
        rows = connection.execute(
            "SELECT rejected, chosen FROM curated_dpo_pairs WHERE rejected IS NOT NULL "
            f"ORDER BY completed_date DESC, pair_id LIMIT {MOST_CORRECTIONS}"
        )
        return KnownCorrections.collect(rows.fetchall())


def read_arm_users(
    lake: Lake, versions: Sequence[str], since: date, until: date, known: KnownCorrections = NOTHING_KNOWN
) -> pa.Table:
    """Read how people received the answers of some model versions: one row per version, person and day.

    Columns: model_version, person (the user as the application sent it, else the thread), day, interactions, and
    `COUNTS`. Feedback counts that came until `until`, so that a look gives the same counts again later.

    Args:
        lake: the application's tables.
        versions: as predictions carry them.
        since: first day of the answers.
        until: last day of answers and feedback.
        known: what people had corrected before; without it `corrected_again` is 0.
    """
    days = list_days(since, until)
    with lake.connect() as connection:
        columns = ["prediction_id", "model_version", "user_id", "thread_id", "received_date", "source"]
        lake.register(connection, RAW_PREDICTIONS, days, columns)
        columns = [
            *("feedback_event_id", "prediction_id", "occurred_at", "signal", "source", "output", "final_text"),
            *("value", "statement_id", "revision", "retracts", "completed_date"),
        ]
        lake.register(connection, JOINED_FEEDBACK, days, columns)
        named = ", ".join(map(quote, versions)) or "NULL"
        again = [
            prediction_id
            for batch in connection.sql(_EDITS.format(versions=named)).to_arrow_reader(_EDITS_AT_ONCE)
            for prediction_id, output, final_text in zip(*(column.to_pylist() for column in batch), strict=True)
            if known.are_corrected_again(output, final_text)
        ]
        connection.register("corrected_again", pa.table({"prediction_id": pa.array(again, pa.string())}))
        rows: pa.Table = connection.sql(_USERS.format(versions=named)).to_arrow_table()
        return rows


@dataclass(frozen=True)
class LiveArms:
    """The people of two versions by measure, as pairs (current, predecessor)."""

    by_measure: Mapping[str, tuple[Arm, Arm]]
    in_both: int
    """People whom both versions served: they are in neither arm."""


def build_arms(users: pa.Table, current: str, predecessor: str) -> LiveArms:
    """Add up each person's days, and part people by the version that served them.

    People in both arms show that no hash keeps them apart, as where one version replaces the other for all. They would
    compare days rather than models, so they are left out.

    Args:
        users: of `read_arm_users`.
        current: the version that began later.
        predecessor: the other one.
    """
    measures = ["interactions", *COUNTS]
    summed = users.group_by(["model_version", "person"]).aggregate([(name, "sum") for name in measures])
    versions, people = summed["model_version"].to_pylist(), summed["person"].to_pylist()
    served = {
        version: {person for v, person in zip(versions, people, strict=True) if v == version} for version in versions
    }
    both = served.get(current, set()) & served.get(predecessor, set())
    is_alone = np.array([person not in both for person in people], dtype=bool)
    chosen = [
        is_alone & np.array([each == version for each in versions], dtype=bool) for version in (current, predecessor)
    ]
    counts = {name: summed[f"{name}_sum"].to_numpy() for name in measures}
    arms = {
        name: (
            Arm.from_counts(counts[name][chosen[0]], counts["interactions"][chosen[0]]),
            Arm.from_counts(counts[name][chosen[1]], counts["interactions"][chosen[1]]),
        )
        for name in COUNTS
    }
    return LiveArms(arms, len(both))


@dataclass(frozen=True)
class WatchReport:
    """The result of one look at two versions that serve."""

    versions: LiveVersions
    until: date
    """Day of the look: the last whose answers and feedback it counts."""
    verdict: ArmVerdict
    comparisons: Mapping[str, ArmComparison]
    """By measure, as shares of a person's answers; those of `WatchLimits.measures` decide."""
    in_both: int
    """People whom both versions served; they are left out."""
    users: pa.Table
    """The counts behind it, see `read_arm_users`."""

    def describe(self, limits: WatchLimits) -> str:
        """Write the verdict with the measures that decide."""
        shown = "; ".join(f"{name}: {self.comparisons[name].describe()}" for name in limits.measures)
        return (
            f"{self.versions.current} against {self.versions.predecessor}, {self.until}: {self.verdict.value} ({shown})"
        )


def watch_versions(
    lake: Lake, versions: LiveVersions, until: date, limits: WatchLimits, earlier_looks: int = 0
) -> WatchReport | None:
    """Compare two versions at the last scheduled look up to a day; None before the first.

    Args:
        lake: the application's tables.
        versions: with the first day of the comparison: on which both served, or the share of people was changed last.
        until: last day that may be read, a closed one.
        limits: of the application.
        earlier_looks: looks that were taken of the same model at earlier shares; their levels are spent.
    """
    look = find_look((until - versions.since).days + 1)
    if look is None:
        return None
    at = versions.since + timedelta(days=look.day - 1)
    known = read_corrections(lake, versions.since)
    users = read_arm_users(lake, [versions.current, versions.predecessor], versions.since, at, known)
    arms = build_arms(users, versions.current, versions.predecessor)
    counted, level = Look(look.number + earlier_looks, look.day), limits.alpha / len(limits.measures)
    comparisons = {
        name: compare_arms(current, predecessor, counted, margin=limits.margin, alpha=level)
        for name, (current, predecessor) in arms.by_measure.items()
    }
    verdict = conclude_arms([comparisons[name] for name in limits.measures])
    return WatchReport(versions, at, verdict, comparisons, arms.in_both, users)
