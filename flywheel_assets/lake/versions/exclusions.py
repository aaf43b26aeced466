"""Exclusions are rules that keep rows out of every later gold version, while the rows stay for the audit.

A poisoned week is not rolled back, which would throw away the weeks after it, and not deleted, which would destroy the
evidence. Its rows are left out when a version is resolved, counted as `excluded`, until the exclusion is ended. A
version pins the ids of the exclusions in force, so that a repeated cut gives the same rows.

A rule may also name one prediction, conversation, statement, event, source or imported file. Every kind of gold table
has its own columns: a rule that asks for another one is refused before it is recorded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.lake.tables.decisions import list_decisions, make_decision_id, record_decision
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import EXCLUSIONS, TableSpec
from flywheel_assets.records import make_event_id


class DayOf(StrEnum):
    """Names the day of a row that an exclusion looks at."""

    RECEIVED = "received"
    OCCURRED = "occurred"


# The names of these days in each kind of gold table; the first one that is there and not null counts.
# Of a silent prediction only the prediction was ever received.
_RECEIVED = ("feedback_received_date", "label_received_date", "prediction_received_date", "completed_date")
_OCCURRED = ("occurred_at", "predicted_at")


_NAMED = {
    "user_id": "one user",
    "model_version": "model version {}",
    "prediction_id": "one prediction",
    "thread_id": "one conversation",
    "statement_id": "one statement",
    "event_id": "one event",
    "source": "source {}",
}
"""The conditions besides days, and their words. Ids of a person, or of what a person wrote, are not in them."""
# The columns that each condition compares; a table with none of them cannot have the rule.
_COLUMNS = {
    "user_id": ("subject",),
    "model_version": ("model_version",),
    "prediction_id": ("prediction_id",),
    "thread_id": ("thread_id",),
    "statement_id": ("statement_id",),
    "event_id": ("feedback_event_id", "label_event_id"),
    "source": ("source",),
}


@dataclass(frozen=True, kw_only=True)
class ExclusionRule:
    """Selects the rows to leave out: those that meet every condition given."""

    first_day: date | None = None
    last_day: date | None = None
    """Included; together with `first_day`."""
    by: DayOf = DayOf.RECEIVED
    user_id: str | None = None
    model_version: str | None = None
    prediction_id: str | None = None
    thread_id: str | None = None
    """The conversation or session."""
    statement_id: str | None = None
    """`records.make_event_id(application, source, client id)`: all revisions of one statement."""
    event_id: str | None = None
    """Of one feedback event: this revision only, so that an earlier one counts again."""
    source: str | None = None
    """CloudEvents source of the feedback; that of a file is `import:<name>`."""

    def __post_init__(self) -> None:
        if (self.first_day is None) != (self.last_day is None):
            raise InvalidRuleError(f"an exclusion needs both days, got {self.first_day} … {self.last_day}")
        if self.first_day and self.last_day and self.first_day > self.last_day:
            raise InvalidRuleError(f"{self.first_day} is later than {self.last_day}: give the first day first")
        if self.first_day is None and not self.list_names():
            raise InvalidRuleError(
                "an exclusion without days, user, model version, prediction, thread, event or source would exclude "
                "everything"
            )

    def list_names(self) -> dict[str, str]:
        """List the conditions besides the days, by column: user ids and other names, so for people who decide."""
        return {name: value for name in _NAMED if (value := getattr(self, name))}

    def describe(self) -> str:
        """Describe the rule without naming a person: manifests and Dagster show it."""
        days = [f"{self.by.value} {self.first_day} … {self.last_day}"] if self.first_day else []
        return ", ".join([*days, *(_NAMED[name].format(value) for name, value in self.list_names().items())])


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Records one audited decision, and its end if it has one."""

    id: str
    rule: ExclusionRule
    decided_at: datetime
    decided_by: str
    reason: str
    ended_at: datetime | None = None
    ended_by: str | None = None
    ended_reason: str | None = None

    @property
    def is_in_force(self) -> bool:
        """No later decision has ended it."""
        return self.ended_at is None


