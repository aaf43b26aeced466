"""Cuts preference versions: the resolved pairs of closed days, as JSON-lines files.

It also ranks the small edits that wait in gold by their delta, for manifests and for `flywheel policy deltas`, and
counts the people who would judge a version before it is cut.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets import records
from flywheel_assets.curation.arrow import to_mask, values_of
from flywheel_assets.curation.texts.resolution import Resolution, ResolutionRules, hash_for_holdout, resolve
from flywheel_assets.curation.texts.waiting import compute_delta
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.cutting import cut_version
from flywheel_assets.lake.versions.exclusions import find_exclusions, list_exclusions_in_force, write_not_excluded_sql
from flywheel_assets.lake.versions.exports import (
    FOLDS,
    LEARNT,
    ExportedFile,
    ExportedRow,
    ExportSet,
    LearntPrompts,
    Manifest,
    UntrainableRow,
    build_json_lines_writer,
    read_manifest,
    read_pair_ids,
)
from flywheel_assets.lake.versions.folders import Pin, VersionFolder, Versions
from flywheel_assets.lake.versions.trainability import FindUntrainable, take_out
from flywheel_assets.records import ExampleKind, Reason

MOST_DELTAS = 10
"""Small edits that a version's manifest lists."""
JUDGED_BY = "judged_by"
"""In a manifest's details: the tokenizer and the settings that decided which rows can be encoded."""
_TEXTS = ("prompt", "chosen", "rejected", "tools", "chosen_message", "rejected_message")
"""No decision of resolution reads these texts, nearly all of gold's bytes: fetched only to be exported."""
_DECIDING = [name for name in records.CURATED_DPO_PAIRS.names if name not in _TEXTS]
_ROW = ("completed_date", "feedback_event_id")
"""The key of a row of gold: a feedback event completes on one day, and is one row of it."""
_ROWS_AT_ONCE = 8192
MOST_HELD_OUT = 0.5
"""Largest holdout share that is proposed: with more, most of the feedback would judge and not teach."""
_MOST_RATE_DAYS = 28
_LEAST_RATE_DAYS = 7
_TRIES = 4
PROPOSED_FOLDS = 5
"""Of a cross-fit: each fold's model learns from four fifths of the users, for five more trainings."""
_LEAST_LEFT = 0.8
"""Share of the pairs that a larger holdout must leave; where it leaves fewer, folds are tried as well."""
_MOST_CROSS_FITTED = 20_000
"""Training pairs up to which folds are tried: with more, a team has users enough to hold some out."""


@dataclass(frozen=True)
class RecurringDelta:
    """Counts one change that several small edits made."""

    key: str
    rows: int
    subjects: int
    days: int
    example: str
    """Feedback event id of one row that made it."""


def cut_pair_version(
    lake: Lake,
    versions: Versions,
    version: str,
    rules: ResolutionRules,
    code_version: str,
    find_untrainable: FindUntrainable | None = None,
    judged_by: Mapping[str, Any] | None = None,
) -> Manifest:
    """Pin, resolve and export the closed days of `curated_dpo_pairs`; raises the errors of `cut_version`.

    Args:
        lake: the application's tables.
        versions: the application's versions.
        version: `dpo_gold_v<N>`.
        rules: of the resolution.
        code_version: of the resolving logic, for the manifest.
        find_untrainable: finds the rows that the base model's tokenizer cannot encode, and raises its own errors; None:
            every row is exported, and a trainer may refuse the version.
        judged_by: the tokenizer and the settings of `find_untrainable`, JSON values for the manifest's details.
    """

    @contextmanager
    def resolve_pairs(lake: Lake, pin: Pin) -> Iterator[_ResolvedPairs]:
        resolved = replace(_resolve_pin(lake, pin, rules), judged_by=judged_by)
        yield resolved if find_untrainable is None else _leave_out_untrainable(resolved, find_untrainable)

    return cut_version(lake, versions, version, CURATED_DPO_PAIRS, resolve_pairs, rules.describe(), code_version)


