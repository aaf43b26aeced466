"""The edit gate: joined feedback in, training examples and refused rows out, nothing lost between.

A row is refused for the first reason that holds: consent, signal, edit band, policy, duplicate. Duplicates come last,
so that a row is only ever a duplicate of one that was kept. Two reasons only make a row wait: a small edit that the
policy has nothing against, and a changed fact. Such rows are refused and waiting as well (column `held_reason`, see
`waiting`).

A reviewer has read the row and overrules matters of judgement (docs/adr/0016): `rewrite`, and every verdict of the
policy that only quarantines. No reviewer can overrule a rejection, a check that broke, missing consent or an empty
text. Where a reviewer's row could wait, it does: one of theirs is support enough, and it admits the same change of
others.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.conversations import split_prompt
from flywheel_assets.curation.arrow import Array, Column, to_mask, values_of
from flywheel_assets.curation.policy.facts import compute_claim_key
from flywheel_assets.curation.policy.policy import Policy, build_default_policy
from flywheel_assets.curation.policy.verdicts import TEXTS, Verdict
from flywheel_assets.curation.texts._edits import EditBands as EditBands  # `config` offers it
from flywheel_assets.curation.texts._edits import EditRule, classify_edits
from flywheel_assets.curation.texts.answers import mark_canned_texts
from flywheel_assets.curation.texts.duplicates import (
    compute_signatures,
    hash_texts,
)
from flywheel_assets.curation.texts.normalization import make_prompts_readable, normalize
from flywheel_assets.curation.texts.novelty import find_added_ngrams
from flywheel_assets.curation.texts.waiting import SUPPORTERS_NEEDED, hash_delta
from flywheel_assets.ranges import Checked, Share
from flywheel_assets.records import (
    CURATED_DPO_PAIRS,
    CURATION_STAGE,
    QUARANTINE,
    REVIEWER_SOURCE,
    ExampleKind,
    Reason,
    Signal,
    make_pair_ids,
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


@dataclass(frozen=True)
class Curated:
    """Every input row is in exactly one of the two tables."""

    kept: pa.Table
    """CURATED_DPO_PAIRS."""
    refused: pa.Table
    """QUARANTINE."""
    waiting: pa.Table
    """CURATED_DPO_PAIRS: refused rows that wait until other users say the same, with `held_reason`."""
    counts: dict[str, int]
    """Refused rows by reason code."""


def curate(joined: pa.Table, application: str, rules: GateRules) -> Curated:
    """Pass joined feedback through the edit gate; rows keep their order, and the outcome does not depend on it.

    An edit becomes a preference pair. Accept, copy, thumb up and a high rating, without an edit in the row, become an
    accepted output (`chosen` is the output, `rejected` null). Equal and nearly equal rows are one row among all rows
    given here: the lake calls this once per day.

    Args:
        joined: JOINED_FEEDBACK.
        application: part of the pair's identity.
        rules: the bands and the policy.
    """
    cores = os.cpu_count() or 1
    size = min(max(-(-joined.num_rows // cores), FEWEST_ROWS_AT_ONCE), MOST_ROWS_AT_ONCE)
    size = max(1, min(size, joined.num_rows * MOST_BYTES_AT_ONCE // max(1, joined.nbytes)))
    slices = (joined.slice(start, size).combine_chunks() for start in range(0, joined.num_rows, size))
    batches = [batch for part in slices for batch in part.to_batches()]
    version = rules.policy.version
    with ThreadPoolExecutor(cores) as threads:
        judged = list(threads.map(partial(_judge, application=application, rules=rules, version=version), batches))
    kept = pa.concat_tables([CURATED_DPO_PAIRS.empty_table(), *(part.kept for part in judged)])
    kept, canned = (
        _remove_canned_texts(kept, version) if rules.edit_rule == "local" else (kept, QUARANTINE.empty_table())
    )
    refused = pa.concat_tables([QUARANTINE.empty_table(), *(part.refused for part in judged), canned])
    waiting = pa.concat_tables([CURATED_DPO_PAIRS.empty_table(), *(part.waiting for part in judged)])
    assert kept.num_rows + refused.num_rows == joined.num_rows
    return Curated(kept, refused, waiting, dict(sorted(Counter(values_of(refused["reason"])).items())))


def withhold(curated: Curated, reason: Reason, detail: str, version: str) -> Curated:
    """Return the same day without gold rows: kept rows are refused for `reason`, waiting rows are only refused."""
    refused = _refuse(
        curated.kept, [reason.value] * curated.kept.num_rows, version, details=[detail] * curated.kept.num_rows
    )
    counts = Counter(curated.counts)
    counts[reason.value] += refused.num_rows
    return Curated(
        kept=CURATED_DPO_PAIRS.empty_table(),
        refused=pa.concat_tables([curated.refused, refused]),
        waiting=CURATED_DPO_PAIRS.empty_table(),
        counts={each: rows for each, rows in sorted(counts.items()) if rows},
    )


def _remove_canned_texts(kept: pa.Table, version: str) -> tuple[pa.Table, pa.Table]:
    """Part a day's kept rows from edits whose text the day has on many requests; those of reviewers stay."""
    edits = pc.and_(
        pc.equal(kept["example_kind"], pa.scalar(ExampleKind.PREFERENCE_PAIR.value)),
        pc.not_equal(kept["source"], pa.scalar(REVIEWER_SOURCE)),
    )
    rows = np.flatnonzero(to_mask(edits))
    canned = np.zeros(kept.num_rows, dtype=bool)
    columns = kept.select(["request_hash", "rejected", "chosen"]).take(rows)
    canned[rows] = mark_canned_texts(*map(values_of, columns.columns))
    out = kept.filter(pa.array(canned))
    refused = _refuse(out, [Reason.CANNED_TEXT.value] * out.num_rows, version)
    return kept.filter(pa.array(~canned)), refused


