"""Defines a pattern: a cheap filter for whole columns and an exact expression for the few rows it hits.

`prefilter` is RE2 syntax and runs over every row, merged with all others into one automaton; it must match wherever
`expression` (Python's `re`, look-arounds allowed) does, and should rarely match elsewhere. `accepts` then has the last
word on a match: a checksum, a placeholder, a reserved domain.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from flywheel_assets.curation.policy.verdicts import Action
from flywheel_assets.records import Reason

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
            self.revision,
        )