def _resolve_pin(lake: Lake, pin: Pin, rules: ResolutionRules) -> "_ResolvedPairs":
    kept = write_not_excluded_sql(CURATED_DPO_PAIRS, find_exclusions(lake, pin.exclusions))
    gold = lake.read(CURATED_DPO_PAIRS, pin.dates, _DECIDING, snapshot_id=pin.snapshot_id, where=kept)
    resolution = resolve(gold, rules)
    sets = {
        ExportSet.TRAIN: resolution.train,
        ExportSet.ACCEPTED: resolution.accepted,
        ExportSet.HOLDOUT: resolution.holdout,
        ExportSet.REGRESSION: resolution.regression,
        ExportSet.DEMONSTRATIONS: resolution.demonstrations,
        ExportSet.OBJECTIONS: resolution.objections,
        **_resolve_folds(gold, rules),
    }
    # Signatures and word pairs, three quarters of the bytes read, are not needed any more.
    columns = [*(name for name in ExportedRow.__struct_fields__ if name not in _TEXTS), "feedback_event_id"]
    narrow = {which: rows.select(columns) for which, rows in sets.items()}
    return _ResolvedPairs(lake, pin, narrow, resolution.dropped, rank_deltas(gold, MOST_DELTAS))


def _resolve_folds(gold: pa.Table, rules: ResolutionRules) -> dict[ExportSet, pa.Table]:
    """Resolve a cross-fit: what each fold's model learns from, and what the models together are judged by."""
    if rules.cross_fit_folds is None:
        return {}
    folds = _resolve_sides(gold, rules)
    return {
        ExportSet.HOLDOUT: _sort_together(each.holdout for each in folds),
        ExportSet.REGRESSION: _sort_together(each.regression for each in folds),
        **{
            which: _sort_together([each.train, each.accepted, each.demonstrations, each.objections])
            for which, each in zip(FOLDS[: len(folds)], folds, strict=True)
        },
    }


def _sort_together(tables: Iterable[pa.Table]) -> pa.Table:
    # Gold was read without its texts, so that 32-bit offsets are enough.
    rows = pa.concat_tables(list(tables))
    return rows.take(pc.sort_indices(rows["pair_id"]))


@dataclass(frozen=True)
class _ResolvedPairs:
    lake: Lake
    pin: Pin
    sets: Mapping[ExportSet, pa.Table]
    """The exported columns of each row but its texts, and the row's key."""
    dropped: dict[str, int]
    small_edits: list[RecurringDelta]
    untrainable: Sequence[UntrainableRow] = ()
    judged_by: Mapping[str, Any] | None = None

    @property
    def training_rows(self) -> int:
        # A fold whose users alone have pairs leaves nothing to its own model.
        return min(_count_pairs(rows) for which, rows in self.sets.items() if which in (ExportSet.TRAIN, *FOLDS))

    @property
    def details(self) -> Mapping[str, Any]:
        """Training pairs by reason of admission and by support, recurring small edits, and what judged the rows."""
        train = self.sets[ExportSet.TRAIN]
        return {
            "admitted_as": dict(sorted(Counter(train["admitted_as"].to_pylist()).items())),
            "supported_by_several": int((train["support_users"].to_numpy() > 1).sum()),
            # By key: `flywheel policy deltas` shows the replaced words, which are user text.
            "small_edits": [
                {"key": each.key, "subjects": each.subjects, "rows": each.rows, "days": each.days}
                for each in self.small_edits
            ],
            **({} if self.judged_by is None else {JUDGED_BY: dict(self.judged_by)}),
        }

    def write_files(self, folder: Path) -> dict[ExportSet, ExportedFile]:
        refused = ((ExportSet.UNTRAINABLE, row) for row in self.untrainable)
        return build_json_lines_writer(self.pin.version, chain(self.read_rows(), refused))(folder)

    def read_rows(self) -> Iterator[tuple[ExportSet, ExportedRow]]:
        """Read every row to export with its texts, each set in the order of `pair_id`.

        At most 8192 rows' texts are in memory at a time.
        """
        columns = ExportedRow.__struct_fields__
        # Memory that resolving gave back to the pool: together with DuckDB's sort a million pairs peaked 1 GiB higher.
        pa.default_memory_pool().release_unused()
        members = pa.concat_tables(
            rows.append_column("which", pa.repeat(which.value, len(rows))) for which, rows in self.sets.items()
        )
        written = Counter[str]()
        with self.lake.connect() as connection:
            wanted, snapshot = [*_ROW, *_TEXTS], self.pin.snapshot_id
            self.lake.register(
                connection, CURATED_DPO_PAIRS, self.pin.dates, wanted, view="texts", snapshot_id=snapshot
            )
            connection.register("members", members)
            batches = connection.sql(
                f"SELECT which, {', '.join(columns)} FROM members JOIN texts USING ({', '.join(_ROW)}) "
                "ORDER BY which, pair_id"
            ).to_arrow_reader(_ROWS_AT_ONCE)
            for batch in batches:
                which = batch["which"].to_pylist()
                written.update(which)
                yield from zip(map(ExportSet, which), build_exported_rows(batch.drop_columns(["which"])), strict=True)
        assert written == {which.value: len(rows) for which, rows in self.sets.items() if len(rows)}


