"""The gate: joined feedback in, one gold row for each of its rows out, and refused rows with their reasons.

A row is an example (an edit, a comparison of two answers, a demonstration, an accepted output, a confirmed objection)
or a mere statement. Each row's `stance` says what it means for its output; `statements` reduces the stances of all days
to verdicts when a version is resolved. Nothing here depends on another row.

A row is refused for the first reason that holds: consent, signal, text or edit band, policy. Two reasons only make an
edit wait: a small edit that the policy has nothing against, and a changed fact. Such rows are refused and waiting as
well (column `held_reason`, see `waiting`). Comparisons are never judged by edit bands: no person wrote their texts.

Reasoning that a model wrote before its answer is removed from both texts before anything else looks at them.

A reviewer has read the row and overrules matters of judgement (docs/adr/0016): `rewrite`, and every verdict of the
policy that only quarantines. No reviewer can overrule a rejection, a check that broke, missing consent or an empty
text. Where a reviewer's row could wait, it does: one of theirs is support enough, and it admits the same change of
others.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.conversations import decode_answer, encode_answer, split_reasoning
from flywheel_assets.curation.arrow import Array, Column, Dictionary, as_dictionary, to_mask, values_of, view_bytes
from flywheel_assets.curation.likeness.normalization import split_prompts
from flywheel_assets.curation.likeness.traces import compute_traces
from flywheel_assets.curation.policy.facts import compute_claim_key
from flywheel_assets.curation.policy.policy import Policy, build_default_policy
from flywheel_assets.curation.policy.verdicts import DOCUMENTS, HEAD, OPERATOR, TAIL, TEXTS, Verdict
from flywheel_assets.curation.texts._edits import EditBands as EditBands  # `config` offers it
from flywheel_assets.curation.texts._edits import EditRule, classify_edits
from flywheel_assets.curation.texts._preambles import find_preambles, select_preambles
from flywheel_assets.curation.texts.answers import find_recurring_texts, mark_canned_texts
from flywheel_assets.curation.texts.operator_findings import OperatorFinding, judge_operator_texts
from flywheel_assets.curation.texts.waiting import SUPPORTERS_NEEDED, hash_delta
from flywheel_assets.ranges import Checked, Share
from flywheel_assets.records import (
    CURATED_DPO_PAIRS,
    CURATION_STAGE,
    JOINED_FEEDBACK,
    QUARANTINE,
    REVIEWER_SOURCE,
    ExampleKind,
    PromptFormat,
    Reason,
    Signal,
    Stance,
    make_pair_ids,
    make_stable_id,
)

FEWEST_ROWS_AT_ONCE, MOST_ROWS_AT_ONCE = 16_384, 131_072
"""Rows that one thread judges together. The policy's RE2 automaton costs 4 ms each time it is built, whatever the rows;
the upper bound keeps the working memory small compared with input and output."""
MOST_BYTES_AT_ONCE = 64 * 2**20
"""Likewise where rows are long: judging them takes about ten times their size."""


@dataclass(frozen=True)
class GateRules(Checked):
    """Sets which feedback an application admits to gold."""

    bands: EditBands = field(default_factory=EditBands)
    edit_rule: EditRule = "local"
    """`local`: a small change is admitted where it changes what the text says (`admitted_by`). `seed`: only the bands
    of the whole text's similarity decide."""
    policy: Policy = field(default_factory=build_default_policy)
    accepting_rating: Share = 0.8
    """A rating of at least this much, without an edit, accepts the output."""
    objecting_rating: Share = 0.5
    """A rating below this much, without an edit, objects to the output; one between the two is a remark."""


@dataclass(frozen=True)
class Curated:
    """Every input row is in exactly one of `kept`, `waiting` and `statements`; in `refused` unless it is kept."""

    kept: pa.Table
    """CURATED_DPO_PAIRS."""
    refused: pa.Table
    """QUARANTINE."""
    waiting: pa.Table
    """CURATED_DPO_PAIRS: refused rows that wait until other users say the same, with `held_reason`."""
    statements: pa.Table
    """CURATED_DPO_PAIRS: the other refused rows, without their texts, with `refused_reason`."""
    counts: dict[str, int]
    """Refused rows by reason code."""
    operator_findings: tuple[OperatorFinding, ...] = ()
    """Objections to the team's own prompts, which refuse no row."""

    @property
    def gold(self) -> pa.Table:
        """Return every row of the day's partition of gold."""
        return pa.concat_tables([self.kept, self.waiting, self.statements])


def curate(joined: pa.Table, application: str, rules: GateRules) -> Curated:
    """Pass joined feedback through the gate; rows keep their order, and the outcome does not depend on it.

    An edit becomes a preference pair, also where a thumb or a rating carries it. A choice, and a regeneration that
    names the new answer, become a comparison. Accept, copy, thumb up and a high rating become an accepted output
    (`chosen` is the output, `rejected` null), a thumb down of a reviewer an objection (`chosen` is empty).

    Args:
        joined: JOINED_FEEDBACK.
        application: part of the pair's identity.
        rules: the bands and the policy.
    """
    [curated] = curate_each([joined], application, rules)
    return curated


