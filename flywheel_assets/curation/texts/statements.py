"""Reduces all statements about a prediction to each person's verdict, and these to one verdict.

Feedback is a state: what a person said last counts, and not that they once said it. Gold holds one row per statement,
refused ones without their texts; here the rows become roles. The steps, in this order:

1. Of the revisions of one `statement_id` the newest counts: by `revision`, then by time. One id about two predictions
   names two statements, choices aside.
2. A retraction removes what happened at or before it: the statement that it names, or all that its person said about
   its prediction.
3. The statements of each person about a prediction are read in the order of their time. They set two registers:

| stance | text | opinion |
|---|---|---|
| changes | this text | none |
| changes_refused | refused | none |
| restores | none | as before |
| approves | as before | positive |
| objects | as before | negative |
| regenerates | none | negative |
| remarks | as before | none, where it was positive |

   A text gives a correction. A refused text gives nothing. Without a text, a positive opinion gives an acceptance and a
   negative one an objection.
4. Between people the most trusted who have a verdict decide: reviewers, then people, then imports. A person is whom a
   key or a token vouches for; who only claims a name is another person, of that key. With A acceptances, C corrections
   and O objections the rule of `Agreement` says:

| agreement | accepted | corrected | objected to |
|---|---|---|---|
| majority | A > C + O | else C > 0 | else O > A |
| newest | the newest verdict is an acceptance | it is a correction | it is an objection |
| unanimous | C + O = 0 | A = 0 and C > 0 | A = 0 and C = 0 |

   Of several corrections the newest gives the pair, one that waits for support only where all wait. Where no column
   holds, the prediction gives nothing.
5. Choices between the same two answers: the newest of each person, then the same three rules by direction; a tie gives
   nothing. An answer that replaced another one counts as chosen once the verdict about it is acceptance and that about
   the other one is not, unless its person also chose explicitly.

Time is `occurred_at`, at the latest the receipt, then `feedback_received_at`, then `feedback_event_id`. The result
depends neither on the order of the rows nor on the days on which they lie.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, ChunkedArray, to_mask, values_of
from flywheel_assets.curation.likeness.duplicates import PEOPLE, mark_claimed, rank_senders
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind, Reason, Stance, SubjectKind

STATEMENT_KEYS = (
    "pair_id",
    "example_kind",
    "stance",
    "statement_id",
    "revision",
    "sibling_id",
    "retracts",
    "prediction_id",
    "subject",
    "subject_kind",
    "source",
    "occurred_at",
    "feedback_received_at",
    "feedback_event_id",
    "content_hash",
    "held_reason",
    "attested_source",
    "is_attested",
)
"""Columns of gold that decide the verdicts; none of them is a text."""


class Agreement(StrEnum):
    """Names the rule by which people who disagree about one output reach a verdict."""

    MAJORITY = "majority"  # one person's copy does not outweigh several who object
    NEWEST = "newest"  # who spoke last decides
    UNANIMOUS = "unanimous"  # a single other opinion keeps the output out


class Role(StrEnum):
    """Names the part of one row: an example that counts, or the reason why it does not."""

    CORRECTION = "correction"
    ACCEPTANCE = "acceptance"
    COMPARISON = "comparison"
    OBJECTION = "objection"
    STATEMENT = Reason.STATEMENT.value  # it holds no example
    SUPERSEDED = Reason.SUPERSEDED.value  # the same person's newer text, or a newer row that says the same
    WITHDRAWN = Reason.WITHDRAWN.value  # the same person took it back
    OUTVOTED = Reason.OUTVOTED.value  # other people's verdict stands
    AWAITING_CHOICE = Reason.AWAITING_CHOICE.value  # the answer that came instead is not accepted


ROLES = tuple(Role)
_CODES = {role: code for code, role in enumerate(ROLES)}
_STANCES = tuple(stance.value for stance in Stance)
_KINDS = tuple(kind.value for kind in ExampleKind)
_REFUSED = -1
"""In the text register: the person's newest text is one that the gate refuses."""


@dataclass(frozen=True)
class Verdicts:
    """Holds what each row is to its prediction's verdict, one value per row in input order."""

    role: npt.NDArray[np.int8]
    """Positions in `ROLES`."""
    is_current: npt.NDArray[np.bool_]
    """The examples that count, and the other people's current corrections of the same outputs: support for them."""
    is_winner_accepted: npt.NDArray[np.bool_]
    """Comparisons whose better answer the verdict about it accepts: it was not only preferred."""

    def has_role(self, *roles: Role) -> npt.NDArray[np.bool_]:
        """Mark the rows that have one of these roles."""
        return np.isin(self.role, [_CODES[role] for role in roles])