_REVIEWED_EDITS = (Reason.REWRITE.value, Reason.REMARK.value, Reason.WRONG_LANGUAGE.value, Reason.CANNED_TEXT.value)
"""Judgements about an edit that people look at; a reviewer's own row passes them."""


@dataclass(frozen=True)
class _Judged:
    kept: pa.Table
    refused: pa.Table
    waiting: pa.Table


def _judge(batch: pa.RecordBatch, application: str, rules: GateRules, version: str) -> _Judged:
    """Decide everything that single rows can decide."""
    reasons = np.full(batch.num_rows, None, dtype=object)
    details: dict[int, str] = {}
    similarity = np.full(batch.num_rows, np.nan)
    admitted_by = np.full(batch.num_rows, None, dtype=object)
    is_edit = to_mask(pc.equal(batch["signal"], pa.scalar(Signal.EDIT.value)))
    accepts = _mark_accepted_outputs(batch, rules.accepting_rating)
    consent = ~to_mask(batch["do_not_train"])
    reasons[~is_edit & ~accepts] = Reason.NOT_TRAINABLE_SIGNAL.value
    reasons[~consent] = Reason.NO_CONSENT.value

    edits = np.flatnonzero(is_edit & consent)
    if len(edits):
        final = batch["final_text"].take(edits).fill_null("")
        asked = [
            split_prompt(prompt, form).request
            for prompt, form in zip(
                *(values_of(batch[name].take(edits)) for name in ("prompt", "prompt_format")), strict=True
            )
        ]
        classes = classify_edits(batch["output"].take(edits), final, rules.bands, rules.edit_rule, asked)
        admitted_by[edits] = classes.admitted_by.to_numpy(zero_copy_only=False)
        reasons[edits] = classes.reason.to_numpy(zero_copy_only=False)
        similarity[edits] = classes.similarity.to_numpy(zero_copy_only=False)
        banded = np.isin(reasons, (Reason.TRIVIAL_EDIT.value, *_REVIEWED_EDITS))
        details = {int(row): f"similarity {similarity[row]:.3f}" for row in np.flatnonzero(banded)}
        for row, note in classes.note.items():
            details[int(edits[row])] += f"; {note}"
    without_text = accepts & consent & to_mask(pc.equal(pc.utf8_trim_whitespace(batch["output"]), pa.scalar("")))
    reasons[without_text] = Reason.EMPTY.value

    by_reviewer = to_mask(pc.equal(batch["source"], pa.scalar(REVIEWER_SOURCE)))
    banded = by_reviewer & np.isin(reasons, (Reason.TRIVIAL_EDIT.value, *_REVIEWED_EDITS))
    for number in np.flatnonzero(banded).tolist():
        if not _can_wait(batch, number, reasons[number]):
            reasons[number] = None
            del details[number]

    # A small edit waits only if the policy has nothing against it.
    candidates = np.flatnonzero(_mark_undecided(reasons) | (reasons == Reason.TRIVIAL_EDIT.value))
    verdicts = rules.policy.audit(_select_policy_texts(batch.select(_TEXT_COLUMNS).take(candidates)))
    for row, verdict in list(verdicts.items()):
        original = int(candidates[row])
        if by_reviewer[original] and verdict.may_be_overruled and not _can_wait(batch, original, verdict.reason.value):
            del verdicts[row]
            continue
        reasons[candidates[row]] = verdict.reason.value
        details[int(candidates[row])] = verdict.detail
    found = {
        int(candidates[row]): write_evidence_json(verdict) for row, verdict in verdicts.items() if verdict.evidence
    }

    passed = np.flatnonzero(_mark_undecided(reasons))
    kept = _build_examples(batch.take(passed), similarity[passed], application, version)
    kept = _set_column(kept, "admitted_by", pa.array(admitted_by[passed], pa.string()))
    may_wait = np.flatnonzero(np.isin(reasons, list(SUPPORTERS_NEEDED)))
    waiting, keys = _select_waiting(
        _build_examples(batch.take(may_wait), similarity[may_wait], application, version), reasons[may_wait]
    )
    for row, key in zip(may_wait.tolist(), keys, strict=True):
        details[row] = "; ".join(filter(None, (details.get(row), f"waits for {key}" if key else None)))
    out = np.flatnonzero(~_mark_undecided(reasons))
    refused = _refuse(
        pa.table(batch.take(out)),
        reasons[out],
        version,
        details=[details.get(row) for row in out.tolist()],
        evidence=[found.get(row) for row in out.tolist()],
    )
    return _Judged(kept, refused, waiting)


