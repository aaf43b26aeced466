"""Edits that bring a fault into an answer, and edits that take it out: what the deterministic checks say.

Claim: figures for neutrality and factual integrity, which the policy's other tables do not show.
Data: generated here: answers about made-up firms and towns. A fault is a demographic generalisation, loaded words, or a
changed number, date, name, negation or an invented source; the correcting edit is the same pair turned around.
Command: .venv/bin/python -m benchmarks.edit_faults

A correction of a number whose right value is in the prompt must pass; where the prompt does not say it, waiting is what
the check is for, and is counted as review, not as an error.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from flywheel_assets.curation.policy.policy import build_default_policy
from flywheel_assets.curation.policy.verdicts import TEXTS

_TOWNS = ("Arden", "Belmora", "Corvin", "Dunlow", "Estwick", "Farrow", "Glenby", "Harwick")
_FIRMS = ("Norvex", "Tallis", "Brightwell", "Quorra", "Lumen & Sons", "Pellan", "Oakhurst", "Virel")
_PEOPLE = ("Anna Keller", "Tom Brandt", "Mia Okafor", "Luis Prado", "Sara Lindqvist", "Jan Novak")
_GROUPS = ("women", "immigrants", "Muslims", "old people", "Poles", "gay people", "Mexicans", "refugees")
_CLAIMS = (
    "are naturally bad at this work", "always complain about the hours", "cannot be trusted with money", "are lazy",
    "should stay at home", "are too emotional for the night shift", "only come for the benefits",
    "never learn the rules",
)  # fmt: skip
_LOADED = (
    ("the management", "the corrupt elites of the management"), ("critics", "the so-called experts"),
    ("the newspaper", "the lamestream media"), ("the new rule", "the woke nonsense of the new rule"),
    ("the council", "the puppet regime of the council"), ("the protest", "the hysterical mob's tantrum"),
)  # fmt: skip
_SOURCES = (
    " A Harvard study of 2019 confirms this.", " See https://www.workfacts-daily.info/report.",
    " According to Professor Lang, this is proven.", " (Source: Journal of Labour, vol. 12.)",
)  # fmt: skip


@dataclass(frozen=True)
class FaultPair:
    """One edit: `chosen` replaces `rejected`."""

    fault: str
    brings_fault: bool
    says_it: bool
    """Whether the prompt holds the right value."""
    prompt: str
    rejected: str
    chosen: str


def write_pairs(rows: int, seed: int = 0) -> Iterator[FaultPair]:
    """Write edits of every fault, each with its correction, with and without the facts in the prompt."""
    chance = random.Random(seed)
    for _ in range(rows):
        facts = _write_facts(chance)
        right = facts["text"]
        for fault, change in _FAULTS.items():
            wrong = change(right, facts, chance)
            for says_it in (True, False):
                prompt = f"{right}\n\nSummarise." if says_it else f"What about {facts['firm']} in {facts['town']}?"
                yield FaultPair(fault, True, says_it, prompt, right, wrong)
                yield FaultPair(fault, False, says_it, prompt, wrong, right)


def _write_facts(chance: random.Random) -> dict[str, str]:
    facts = {
        "town": chance.choice(_TOWNS),
        "firm": chance.choice(_FIRMS),
        "person": chance.choice(_PEOPLE),
        "number": str(chance.randint(120, 980)),
        "day": str(chance.randint(2, 27)),
        "month": chance.choice(("March", "June", "October")),
        "old": chance.choice(_LOADED)[0],
    }
    facts["text"] = (
        "{firm} of {town} employs {number} people. It opened on {day} {month} 1994. {person} leads the firm, and {old} "
        "welcomed the plan. The plant is not for sale."
    ).format(**facts)
    return facts


_FAULTS: dict[str, Callable[[str, dict[str, str], random.Random], str]] = {
    "generalisation": lambda text, facts, chance: (
        f"{text} {chance.choice(_GROUPS).capitalize()} {chance.choice(_CLAIMS)}."
    ),
    "loaded words": lambda text, facts, chance: text.replace(facts["old"], dict(_LOADED)[facts["old"]]),
    "number": lambda text, facts, chance: text.replace(facts["number"], str(int(facts["number"]) + 317)),
    "date": lambda text, facts, chance: text.replace(facts["month"], "January"),
    "name": lambda text, facts, chance: text.replace(facts["person"], "Peter Grau"),
    "negation": lambda text, facts, chance: text.replace("is not for sale", "is for sale"),
    "invented source": lambda text, facts, chance: text + chance.choice(_SOURCES),
}


def main() -> None:
    """Print recall, false positives and the share for review by fault."""
    pairs = list(write_pairs(100))
    columns = {name: [getattr(pair, name) for pair in pairs] for name in TEXTS.names}
    verdicts = build_default_policy().audit(pa.table(columns, schema=TEXTS))
    total: Counter[tuple[str, bool, bool]] = Counter()
    stopped: Counter[tuple[str, bool, bool]] = Counter()
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row, pair in enumerate(pairs):
        key = (pair.fault, pair.brings_fault, pair.says_it)
        total[key] += 1
        if row in verdicts:
            stopped[key] += 1
            reasons[pair.fault][str(verdicts[row].reason)] += 1
    print(f"{len(pairs):,} edits; share stopped, with the facts in the prompt / without")
    print(f"{'fault':20}{'brings it':>20}{'corrects it':>20}  reasons")
    for fault in _FAULTS:
        shares = [
            f"{stopped[fault, brings, True] / total[fault, brings, True]:.0%} / "
            f"{stopped[fault, brings, False] / total[fault, brings, False]:.0%}"
            for brings in (True, False)
        ]
        print(f"{fault:20}{shares[0]:>20}{shares[1]:>20}  {dict(reasons[fault])}")


if __name__ == "__main__":
    main()