def reduce_statements(gold: pa.Table, agreement: Agreement = Agreement.MAJORITY) -> Verdicts:
    """Reduce the statements of any days to the role of each row.

    Predictions about which one thing was said are decided column by column: a million rows take about a second.

    Args:
        gold: columns STATEMENT_KEYS of CURATED_DPO_PAIRS. Rows written before stances existed have nulls.
        agreement: between people.
    """
    keys = _bound_times(_fill_old_rows(gold.select(list(STATEMENT_KEYS)).combine_chunks()))
    stance, kind = _encode(keys["stance"], _STANCES), _encode(keys["example_kind"], _KINDS)
    is_example = kind != _KINDS.index(ExampleKind.STATEMENT)
    role = np.full(len(keys), _CODES[Role.STATEMENT], dtype=np.int8)
    active = _take_back(keys, stance, is_example, role)

    predictions = _Numbered.from_column(keys["prediction_id"])
    accepted = np.zeros(len(predictions.values), dtype=bool)
    chooses = stance == _STANCES.index(Stance.CHOOSES)
    is_current = np.zeros(len(keys), dtype=bool)
    said = active & ~chooses
    groups = predictions.numbers
    contested = _mark_several(groups, said, len(accepted))
    lone = said & ~contested
    corrects = lone & is_example & (stance == _STANCES.index(Stance.CHANGES))
    approves = lone & (stance == _STANCES.index(Stance.APPROVES))
    objects = lone & is_example & (stance == _STANCES.index(Stance.OBJECTS))
    for members, each in ((corrects, Role.CORRECTION), (approves & is_example, Role.ACCEPTANCE)):
        role[members] = _CODES[each]
    role[objects] = _CODES[Role.OBJECTION]
    is_current |= corrects | (approves & is_example) | objects
    accepted[groups[approves]] = True
    rows = np.flatnonzero(contested)
    for group in _list_groups(keys, rows, groups, stance, is_example, is_example):
        decision = _decide(group, agreement)
        for row, each in decision.roles:
            role[row] = _CODES[each]
        is_current[decision.current] = True
        accepted[group.number] = decision.is_accepted

    _decide_comparisons(keys, active, stance, is_example, predictions, accepted, agreement, role, is_current)
    return Verdicts(role, is_current, _mark_accepted_winners(keys, stance, chooses, predictions, accepted))


@dataclass(frozen=True)
class Voice:
    """Names what one person's statements about a prediction come to; who abstains has none."""

    row: int
    """The statement that gives it, in input order."""
    says: Role
    """Correction, acceptance or objection."""
    decides: bool
    """Its person is of the most trusted who have a verdict."""


@dataclass(frozen=True)
class PredictionVerdict:
    """Holds the verdict about one prediction and the voices behind it."""

    says: Role | None
    """Correction, acceptance or objection; None: the people reach none."""
    voices: tuple[Voice, ...]


def list_verdicts(gold: pa.Table, agreement: Agreement = Agreement.MAJORITY) -> dict[str, PredictionVerdict]:
    """List the verdict about every prediction that a person has one about, with each person's.

    For people who ask why; `reduce_statements` decides by the same steps.

    Args:
        gold: as for `reduce_statements`.
        agreement: between people.
    """
    keys = _fill_old_rows(gold.select(list(STATEMENT_KEYS)).combine_chunks())
    stance, kind = _encode(keys["stance"], _STANCES), _encode(keys["example_kind"], _KINDS)
    is_example = kind != _KINDS.index(ExampleKind.STATEMENT)
    active = _take_back(keys, stance, is_example, np.zeros(len(keys), dtype=np.int8))
    rows = np.flatnonzero(active & (stance != _STANCES.index(Stance.CHOOSES)))
    predictions = _Numbered.from_column(keys["prediction_id"])
    verdicts = {}
    for group in _list_groups(keys, rows, predictions.numbers, stance, is_example, is_example):
        votes, _ = _fold_statements(group)
        if votes:
            deciding = _select_most_trusted(group, votes)
            says = _weigh_verdicts(deciding, agreement)
            voices = tuple(Voice(group.rows[vote.place], Role(vote.says), vote in deciding) for vote in votes)
            prediction = predictions.values[group.number].as_py()
            verdicts[prediction] = PredictionVerdict(None if says is None else Role(says), voices)
    return verdicts