def _mark_undecided(reasons: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    return to_mask(pc.is_null(pa.array(reasons, pa.string())))


def _mark_accepted_outputs(batch: pa.RecordBatch, accepting_rating: float) -> npt.NDArray[np.bool_]:
    signal, value = batch["signal"], batch["value"].fill_null(-1.0)
    positive = pc.or_(
        pc.is_in(signal, pa.array([Signal.ACCEPT.value, Signal.COPY.value])),
        pc.or_(
            pc.and_(pc.equal(signal, pa.scalar(Signal.THUMB.value)), pc.greater(value, pa.scalar(0.0))),
            pc.and_(
                pc.equal(signal, pa.scalar(Signal.RATING.value)), pc.greater_equal(value, pa.scalar(accepting_rating))
            ),
        ),
    )
    unedited = pc.equal(batch["final_text"], batch["output"]).fill_null(True)
    return to_mask(pc.and_(positive, unedited))  # type: ignore[arg-type]


_TEXT_COLUMNS = ["signal", "prompt", "prompt_format", "output", "final_text"]


def select_judged_texts(joined: pa.Table) -> pa.Table:
    """Select the texts of joined feedback that the policy reads, or would read; schema TEXTS."""
    batches = joined.select(_TEXT_COLUMNS).combine_chunks().to_batches()
    return pa.concat_tables([TEXTS.empty_table(), *(_select_policy_texts(batch) for batch in batches)])


def _select_policy_texts(rows: pa.RecordBatch) -> pa.Table:
    """Select the texts that the policy reads of rows that passed the bands."""
    prompt = make_prompts_readable(rows["prompt"], rows["prompt_format"])
    return pa.Table.from_arrays([prompt, *_select_chosen_and_rejected(rows)], schema=TEXTS)


def _select_chosen_and_rejected(rows: pa.RecordBatch) -> tuple[Array, Array]:
    is_edit = pc.equal(rows["signal"], pa.scalar(Signal.EDIT.value))
    chosen = pc.if_else(is_edit, rows["final_text"], rows["output"])
    return chosen, pc.if_else(is_edit, rows["output"], pa.scalar(None, pa.string()))


def _build_examples(
    rows: pa.RecordBatch, similarity: npt.NDArray[np.float64], application: str, version: str
) -> pa.Table:
    """Turn rows that passed everything but the search for duplicates into gold examples."""
    chosen, rejected = _select_chosen_and_rejected(rows)
    prompt, normalized_chosen = normalize(rows["prompt"]), normalize(chosen)
    prompt_hash, content_hash = hash_texts(prompt, normalized_chosen)
    absent = pa.nulls(rows.num_rows, pa.string())
    kinds = (ExampleKind.PREFERENCE_PAIR.value, ExampleKind.ACCEPTED_OUTPUT.value)
    computed: dict[str, Array] = {
        "pair_id": pa.array(make_pair_ids(application, values_of(rows["prediction_id"])), pa.string()),
        "example_kind": pc.if_else(pc.equal(rows["signal"], pa.scalar(Signal.EDIT.value)), *kinds),
        "chosen": chosen,
        "rejected": rejected,
        "similarity": pa.array(similarity, from_pandas=True),
        "prompt_hash": prompt_hash,
        "content_hash": content_hash,
        "policy_version": absent.fill_null(version),
        "signature": compute_signatures(prompt, normalized_chosen),
        "held_reason": absent,
        "support_key": absent,
        "added_ngrams": find_added_ngrams(prompt, rejected, normalized_chosen),
        "stance": absent.fill_null("changes"),
        "refused_reason": absent,
        "admitted_by": absent,
        "chosen_message": absent,
        "rejected_message": absent,
        "request_hash": prompt_hash,
        "request_signature": absent,
        "anchors": absent,
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


def _set_column(rows: pa.Table, name: str, values: Array) -> pa.Table:
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, CURATED_DPO_PAIRS.field(position), values)


def _can_wait(rows: pa.RecordBatch, row: int, reason: str) -> bool:
    """Return whether an edit refused for this reason would wait."""
    if reason not in SUPPORTERS_NEEDED or rows["signal"][row].as_py() != Signal.EDIT.value:
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
