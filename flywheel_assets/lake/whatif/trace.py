"""Traces one event: landed, joined, judged, excluded, in which versions, trained, evaluated, promoted.

Reads key columns of the tables, exports by their keys, and the small files of versions. Texts are read only on demand,
of the event's own rows. It works from the moment at which an event is on disk, before anything is materialized.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from flywheel_assets.curation.texts.statements import Agreement, Role
from flywheel_assets.curation.texts.waiting import SUPPORTERS_NEEDED
from flywheel_assets.errors import DamagedFileError
from flywheel_assets.lake.daily import breaker
from flywheel_assets.lake.daily.ledger import LedgerEntry
from flywheel_assets.lake.landing.protocol import LandingPlace
from flywheel_assets.lake.storage.files import decode_file
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import (
    BREAKER_DAYS,
    EXCLUSIONS,
    GROUND_TRUTH,
    ApplicationTables,
)
from flywheel_assets.lake.versions.exclusions import Exclusion, list_exclusions, write_excluded_sql
from flywheel_assets.lake.versions.exports import EARLIER, FOLDS, LEARNT, ExportSet, Manifest, read_manifest
from flywheel_assets.lake.versions.folders import Pin, VersionFolder, Versions, read_pin, read_promotion
from flywheel_assets.lake.versions.trainability import TRAINABLE_STAGE, UNTRAINABLE_REASONS
from flywheel_assets.lake.whatif._exported_keys import find_sets
from flywheel_assets.lake.whatif._landed_lines import LandedLine
from flywheel_assets.lake.whatif._standing import GIVING, describe_verdicts, explain_standing
from flywheel_assets.lake.whatif._traced_rows import FoundRows, Row, RowReader, find_rows, take_first_receipts
from flywheel_assets.records import (
    CURATION_STAGE,
    Reason,
    Stance,
)

_END_OF_DAY = time.max


class Stage(StrEnum):
    """Names the place in the flywheel that a step is about, in the order of the way."""

    LANDED = "landed"
    JOINED = "joined"
    JUDGED = "judged"
    DECIDED = "decided"
    VERSION = "version"
    TRAINED = "trained"
    EVALUATED = "evaluated"
    PROMOTED = "promoted"


_RANK = {stage: rank for rank, stage in enumerate(Stage)}


@dataclass(frozen=True)
class Step:
    """Says one thing that happened to an event, without a text or a name of a person."""

    at: datetime
    stage: Stage
    says: str
    is_day: bool = False
    """Only the day of `at` is known."""

    @property
    def when(self) -> str:
        """The day, or the minute in UTC."""
        return f"{self.at:%Y-%m-%d}" if self.is_day else f"{self.at:%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class Trace:
    """Holds everything that is known about one id."""

    application: str
    wanted: str
    steps: tuple[Step, ...] = ()
    """In the order of time; empty: nothing is known."""
    looked_at: tuple[str, ...] = ()
    """The places that were searched."""
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Event id → name → user text; only where they were asked for."""

    @property
    def is_known(self) -> bool:
        """Something was found."""
        return bool(self.steps)

    @property
    def complaint(self) -> str:
        """The answer where nothing was found."""
        return (
            f"{self.application} knows no event, prediction or pair {self.wanted!r}. Looked at: "
            f"{', '.join(self.looked_at)}. It was never received here, was erased, or is the id that a client sent: "
            "then give the client's source, too."
        )


@dataclass(frozen=True)
class Traced:
    """Names the places of one application in which its events leave traces."""

    lake: Lake
    tables: ApplicationTables
    versions: Versions
    landing: LandingPlace
    local_landing: Path
    """This machine's landing folder: of segments that are not sealed, or not shipped to S3 yet."""
    wait_days: int
    """Days for which feedback waits for its prediction."""
    agreement: Agreement = Agreement.MAJORITY
    """The application's rule between people; a version that was cut is explained by its own."""


def trace_event(traced: Traced, wanted: str, source: str | None = None, *, with_texts: bool = False) -> Trace:
    """Trace a prediction, an event, a statement or a pair.

    Args:
        traced: the application's places.
        wanted: a prediction id, a feedback event id, a statement id, a pair id, or with `source` a client's event id.
        source: the CloudEvents source that the client sent; `import:<name>` for a file.
        with_texts: also read the texts of the rows that were found.
    """
    with traced.lake.connect() as connection:
        reader = RowReader(traced.lake, traced.tables, connection)
        return _Tracer(traced, reader).trace(wanted, source, with_texts=with_texts)