def _count_pairs(rows: pa.Table) -> int:
    kinds = pa.array([ExampleKind.PREFERENCE_PAIR.value, ExampleKind.COMPARISON.value])
    return int(to_mask(pc.is_in(rows["example_kind"], value_set=kinds)).sum())


def _leave_out_untrainable(resolved: _ResolvedPairs, find: FindUntrainable) -> _ResolvedPairs:
    everywhere = list(find(resolved.read_rows()))
    # A row counts once, where the model that is deployed would have learnt it; folds repeat it.
    is_cross_fit = any(which in resolved.sets for which in FOLDS)
    found = [each for each in everywhere if not is_cross_fit or each.which in LEARNT]
    return replace(
        resolved,
        sets=take_out(resolved.lake, resolved.pin, resolved.sets, everywhere),
        dropped=dict(Counter(resolved.dropped) + Counter(each.reason for each in found)),
        untrainable=[
            UntrainableRow(pair_id=each.pair_id, reason=each.reason)
            for each in sorted(found, key=lambda each: each.pair_id)
        ],
    )


def count_pairs(lake: Lake, days: Iterable[date]) -> int:
    """Count the pairs and comparisons of gold days that wait for nothing; reads no text."""
    kinds = pa.array([ExampleKind.PREFERENCE_PAIR.value, ExampleKind.COMPARISON.value])
    rows = lake.read(CURATED_DPO_PAIRS, days, ["example_kind", "held_reason"])
    is_pair = pc.and_(pc.is_in(rows["example_kind"], value_set=kinds), pc.is_null(rows["held_reason"]))
    return rows.filter(is_pair).num_rows


@dataclass(frozen=True)
class CutCount:
    """Counts the rows of a version that would be cut now."""

    train: int
    """Pairs to train on."""
    judged: int
    """Held-out rows to judge the model by."""
    dropped: dict[str, int]
    """Rows left out, by reason."""


def count_pairs_to_cut(lake: Lake, rules: ResolutionRules, days: Iterable[date]) -> CutCount:
    """Count the rows of a version cut now over the closed days `days`; reads no text."""
    gold = _read_now(lake, days)
    resolution = resolve(gold, rules)
    judged = sum(len(each.holdout) + len(each.regression) for each in _resolve_sides(gold, rules))
    return CutCount(len(resolution.train), judged, resolution.dropped)


def _resolve_sides(gold: pa.Table, rules: ResolutionRules) -> list[Resolution]:
    """Resolve gold for each model that judges: one, or that of each fold."""
    if rules.cross_fit_folds is None:
        return [resolve(gold, rules)]
    return [resolve(gold, rules, fold) for fold in range(1, rules.cross_fit_folds + 1)]


@dataclass(frozen=True)
class LargerHoldout:
    """Describes a version that is cut now with a holdout share under which enough people would judge it."""

    share: float
    judges: int
    train: int
    """Pairs left to train on."""


@dataclass(frozen=True)
class CrossFit:
    """Describes a version that is cut now with each user judged by the model of another fold."""

    folds: int
    judges: int
    train: int
    """Pairs that the deployed model learns from."""


@dataclass(frozen=True)
class Judges:
    """Counts the people who would judge a version that is cut now.

    Only rows that are new to the champion count.
    """

    people: int
    """Subjects with such a row, on either side."""
    held_out: int
    """Held-out ones among them."""
    judges: int
    """Of these, subjects with a primary row: no model was trained on its prompt."""
    train: int
    """Pairs to train on."""
    new_per_week: float | None
    """Of `people`, those whose first row is recent, a week; None: gold holds too few days since the champion."""
    rate_days: int
    """Recent days behind it: the newer half, so that a team that has all come is seen to grow no more; 28 at most."""
    larger: LargerHoldout | None = None
    """The smallest share under which enough people judge; None: enough do, or no share up to `MOST_HELD_OUT` does."""
    cross_fit: CrossFit | None = None
    """None: enough people judge, or a larger share costs few pairs, or folds would not be enough either."""


