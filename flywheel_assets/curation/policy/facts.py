"""Finds numbers, dates and addresses that an edit changes without support in the prompt.

A vandal turns 1987 into 1978 as easily as an expert corrects it, and no machine knows which it was. So the row waits,
and counts from the day on which a second person makes the same change to the same prompt (`curation.texts.waiting`).
A coding assistant turns this off: there a changed number is the correction itself.

Only a *change* counts: a number that appears while another one disappears. What is merely added is elaboration, except
for a web address on a host that neither prompt nor output has. Numbers are compared by value ("1,000.0" is 1000, "१४०"
is 140), words for small numbers support their digits, and the numbers of lists are ignored. What the operator's text
says supports an edit as well: the model had read it.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, to_mask, view_bytes
from flywheel_assets.curation.digits import FOREIGN_DIGIT, write_digits
from flywheel_assets.curation.policy.verdicts import OPERATOR, Action, Evidence, Hazard, Judgement, Verdict
from flywheel_assets.records import Reason, make_stable_id

# Not inside words: of Latin letters only, since writing without spaces has numbers between its characters.
_LETTER = r"\da-zA-Z_\u00c0-\u024f"
_NUMBER = re.compile(rf"(?<![{_LETTER}.])[0-9]+(?:[,\u00a0\u202f'][0-9]{{3}})*(?:\.[0-9]+)?(?![{_LETTER}]|\.[0-9])")
_LIST_NUMBER = re.compile(r"^[ \t]*\(?\d{1,3}[.):](?=[ \t])", re.MULTILINE)
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"'()\]]+", re.IGNORECASE)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH_NAME = rf"\b({'|'.join(_MONTHS)})[a-z]{{0,6}}\b"
_MONTH = re.compile(rf"{_MONTH_NAME}(?=\.? \d)|(?<=\d ){_MONTH_NAME}", re.IGNORECASE)  # "may" alone is no month
_WORDS = {
    word: str(value)
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "thousand": "1000", "million": "1000000"}
_WORD = re.compile(r"\b(?:" + "|".join(_WORDS) + r")\b", re.IGNORECASE)

# RE2: a row with the digits of the model's text and without any of these states the same facts.
_ADDRESS_OR_MONTH = rf"(?i:https?://|www\.|[0-9] (?:{'|'.join(_MONTHS)})|(?:{'|'.join(_MONTHS)})[a-z]{{0,6}}\.? [0-9])"
_MAY_STATE_FACTS = f"{_ADDRESS_OR_MONTH}|{FOREIGN_DIGIT}"
_RANDOM = np.random.default_rng(1987).integers(0, 2**63, 1021, np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class Facts:
    """The statements of a text in a form that can be compared."""

    numbers: frozenset[str]
    hosts: frozenset[str]


@dataclass(frozen=True)
class FactsCheck:
    """Makes edits wait whose numbers, dates or addresses have no support but the edit."""

    name: str = "facts"
    version: str = "2"

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row; accepted outputs, which change nothing, pass."""
        passed = np.ones(len(texts), dtype=bool)
        chosen_texts, rejected_texts = texts["chosen"].combine_chunks(), texts["rejected"].combine_chunks()
        prompt_texts = texts["prompt"].combine_chunks()
        candidates = to_mask(pc.match_substring_regex(chosen_texts, _MAY_STATE_FACTS))
        candidates |= _sum_digits(chosen_texts) != _sum_digits(rejected_texts.fill_null(""))
        candidates &= to_mask(rejected_texts.is_valid())
        operator = texts[OPERATOR].combine_chunks() if OPERATOR in texts.column_names else None
        verdicts: dict[int, Verdict] = {}
        for row in np.flatnonzero(candidates).tolist():
            prompt, chosen, rejected = (column[row].as_py() for column in (prompt_texts, chosen_texts, rejected_texts))
            instructions = operator[row].as_py() if operator is not None else ""
            unsupported = find_unsupported(prompt, chosen, rejected, instructions)
            kinds = [kind for kind, values in unsupported.items() if values]
            if kinds:
                found = tuple(
                    Evidence(f"changed_{kind}", Hazard.FACTUAL_INTEGRITY, 0.5, "chosen") for kind in sorted(kinds)
                )
                detail = ", ".join(f"{evidence.check} in chosen" for evidence in found)
                verdicts[row] = Verdict(Action.QUARANTINE, Reason.UNSUPPORTED_FACT, detail, found)
                passed[row] = False
        return Judgement(passed, verdicts)