@dataclass
class _Tracer:
    places: Traced
    reader: RowReader
    steps: list[Step] = field(default_factory=list)

    def trace(self, wanted: str, source: str | None, *, with_texts: bool) -> Trace:
        places = self.places
        found = find_rows(self.reader, places.landing, places.local_landing, places.wait_days, wanted, source)
        self._tell_predictions(found.served, found.lines)
        self._tell_receipts(found.feedback, {line.keys.event_id: line.where for line in found.lines})
        if found.others:
            more = f"{_count(found.others, 'other event')} about its prediction; trace the prediction to see them."
            self._add(found.feedback[0]["received_at"], Stage.LANDED, more)
        self._tell_joins(found)
        for row in found.refused:
            self._tell_refusal(row)
        self._tell_gold(found)
        exclusions = self._tell_exclusions(found.gold)
        if found.gold:
            self._tell_versions(found, exclusions)
        texts = self.reader.read_texts(found) if with_texts else {}
        return self._build(wanted, texts)

    def _build(self, wanted: str, texts: Mapping[str, Mapping[str, str]]) -> Trace:
        steps = tuple(sorted(self.steps, key=lambda step: (step.at, _RANK[step.stage])))
        return Trace(self.places.lake.application, wanted, steps, tuple(self.reader.looked_at), texts)

    def _add(self, at: datetime | date, stage: Stage, says: str) -> None:
        if isinstance(at, datetime):
            self.steps.append(Step(at.astimezone(UTC), stage, says))
        else:
            self.steps.append(Step(datetime.combine(at, _END_OF_DAY, UTC), stage, says, is_day=True))

    def _describe_day(self, asset: str, day: date) -> str:
        entry = self.reader.read_entries(asset).get(day)
        return "a closed day" if entry is not None and entry.is_closed else "an open day: everything is provisional"

    def _tell_predictions(self, served: list[Row], lines: list[LandedLine]) -> None:
        seen: set[str] = set()
        for row in served:
            model = f", served by model {row['model_version']}" if row["model_version"] else ""
            again = " again; the first receipt counts" if row["prediction_id"] in seen else ""
            state = self._describe_day(self.places.tables.predictions.name, row["received_date"])
            self._add(
                row["received_at"],
                Stage.LANDED,
                f"Prediction {row['prediction_id']} was received from {row['source']}{again}{model}; landed on "
                f"{row['received_date']}, {state}.",
            )
            seen.add(row["prediction_id"])
        for line in lines:
            if line.keys.signal:
                continue
            says = f"Prediction {line.keys.prediction_id} was received from {line.keys.source}; landed {line.where}."
            self._add(line.keys.received_at, Stage.LANDED, f"{says} {_NOT_INGESTED}")

    def _tell_receipts(self, chosen: list[Row], where: Mapping[str, str]) -> None:
        seen: set[str] = set()
        for row in chosen:
            event = row["event_id"]
            if row["received_date"] is None:
                place, note = where[event], f" {_NOT_INGESTED}"
            else:
                state = self._describe_day(GROUND_TRUTH.name, row["received_date"])
                place, note = f"on {row['received_date']}, {state}", ""
            if event in seen:
                says = f"Event {event} was received again: a duplicate, the first receipt counts; landed {place}."
            else:
                revision = f", revision {row['revision']}" if row["revision"] is not None else ""
                about = f" about prediction {row['prediction_id']}" if row["prediction_id"] else ""
                back = f"; it takes back statement {row['retracts']}" if row["retracts"] else ""
                says = (
                    f"Event {event} ({row['signal']}{revision}) was received from {row['source']}{about}{back}; "
                    f"landed {place}."
                )
            seen.add(event)
            self._add(row["received_at"], Stage.LANDED, says + note)
        for newest, older in _find_revisions(chosen):
            self._add(newest["received_at"], Stage.LANDED, f"Event {newest['event_id']} supersedes event {older}.")

    def _tell_joins(self, found: FoundRows) -> None:
        spec = self.places.tables.joined
        days = self.reader.read_entries(spec.name)
        for row in take_first_receipts(row for row in found.feedback if row["received_date"] is not None):
            event, match = row["event_id"], found.joined.get(row["event_id"])
            if match is not None:
                when = match["prediction_received_date"]
                how = f"was joined with its prediction, received on {when}" if when else "carries its own texts"
                self._add(match["completed_date"], Stage.JOINED, f"Event {event} is complete: it {how}.")
                continue
            until = row["received_date"] + timedelta(days=self.places.wait_days)
            last = max(days, default=None)
            if last is None or last < row["received_date"]:
                says = f"Event {event} is not joined yet: {spec.name} does not hold {row['received_date']}."
                self._add(row["received_date"], Stage.JOINED, says)
            elif last < until:
                says = f"Event {event} waits for prediction {row['prediction_id']}, until {until}."
                self._add(last, Stage.JOINED, says)

    def _tell_refusal(self, row: Row) -> None:
        asset, stage, reason = row["stage"], Stage.JUDGED, row["reason"]
        detail = f": {row['detail']}" if row["detail"] else ""
        if reason == Reason.NO_PREDICTION_IN_WINDOW.value:
            days = self.places.wait_days
            says = f"Event {row['row_id']} expired: no prediction came within {days} days ({reason})."
            self._add(row["day"], Stage.JOINED, says)
            return
        if asset == CURATION_STAGE:
            found = json.loads(row["evidence"] or "[]")
            checks = sorted({f"{each['check']} ({each['category']})" for each in found if "check" in each})
            by = f"; found by {', '.join(checks)}" if checks else ""
            policy = f"; policy {row['policy_version']}" if row["policy_version"] else ""
            verb = "waits for support" if "waits for" in (row["detail"] or "") else "was refused"
            detail = detail.partition("; waits for")[0]
            says = f"Event {row['row_id']} {verb} ({reason}){detail if 'waits for' not in detail else ''}{by}{policy}."
            if reason in (Reason.BREAKER_TRIPPED.value, Reason.SENDER_HELD.value):
                says += self._describe_breaker(row["day"])
        elif asset == TRAINABLE_STAGE:
            says = (
                f"Event {row['row_id']} cannot be trained on: the base model's tokenizer refuses it ({reason}){detail}."
            )
        else:
            stage = Stage.LANDED if asset in (GROUND_TRUTH.name, self.places.tables.predictions.name) else stage
            says = f"Event {row['row_id']} was refused by {asset} ({reason}){detail}."
            if reason == Reason.BREAKER_TRIPPED.value:
                says += self._describe_breaker(row["day"])
        self._add(row["day"], stage, says)

    def _describe_breaker(self, day: date) -> str:
        judged = breaker.read_judged_days(self.places.lake) if self.places.lake.has_table(BREAKER_DAYS) else []
        is_reset = any(each.day == day and each.is_reset for each in judged)
        if is_reset:
            return " The day was let in since; curate it again."
        listing = f"`flywheel breaker list --application {self.places.lake.application}`"
        which = (
            "the rows of the senders behind its trips"
            if any(each.day == day and each.held_rows for each in judged)
            else f"all of {day}"
        )
        return f" The batch breaker keeps {which} out of gold ({listing})."

    def _tell_gold(self, found: FoundRows) -> None:
        own = found.gold
        for row in own:
            tell = self._describe_pair if self.places.tables.is_text else self._describe_example
            self._add(row["completed_date"], Stage.JUDGED, tell(row))
        if self.places.tables.is_text:
            self._tell_standing(found)
        judged = {self.reader.name_event(row) for row in own} | {row["row_id"] for row in found.refused}
        days = self.reader.read_entries(self.places.tables.gold.name)
        for event, match in found.joined.items():
            if event not in judged:
                day = match["completed_date"]
                why = (
                    f"{self.places.tables.gold.name} keeps no row of it" if day in days else f"{day} is not curated yet"
                )
                self._add(day, Stage.JUDGED, f"Event {event} is not in {self.places.tables.gold.name}: {why}.")

    def _tell_standing(self, found: FoundRows) -> None:
        """Tell what each row is to the verdict, where it is more than the only thing that was said."""
        own, rows, agreement = found.gold, found.gold_of_predictions, self.places.agreement
        if not own:
            return
        standing = explain_standing(rows, agreement)
        newest = max(each["completed_date"] for each in rows)
        for row in own:
            clause = standing[row["feedback_event_id"]]
            # Of a refused row its own line says that it is only a statement.
            if not row["refused_reason"] and (len(rows) > 1 or clause not in _GIVES):
                self._add(newest, Stage.JUDGED, f"Event {row['feedback_event_id']} {clause}.")
        predictions = {row["prediction_id"] for row in own} - {""}
        for sentence in describe_verdicts(rows, predictions, agreement):
            self._add(newest, Stage.JUDGED, sentence)

    def _describe_pair(self, row: Row) -> str:
        event, kind = row["feedback_event_id"], row["example_kind"]
        if row["refused_reason"]:
            return f"Event {event} is in gold as a statement ({row['stance']}), no example: {row['refused_reason']}."
        if row["held_reason"]:
            need, have = SUPPORTERS_NEEDED.get(row["held_reason"], 0), self.reader.count_voices(row["support_key"])
            return (
                f"Event {event} waits in gold ({row['held_reason']}): {have} of {need} people say the same so far "
                f"(support key {row['support_key']})."
            )
        facts = [
            row["stance"],  # null: written before stances existed
            None if row["similarity"] is None else f"similarity {row['similarity']:.2f}",
            f"admitted by {row['admitted_by']}" if row["admitted_by"] else None,
        ]
        said = "; ".join(filter(None, (", ".join(filter(None, facts)), f"policy {row['policy_version']}")))
        return f"Event {event} is in gold as {kind} {row['pair_id']} ({said})."

    def _describe_example(self, row: Row) -> str:
        truth = "positive" if row["is_positive"] else "negative"
        which = f"event {row['label_event_id']}" if row["label_event_id"] else "no label came in time"
        wrong = f", {row['discrepancy']}" if row["discrepancy"] else ""
        return (
            f"Prediction {row['prediction_id']} became a {truth} example by {row['labeling_source']} ({which}){wrong}; "
            f"it is drawn with probability {row['inclusion_probability']:.3g}."
        )

    def _tell_exclusions(self, own: list[Row]) -> list[Exclusion]:
        """Tell every exclusion that covers one of the rows, ended or not."""
        self.reader.look(EXCLUSIONS.name)
        if not own or not self.places.lake.has_table(EXCLUSIONS):
            return []
        covering = [each for each in list_exclusions(self.places.lake) if self._find_excluded(own, [each])]
        for each in covering:
            self._add(
                each.decided_at,
                Stage.DECIDED,
                f"Exclusion {each.id} ({each.rule.describe()}) by {each.decided_by} keeps it out of later versions: "
                f"{each.reason}.",
            )
            if each.ended_at is not None:
                says = f"Exclusion {each.id} was ended by {each.ended_by}: {each.ended_reason}."
                self._add(each.ended_at, Stage.DECIDED, says)
        return covering

    def _find_excluded(self, rows: Sequence[Row], exclusions: Sequence[Exclusion]) -> set[int]:
        """Find the positions of the rows that the exclusions cover."""
        schema = self.places.tables.gold.schema
        fields = [schema.field(name).with_nullable(True) for name in rows[0]]
        table = pa.Table.from_pylist(list(rows), schema=pa.schema([*fields]))
        table = table.append_column("position", pa.array(range(len(rows))))
        self.reader.connection.register("traced_rows", table)
        where = write_excluded_sql(self.places.tables.gold, exclusions)
        return {
            at for (at,) in self.reader.connection.execute(f"SELECT position FROM traced_rows WHERE {where}").fetchall()
        }

    def _tell_versions(self, found: FoundRows, exclusions: list[Exclusion]) -> None:
        self.reader.look("versions")
        current = self.reader.read_entries(self.places.tables.gold.name)
        for folder in self.places.versions:
            if not folder.pin.exists():
                continue
            at = datetime.fromtimestamp(folder.pin.stat().st_mtime, UTC)
            try:
                self._tell_version(folder, at, found, exclusions, current)
            except (DamagedFileError, FileNotFoundError, duckdb.Error) as error:
                # One damaged version does not hide the others. A library's message may quote rows.
                why = str(error) if isinstance(error, DamagedFileError) else "`flywheel fsck` names the damaged file."
                self._add(at, Stage.VERSION, f"{folder.version} cannot be read: {why}")

    def _tell_version(
        self,
        folder: VersionFolder,
        at: datetime,
        found: FoundRows,
        exclusions: list[Exclusion],
        current: Mapping[date, LedgerEntry],
    ) -> None:
        own, rows = found.gold, found.gold_of_predictions
        pin = read_pin(folder)
        manifest = read_manifest(folder.export) if (folder.export / "manifest.json").exists() else None
        standing = self._explain_pinned(rows, pin, manifest, exclusions)
        seen: set[str] = set()
        # Of rows of one pair the one that gives it speaks for them.
        for row in sorted(own, key=lambda row: standing.get(str(row.get("feedback_event_id"))) not in _GIVES):
            key = row.get("pair_id") or row["prediction_id"]
            if key in seen or row.get("stance") == Stance.RETRACTS:
                continue
            seen.add(key)
            sets = find_sets(folder.export, manifest, row.get("pair_id"), row["prediction_id"]) if manifest else []
            if manifest is None:
                self._add(at, Stage.VERSION, f"{folder.version} is pinned and not exported yet.")
            elif ExportSet.UNTRAINABLE in sets:
                why = _explain_untrainable(found.refused)
                self._add(at, Stage.VERSION, f"{folder.version} does not hold it: {why}.")
            elif sets:
                names = _name_sets(sets)
                self._add(at, Stage.VERSION, f"{folder.version} holds it: {names}{_name_source(row, rows, standing)}.")
                self._tell_model(folder, sets, at)
            else:
                why = self._explain_absence(row, standing, pin, manifest, exclusions, current)
                self._add(at, Stage.VERSION, f"{folder.version} does not hold it: {why}.")

    def _explain_pinned(
        self, rows: list[Row], pin: Pin, manifest: Manifest | None, exclusions: list[Exclusion]
    ) -> dict[str, str]:
        """Explain the standing of the rows that a version saw, by the rule it was cut with."""
        if not self.places.tables.is_text:
            return {}
        seen = [row for row in rows if row["completed_date"].isoformat() in pin.days]
        if seen and (in_force := [each for each in exclusions if each.id in pin.exclusions]):
            excluded = self._find_excluded(seen, in_force)
            seen = [row for number, row in enumerate(seen) if number not in excluded]
        rule = manifest.rules.get("agreement", Agreement.MAJORITY) if manifest else self.places.agreement
        return explain_standing(seen, Agreement(rule))

    def _explain_absence(
        self,
        row: Row,
        standing: Mapping[str, str],
        pin: Pin,
        manifest: Manifest,
        exclusions: list[Exclusion],
        current: Mapping[date, LedgerEntry],
    ) -> str:
        day = row["completed_date"].isoformat()
        if day not in pin.days:
            return f"{day} was not closed when it was cut"
        if covering := [each.id for each in exclusions if each.id in pin.exclusions]:
            return f"left out by exclusion {', '.join(covering)}"
        entry = current.get(row["completed_date"])
        if entry is not None and entry.content_hash != pin.days[day]:
            return f"{day} was made again since, with other rows"
        if row.get("refused_reason"):
            return f"{row['refused_reason']}"
        clause = standing.get(str(row.get("feedback_event_id")))
        if clause is not None and clause not in _GIVES:
            return f"event {row['feedback_event_id']} {clause}"
        if row.get("held_reason"):
            return f"{row['held_reason']}"
        known = {role.value for role in Role} | set(UNTRAINABLE_REASONS)
        counts = [f"{reason} {count:,}" for reason, count in sorted(manifest.dropped.items()) if reason not in known]
        return (
            "a later step of resolution left it out, of which only counts are kept, by reason: "
            f"{', '.join(counts) or 'none'}"
        )

    def _tell_model(self, folder: VersionFolder, sets: list[ExportSet], at: datetime) -> None:
        is_learnt = not {*LEARNT, ExportSet.REFIT}.isdisjoint(sets)
        if not folder.is_trained:
            if is_learnt:
                self._add(at, Stage.TRAINED, f"{folder.version} is not trained yet.")
            return
        way_back = f"it is the trainer's report. Restore it from a backup, or train {folder.version} again."
        report = decode_file(folder.training_report, _Trained, way_back)
        model = f"adapter {report.adapter_sha256}" if report.adapter_sha256 else f"model {report.model_sha256}"
        trained_at = datetime.fromtimestamp(folder.training_report.stat().st_mtime, UTC)
        if is_learnt:
            self._add(trained_at, Stage.TRAINED, f"It was trained into {model} of {folder.version}.")
        evaluation = folder.evaluation / "evaluation.json"
        if evaluation.exists():
            on_it = "that model was evaluated" if is_learnt else f"{model} was judged on it"
            evaluated_at = datetime.fromtimestamp(evaluation.stat().st_mtime, UTC)
            self._add(evaluated_at, Stage.EVALUATED, f"In {folder.version} {on_it}.")
        if folder.is_finished:
            decision = read_promotion(folder.promotion)
            verb = "was promoted" if decision.promoted else "was not promoted"
            decided_at = datetime.fromtimestamp(folder.promotion.stat().st_mtime, UTC)
            self._add(decided_at, Stage.PROMOTED, f"The model of {folder.version} {verb}: {decision.sentence}")
        if folder.undone.exists():
            undone_at = datetime.fromtimestamp(folder.undone.stat().st_mtime, UTC)
            self._add(undone_at, Stage.PROMOTED, f"Gold was rolled back behind {folder.version}.")


