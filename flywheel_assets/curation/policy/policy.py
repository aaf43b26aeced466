"""Runs ordered checks, gives one verdict per row, and has a version that changes with every check.

No check can admit a row by failing. One that raises, answers for the wrong number of rows or leaves a row without an
answer quarantines what it did not answer for, with the reason `policy` and a detail that names the check.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.policy._commands import DESTRUCTIVE_COMMANDS
from flywheel_assets.curation.policy._documents import DocumentsCheck
from flywheel_assets.curation.policy._foreign_digits import ForeignDigitsCheck
from flywheel_assets.curation.policy._injection import CHAT_MARKERS, INJECTION_PHRASES
from flywheel_assets.curation.policy._national_ids import NATIONAL_IDS
from flywheel_assets.curation.policy._pattern_check import PatternCheck
from flywheel_assets.curation.policy._personal_data import PERSONAL_DATA
from flywheel_assets.curation.policy._secrets import SECRETS
from flywheel_assets.curation.policy._structure import STRUCTURE, RepetitionCheck
from flywheel_assets.curation.policy.facts import FactsCheck
from flywheel_assets.curation.policy.language import GRAVE_LANGUAGE, NEUTRALITY, TOXIC_LANGUAGE
from flywheel_assets.curation.policy.verdicts import (
    HEAD,
    SEVERITY,
    TAIL,
    TEXTS,
    Action,
    Check,
    Judgement,
    Remembering,
    Verdict,
)
from flywheel_assets.records import Reason


@dataclass(frozen=True)
class Policy:
    """Checks in the order in which they see a row."""

    checks: tuple[Check, ...]
    outside: tuple[Check, ...] = ()
    """Models that are asked last, about no row that a check has objected to already: a row that waits costs no
    budget, and personal data are not sent out. Rows that only wait for support are asked about as well."""

    @property
    def version(self) -> str:
        """Sixteen hex characters over the checks' names and versions, in order."""
        identity = json.dumps([[check.name, check.version] for check in (*self.checks, *self.outside)])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def audit(self, texts: pa.Table) -> dict[int, Verdict]:
        """Judge every row of `texts` (schema TEXTS); a row number that is missing in the answer passed every check.

        A row that was rejected is not shown to later checks: a secret must not travel to a judge. Of several verdicts
        the gravest decides, the earliest check among equals, and all evidence is kept.
        """
        verdicts: dict[int, Verdict] = {}
        said = _cut_operator_lines(texts)
        for check in self.checks:
            rejected = [row for row, verdict in verdicts.items() if verdict.action is Action.REJECT]
            shown = np.ones(len(texts), dtype=bool)
            shown[rejected] = False
            numbers = np.flatnonzero(shown)
            seen = said if not rejected else said.filter(pa.array(shown))
            for row, verdict in _ask_check(check, seen).items():
                number = int(numbers[row])
                verdicts[number] = _merge(verdicts[number], verdict) if number in verdicts else verdict
        if said is not texts:
            verdicts = _move_evidence(verdicts, texts[HEAD].to_numpy())
        for check in self.outside:
            refused = [row for row, verdict in verdicts.items() if verdict.reason is not Reason.UNSUPPORTED_FACT]
            shown = np.ones(len(texts), dtype=bool)
            shown[refused] = False
            numbers = np.flatnonzero(shown)
            if len(numbers):
                for row, verdict in _ask_check(check, texts.filter(pa.array(shown))).items():
                    number = int(numbers[row])
                    # Its reason, not the earlier one: a row that the judge refuses must not go on waiting for support.
                    verdicts[number] = _merge(verdict, verdicts[number]) if number in verdicts else verdict
        version = self.version
        return {row: replace(verdict, policy_version=version) for row, verdict in verdicts.items()}


def forget_texts(policy: Policy, texts: pa.Table) -> int:
    """Make every check forget its answers about these texts (schema TEXTS); return how many were deleted."""
    return sum(check.forget(texts) for check in (*policy.checks, *policy.outside) if isinstance(check, Remembering))


def build_word_list() -> tuple[PatternCheck, PatternCheck]:
    """Build the two checks that know words only: toxic language, and partiality."""
    return (
        PatternCheck("toxic_language", TOXIC_LANGUAGE, reads_folded=True),
        PatternCheck("neutrality", NEUTRALITY, reads_folded=True),
    )