def require_columns(spec: TableSpec, rule: ExclusionRule) -> None:
    """Check that a gold table has the columns that a rule compares.

    Raises:
        InvalidRuleError: it lacks one; the message lists the conditions that this kind of table can have.
    """
    valid = [name for name, columns in _COLUMNS.items() if not set(columns).isdisjoint(spec.schema.names)]
    if missing := [name for name in rule.list_names() if name not in valid]:
        raise InvalidRuleError(
            f"{spec.name} has no column for {', '.join(missing)}; valid: days, {', '.join(valid)}. "
            "`flywheel trace` shows the ids of an event"
        )


def find_statement(lake: Lake, spec: TableSpec, source: str, client_id: str) -> str:
    """Find the statement_id of a client's event; one that gold does not hold gets the id that it would have.

    An element of `/edits` lands as two events, of which the feedback's id ends in `/feedback`.
    """
    plain, of_edit = (make_event_id(lake.application, source, each) for each in (client_id, f"{client_id}/feedback"))
    if "statement_id" not in spec.schema.names or not lake.has_table(spec):
        return plain
    found = lake.read(spec, columns=["statement_id"], where=f"statement_id = {quote(of_edit)}")
    return of_edit if found.num_rows else plain


def exclude_rows(lake: Lake, rule: ExclusionRule, *, who: str, reason: str, now: datetime) -> Exclusion:
    """Put a rule in force for every version that is pinned from now on; check it with `require_columns` first."""
    # The ids of decisions from before rules had more names than a user's are derived from these fields alone.
    names = [value for name, value in rule.list_names().items() if name not in ("user_id", "model_version")]
    identity = [rule.describe(), rule.user_id, *names, who, reason, now.isoformat()]
    decision = make_decision_id(lake, "exclusion", *identity)
    record_decision(
        lake,
        EXCLUSIONS,
        decision,
        who=who,
        reason=reason,
        now=now,
        first_day=rule.first_day,
        last_day=rule.last_day,
        day_of=rule.by.value if rule.first_day else None,
        **rule.list_names(),
    )
    return Exclusion(id=decision, rule=rule, decided_at=now, decided_by=who, reason=reason)


def end_exclusion(lake: Lake, exclusion_id: str, *, who: str, reason: str, now: datetime) -> Exclusion:
    """End an exclusion and return it as it stands then.

    Raises:
        UnknownNameError: no exclusion with this id is in force.
    """
    current = {exclusion.id: exclusion for exclusion in list_exclusions_in_force(lake)}
    if exclusion_id not in current:
        raise UnknownNameError("exclusion in force", exclusion_id, current, "`flywheel exclusions` lists all of them.")
    end = make_decision_id(lake, "inclusion", exclusion_id)
    record_decision(lake, EXCLUSIONS, end, who=who, reason=reason, now=now, ends=exclusion_id)
    return next(exclusion for exclusion in list_exclusions(lake) if exclusion.id == exclusion_id)


def list_exclusions(lake: Lake) -> list[Exclusion]:
    """List all exclusions there ever were, oldest first."""
    rows = list_decisions(lake, EXCLUSIONS)
    ends = {row["ends"]: row for row in rows if row["ends"]}
    return [
        Exclusion(
            id=row["id"],
            rule=ExclusionRule(
                first_day=row["first_day"],
                last_day=row["last_day"],
                by=DayOf(row["day_of"] or DayOf.RECEIVED),
                **{name: row[name] for name in _NAMED},
            ),
            decided_at=row["decided_at"],
            decided_by=row["decided_by"],
            reason=row["reason"],
            ended_at=ends[row["id"]]["decided_at"] if row["id"] in ends else None,
            ended_by=ends[row["id"]]["decided_by"] if row["id"] in ends else None,
            ended_reason=ends[row["id"]]["reason"] if row["id"] in ends else None,
        )
        for row in rows
        if not row["ends"]
    ]