def count_judges(
    lake: Lake,
    rules: ResolutionRules,
    days: Sequence[date],
    opponents: Sequence[VersionFolder],
    enough: int,
    enough_in_folds: int | None = None,
) -> Judges:
    """Count the people who would judge a version cut now over the closed days `days`; reads no text of gold.

    Rows are assigned to strata as the evaluation does it (`evaluation.requests.Stratum`); what the tokenizer refuses
    is not known yet. Where too few people judge, the rows are resolved with larger shares, and in folds.

    Args:
        lake: the application's tables.
        rules: of the resolution.
        days: closed, ascending, at least one.
        opponents: the champion's version and after it the anchor's; empty: the base model serves.
        enough: people that the promotion gate needs.
        enough_in_folds: people that it needs of a cross-fit; None: none is looked for.
    """
    gold = _read_now(lake, days)
    known = _Known(opponents)
    sides = _resolve_sides(gold, rules)
    held_out = [known.select_fresh(each.holdout) for each in sides]
    learnt = [known.select_fresh(rows) for each in sides for rows in (each.train, each.demonstrations)]
    first_days = _find_first_days([*held_out, *learnt])
    judges = sum(_count_primary_subjects(each, known) for each in sides)
    rate, rate_days = _measure_rate(first_days, days[-1])
    train = len((sides[0] if rules.cross_fit_folds is None else resolve(gold, rules)).train)
    found = Judges(
        people=len(first_days),
        held_out=sum(map(_count_subjects, held_out)),
        judges=judges,
        train=train,
        new_per_week=rate,
        rate_days=rate_days,
    )
    if judges >= enough or rules.cross_fit_folds is not None:
        return found
    larger = _find_larger_share(gold, rules, known, first_days, enough)
    found = replace(found, larger=larger)
    is_cheap = larger is not None and larger.train >= _LEAST_LEFT * train
    if enough_in_folds is None or is_cheap or len(first_days) < enough_in_folds or train > _MOST_CROSS_FITTED:
        return found
    return replace(found, cross_fit=_try_folds(gold, rules, known, enough_in_folds))


def _try_folds(gold: pa.Table, rules: ResolutionRules, known: "_Known", enough: int) -> CrossFit | None:
    rules = replace(rules, cross_fit_folds=PROPOSED_FOLDS)
    sides = _resolve_sides(gold, rules)
    judges = sum(_count_primary_subjects(each, known) for each in sides)
    if judges < enough or not all(len(each.train) for each in sides):
        return None
    return CrossFit(PROPOSED_FOLDS, judges, len(resolve(gold, rules).train))


def _find_larger_share(
    gold: pa.Table, rules: ResolutionRules, known: "_Known", people: Iterable[str], enough: int
) -> LargerHoldout | None:
    fractions = sorted(hash_for_holdout(people).tolist())
    wanted = enough
    for _ in range(_TRIES):
        if wanted > len(fractions):
            break
        # In hundredths, as people write it, and above the hash of the last person who is needed.
        share = math.floor(100 * fractions[wanted - 1] + 1) / 100
        if share > MOST_HELD_OUT:
            break
        larger = resolve(gold, replace(rules, holdout_share=share))
        judges = _count_primary_subjects(larger, known)
        if judges >= enough and len(larger.train):
            return LargerHoldout(share, judges, len(larger.train))
        wanted += max(1, enough - judges)
    return None


class _Known:
    """Knows the pairs that the champion's version held out, and the prompts that any of the models was trained on."""

    def __init__(self, opponents: Sequence[VersionFolder]) -> None:
        exports = [(folder.export, read_manifest(folder.export)) for folder in opponents]
        held_out = read_pair_ids(*exports[0], ExportSet.HOLDOUT) if exports else set()
        self._held_out = pa.array(sorted(held_out), pa.string())
        self._prompts = [LearntPrompts(*export) for export in exports]

    def select_fresh(self, rows: pa.Table) -> pa.Table:
        """Select rows that no opponent knows: not judged by before, and no model was trained on their prompts."""
        rows = rows.select(["pair_id", "prompt_hash", "subject", "completed_date", "nearest_training"])
        known = to_mask(pc.is_in(rows["pair_id"], value_set=self._held_out))
        for each in self._prompts:
            known = known | each.find(values_of(rows["subject"]), values_of(rows["prompt_hash"]))
        return rows.filter(pa.array(~known))


def _count_primary_subjects(resolution: Resolution, known: _Known) -> int:
    learnt = (resolution.train, resolution.accepted, resolution.demonstrations, resolution.objections)
    trained = set[str]().union(*(values_of(rows["prompt_hash"]) for rows in learnt))
    fresh = known.select_fresh(resolution.holdout)
    fresh = fresh.filter(pc.is_null(fresh["nearest_training"]))
    return _count_subjects(fresh.filter(pc.invert(pc.is_in(fresh["prompt_hash"], pa.array(trained, pa.string())))))


def _count_subjects(rows: pa.Table) -> int:
    return len(set(values_of(rows["subject"])))