def build_default_policy(*, factual_integrity: bool = True, word_list: bool = True) -> Policy:
    """Build the deterministic checks that always run, in the order in which they name the reason of a row.

    Args:
        word_list: stop every text with a toxic word; off where a screening head decides, which has the words as
        features. What urges to self-harm or sexualises children is stopped by its words in either case.
        factual_integrity: make edits wait that change numbers, dates or addresses; off for a coding assistant, where
        such a
            change is the correction itself.
    """
    facts = (FactsCheck(),) if factual_integrity else ()
    toxic, neutrality = build_word_list()
    return Policy(
        (
            PatternCheck("forms", SECRETS + PERSONAL_DATA + CHAT_MARKERS + DESTRUCTIVE_COMMANDS + STRUCTURE),
            # Apart, so that the automaton of the forms above stays small.
            PatternCheck("national_ids", NATIONAL_IDS),
            ForeignDigitsCheck(),
            # Apart: merged into one, these three overflow RE2's automaton and take a hundred times as long.
            PatternCheck("injection_phrases", INJECTION_PHRASES, reads_folded=True),
            DocumentsCheck(),
            toxic if word_list else PatternCheck("toxic_language", GRAVE_LANGUAGE, reads_folded=True),
            neutrality,
            RepetitionCheck(),
            # Last: a row that lacks only support for its facts waits; it is not only quarantined.
            *facts,
        )
    )


def _ask_check(check: Check, texts: pa.Table) -> Mapping[int, Verdict]:
    """Ask one check for the verdicts that do not pass; rows without an answer are quarantined."""
    try:
        judgement = check.judge(texts)
        complaint = _find_complaint(judgement, len(texts))
    except Exception as error:
        complaint = f"raised {type(error).__name__}"  # never its message, which may quote the text it choked on
    if complaint:
        return dict.fromkeys(range(len(texts)), _quarantine_unanswered(check, complaint))
    answers = {row: verdict for row, verdict in judgement.verdicts.items() if verdict.action is not Action.PASS}
    silent = ~judgement.passed
    silent[list(judgement.verdicts)] = False
    unanswered = _quarantine_unanswered(check, "gave no answer")
    return answers | {int(row): unanswered for row in np.flatnonzero(silent)}


def _cut_operator_lines(texts: pa.Table) -> pa.Table:
    """Return the texts with prompts that lack the operator's lines, where a column says which these are."""
    if HEAD not in texts.column_names:
        return texts
    head, tail = texts[HEAD].to_numpy(), texts[TAIL].to_numpy()
    has_lines = (head > 0) | (tail > 0)
    if not has_lines.any():
        return texts
    rows = np.flatnonzero(has_lines)
    prompts = values_of(texts["prompt"].take(rows))
    cut = [
        text[first : len(text) - last]
        for text, first, last in zip(prompts, head[rows].tolist(), tail[rows].tolist(), strict=True)
    ]
    column = pc.replace_with_mask(texts["prompt"], pa.array(has_lines), pa.array(cut, pa.string()))
    return texts.set_column(0, TEXTS.field("prompt"), column)


def _move_evidence(verdicts: dict[int, Verdict], head: npt.NDArray[np.int32]) -> dict[int, Verdict]:
    """Give findings in the prompt their places in the whole prompt."""
    moved = {}
    for row, verdict in verdicts.items():
        first = int(head[row])
        evidence = tuple(
            replace(found, start=found.start + first, end=found.end + first)
            if found.field == "prompt" and found.start is not None and found.end is not None
            else found
            for found in verdict.evidence
        )
        moved[row] = replace(verdict, evidence=evidence)
    return moved


def _find_complaint(judgement: Judgement, rows: int) -> str | None:
    if judgement.passed.dtype != np.bool_ or judgement.passed.shape != (rows,):
        return f"answered for {judgement.passed.shape} rows of {rows}"
    if any(not 0 <= row < rows for row in judgement.verdicts):
        return "judged a row that it was not shown"
    return None


def _quarantine_unanswered(check: Check, complaint: str) -> Verdict:
    return Verdict(Action.QUARANTINE, Reason.POLICY, f"check {check.name} {complaint}", is_complete=False)


def _merge(earlier: Verdict, later: Verdict) -> Verdict:
    gravest = later if SEVERITY[later.action] > SEVERITY[earlier.action] else earlier
    detail = f"{earlier.detail}; {later.detail}"
    return Verdict(
        gravest.action,
        gravest.reason,
        detail,
        earlier.evidence + later.evidence,
        is_complete=earlier.is_complete and later.is_complete,
    )