_GIVES = frozenset(GIVING.values())
_NOT_INGESTED = "No table holds it yet: `flywheel turn` reads it."
_SETS = {
    ExportSet.TRAIN: "training rows",
    ExportSet.ACCEPTED: "accepted outputs that training mixes in",
    ExportSet.DEMONSTRATIONS: "demonstrations, which training mixes in",
    ExportSet.OBJECTIONS: "objections, for recipes that weigh them",
    ExportSet.HOLDOUT: "held-out pairs, never trained on",
    ExportSet.REGRESSION: "the regression set, never trained on",
    ExportSet.EVALUATION: "rows that models are judged on",
    **dict.fromkeys(EARLIER, "rows of a model that is judged on an earlier week"),
    ExportSet.REFIT: "rows that the deployed model is fitted on",
}
_JUDGED_IN_FOLDS = {
    ExportSet.HOLDOUT: "pairs that the model of their user's fold, which has not seen them, is judged by",
    ExportSet.REGRESSION: "accepted outputs that the model of their user's fold, which has not seen them, must keep",
}


def _name_sets(sets: Sequence[ExportSet]) -> str:
    """Name the sets that hold a row; those of a cross-fit's folds in one."""
    folds = [which for which in sets if which in FOLDS]
    names = {**_SETS, **(_JUDGED_IN_FOLDS if folds else {})}
    found = [names[each] for each in sets if each not in folds]
    if folds:
        numbers = ", ".join(which.removeprefix("fold_") for which in folds)
        found.append(f"rows that the models of the folds {numbers} learn from")
    return " and ".join(found)