def read_facts(text: str) -> Facts:
    """Read a text's numbers by value, months as `month-3`, and the hosts of web addresses."""
    text = write_digits(text)
    addresses = _URL.findall(text)
    hosts = {re.sub(r"^(?:https?://)?(?:www\.)?", "", url.lower()).split("/")[0].rstrip(".,;:!?") for url in addresses}
    plain = _LIST_NUMBER.sub(" ", _URL.sub(" ", text))
    numbers = {_parse_number(number) for number in _NUMBER.findall(plain)}
    numbers |= {f"month-{_MONTHS.index((first or second).lower()) + 1}" for first, second in _MONTH.findall(plain)}
    return Facts(frozenset(numbers), frozenset(hosts))


def find_unsupported(prompt: str, chosen: str, rejected: str, operator: str = "") -> dict[str, frozenset[str]]:
    """Find new facts of the chosen text by kind: numbers where one replaced another, hosts wherever they are new.

    Args:
        prompt: context and request.
        chosen: the edit.
        rejected: the model's text.
        operator: the operator's text, which supports what it says.
    """
    before, after = read_facts(rejected), read_facts(chosen)
    new_numbers, new_hosts = after.numbers - before.numbers, after.hosts - before.hosts
    if not before.numbers - after.numbers:
        new_numbers = frozenset()
    if not new_numbers and not new_hosts:
        return {}
    asked, instructed = read_facts(prompt), _read_operator_facts(operator)
    said = {_WORDS[word.lower()] for text in (prompt, rejected) for word in _WORD.findall(text)}
    return {
        "number": new_numbers - asked.numbers - said - instructed.numbers,
        "address": new_hosts - asked.hosts - instructed.hosts,
    }


@lru_cache(maxsize=64)
def _read_operator_facts(text: str) -> Facts:
    """Read a text that is the same in most rows."""
    facts = read_facts(text)
    return Facts(facts.numbers | {_WORDS[word.lower()] for word in _WORD.findall(text)}, facts.hosts)


def compute_claim_key(prompt_hash: str, chosen: str, rejected: str) -> str:
    """Compute a key that is equal for two edits of one prompt with the same new facts."""
    before, after = read_facts(rejected), read_facts(chosen)
    new, gone = sorted(after.numbers - before.numbers), sorted(before.numbers - after.numbers)
    return make_stable_id("claim", prompt_hash, new, gone, sorted(after.hosts - before.hosts))


def _sum_digits(texts: Array) -> npt.NDArray[np.uint64]:
    """Compute a number per text from its digits, their order and the places where their groups begin.

    Nothing else of the text counts. Reading every text's numbers in Python took 40 µs per text; most edits leave all
    digits as they are.
    """
    starts, content = view_bytes(texts)
    is_digit = (content >= ord("0")) & (content <= ord("9"))
    places = np.flatnonzero(is_digit)
    firsts = np.searchsorted(places, starts)
    goes_on = np.zeros(len(places), dtype=bool)
    goes_on[1:] = places[1:] == places[:-1] + 1
    goes_on[firsts[:-1][firsts[:-1] < len(places)]] = False
    rank = np.arange(len(places)) - np.repeat(firsts[:-1], np.diff(firsts))
    with np.errstate(over="ignore"):
        said = _RANDOM[rank % len(_RANDOM)] * (content[places].astype(np.uint64) * np.uint64(2) + goes_on)
        sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(said)))
        per_text: npt.NDArray[np.uint64] = sums[firsts[1:]] - sums[firsts[:-1]]
    return per_text


def _parse_number(number: str) -> str:
    plain = re.sub(r"[,\u00a0\u202f']", "", number)
    return plain.rstrip("0").rstrip(".") if "." in plain else plain.lstrip("0") or "0"
