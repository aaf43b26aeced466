"""Explains in plain words what each statement about a prediction is to its verdict, and the verdict itself.

Roles come from `curation.texts.statements`. The event that took a row's example away is found by reading the person's
statements again, one more each time, until the role appears: the same function decides, so the reason cannot differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from flywheel_assets import records
from flywheel_assets.curation.texts.statements import (
    ROLES,
    STATEMENT_KEYS,
    Agreement,
    PredictionVerdict,
    Role,
    list_verdicts,
    name_persons,
    reduce_statements,
)
from flywheel_assets.records import Signal, Stance

Row = Mapping[str, Any]

GIVING = {
    Role.CORRECTION: "gives the pair",
    Role.COMPARISON: "gives the pair",
    Role.ACCEPTANCE: "gives the accepted output",
    Role.OBJECTION: "stands as an objection",
}
"""The clause of a row that is the example of its verdict."""
_SCHEMA = pa.schema([records.CURATED_DPO_PAIRS.field(name).with_nullable(True) for name in STATEMENT_KEYS])
_MOST_REPLAYED = 200
"""Statements of one person about one prediction that are read again; of more the newest."""


def explain_standing(rows: Sequence[Row], agreement: Agreement) -> dict[str, str]:
    """Explain for each row why it gives an example or not: feedback event id → clause.

    Args:
        rows: all gold rows about one prediction, with STATEMENT_KEYS and `signal`; of a comparison also those about
            the other answer, and what takes any of these back.
        agreement: between people.
    """
    if not rows:
        return {}
    table = _build_table(rows)
    persons = name_persons(table)
    roles = [ROLES[code] for code in reduce_statements(table, agreement).role.tolist()]
    verdicts = list_verdicts(table, agreement)
    return {
        str(row["feedback_event_id"]): _explain(number, rows, roles, persons, verdicts)
        for number, row in enumerate(rows)
    }


def describe_verdicts(rows: Sequence[Row], predictions: set[str], agreement: Agreement) -> list[str]:
    """Describe the verdict about each prediction of which several things were said, one sentence each."""
    if not rows:
        return []
    table = _build_table(rows)
    roles = [ROLES[code] for code in reduce_statements(table, agreement).role.tolist()]
    verdicts = list_verdicts(table, agreement)
    sentences = []
    for prediction in sorted(predictions):
        about = [number for number, row in enumerate(rows) if row["prediction_id"] == prediction]
        if len(about) < 2:
            continue
        verdict = verdicts.get(prediction)
        if verdict is None:
            sentences.append(f"Verdict about prediction {prediction}: none; no person has one that still stands.")
            continue
        says = [voice.says for voice in verdict.voices if voice.decides]
        others = len(verdict.voices) - len(says)
        corrected, accepted, objected = (
            says.count(role) for role in (Role.CORRECTION, Role.ACCEPTANCE, Role.OBJECTION)
        )
        less = f" ({_count_people(others)} of less trusted sources not counted)" if others else ""
        given = [rows[number]["feedback_event_id"] for number in about if roles[number] == verdict.says]
        which = f"event {given[0]} {GIVING[verdict.says]}" if verdict.says and given else "it gives no example"
        sentences.append(
            f"Verdict about prediction {prediction}: {_VERDICTS[verdict.says]}: corrected by "
            f"{_count_people(corrected)}, {accepted} accepted, {objected} objected{less}; "
            f"by the rule {agreement} {which}."
        )
    return sentences


_VERDICTS = {
    Role.CORRECTION: "corrected",
    Role.ACCEPTANCE: "accepted",
    Role.OBJECTION: "objected to",
    None: "undecided",
}


def _build_table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist([{name: row[name] for name in STATEMENT_KEYS} for row in rows], schema=_SCHEMA)


def _explain(
    number: int,
    rows: Sequence[Row],
    roles: Sequence[Role],
    persons: Sequence[tuple[bool, str, str]],
    verdicts: Mapping[str, PredictionVerdict],
) -> str:
    row, role = rows[number], roles[number]
    match role:
        case Role.STATEMENT:
            return f"is only a statement ({row['stance']}) and holds no example"
        case Role.AWAITING_CHOICE:
            answer = f"answer {row['sibling_id']}" if row["sibling_id"] else "the other answer"
            return f"waits for the acceptance of {answer}"
        case Role.OUTVOTED:
            return _explain_outvoted(number, rows, persons, verdicts)
        case Role.SUPERSEDED | Role.WITHDRAWN:
            verb = "is superseded by" if role is Role.SUPERSEDED else "was withdrawn by"
            if (newest := _find_newest_revision(row, rows)) is not row:
                refused = f", which gives no example: {newest['refused_reason']}" if newest["refused_reason"] else ""
                return f"{verb} event {newest['feedback_event_id']} (revision {newest['revision'] or 0}{refused})"
            cause = _find_cause(number, rows, role, persons)
            if cause is not None:
                how = "" if role is Role.SUPERSEDED else f" ({_name_act(cause)})"
                return f"{verb} event {cause['feedback_event_id']}{how}"
            winner = _find_winner(number, rows, roles)
            if winner is None:
                return verb.removesuffix(" by")
            other = " of another person" if persons[winner] != persons[number] else ""
            return f"{verb} event {rows[winner]['feedback_event_id']}{other}"
        case Role.CORRECTION | Role.ACCEPTANCE | Role.COMPARISON | Role.OBJECTION:
            return GIVING[role]


def _find_newest_revision(row: Row, rows: Sequence[Row]) -> Row:
    same = [each for each in rows if _identify(each) == _identify(row)]
    return max(same, key=lambda each: (each["revision"] or 0, *_read_moment(each)))


def _find_cause(number: int, rows: Sequence[Row], role: Role, persons: Sequence[tuple[bool, str, str]]) -> Row | None:
    """Find the statement since which a row has its role by its own person's statements alone; None: there is none."""
    row = rows[number]
    own = [
        each
        for each, person in zip(rows, persons, strict=True)
        if each is not row
        and _read_moment(each) > _read_moment(row)
        and (person == persons[number] or each["stance"] == Stance.RETRACTS)
    ]
    own = sorted(own, key=_read_moment)[-_MOST_REPLAYED:]
    cause = None
    for last in range(len(own), -1, -1):
        then = reduce_statements(_build_table([row, *own[:last]])).role[0]
        if ROLES[then] is not role:
            break
        cause = own[last - 1] if last else None
    return cause