def curate_each(days: Sequence[pa.Table], application: str, rules: GateRules) -> list[Curated]:
    """Pass several days through the gate together; the outcome of each is that of `curate`.

    A pass costs 40 ms of CPU whatever the rows, mostly RE2 automata that are built. A day's own lines of the operator
    and its canned texts are still those of the day alone.

    Args:
        days: JOINED_FEEDBACK of each.
        application: see `curate`.
        rules: see `curate`.
    """
    if len(days) > 1 and rules.policy.outside:
        # A judge that gives up does so for all rows that it was shown, and remembers its answers at their end.
        return [curate(each, application, rules) for each in days]
    joined = pa.concat_tables([_append_operator_lines(each) for each in days])
    cores = os.cpu_count() or 1
    size = min(max(-(-joined.num_rows // cores), FEWEST_ROWS_AT_ONCE), MOST_ROWS_AT_ONCE)
    size = max(1, min(size, joined.num_rows * MOST_BYTES_AT_ONCE // max(1, joined.nbytes)))
    slices = (joined.slice(start, size).combine_chunks() for start in range(0, joined.num_rows, size))
    batches = [batch for part in slices for batch in part.to_batches()]
    version = rules.policy.version
    with ThreadPoolExecutor(cores) as threads:
        judged = list(threads.map(partial(_judge, application=application, rules=rules, version=version), batches))
    if len(days) > 1 and not all(part.is_complete for part in judged):
        # A check that breaks refuses every row that it was shown: a day must not suffer for another day's rows.
        return [curate(each, application, rules) for each in days]
    ends = np.cumsum([each.num_rows for each in days]).tolist()
    spans = [(end - each.num_rows, end) for each, end in zip(days, ends, strict=True)]
    parted = {name: _part_by_day(judged, name, spans) for name in _OUTCOMES}
    findings = judge_operator_texts([_select_operator_texts(judged, *span) for span in spans], rules.policy)
    return [
        _complete_day(rows.num_rows, {name: parts[number] for name, parts in parted.items()}, findings[number], rules)
        for number, rows in enumerate(days)
    ]


def _part_by_day(judged: Sequence["_Judged"], name: str, spans: Sequence[tuple[int, int]]) -> list[pa.Table]:
    """Part one outcome of all batches by the first and last numbers of each day's rows; nothing is copied."""
    whole = pa.concat_tables([_OUTCOMES[name].empty_table(), *(getattr(part, name) for part in judged)])
    begins = np.cumsum([0, *(len(part.operator) for part in judged)])
    places = [part.places[name] + begin for part, begin in zip(judged, begins[:-1], strict=True)]
    cuts = np.searchsorted(np.concatenate([np.zeros(0, np.int64), *places]), np.array(spans, np.int64)).tolist()
    return [whole.slice(first, last - first) for first, last in cuts]


def _select_operator_texts(judged: Sequence["_Judged"], first: int, last: int) -> list[Dictionary]:
    """Select the operator's texts of a day's rows."""
    selected: list[Dictionary] = []
    begin = 0
    for part in judged:
        rows = len(part.operator)
        start, end = max(first - begin, 0), min(last - begin, rows)
        if start < end:
            selected.append(as_dictionary(part.operator.slice(start, end - start)))
        begin += rows
    return selected


def _complete_day(
    rows: int, parts: Mapping[str, pa.Table], findings: tuple[OperatorFinding, ...], rules: GateRules
) -> Curated:
    """Decide what needs a whole day's rows, and check that none is lost."""
    kept, refused, waiting, statements = parts["kept"], parts["refused"], parts["waiting"], parts["statements"]
    if rules.edit_rule == "local":
        kept, canned, withdrawn = _remove_canned_texts(kept, rules.policy.version)
        refused, statements = pa.concat_tables([refused, canned]), pa.concat_tables([statements, withdrawn])
    assert kept.num_rows + refused.num_rows == rows
    assert waiting.num_rows + statements.num_rows == refused.num_rows
    counts = dict(sorted(Counter(values_of(refused["reason"])).items()))
    return Curated(kept, refused, waiting, statements, counts, findings)


def withhold(curated: Curated, reason: Reason, detail: str, version: str, event_ids: Array | None = None) -> Curated:
    """Return the same day without gold rows, or without some: kept ones are refused for `reason`, others only refused.

    Args:
        curated: a day.
        reason: why.
        detail: the figures.
        version: of the policy.
        event_ids: of the feedback that is withheld; None: all of it.
    """
    held, kept = _split_by_event(curated.kept, event_ids)
    refused = _refuse(held, [reason.value] * held.num_rows, version, details=[detail] * held.num_rows)
    counts = Counter(curated.counts)
    counts[reason.value] += refused.num_rows
    return Curated(
        kept=kept,
        refused=pa.concat_tables([curated.refused, refused]),
        waiting=_split_by_event(curated.waiting, event_ids)[1],
        statements=_split_by_event(curated.statements, event_ids)[1],
        counts={each: rows for each, rows in sorted(counts.items()) if rows},
        operator_findings=curated.operator_findings,
    )


def _split_by_event(rows: pa.Table, event_ids: Array | None) -> tuple[pa.Table, pa.Table]:
    """Split gold rows into those of some feedback events, or of all, and the rest."""
    if event_ids is None:
        return rows, rows.slice(0, 0)
    among = pc.is_in(rows["feedback_event_id"], event_ids)
    return rows.filter(among), rows.filter(pc.invert(among))


_Mask = npt.NDArray[np.bool_]


def _remove_canned_texts(kept: pa.Table, version: str) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Part a day's kept rows from edits whose text the day has on many requests; those of reviewers stay.

    Returns the kept rows, the quarantine's rows, and the statements that the removed rows remain.
    """
    edits = pc.and_(
        pc.equal(kept["example_kind"], pa.scalar(ExampleKind.PREFERENCE_PAIR.value)),
        pc.not_equal(kept["source"], pa.scalar(REVIEWER_SOURCE)),
    )
    canned = to_mask(edits)
    rows = find_recurring_texts(kept["chosen"])
    rows = rows[canned[rows]]
    columns = kept.select(["request_hash", "rejected", "chosen"]).take(rows)
    canned[:] = False
    canned[rows] = mark_canned_texts(*map(values_of, columns.columns))
    if not canned.any():
        return kept, QUARANTINE.empty_table(), CURATED_DPO_PAIRS.empty_table()
    out = kept.filter(pa.array(canned))
    refused = _refuse(out, [Reason.CANNED_TEXT.value] * out.num_rows, version)
    return kept.filter(pa.array(~canned)), refused, _withdraw_texts(out, Reason.CANNED_TEXT)


_REVIEWED_EDITS = (Reason.REWRITE.value, Reason.REMARK.value, Reason.WRONG_LANGUAGE.value, Reason.CANNED_TEXT.value)
"""Judgements about an edit that people look at; a reviewer's own row passes them."""


@dataclass(frozen=True)
class _Judged:
    kept: pa.Table
    refused: pa.Table
    waiting: pa.Table
    statements: pa.Table
    operator: Dictionary
    """The operator's text of every row."""
    places: Mapping[str, npt.NDArray[np.int64]]
    """The numbers of the batch's rows that each of the four tables holds, ascending."""
    is_complete: bool
    """False where a check of the policy broke."""


_OUTCOMES = {
    "kept": CURATED_DPO_PAIRS,
    "refused": QUARANTINE,
    "waiting": CURATED_DPO_PAIRS,
    "statements": CURATED_DPO_PAIRS,
}


@dataclass(frozen=True)
class _Kinds:
    """Marks the kind of example that each row of joined feedback could be; at most one, or none."""

    edit: _Mask
    comparison: _Mask
    demonstration: _Mask
    approval: _Mask
    objection: _Mask

    def name(self, rows: npt.NDArray[np.int64]) -> Array:
        """Name the kind of example of some rows."""
        kinds = np.full(len(rows), ExampleKind.STATEMENT.value, dtype=object)
        kinds[self.edit[rows]] = ExampleKind.PREFERENCE_PAIR.value
        kinds[self.comparison[rows]] = ExampleKind.COMPARISON.value
        kinds[self.demonstration[rows]] = ExampleKind.DEMONSTRATION.value
        kinds[self.approval[rows]] = ExampleKind.ACCEPTED_OUTPUT.value
        kinds[self.objection[rows]] = ExampleKind.OBJECTION.value
        return pa.array(kinds, pa.string())


def _judge(batch: pa.RecordBatch, application: str, rules: GateRules, version: str) -> _Judged:
    """Decide everything that single rows can decide."""
    batch, had_reasoning = _remove_reasoning(batch)
    batch = _append_prompt_parts(batch)
    kinds = _find_kinds(batch, rules)
    reasons = np.full(batch.num_rows, None, dtype=object)
    details: dict[int, str] = {}
    similarity = np.full(batch.num_rows, np.nan)
    admitted_by = np.full(batch.num_rows, None, dtype=object)
    consent = ~to_mask(batch["do_not_train"])
    is_example = kinds.edit | kinds.comparison | kinds.demonstration | kinds.approval | kinds.objection
    reasons[~is_example] = Reason.NOT_TRAINABLE_SIGNAL.value
    reasons[~consent] = Reason.NO_CONSENT.value

    edits = np.flatnonzero(kinds.edit & consent)
    if len(edits):
        final = batch["final_text"].take(edits).fill_null("")
        asked = values_of(batch["request"].take(edits))
        classes = classify_edits(batch["output"].take(edits), final, rules.bands, rules.edit_rule, asked)
        admitted_by[edits] = classes.admitted_by.to_numpy(zero_copy_only=False)
        reasons[edits] = classes.reason.to_numpy(zero_copy_only=False)
        similarity[edits] = classes.similarity.to_numpy(zero_copy_only=False)
        banded = np.isin(reasons, (Reason.TRIVIAL_EDIT.value, *_REVIEWED_EDITS))
        details = {int(row): f"similarity {similarity[row]:.3f}" for row in np.flatnonzero(banded)}
        for row, note in classes.note.items():
            details[int(edits[row])] += f"; {note}"
    _refuse_empty_and_equal(batch, kinds, consent, reasons)
    reasons[is_example & consent & _mark_blank(batch["said"])] = Reason.EMPTY.value
    reasons[had_reasoning & (reasons == Reason.UNCHANGED.value)] = Reason.REASONING_ONLY.value

    by_reviewer = to_mask(pc.equal(batch["source"], pa.scalar(REVIEWER_SOURCE)))
    overruled = by_reviewer & np.isin(reasons, (Reason.TRIVIAL_EDIT.value, *_REVIEWED_EDITS))
    for number in np.flatnonzero(overruled).tolist():
        if not _can_wait(batch, kinds, number, reasons[number]):
            reasons[number] = None
            del details[number]

    # A small edit waits only if the policy has nothing against it.
    candidates = np.flatnonzero(_mark_undecided(reasons) | (reasons == Reason.TRIVIAL_EDIT.value))
    verdicts = rules.policy.audit(_select_policy_texts(batch.select([*_TEXT_COLUMNS, *_PARTS]).take(candidates)))
    is_complete = all(verdict.is_complete for verdict in verdicts.values())
    for row, verdict in list(verdicts.items()):
        original = int(candidates[row])
        if not by_reviewer[original] or not verdict.may_be_overruled:
            is_overruled = False
        else:
            is_overruled = not _can_wait(batch, kinds, original, verdict.reason.value)
        if is_overruled:
            del verdicts[row]
            continue
        reasons[candidates[row]] = verdict.reason.value
        details[int(candidates[row])] = verdict.detail
    found = {
        int(candidates[row]): write_evidence_json(verdict) for row, verdict in verdicts.items() if verdict.evidence
    }

    passed = np.flatnonzero(_mark_undecided(reasons))
    stances = _name_stances(batch, kinds, reasons, rules)
    kept = _build_examples(batch.take(passed), similarity[passed], application, version)
    kept = _set_column(kept, "admitted_by", pa.array(admitted_by[passed], pa.string()))
    kept = _describe_examples(kept, batch.take(passed), kinds.name(passed), stances[passed], application)
    may_wait = np.flatnonzero(np.isin(reasons, list(SUPPORTERS_NEEDED)) & kinds.edit)
    waiting, keys = _select_waiting(
        _build_examples(batch.take(may_wait), similarity[may_wait], application, version), reasons[may_wait]
    )
    waits = may_wait[[key is not None for key in keys]]
    stances[waits] = Stance.CHANGES.value
    waiting = _describe_examples(waiting, batch.take(waits), kinds.name(waits), stances[waits], application)
    for row, key in zip(may_wait.tolist(), keys, strict=True):
        details[row] = "; ".join(filter(None, (details.get(row), f"waits for {key}" if key else None)))
    is_out = ~_mark_undecided(reasons)
    out = np.flatnonzero(is_out)
    refused = _refuse(
        pa.table(batch.take(out)),
        reasons[out],
        version,
        details=[details.get(row) for row in out.tolist()],
        evidence=[found.get(row) for row in out.tolist()],
    )
    is_out[waits] = False
    rest = np.flatnonzero(is_out)
    statements = _build_statements(batch.take(rest), reasons[rest], stances[rest], application, version)
    places = {"kept": passed, "refused": out, "waiting": waits, "statements": rest}
    return _Judged(kept, refused, waiting, statements, as_dictionary(batch["operator"]), places, is_complete)


_REASONING_ENDS = (b"think>", b"thinking>", b"reasoning>")


def _remove_reasoning(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, _Mask]:
    """Remove reasoning from both texts; also mark the rows that had any."""
    marked = np.zeros(batch.num_rows, dtype=bool)
    for name in ("output", "final_text"):
        texts = batch[name]
        rows = _find_rows_with_reasoning(texts)
        if not len(rows):
            continue
        before = values_of(texts.take(rows))
        after = [split_reasoning(text)[1] for text in before]
        marked[rows] |= [old != new for old, new in zip(before, after, strict=True)]
        holds = np.zeros(batch.num_rows, dtype=bool)
        holds[rows] = True
        changed = pc.replace_with_mask(texts, pa.array(holds), pa.array(after, pa.string()))
        batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), changed)
    return batch, marked


def _find_rows_with_reasoning(texts: Array) -> npt.NDArray[np.int64]:
    """Find the rows that hold the end of a tag of reasoning.

    One search of all bytes: row by row it was 0.28 s of CPU for 100,000 rows.
    """
    offsets, content = view_bytes(texts)
    whole = content.tobytes()
    found: list[int] = []
    for end in _REASONING_ENDS:
        place = whole.find(end)
        while place >= 0:
            found.append(place)
            place = whole.find(end, place + len(end))
    return np.unique(np.searchsorted(offsets, np.array(found, np.int64), side="right") - 1)


def _find_kinds(rows: pa.RecordBatch, rules: GateRules) -> _Kinds:
    """Find the kind of example that each row could be, by its signal and by the texts that it carries."""
    has_own_text = _mark_corrections(rows)
    thumb, value = _has_signal(rows, Signal.THUMB), _read_values(rows)
    rating = _has_signal(rows, Signal.RATING)
    praised = (thumb & (value > 0)) | (rating & (value >= rules.accepting_rating))
    approval = (_has_signal(rows, Signal.ACCEPT, Signal.COPY) | praised) & ~has_own_text
    comparison = _mark_comparisons(rows)
    reviewed = to_mask(pc.equal(rows["source"], pa.scalar(REVIEWER_SOURCE)))
    return _Kinds(
        edit=_has_signal(rows, Signal.EDIT) | ((thumb | rating) & has_own_text),
        comparison=comparison,
        demonstration=_has_signal(rows, Signal.DEMONSTRATION),
        approval=approval,
        objection=thumb & (value < 0) & reviewed & ~has_own_text,
    )


def _has_signal(rows: pa.RecordBatch, *signals: Signal) -> _Mask:
    return to_mask(pc.is_in(rows["signal"], pa.array([signal.value for signal in signals])))


def _read_values(rows: pa.RecordBatch) -> npt.NDArray[np.float64]:
    # A null is NaN, of which no comparison holds.
    values: npt.NDArray[np.float64] = rows["value"].to_numpy(zero_copy_only=False)
    return values


def _mark_blank(texts: Array) -> _Mask:
    return to_mask(pc.equal(pc.utf8_trim_whitespace(texts.fill_null("")), pa.scalar("")))  # type: ignore[type-var]


def _mark_corrections(rows: pa.RecordBatch) -> _Mask:
    """Mark the rows that carry another text than the output; a blank one is a field that was left empty."""
    differs = to_mask(pc.not_equal(rows["final_text"], rows["output"]))
    candidates = np.flatnonzero(differs)
    differs[candidates] = ~_mark_blank(rows["final_text"].take(candidates))
    return differs


def _mark_comparisons(rows: pa.RecordBatch) -> _Mask:
    """Mark choices, and regenerations that name the new answer and carry its text."""
    replaced = _has_signal(rows, Signal.REGENERATE) & to_mask(rows["sibling_id"].is_valid())
    if replaced.any():
        replaced &= to_mask(rows["final_text"].is_valid())
    return _has_signal(rows, Signal.CHOICE) | replaced


def _refuse_empty_and_equal(
    batch: pa.RecordBatch, kinds: _Kinds, consent: _Mask, reasons: npt.NDArray[np.object_]
) -> None:
    """Refuse rows that lack a text, and comparisons of an answer with itself; edits were classified before."""
    judges_output = kinds.approval | kinds.objection | kinds.comparison
    with_final = kinds.comparison | kinds.demonstration
    if (with_final & consent).any():
        equal = kinds.comparison & to_mask(pc.equal(batch["final_text"], batch["output"]))
        reasons[equal & consent] = Reason.UNCHANGED.value
        reasons[with_final & consent & _mark_blank(batch["final_text"])] = Reason.EMPTY.value
    rows = np.flatnonzero(judges_output & consent)
    if len(rows):
        reasons[rows[_mark_blank(batch["output"].take(rows))]] = Reason.EMPTY.value


_SAME_TEXT = (Reason.UNCHANGED.value, Reason.REASONING_ONLY.value, Reason.COSMETIC_EDIT.value)


def _name_stances(
    batch: pa.RecordBatch, kinds: _Kinds, reasons: npt.NDArray[np.object_], rules: GateRules
) -> npt.NDArray[np.object_]:
    """Name each row's stance; an edit that waits is refused here."""
    value = _read_values(batch)
    stances = np.full(batch.num_rows, Stance.REMARKS.value, dtype=object)
    stances[kinds.approval] = Stance.APPROVES.value
    low = _has_signal(batch, Signal.RATING) & (value < rules.objecting_rating)
    disliked = ((_has_signal(batch, Signal.THUMB) & (value <= 0)) | low) & ~kinds.approval
    stances[disliked] = Stance.OBJECTS.value
    stances[_has_signal(batch, Signal.REGENERATE)] = Stance.REGENERATES.value
    own = kinds.edit | kinds.demonstration
    stances[own] = Stance.CHANGES.value
    stances[own & ~_mark_undecided(reasons)] = Stance.CHANGES_REFUSED.value
    # A text that differs in white space, case or a signature alone is the model's own.
    restored = np.isin(reasons, _SAME_TEXT)
    stances[own & restored] = Stance.RESTORES.value
    # Accepting a text that is not the model's: a text of one's own, of which the rules learn nothing.
    foreign = _has_signal(batch, Signal.ACCEPT, Signal.COPY) & ~kinds.approval
    stances[foreign | (reasons == Reason.NO_CONSENT.value)] = Stance.CHANGES_REFUSED.value
    stances[_has_signal(batch, Signal.CHOICE)] = Stance.CHOOSES.value
    stances[_has_signal(batch, Signal.RETRACT)] = Stance.RETRACTS.value
    return stances


def _describe_examples(
    examples: pa.Table, rows: pa.RecordBatch, kinds: Array, stances: npt.NDArray[np.object_], application: str
) -> pa.Table:
    """Fill in the kind, stance, identity and messages of examples; `rows` are their rows of joined feedback."""
    columns: dict[str, Column] = {"example_kind": kinds, "stance": pa.array(stances, pa.string())}
    compares = to_mask(pc.equal(kinds, pa.scalar(ExampleKind.COMPARISON.value)))
    objects = to_mask(pc.equal(kinds, pa.scalar(ExampleKind.OBJECTION.value)))
    if compares.any():
        columns["pair_id"] = _identify_comparisons(examples["pair_id"], rows, compares, application)
        # One answer may be better than two others, and each of these pairs says something of its own.
        for name in ("content_hash", "anchors"):
            examples = _set_column(examples, name, _hash_with_rejected(examples, name, name, name, compares))
    if objects.any():
        # They choose nothing: what is repeated is the rejected text.
        hashed = _hash_with_rejected(examples, "content_hash", "objection", "prompt_hash", objects)
        examples = _set_column(examples, "content_hash", hashed)
    final, output = rows["final_message"], rows["output_message"]
    if final.null_count + output.null_count < 2 * len(final):
        chosen_is_final = pc.invert(pc.equal(kinds, pa.scalar(ExampleKind.ACCEPTED_OUTPUT.value)))
        chosen = pc.if_else(chosen_is_final, final, output)
        has_rejected = examples["rejected"].combine_chunks().is_valid()
        is_objection = pa.array(objects)
        columns["chosen_message"] = _write_messages(pc.if_else(is_objection, None, chosen))
        columns["rejected_message"] = _write_messages(pc.if_else(has_rejected, output, None))
    for name, values in columns.items():
        examples = _set_column(examples, name, values)
    return examples


def _hash_with_rejected(examples: pa.Table, name: str, purpose: str, known: str, mask: _Mask) -> Array:
    """Return the column `name`, where the mask holds as a hash of `known` and the rejected text."""
    rows = examples.select([known, "rejected"]).filter(pa.array(mask))
    hashed = [make_stable_id(purpose, before, text) for before, text in zip(*map(values_of, rows.columns), strict=True)]
    return pc.replace_with_mask(  # type: ignore[no-any-return]
        examples[name].combine_chunks(), pa.array(mask), pa.array(hashed, pa.string())
    )


def _identify_comparisons(pair_ids: Column, rows: pa.RecordBatch, compares: _Mask, application: str) -> Array:
    """Replace the ids of comparisons: of both answers, in any order, where both are known.

    They never equal the id of an edit: a version may hold an edit of an answer and a choice for it.
    """
    few = rows.select(["prediction_id", "sibling_id"]).filter(pa.array(compares))
    found = [
        make_stable_id("comparison", application, *sorted(filter(None, pair)))
        for pair in zip(values_of(few["prediction_id"]), values_of(few["sibling_id"]), strict=True)
    ]
    whole = pair_ids.combine_chunks() if isinstance(pair_ids, pa.ChunkedArray) else pair_ids
    return pc.replace_with_mask(whole, pa.array(compares), pa.array(found, pa.string()))  # type: ignore[no-any-return]


def _write_messages(messages: Array) -> Array:
    """Write messages without their reasoning; null where the text then says everything."""
    rows = np.flatnonzero(messages.is_valid().to_numpy(zero_copy_only=False))
    found: list[str | None] = [None] * len(messages)
    for row in rows.tolist():
        found[row] = _remove_message_reasoning(messages[row].as_py())
    return pa.array(found, pa.string())


def _remove_message_reasoning(text: str) -> str | None:
    message = decode_answer("", text)
    content = message.content
    if isinstance(content, str):
        content = split_reasoning(content)[1]
    return encode_answer(msgspec.structs.replace(message, content=content, reasoning_content=None))[1]


def _build_statements(
    rows: pa.RecordBatch,
    reasons: npt.NDArray[np.object_],
    stances: npt.NDArray[np.object_],
    application: str,
    version: str,
) -> pa.Table:
    """Build the gold rows of refused feedback: what it says about its output, and no text."""
    pair_id: Array = pa.array(make_pair_ids(application, values_of(rows["prediction_id"])), pa.string())
    compares = stances == Stance.CHOOSES.value
    if compares.any():
        pair_id = _identify_comparisons(pair_id, rows, compares, application)
    stated = pa.table(rows.select([name for name in rows.schema.names if name in _STATED]))
    # A retraction needs no prediction, and so may know no prompt.
    prompt_format = rows["prompt_format"].fill_null(PromptFormat.TEXT.value)
    stated = stated.set_column(stated.schema.get_field_index("prompt_format"), "prompt_format", prompt_format)
    stated = stated.append_column("pair_id", pair_id)
    stated = stated.append_column("policy_version", pa.nulls(rows.num_rows, pa.string()).fill_null(version))
    return _write_statements(stated, pa.array(stances, pa.string()), pa.array(reasons, pa.string()))


def _write_statements(rows: pa.Table, stances: Array, reasons: Array) -> pa.Table:
    """Write rows of gold that hold no text, from columns that tell whose they are and what they are about."""
    absent = pa.nulls(rows.num_rows, pa.string())
    computed: dict[str, Array] = {
        "example_kind": absent.fill_null(ExampleKind.STATEMENT.value),
        "stance": stances,
        "refused_reason": reasons,
        "similarity": pa.nulls(rows.num_rows, pa.float64()),
        **dict.fromkeys(("prompt", "chosen", "prompt_hash", "content_hash", "request_hash"), absent.fill_null("")),
    }
    kept = {*_STATED, "pair_id", "policy_version"}
    columns = [
        computed[field.name] if field.name in computed else rows[field.name] if field.name in kept else absent
        for field in CURATED_DPO_PAIRS
    ]
    return pa.Table.from_arrays(columns, schema=CURATED_DPO_PAIRS)


_STATED = frozenset(JOINED_FEEDBACK.names) - {"prompt", "tools"}
"""Columns that a statement has of its row: all that are no text."""


def _withdraw_texts(rows: pa.Table, reason: Reason) -> pa.Table:
    """Turn examples into the statements that they remain when the day refuses them."""
    refused = pa.nulls(rows.num_rows, pa.string())
    return _write_statements(rows, refused.fill_null(Stance.CHANGES_REFUSED.value), refused.fill_null(reason.value))


def _mark_undecided(reasons: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    return to_mask(pc.is_null(pa.array(reasons, pa.string())))


_TEXT_COLUMNS = ["signal", "source", "value", "sibling_id", "prompt", "prompt_format", "output", "final_text"]
_PARTS = ("operator", "said", "request", "documents", HEAD, TAIL)
"""Columns of a batch of joined rows behind those of the table: the parts of its prompts, split once."""


def _append_operator_lines(joined: pa.Table) -> pa.Table:
    lines = find_preambles(joined)
    return joined.append_column(HEAD, pa.array(lines.head)).append_column(TAIL, pa.array(lines.tail))


def _append_prompt_parts(batch: pa.RecordBatch) -> pa.RecordBatch:
    parts = split_prompts(batch["prompt"], batch["prompt_format"])
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    none = pa.array(np.zeros(batch.num_rows, np.int32))
    columns |= {HEAD: columns.get(HEAD, none), TAIL: columns.get(TAIL, none)}
    operator = _join_operator_texts(parts.operator, batch["prompt"], columns[HEAD], columns[TAIL])
    columns |= {"operator": operator, "said": parts.said, "request": parts.request, "documents": parts.documents}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _join_operator_texts(operator: Dictionary, prompt: Array, head: Array, tail: Array) -> Dictionary:
    """Return the operator's texts with those of its lines in plain prompts, of which no row has both."""
    first, last = head.to_numpy(), tail.to_numpy()
    has_lines = (first > 0) | (last > 0)
    if not has_lines.any():
        return operator
    rows = np.flatnonzero(has_lines)
    found = pa.array(select_preambles(prompt.take(rows), first[rows], last[rows]), pa.string())
    texts = pc.replace_with_mask(operator.dictionary_decode(), pa.array(has_lines), found)
    return as_dictionary(texts.dictionary_encode())


def select_judged_texts(joined: pa.Table) -> pa.Table:
    """Select the texts of joined feedback that the policy reads, or would read; schema TEXTS."""
    batches = [_remove_reasoning(each)[0] for each in joined.select(_TEXT_COLUMNS).combine_chunks().to_batches()]
    selected = (_select_policy_texts(_append_prompt_parts(batch)).select(TEXTS.names) for batch in batches)
    return pa.concat_tables([TEXTS.empty_table(), *selected])


def _select_policy_texts(rows: pa.RecordBatch) -> pa.Table:
    """Select the texts that the policy reads of rows that passed the bands, and the operator's text as support."""
    columns = [rows["said"], *_select_chosen_and_rejected(rows)]
    texts = pa.Table.from_arrays(columns, schema=TEXTS)
    for name in (OPERATOR, DOCUMENTS, HEAD, TAIL):
        texts = texts.append_column(name, rows[name])
    return texts


def _select_chosen_and_rejected(rows: pa.RecordBatch) -> tuple[Array, Array]:
    """Select what a row prefers, and what it prefers it to: null where there is only one text."""
    has_both = _has_signal(rows, Signal.EDIT) | _mark_comparisons(rows)
    has_both |= _has_signal(rows, Signal.THUMB, Signal.RATING) & _mark_corrections(rows)
    has_final = has_both | _has_signal(rows, Signal.DEMONSTRATION)
    reviewed = to_mask(pc.equal(rows["source"], pa.scalar(REVIEWER_SOURCE)))
    objects = _has_signal(rows, Signal.THUMB) & (_read_values(rows) < 0) & reviewed & ~has_both
    chosen = pc.if_else(pa.array(has_final), rows["final_text"], rows["output"])
    if objects.any():
        chosen = pc.if_else(pa.array(objects), "", chosen)
    return chosen, pc.if_else(pa.array(has_both | objects), rows["output"], pa.scalar(None, pa.string()))


def _build_examples(
    rows: pa.RecordBatch, similarity: npt.NDArray[np.float64], application: str, version: str
) -> pa.Table:
    """Turn rows that passed everything but the search for duplicates into gold examples."""
    chosen, rejected = _select_chosen_and_rejected(rows)
    absent = pa.nulls(rows.num_rows, pa.string())
    kinds = (ExampleKind.PREFERENCE_PAIR.value, ExampleKind.ACCEPTED_OUTPUT.value)
    computed: dict[str, Array] = {
        "pair_id": pa.array(make_pair_ids(application, values_of(rows["prediction_id"])), pa.string()),
        "example_kind": pc.if_else(pc.equal(rows["signal"], pa.scalar(Signal.EDIT.value)), *kinds),
        "chosen": chosen,
        "rejected": rejected,
        "similarity": pa.array(similarity, from_pandas=True),
        "policy_version": absent.fill_null(version),
        "held_reason": absent,
        "support_key": absent,
        "stance": absent.fill_null("changes"),
        "refused_reason": absent,
        "admitted_by": absent,
        "chosen_message": absent,
        "rejected_message": absent,
        **compute_traces(rows["request"], rows["said"], rows["operator"], chosen, rejected),
    }
    columns = [computed[name] if name in computed else rows[name] for name in CURATED_DPO_PAIRS.names]
    return pa.Table.from_arrays(columns, schema=CURATED_DPO_PAIRS)


def _select_waiting(rows: pa.Table, reasons: npt.NDArray[np.object_]) -> tuple[pa.Table, list[str | None]]:
    """Select the examples that wait, and the key that has to recur for each.

    A row without a key would wait for ever and is left out.
    """
    keys = [
        _compute_support_key(reason, prompt_hash, rejected, chosen)
        for reason, prompt_hash, rejected, chosen in zip(
            reasons, *(rows[name].to_pylist() for name in ("prompt_hash", "rejected", "chosen")), strict=True
        )
    ]
    for name, values in (("held_reason", pa.array(reasons, pa.string())), ("support_key", pa.array(keys, pa.string()))):
        rows = _set_column(rows, name, values)
    return rows.filter(pc.is_valid(rows["support_key"])), keys


def _set_column(rows: pa.Table, name: str, values: Column) -> pa.Table:
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, CURATED_DPO_PAIRS.field(position), values)


def _can_wait(rows: pa.RecordBatch, kinds: _Kinds, row: int, reason: str) -> bool:
    """Return whether an edit refused for this reason would wait."""
    if reason not in SUPPORTERS_NEEDED or not kinds.edit[row]:
        return False
    return _compute_support_key(reason, "", rows["output"][row].as_py(), rows["final_text"][row].as_py()) is not None


def _compute_support_key(reason: str, prompt_hash: str, rejected: str, chosen: str) -> str | None:
    if reason == Reason.TRIVIAL_EDIT.value:
        return hash_delta(rejected, chosen)
    return compute_claim_key(prompt_hash, chosen, rejected)


def _refuse(
    rows: pa.Table,
    reasons: Iterable[str],
    version: str,
    details: list[str | None] | None = None,
    evidence: list[str | None] | None = None,
) -> pa.Table:
    absent = pa.nulls(rows.num_rows, pa.string())
    columns: dict[str, Column] = {
        "day": rows["completed_date"],
        "stage": absent.fill_null(CURATION_STAGE),
        "row_id": rows["feedback_event_id"],
        "reason": pa.array(reasons, pa.string()),
        "detail": absent if details is None else pa.array(details, pa.string()),
        "evidence": absent if evidence is None else pa.array(evidence, pa.string()),
        "subject": rows["subject"],
        "policy_version": absent.fill_null(version),
        "payload": absent,
    }
    return pa.Table.from_arrays([columns[name] for name in QUARANTINE.names], schema=QUARANTINE)


def write_evidence_json(verdict: Verdict) -> str:
    """Write a verdict's evidence as the quarantine's JSON list of {check, category, score, field, start, end}."""
    return json.dumps([asdict(finding) for finding in verdict.evidence])