def _find_first_days(tables: Iterable[pa.Table]) -> dict[str, date]:
    """Find the first day of each subject."""
    found: dict[str, date] = {}
    for rows in tables:
        for subject, day in zip(values_of(rows["subject"]), values_of(rows["completed_date"]), strict=True):
            found[subject] = min(day, found.get(subject, day))
    return found


def _measure_rate(first_days: Mapping[str, date], last_day: date) -> tuple[float | None, int]:
    """Measure how many subjects came new in a week, over the newer half of the days."""
    if not first_days:
        return None, 0
    days = min(_MOST_RATE_DAYS, ((last_day - min(first_days.values())).days + 1) // 2)
    if days < _LEAST_RATE_DAYS:
        return None, days
    since = last_day - timedelta(days=days)
    return 7 * sum(first > since for first in first_days.values()) / days, days


def find_pair_ids_to_train(lake: Lake, rules: ResolutionRules, days: Iterable[date]) -> set[str]:
    """Find the pairs that a version cut now over the closed days `days` would train on; reads no text."""
    return set(values_of(resolve(_read_now(lake, days), rules).train["pair_id"]))


def _read_now(lake: Lake, days: Iterable[date]) -> pa.Table:
    """Read gold without its texts, as a version that is cut now would be resolved from it."""
    kept = write_not_excluded_sql(CURATED_DPO_PAIRS, list_exclusions_in_force(lake))
    return lake.read(CURATED_DPO_PAIRS, days, _DECIDING, where=kept)


def read_trained_pair_ids(folder: VersionFolder) -> set[str]:
    """Read the pairs of a version's training file."""
    return read_pair_ids(folder.export, read_manifest(folder.export), ExportSet.TRAIN)


def read_untrainable_pair_ids(folder: VersionFolder) -> set[str]:
    """Read the pairs that the tokenizer refused when a version was cut."""
    return read_pair_ids(folder.export, read_manifest(folder.export), ExportSet.UNTRAINABLE)


def build_exported_rows(rows: pa.RecordBatch) -> list[ExportedRow]:
    """Build the export's rows of gold rows, in the batch's order."""
    return [ExportedRow(completed_date=row.pop("completed_date").isoformat(), **row) for row in rows.to_pylist()]


def find_most_frequent_deltas(lake: Lake, days: Iterable[date] | None = None, limit: int = 20) -> list[RecurringDelta]:
    """Find the deltas of gold that most subjects made, without any text."""
    columns = ["feedback_event_id", "completed_date", "subject", "held_reason", "support_key"]
    return rank_deltas(lake.read(CURATED_DPO_PAIRS, days, columns), limit)


def rank_deltas(gold: pa.Table, limit: int) -> list[RecurringDelta]:
    """Rank the deltas of gold rows by subjects, then by rows."""
    waiting = gold.filter(pc.equal(gold["held_reason"], pa.scalar(Reason.TRIVIAL_EDIT.value)).fill_null(False))  # type: ignore[arg-type]
    # A row has one key for each of its replacements.
    keys = pc.split_pattern(waiting["support_key"].combine_chunks(), " ")
    waiting = waiting.take(pc.list_parent_indices(keys)).set_column(
        waiting.schema.get_field_index("support_key"), "support_key", pc.list_flatten(keys)
    )
    grouped = waiting.group_by("support_key").aggregate(
        [
            ("feedback_event_id", "count"),
            ("subject", "count_distinct"),
            ("completed_date", "count_distinct"),
            ("feedback_event_id", "min"),
        ]
    )
    found = [
        RecurringDelta(
            key=row["support_key"],
            rows=row["feedback_event_id_count"],
            subjects=row["subject_count_distinct"],
            days=row["completed_date_count_distinct"],
            example=row["feedback_event_id_min"],
        )
        for row in grouped.to_pylist()
    ]
    return sorted(found, key=lambda each: (-each.subjects, -each.rows, each.key))[:limit]


def describe_replacements(lake: Lake, feedback_event_id: str) -> str:
    """Describe the replaced words of one waiting row: user text, so for terminals only."""
    gold = lake.read(CURATED_DPO_PAIRS, None, ["feedback_event_id", "held_reason", "chosen", "rejected"])
    mask = pc.and_(pc.equal(gold["feedback_event_id"], pa.scalar(feedback_event_id)), pc.is_valid(gold["held_reason"]))
    [row] = gold.filter(mask).slice(0, 1).to_pylist()
    return "; ".join(f"{' '.join(old)} → {' '.join(new)}" for old, new in compute_delta(row["rejected"], row["chosen"]))