def list_exclusions_in_force(lake: Lake) -> list[Exclusion]:
    """List the exclusions that a version pinned now obeys, oldest first."""
    return [exclusion for exclusion in list_exclusions(lake) if exclusion.is_in_force]


def find_exclusions(lake: Lake, ids: Iterable[str]) -> list[Exclusion]:
    """Find the exclusions with these ids, in force or ended.

    Raises:
        UnknownNameError: an id that was never given.
    """
    known = {exclusion.id: exclusion for exclusion in list_exclusions(lake)}
    for exclusion_id in (wanted := list(ids)):
        if exclusion_id not in known:
            raise UnknownNameError("exclusion", exclusion_id, known)
    return [known[exclusion_id] for exclusion_id in wanted]


def write_excluded_sql(spec: TableSpec, exclusions: Sequence[Exclusion]) -> str:
    """Write SQL that is true for the excluded rows of a gold table, and never null."""
    each = (_write_rule_sql(spec, exclusion.rule) for exclusion in exclusions)
    return f"coalesce({' OR '.join(f'({one})' for one in each)}, false)" if exclusions else "false"


def count_excluded_per_day(
    lake: Lake,
    spec: TableSpec,
    exclusions: Sequence[Exclusion],
    days: Iterable[date] | None = None,
    snapshot_id: int | None = None,
) -> dict[date, int]:
    """Count the excluded rows of each of the gold table's partitions; reads no text."""
    if not exclusions:
        return {}
    columns = [name for name in spec.schema.names if name in _USED]
    with lake.connect() as connection:
        lake.register(connection, spec, days, columns, view="gold", snapshot_id=snapshot_id)
        found = connection.execute(
            f"SELECT {spec.day_column}, count(*) FROM gold WHERE {write_excluded_sql(spec, exclusions)} "
            "GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return dict(found)


def count_effect_per_day(lake: Lake, spec: TableSpec, others: Sequence[Exclusion], one: Exclusion) -> dict[date, int]:
    """Count by day the rows that only `one` leaves out: those that no rule of `others` covers."""
    without = count_excluded_per_day(lake, spec, others)
    together = count_excluded_per_day(lake, spec, [*others, one])
    return {day: rows - without.get(day, 0) for day, rows in together.items() if rows > without.get(day, 0)}


def write_not_excluded_sql(spec: TableSpec, exclusions: Sequence[Exclusion]) -> str:
    """Write SQL that is true for the rows of a gold table that resolution reads."""
    return f"NOT {write_excluded_sql(spec, exclusions)}"


_USED = {*_RECEIVED, *_OCCURRED, "subject_kind", "user_id", *(each for names in _COLUMNS.values() for each in names)}


def _write_rule_sql(spec: TableSpec, rule: ExclusionRule) -> str:
    conditions = []
    if rule.first_day:
        day = _write_first_known_day_sql(spec, _RECEIVED if rule.by is DayOf.RECEIVED else _OCCURRED)
        conditions.append(f"{day} BETWEEN DATE '{rule.first_day}' AND DATE '{rule.last_day}'")
    if rule.user_id:
        of_user = [f"(subject = {quote(rule.user_id)} AND subject_kind = 'user')"]
        if "user_id" in spec.schema.names:
            of_user.append(f"coalesce(user_id = {quote(rule.user_id)}, false)")
        conditions.append(f"({' OR '.join(of_user)})")
    for name, value in rule.list_names().items():
        if name != "user_id":
            column = next(each for each in _COLUMNS[name] if each in spec.schema.names)
            conditions.append(f"{column} = {quote(value)}")
    return " AND ".join(conditions)


def _write_first_known_day_sql(spec: TableSpec, columns: Sequence[str]) -> str:
    days = [f"CAST({name} AS DATE)" for name in columns if name in spec.schema.names]
    return f"coalesce({', '.join(days)})"