def name_persons(gold: pa.Table) -> list[tuple[bool, str, str]]:
    """Name whose each row is: two rows about one prediction are one person's where the names are equal."""
    return _list_persons(gold, np.arange(len(gold)))


def _take_back(
    keys: pa.Table, stance: npt.NDArray[np.int64], is_example: npt.NDArray[np.bool_], role: npt.NDArray[np.int8]
) -> npt.NDArray[np.bool_]:
    """Mark the rows that are neither revised, nor retracted, nor a retraction; write the others' roles into `role`."""
    active: npt.NDArray[np.bool_] = stance != _STANCES.index(Stance.RETRACTS)

    outdated, by_example = _mark_old_revisions(keys, is_example)
    role[outdated & is_example] = np.where(by_example, _CODES[Role.SUPERSEDED], _CODES[Role.WITHDRAWN])[
        outdated & is_example
    ]
    active &= ~outdated
    retracted = _mark_retracted(keys, ~active & ~outdated) & active
    role[retracted & is_example] = _CODES[Role.WITHDRAWN]
    active &= ~retracted

    return active


def _fill_old_rows(keys: pa.Table) -> pa.Table:
    """Give rows that were written before stances existed the stance that their kind implies."""
    accepts = pc.equal(keys["example_kind"], pa.scalar(ExampleKind.ACCEPTED_OUTPUT.value))
    implied = pc.if_else(accepts, Stance.APPROVES.value, Stance.CHANGES.value)
    for name, values in (
        ("stance", pc.coalesce(keys["stance"], implied)),
        ("statement_id", pc.coalesce(keys["statement_id"], keys["feedback_event_id"])),
        ("revision", pc.coalesce(keys["revision"], pa.scalar(0))),
    ):
        keys = keys.set_column(keys.schema.get_field_index(name), name, values)  # type: ignore[arg-type]
    return keys


def _encode(column: ChunkedArray, values: tuple[str, ...]) -> npt.NDArray[np.int64]:
    return pc.index_in(column, pa.array(values)).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class _Numbered:
    """Holds a column as numbers of its distinct values."""

    numbers: npt.NDArray[np.int32]
    values: Array

    @classmethod
    def from_column(cls, column: ChunkedArray) -> Self:
        encoded = column.combine_chunks().dictionary_encode()
        return cls(encoded.indices.to_numpy(), encoded.dictionary)


def _mark_several(groups: npt.NDArray[np.int32], members: npt.NDArray[np.bool_], number: int) -> npt.NDArray[np.bool_]:
    """Mark the members whose group has another member."""
    sizes = np.bincount(groups[members], minlength=number)
    several: npt.NDArray[np.bool_] = members & (sizes[groups] > 1)
    return several