class _Trained(msgspec.Struct):
    adapter_sha256: str | None = None
    model_sha256: str | None = None


def _find_revisions(rows: Iterable[Row]) -> list[tuple[Row, str]]:
    """Find the older events of each statement with several, each with the newest, which counts."""
    statements: dict[str, list[Row]] = {}
    for row in take_first_receipts(rows):
        statements.setdefault(row["statement_id"] or row["event_id"], []).append(row)
    newest_last: Callable[[Row], Any] = lambda row: (  # noqa: E731
        row["revision"] or 0,
        row["occurred_at"],
        row["received_at"],
        row["event_id"],
    )
    ordered = [sorted(each, key=newest_last) for each in statements.values() if len(each) > 1]
    return [(each[-1], older["event_id"]) for each in ordered for older in each[:-1]]


def _name_source(row: Row, rows: list[Row], standing: Mapping[str, str]) -> str:
    """Name the event that gave the pair where several events are about it."""
    of_pair = [each for each in rows if each.get("pair_id") == row.get("pair_id")]
    if len(of_pair) < 2 or not standing:
        return ""
    events = (each["feedback_event_id"] for each in of_pair)
    return "".join(f"; event {event} {standing[event]}" for event in events if standing.get(event) in _GIVES)


def _explain_untrainable(refused: Iterable[Row]) -> str:
    """Explain by the newest cut's quarantine why the tokenizer refused a row."""
    for row in refused:
        if row["stage"] == TRAINABLE_STAGE:
            return f"the base model's tokenizer refuses it ({row['reason']}: {row['detail']})"
    return "the base model's tokenizer refused it when it was cut; a later version's tokenizer does not"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