def _find_winner(number: int, rows: Sequence[Row], roles: Sequence[Role]) -> int | None:
    """Find the row of the same pair that is an example."""
    giving = (
        other
        for other, role in enumerate(roles)
        if role in GIVING and rows[other]["pair_id"] == rows[number]["pair_id"] and other != number
    )
    return next(giving, None)


def _explain_outvoted(
    number: int,
    rows: Sequence[Row],
    persons: Sequence[tuple[bool, str, str]],
    verdicts: Mapping[str, PredictionVerdict],
) -> str:
    row = rows[number]
    if row["stance"] in (Stance.CHOOSES, Stance.REGENERATES):
        against = {
            persons[other]
            for other, each in enumerate(rows)
            if each["pair_id"] == row["pair_id"] and _name_preferred(each) != _name_preferred(row)
        }
        return f"is outvoted: {_count_people(len(against - {persons[number]}))} preferred the other answer"
    verdict = verdicts[row["prediction_id"]]
    own = next((voice for voice in verdict.voices if voice.row == number), None)
    deciding = [voice for voice in verdict.voices if voice.decides and voice is not own]
    if own is not None and own.says == verdict.says:
        return "gives way to another person's text"
    if own is not None and not own.decides:
        return f"is outvoted by {_count_people(len(deciding))} of a more trusted source"
    # Where the people reach no verdict, all who say something else stand in the way.
    others = [
        voice
        for voice in deciding
        if (voice.says == verdict.says if verdict.says else own is None or voice.says != own.says)
    ]
    return f"is outvoted by {_count_people(len(others))}"


def _name_preferred(row: Row) -> str | None:
    preferred: str | None = row["sibling_id"] if row["stance"] == Stance.REGENERATES else row["prediction_id"]
    return preferred


def _identify(row: Row) -> str:
    return str(row["statement_id"] or row["feedback_event_id"])


def _read_moment(row: Row) -> tuple[Any, ...]:
    return row["occurred_at"], row["feedback_received_at"], row["feedback_event_id"]


def _name_act(row: Row) -> str:
    """Name what a person did when they took something back."""
    match row["stance"]:
        case Stance.RETRACTS:
            return "a retraction"
        case Stance.RESTORES:
            return "an undo"
        case Stance.CHANGES_REFUSED:
            return f"a text that is no example: {row['refused_reason']}"
        case Stance.OBJECTS:
            return "a thumb down" if row["signal"] == Signal.THUMB else f"a negative {row['signal']}"
        case _:
            return f"a {row['signal']}"


def _count_people(number: int) -> str:
    return f"{number} {'person' if number == 1 else 'people'}"