def _mark_old_revisions(
    keys: pa.Table, is_example: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Mark the rows of which a newer revision exists; also where the newest revision is an example."""
    outdated, by_example = np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=bool)
    encoded = _Numbered.from_column(keys["statement_id"])
    groups = encoded.numbers
    rows = np.flatnonzero(_mark_several(groups, np.ones(len(keys), dtype=bool), len(encoded.values)))
    if not len(rows):
        return outdated, by_example
    groups = _split_by_prediction(keys, rows, groups)
    order = _sort_by_time(keys, rows, groups, before=("revision",))
    ranked = groups[order]
    is_last = np.concatenate((ranked[1:] != ranked[:-1], [True]))
    outdated[order[~is_last]] = True
    newest = order[is_last]
    by_example[order] = np.repeat(is_example[newest], np.diff(np.concatenate(([-1], np.flatnonzero(is_last)))))
    return outdated, by_example


def _split_by_prediction(
    keys: pa.Table, rows: npt.NDArray[np.int64], groups: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Number the statements so that one id about two predictions is two statements.

    A client that counts its ids from 1 for every user names many statements alike. Of a choice the prediction is what
    was said, and a revision may change it.
    """
    few = keys.select(["prediction_id", "stance", "is_attested"]).take(rows)
    chooses = pc.equal(few["stance"], pa.scalar(Stance.CHOOSES.value))
    about = _Numbered.from_column(pc.if_else(chooses, pa.scalar(""), few["prediction_id"])).numbers
    # What is merely claimed is no revision of what is attested.
    by_claim = mark_claimed(few).astype(np.int32)
    _, numbers = np.unique(np.stack((groups[rows], about, by_claim)), axis=1, return_inverse=True)
    split = np.zeros(len(groups), dtype=np.int32)
    split[rows] = numbers.reshape(-1)
    return split


def _bound_times(keys: pa.Table) -> pa.Table:
    """Let nothing happen after it was received: a client's clock that is fast would have the last word for minutes."""
    position = keys.schema.get_field_index("occurred_at")
    is_early = pc.less_equal(keys["occurred_at"], keys["feedback_received_at"])
    bounded = pc.if_else(is_early, keys["occurred_at"], keys["feedback_received_at"])
    return keys.set_column(position, keys.schema.field(position), bounded)


def _sort_by_time(
    keys: pa.Table, rows: npt.NDArray[np.int64], groups: npt.NDArray[np.int32], before: tuple[str, ...] = ()
) -> npt.NDArray[np.int64]:
    """Sort row numbers by group, then by the columns `before`, then by time."""
    names = [*before, "occurred_at", "feedback_received_at", "feedback_event_id"]
    few = keys.select(names).take(rows).append_column("group", pa.array(groups[rows]))
    order = pc.sort_indices(few, sort_keys=[(name, "ascending") for name in ("group", *names)])
    ordered: npt.NDArray[np.int64] = rows[order.to_numpy()]
    return ordered


_Moment = tuple[int, int]
"""occurred_at and feedback_received_at, in microseconds."""


def _read_moments(keys: pa.Table, rows: npt.NDArray[np.int64]) -> list[_Moment]:
    few = keys.select(["occurred_at", "feedback_received_at"]).take(rows)
    return list(zip(*(few[name].cast(pa.int64()).to_pylist() for name in few.column_names), strict=True))


def _list_persons(keys: pa.Table, rows: npt.NDArray[np.int64]) -> list[tuple[bool, str, str]]:
    """List whose the rows are.

    A reviewer's row keeps the user as its subject. People without user and thread are one person per prediction. Who
    merely claims to be a person is another one: what a stolen name says takes nothing back.
    """
    few = keys.select(["source", "subject_kind", "subject", "is_attested", "attested_source"]).take(rows)
    names = zip(*(few[name].to_pylist() for name in few.column_names), strict=True)
    return [
        (
            source == REVIEWER_SOURCE,
            f"{kind} claimed through {sender}" if is_attested is False else kind,
            "" if kind == SubjectKind.PROMPT.value else subject,
        )
        for source, kind, subject, is_attested, sender in names
    ]


def _mark_retracted(keys: pa.Table, retracts: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the rows that a retraction in force takes back."""
    found = np.zeros(len(keys), dtype=bool)
    own = np.flatnonzero(retracts)
    if not len(own):
        return found
    names, predictions, identities = (
        values_of(keys[name].take(own)) for name in ("retracts", "prediction_id", "statement_id")
    )
    moments, persons = _read_moments(keys, own), _list_persons(keys, own)
    claims = mark_claimed(keys)
    by_claim = claims[own].tolist()
    named: dict[tuple[str, bool], _Moment] = {}
    meant: dict[tuple[str, tuple[bool, str, str]], _Moment] = {}
    # From the newest: a retraction that was itself taken back has no force, and what it names may stand again. Within
    # one tick of a clock it comes before the one that takes it back.
    retractions = set(identities)
    order = [(moments[each], names[each] in retractions, identities[each]) for each in range(len(own))]
    for place in sorted(range(len(own)), key=order.__getitem__, reverse=True):
        if named.get((identities[place], by_claim[place]), (-1, -1)) >= moments[place]:
            continue
        if names[place]:
            # What is merely claimed takes back only what is merely claimed.
            for claimed in (True,) if by_claim[place] else (True, False):
                named.setdefault((names[place], claimed), moments[place])
        else:
            meant.setdefault((predictions[place], persons[place]), moments[place])
    if named:
        known = pa.array(sorted({identity for identity, _ in named}))
        rows = np.flatnonzero(to_mask(pc.is_in(keys["statement_id"], known)))
        of_rows = zip(values_of(keys["statement_id"].take(rows)), claims[rows].tolist(), strict=True)
        found[rows] = [
            moment <= named.get(statement, (-1, -1))
            for statement, moment in zip(of_rows, _read_moments(keys, rows), strict=True)
        ]
    if meant:
        known = pa.array(sorted({prediction for prediction, _ in meant}))
        rows = np.flatnonzero(to_mask(pc.is_in(keys["prediction_id"], known)))
        about = values_of(keys["prediction_id"].take(rows))
        whose = zip(about, _list_persons(keys, rows), strict=True)
        meanings = [
            moment <= meant.get(whom, (-1, -1)) for whom, moment in zip(whose, _read_moments(keys, rows), strict=True)
        ]
        found[rows] |= np.asarray(meanings, dtype=np.bool_)
    return found


@dataclass(frozen=True)
class _Group:
    """Holds the rows of one prediction, or of one pair of answers, in the order of their time."""

    number: int
    rows: list[int]
    stance: list[str]
    is_example: list[bool]
    person: list[tuple[bool, str, str]]
    trust: list[int]
    content: list[str]
    waits: list[bool]
    direction: list[str]
    """Of a comparison: the prediction that is preferred."""


def _list_groups(
    keys: pa.Table,
    rows: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int32],
    stance: npt.NDArray[np.int64],
    is_example: npt.NDArray[np.bool_],
    by_sibling: npt.NDArray[np.bool_],
) -> Iterator[_Group]:
    if not len(rows):
        return
    order = _sort_by_time(keys, rows, groups)
    numbers = groups[order]
    starts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1]))).tolist()
    stances = [_STANCES[each] for each in stance[order].tolist()]
    examples, persons = is_example[order].tolist(), _list_persons(keys, order)
    trust = rank_senders(keys.select(["source", "is_attested"]).take(order)).tolist()
    content = values_of(keys["content_hash"].take(order))
    waits = to_mask(keys["held_reason"].take(order).is_valid()).tolist()
    own, sibling = (values_of(keys[name].take(order)) for name in ("prediction_id", "sibling_id"))
    direction = [
        other if other is not None and each else one
        for one, other, each in zip(own, sibling, by_sibling[order].tolist(), strict=True)
    ]
    ordered = order.tolist()
    for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
        part = slice(start, end)
        yield _Group(
            int(numbers[start]),
            ordered[part],
            stances[part],
            examples[part],
            persons[part],
            trust[part],
            content[part],
            waits[part],
            direction[part],
        )


@dataclass
class _Person:
    """Holds the registers of one person; both hold places in a group."""

    text: int | None = None
    opinion: int | None = None
    is_positive: bool = False


@dataclass(frozen=True)
class _Vote:
    place: int
    """Of the statement that gives the verdict, in its group."""
    says: str
    """A role; of a comparison the preferred prediction."""


@dataclass(frozen=True)
class _Decision:
    roles: list[tuple[int, Role]]
    current: list[int]
    is_accepted: bool


def _decide(group: _Group, agreement: Agreement) -> _Decision:
    """Decide about one prediction: fold each person's statements, then weigh the people."""
    votes, lost = _fold_statements(group)
    verdict = _weigh_verdicts(_select_most_trusted(group, votes), agreement)
    standing = [vote for vote in votes if vote.says == verdict]
    return _settle(group, votes, standing, verdict, lost, is_accepted=verdict == Role.ACCEPTANCE)


def _fold_statements(group: _Group) -> tuple[list[_Vote], dict[int, Role]]:
    """Fold each person's statements to their vote; also name the role of each example they no longer stand by."""
    lost: dict[int, Role] = {}
    people: dict[tuple[bool, str, str], _Person] = {}

    for place, stance in enumerate(group.stance):
        person = people.setdefault(group.person[place], _Person())
        drops_text, drops_approval = _DROPS[stance]
        if drops_text:
            if person.text is not None and person.text != _REFUSED:
                lost[person.text] = drops_text
            person.text = None
        if drops_approval and person.opinion is not None and person.is_positive:
            lost[person.opinion] = drops_approval
            person.opinion = None
        is_text = stance in (Stance.CHANGES, Stance.CHANGES_REFUSED)
        if is_text and person.opinion is not None:
            lost[person.opinion] = Role.SUPERSEDED
        match stance:
            case Stance.CHANGES if group.is_example[place]:
                person.text, person.opinion = place, None
            case Stance.CHANGES | Stance.CHANGES_REFUSED:
                person.text, person.opinion = _REFUSED, None
            case Stance.APPROVES | Stance.OBJECTS | Stance.REGENERATES:
                if person.opinion is not None and not person.is_positive:
                    lost[person.opinion] = Role.WITHDRAWN if stance == Stance.APPROVES else Role.SUPERSEDED
                person.opinion, person.is_positive = place, stance == Stance.APPROVES

    votes = []
    for person in people.values():
        if person.text is None:
            if person.opinion is not None:
                votes.append(_Vote(person.opinion, Role.ACCEPTANCE if person.is_positive else Role.OBJECTION))
        else:
            if person.opinion is not None:
                lost[person.opinion] = Role.WITHDRAWN if person.text == _REFUSED else Role.SUPERSEDED
            if person.text != _REFUSED:
                votes.append(_Vote(person.text, Role.CORRECTION))
    return votes, lost


_DROPS: dict[str, tuple[Role | None, Role | None]] = {
    Stance.CHANGES: (Role.SUPERSEDED, Role.SUPERSEDED),
    Stance.CHANGES_REFUSED: (Role.WITHDRAWN, Role.WITHDRAWN),
    Stance.RESTORES: (Role.WITHDRAWN, None),
    Stance.APPROVES: (None, Role.SUPERSEDED),
    Stance.OBJECTS: (None, Role.WITHDRAWN),
    Stance.REGENERATES: (Role.WITHDRAWN, Role.WITHDRAWN),
    Stance.REMARKS: (None, Role.WITHDRAWN),
}
"""The role that a person's earlier text, and their earlier approval, get from a later statement; None: it stays."""


def _select_most_trusted(group: _Group, votes: list[_Vote]) -> list[_Vote]:
    # A person whose name is only claimed is a person: of equal verdicts theirs comes last (`_settle`).
    trust = [group.trust[vote.place] - (group.trust[vote.place] == PEOPLE) for vote in votes]
    most = max(trust, default=0)
    return [vote for vote, each in zip(votes, trust, strict=True) if each == most]


def _weigh_verdicts(votes: list[_Vote], agreement: Agreement) -> str | None:
    """Return the verdict of people who are trusted alike; None: they reach none."""
    says = [vote.says for vote in votes]
    accepted, corrected, objected = (says.count(each) for each in (Role.ACCEPTANCE, Role.CORRECTION, Role.OBJECTION))
    if not votes:
        return None
    if agreement is Agreement.NEWEST:
        return max(votes, key=lambda vote: vote.place).says
    if agreement is Agreement.UNANIMOUS:
        if accepted:
            return None if corrected or objected else Role.ACCEPTANCE
        return Role.CORRECTION if corrected else Role.OBJECTION
    if accepted > corrected + objected:
        return Role.ACCEPTANCE
    if corrected:
        return Role.CORRECTION
    return Role.OBJECTION if objected > accepted else None


def _settle(
    group: _Group,
    votes: list[_Vote],
    standing: list[_Vote],
    verdict: str | None,
    lost: dict[int, Role],
    *,
    is_accepted: bool = False,
) -> _Decision:
    """Let the newest example of the most trusted who gave the verdict win; name why each other example does not.

    Args:
        group: the rows.
        votes: every person's.
        standing: those that say what was decided.
        verdict: what was decided; of a comparison `comparison`.
        lost: the roles of examples that their own person no longer stands by.
        is_accepted: of a prediction.
    """
    examples = [vote.place for vote in standing if group.is_example[vote.place]]
    if verdict == Role.OBJECTION:
        # A regeneration objects as well, and its example is a comparison.
        examples = [place for place in examples if group.stance[place] == Stance.OBJECTS]
    # A small edit that may never be admitted keeps no other person's correction out.
    rank = lambda place: (group.trust[place], not group.waits[place], place)  # noqa: E731
    winner = max(examples, key=rank, default=None)
    for vote in votes:
        if vote.place != winner:
            agrees = winner is not None and vote in standing
            if verdict == Role.CORRECTION and agrees and winner is not None:
                agrees = group.content[vote.place] == group.content[winner]
            lost[vote.place] = Role.SUPERSEDED if agrees else Role.OUTVOTED
    roles = [
        (group.rows[place], each)
        for place, each in lost.items()
        if group.is_example[place] and group.stance[place] != Stance.REGENERATES
    ]
    current = [group.rows[vote.place] for vote in standing if verdict == Role.CORRECTION]
    if winner is not None and verdict is not None:
        roles.append((group.rows[winner], Role(verdict)))
        current.append(group.rows[winner])
    return _Decision(roles, current, is_accepted)


def _decide_comparisons(
    keys: pa.Table,
    active: npt.NDArray[np.bool_],
    stance: npt.NDArray[np.int64],
    is_example: npt.NDArray[np.bool_],
    predictions: _Numbered,
    accepted: npt.NDArray[np.bool_],
    agreement: Agreement,
    role: npt.NDArray[np.int8],
    is_current: npt.NDArray[np.bool_],
) -> None:
    """Write the roles of comparisons into `role` and `is_current`, once the verdicts about predictions are known."""
    chooses = active & (stance == _STANCES.index(Stance.CHOOSES))
    replaces = active & is_example & (stance == _STANCES.index(Stance.REGENERATES))
    if not (chooses | replaces).any():
        return
    role[replaces] = _CODES[Role.AWAITING_CHOICE]
    waiting = np.flatnonzero(replaces)
    siblings = pc.index_in(keys["sibling_id"].take(waiting), predictions.values)
    places = siblings.fill_null(-1).to_numpy()
    # Who takes the first answer after all prefers none: a regeneration ends an approval, so this one came after it.
    first = accepted[predictions.numbers[waiting]]
    replaces[waiting] = np.where(places >= 0, accepted[places] & ~first, False)
    members = chooses | replaces
    pairs = _Numbered.from_column(keys["pair_id"])
    groups = pairs.numbers
    contested = _mark_several(groups, members, len(pairs.values))
    lone = members & ~contested & is_example
    role[lone] = _CODES[Role.COMPARISON]
    is_current |= lone
    for group in _list_groups(keys, np.flatnonzero(contested), groups, stance, is_example, replaces):
        decision = _decide_direction(group, agreement)
        for row, each in decision.roles:
            role[row] = _CODES[each]
        is_current[decision.current] = True


def _mark_accepted_winners(
    keys: pa.Table,
    stance: npt.NDArray[np.int64],
    chooses: npt.NDArray[np.bool_],
    predictions: _Numbered,
    accepted: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Mark the rows that prefer an accepted answer: a choice is about it, a regeneration names it."""
    marked = chooses & accepted[predictions.numbers]
    replaces = np.flatnonzero(stance == _STANCES.index(Stance.REGENERATES))
    places = pc.index_in(keys["sibling_id"].take(replaces), predictions.values).fill_null(-1).to_numpy()
    marked[replaces] = (places >= 0) & accepted[places]
    return marked


def _decide_direction(group: _Group, agreement: Agreement) -> _Decision:
    """Decide which of two answers people prefer."""
    lost: dict[int, Role] = {}
    newest: dict[tuple[bool, str, str], int] = {}
    for place, person in enumerate(group.person):
        before = newest.get(person)
        if before is not None and group.stance[before] == Stance.CHOOSES != group.stance[place]:
            lost[place] = Role.SUPERSEDED
            continue
        if before is not None:
            lost[before] = Role.SUPERSEDED if group.is_example[place] else Role.WITHDRAWN
        newest[person] = place
    votes = [_Vote(place, group.direction[place]) for place in newest.values() if group.is_example[place]]
    preferred = _weigh_directions(_select_most_trusted(group, votes), agreement)
    standing = [vote for vote in votes if vote.says == preferred]
    settled = _settle(group, votes, standing, Role.COMPARISON, {})
    stale = [(group.rows[place], each) for place, each in lost.items() if group.is_example[place]]
    replaced = [
        (group.rows[vote.place], Role.OUTVOTED if vote not in standing else Role.SUPERSEDED)
        for vote in votes
        if group.stance[vote.place] == Stance.REGENERATES
    ]
    return _Decision([*stale, *replaced, *settled.roles], settled.current, is_accepted=False)


def _weigh_directions(votes: list[_Vote], agreement: Agreement) -> str | None:
    """Return the prediction that people who are trusted alike prefer; None: a tie."""
    if not votes:
        return None
    if agreement is Agreement.NEWEST:
        return max(votes, key=lambda vote: vote.place).says
    says = [vote.says for vote in votes]
    counts = sorted(((says.count(each), each) for each in set(says)), reverse=True)
    if len(counts) == 1:
        return counts[0][1]
    is_tied = agreement is Agreement.UNANIMOUS or counts[0][0] == counts[1][0]
    return None if is_tied else counts[0][1]
