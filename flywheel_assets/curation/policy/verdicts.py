"""Defines policy checks and patterns: whole columns in, a verdict for every row that must not pass.

A pattern is the usual check: `prefilter` is RE2 syntax and runs over every row, merged with all others into one
automaton; it must match wherever `expression` (Python's `re`, look-arounds allowed) does, and should rarely match
elsewhere. `accepts` then decides about a match: a checksum, a placeholder, a reserved domain.

A check never has to say anything about a row twice: it names the rows that pass, and gives a `Verdict` for others. A
row that it neither passed nor judged was not answered, and the policy quarantines it: silence never admits a row.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.records import Reason


class Hazard(StrEnum):
    """The kind of harm that a finding points at."""

    # AILuminate
    VIOLENT_CRIMES = "violent_crimes"
    NON_VIOLENT_CRIMES = "non_violent_crimes"
    SEX_RELATED_CRIMES = "sex_related_crimes"
    CHILD_SEXUAL_EXPLOITATION = "child_sexual_exploitation"
    SUICIDE_AND_SELF_HARM = "suicide_and_self_harm"
    INDISCRIMINATE_WEAPONS = "indiscriminate_weapons"
    INTELLECTUAL_PROPERTY = "intellectual_property"
    DEFAMATION = "defamation"
    HATE = "hate"
    PRIVACY = "privacy"
    SPECIALIZED_ADVICE = "specialized_advice"
    SEXUAL_CONTENT = "sexual_content"
    # ours
    SECRET = "secret"  # noqa: S105
    PROMPT_INJECTION = "prompt_injection"
    HARASSMENT = "harassment"
    NEUTRALITY = "neutrality"
    STRUCTURAL_ABUSE = "structural_abuse"
    FACTUAL_INTEGRITY = "factual_integrity"


# What a check reads: one row per candidate example. `prompt` is what people and documents said, as readable text also
# where the record holds messages: context and request, never the operator's own text (see `OPERATOR`).
TEXTS = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string()),  # null: an accepted output
    ]
)


OPERATOR = "operator"
"""A column that may follow those of TEXTS: the operator's text, as a dictionary. It supports what an edit says, because
the model had read it, and it is never judged with the row: see `curation.texts.operator_findings`."""


HEAD, TAIL = "preamble_characters", "postscript_characters"
"""Columns that may follow: characters at the beginning and the end of a prompt in plain text that are the operator's
lines (see `curation.texts._preambles`). The row checks do not read them; a model outside reads the prompt as it is."""
DOCUMENTS = "documents"
"""A column that may follow: what tools returned, as a dictionary. It is part of the prompt as well."""


class Action(StrEnum):
    """The action on a row; REJECT outranks QUARANTINE, which a reviewer may overrule."""

    PASS = "pass"  # noqa: S105
    QUARANTINE = "quarantine"
    REJECT = "reject"


SEVERITY = {Action.PASS: 0, Action.QUARANTINE: 1, Action.REJECT: 2}


@dataclass(frozen=True)
class Evidence:
    """One finding: which check, what kind of harm, how sure (0 to 1), and where; never the text itself.

    `start` and `end` count characters of `field` (prompt | chosen | rejected); null where a check judges whole texts.
    """

    check: str
    category: str
    score: float
    field: str | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The reason that one row must not pass. People see `detail`: it must not contain user text."""

    action: Action
    reason: Reason
    detail: str
    evidence: tuple[Evidence, ...] = field(default=())
    policy_version: str = ""
    """Filled in by the policy, which alone knows all its checks."""
    is_complete: bool = True
    """False where a check broke: whatever it would have rejected was not looked for."""

    @property
    def may_be_overruled(self) -> bool:
        """True where a reviewer who has read the row may admit it: every check answered, and none rejected it."""
        return self.action is not Action.REJECT and self.is_complete

    @property
    def category(self) -> str | None:
        """The kind of harm of the surest finding (see `Hazard`); None where there is no evidence."""
        return max(self.evidence, key=lambda finding: finding.score).category if self.evidence else None

    @property
    def score(self) -> float:
        """The certainty of the surest finding, 0 to 1; 1 where a row waits because a check could not answer."""
        return max((finding.score for finding in self.evidence), default=1.0)


@dataclass(frozen=True)
class Judgement:
    """A check's answer for a whole table: `passed` has one value per row, `verdicts` is keyed by row number."""

    passed: npt.NDArray[np.bool_]
    verdicts: Mapping[int, Verdict]


class Check(Protocol):
    """A policy check. Its version must change whenever it could judge the same text differently."""

    @property
    def name(self) -> str:
        """Stable snake_case name."""
        ...

    @property
    def version(self) -> str:
        """Digest or name of everything that decides: patterns, thresholds, model weights, the judge's prompt."""
        ...

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row of `texts` (schema TEXTS). Whatever it raises quarantines all rows."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A check that keeps its answers, and can forget those about some texts."""

    def forget(self, texts: pa.Table) -> int:
        """Delete the answers about rows of `texts` (schema TEXTS), under every version; return how many."""
        ...


TRAINED_FIELDS = ("prompt", "chosen", "rejected")


def widen_spaces(expression: str) -> str:
    """Write an expression over folded text in which every space matches one or more: line breaks fold to spaces.

    Spaces inside a character class get a plus sign after them, which no text has where it would matter.
    """
    return re.sub(r" (?![?*+{])", " +", expression.replace(" ?", " *"))


def accept_always(match: re.Match[str]) -> bool:
    """Accept every match."""
    return True


@dataclass(frozen=True)
class Pattern:
    """One thing to find, the fields to search, and the action on a finding."""

    name: str
    expression: re.Pattern[str]
    prefilter: str
    action: Action
    reason: Reason
    category: str
    fields: tuple[str, ...] = TRAINED_FIELDS
    accepts: Callable[[re.Match[str]], bool] = accept_always
    score: float = 1.0
    known_from: tuple[str, ...] = ()
    """A finding does not count where one of these fields of the row has the same text: it was not the edit's doing."""
    is_published: Callable[[re.Match[str]], bool] | None = None
    """Says of a match whether its place shows that it was made public on purpose. Such a finding counts only in a
    chosen text that adds it: not in prompt and rejected text, and not where the model's text has it too."""
    revision: int = 1
    """Raised by hand when `accepts` decides differently: code has no digest that survives a formatter."""

    def compute_identity(self) -> tuple[object, ...]:
        """Return everything that decides what this pattern does, as JSON values."""
        return (
            self.name,
            self.expression.pattern,
            self.expression.flags,
            self.prefilter,
            str(self.action),
            str(self.reason),
            self.category,
            list(self.fields),
            self.accepts.__name__,
            self.score,
            list(self.known_from),
            self.is_published.__name__ if self.is_published else None,
            self.revision,
        )
