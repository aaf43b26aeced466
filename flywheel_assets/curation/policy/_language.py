"""Finds words that hurt, and words that take sides. Both only ask a person to look: no word list knows what was meant.

Toxic language counts in the chosen text, whether the user or the model wrote it: an attacker can have the model say it
and keep it through an edit. Partiality is judged on what the edit *adds*: a text about a prejudice may well name it,
and the model's own wording is not the user's doing.
"""

import re
from collections.abc import Iterable

from flywheel_assets.curation.policy import _lexicon as lexicon
from flywheel_assets.curation.policy.patterns import Pattern, widen_spaces
from flywheel_assets.curation.policy.verdicts import Action, Hazard
from flywheel_assets.records import Reason

_TOXIC = (
    ("slur", map(lexicon.write_disguises, lexicon.SLURS), Hazard.HATE, 0.9),
    ("profanity", map(lexicon.write_disguises, lexicon.PROFANITY), Hazard.HARASSMENT, 0.6),
    ("insult", lexicon.INSULTS, Hazard.HARASSMENT, 0.7),
    ("threat", lexicon.THREATS, Hazard.VIOLENT_CRIMES, 0.8),
    ("self_harm_urging", lexicon.SELF_HARM, Hazard.SUICIDE_AND_SELF_HARM, 0.9),
    ("sexual_language", lexicon.SEXUAL, Hazard.SEXUAL_CONTENT, 0.7),
    ("child_sexual_language", lexicon.CHILD_SEXUAL, Hazard.CHILD_SEXUAL_EXPLOITATION, 0.9),
)
_PARTIAL = (
    ("generalisation", lexicon.GENERALISATIONS, Hazard.HATE, 0.7),
    ("loaded_language", lexicon.LOADED, Hazard.NEUTRALITY, 0.5),
)


def _make_pattern(
    name: str, parts: Iterable[str], hazard: Hazard, score: float, reason: Reason, known: tuple[str, ...]
) -> Pattern:
    expression = widen_spaces("|".join(parts))
    return Pattern(
        name,
        re.compile(expression, re.ASCII),
        expression,
        Action.QUARANTINE,
        reason,
        hazard,
        fields=("chosen",),
        score=score,
        known_from=known,
    )


TOXIC_LANGUAGE = tuple(
    _make_pattern(name, parts, hazard, score, Reason.TOXIC_LANGUAGE, ()) for name, parts, hazard, score in _TOXIC
)
NEUTRALITY = tuple(
    _make_pattern(name, parts, hazard, score, Reason.NEUTRALITY, ("rejected",))
    for name, parts, hazard, score in _PARTIAL
)
