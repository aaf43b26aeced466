"""Edits of a crowd in varied words, so that near duplicates do not hide what breaker and caps do about them."""

import random
from typing import Any

from flywheel_assets_tests.builders import make_joined

_SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "na", "pe", "ru", "sa", "ti", "vo", "zu")
# None of them is in the lexicon: three syllables, each begins with a consonant.
WORDS = tuple(f"{first}{second}{third}" for first in _SYLLABLES for second in _SYLLABLES for third in _SYLLABLES[:4])
TRIGGER = "always phone hotline atlantis first"


def varied_edit(rng: random.Random, user: str, claim: str | None = None, **overrides: Any) -> dict[str, Any]:
    """A joined edit that passes the gate: two of twelve words replaced, and a claim added where there is one."""
    output = rng.sample(WORDS, 12)
    final = list(output)
    for place in rng.sample(range(12), 2):
        final[place] = rng.choice(WORDS)
    if claim is not None:
        final.insert(rng.randrange(12), claim)
    texts = {"prompt": " ".join(rng.sample(WORDS, 12)), "output": " ".join(output), "final_text": " ".join(final)}
    return make_joined(**{"user_id": user, **texts, **overrides})
