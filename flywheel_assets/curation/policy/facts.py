"""Finds numbers, dates, addresses and negations that an edit changes without support in the prompt.

A vandal turns 1987 into 1978 as easily as an expert corrects it, and no machine knows which it was. So the row waits,
and counts from the day on which a second person makes the same change to the same prompt (`curation.texts.waiting`).
A coding assistant turns this off: there a changed number is the correction itself.

Only a *change* counts: a number that appears while another one disappears. What is merely added is elaboration, except
for a web address on a host that neither prompt nor output has. Numbers are compared by value ("1,000.0" is 1000, "१४०"
is 140), words for small numbers support their digits, and the numbers of lists are ignored. What the operator's text
says supports an edit as well: the model had read it.

A negation counts where the prompt says the very words that the edit turns around, two words on either side included:
"The plant is not for sale" in the prompt, "is for sale" in the edit. Names are not compared so: of 16,000 corrected
translations 2 % replace a name that the source has by its English form.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import Levenshtein, Postfix, Prefix

from flywheel_assets.curation.arrow import Array, to_mask, values_of, view_bytes
from flywheel_assets.curation.digits import FOREIGN_DIGIT, write_digits
from flywheel_assets.curation.policy.verdicts import OPERATOR, Action, Evidence, Hazard, Judgement, Verdict
from flywheel_assets.records import Reason, make_stable_id

# Not inside words: of Latin letters only, since writing without spaces has numbers between its characters.
_LETTER = r"\da-zA-Z_\u00c0-\u024f"
# The look-behind stands after the first digit, so that the search leaps from digit to digit.
_NUMBER = re.compile(
    rf"[0-9](?<![{_LETTER}.].)[0-9]*(?:[,\u00a0\u202f'][0-9]{{3}})*(?:\.[0-9]+)?(?![{_LETTER}]|\.[0-9])"
)
_LIST_NUMBER = re.compile(r"^[ \t]*\(?\d{1,3}[.):](?=[ \t])", re.MULTILINE)
_BEFORE_HOST = re.compile(r"^(?:https?://)?(?:www\.)?")
_MAY_NUMBER_LISTS = re.compile(r"\d[.):][ \t]")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"'()\]]+", re.IGNORECASE)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH_NAME = rf"\b({'|'.join(_MONTHS)})[a-z]{{0,6}}\b"
# "may" alone is no month. Looked for at digits only: trying every word took ten times as long.
_MONTH_BEHIND = re.compile(rf"[0-9] {_MONTH_NAME}", re.IGNORECASE)
_MONTH_BEFORE = re.compile(rf"{_MONTH_NAME}\.?\Z", re.IGNORECASE)
_SPACED_NUMBER = re.compile(r" [0-9]")
_LONGEST_MONTH = 10
_DIGIT = re.compile(r"[0-9]")
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
_WORDS_FOR = {value: re.compile(rf"\b{word}\b", re.IGNORECASE) for word, value in _WORDS.items()}

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
    version: str = "3"

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row; accepted outputs, which change nothing, pass."""
        passed = np.ones(len(texts), dtype=bool)
        chosen_texts, rejected_texts = texts["chosen"].combine_chunks(), texts["rejected"].combine_chunks()
        prompt_texts = texts["prompt"].combine_chunks()
        candidates = to_mask(pc.match_substring_regex(chosen_texts, _MAY_STATE_FACTS))
        candidates |= _sum_digits(chosen_texts) != _sum_digits(rejected_texts.fill_null(""))
        turned = _count_negations(chosen_texts) != _count_negations(rejected_texts.fill_null(""))
        turned &= ~candidates & to_mask(rejected_texts.is_valid())
        candidates &= to_mask(rejected_texts.is_valid())
        operator = texts[OPERATOR].combine_chunks() if OPERATOR in texts.column_names else None
        verdicts: dict[int, Verdict] = {}
        rows = np.flatnonzero(candidates | turned)
        few = (values_of(column.take(rows)) for column in (prompt_texts, chosen_texts, rejected_texts))
        for row, prompt, chosen, rejected in zip(rows.tolist(), *few, strict=True):
            if turned[row]:
                unsupported = {"negation": find_turned_negations(prompt, chosen, rejected)}
            else:
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
    hosts = frozenset[str]()
    if _may_have_address(text):
        hosts = frozenset(
            _BEFORE_HOST.sub("", url.lower()).split("/")[0].rstrip(".,;:!?") for url in _URL.findall(text)
        )
        text = _URL.sub(" ", text)
    if not _DIGIT.search(text):
        return Facts(frozenset(), hosts)
    plain = _LIST_NUMBER.sub(" ", text) if _MAY_NUMBER_LISTS.search(text) else text
    numbers = {_parse_number(number) for number in _NUMBER.findall(plain)}
    months = _MONTH_BEHIND.findall(plain)
    for found in _SPACED_NUMBER.finditer(plain):
        months += _MONTH_BEFORE.findall(plain, max(0, found.start() - _LONGEST_MONTH), found.start())
    numbers |= {f"month-{_MONTHS.index(month.casefold()) + 1}" for month in months}
    return Facts(frozenset(numbers), hosts)


def _may_have_address(text: str) -> bool:
    return "://" in text or "www." in text.lower()


def _find_changes(rejected: str, chosen: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Find the numbers that are new, those that are gone, and the hosts that are new.

    Facts are read of what is between the common beginning and end; of these only where something is left to compare.
    """
    first = last = 0
    # An address leaves a space, so that what follows it may become the beginning of a line.
    if not _may_have_address(rejected) and not _may_have_address(chosen):
        begin = Prefix.similarity(rejected, chosen)
        end = min(Postfix.similarity(rejected, chosen), min(len(rejected), len(chosen)) - begin)
        first, last = _find_cut_before(chosen, begin), _find_cut_behind(chosen, len(chosen) - end)
    # The letter and the space before the cut stay: what follows is not the beginning of a line.
    start = max(0, first - 2)
    before, after = read_facts(rejected[start : len(rejected) - last]), read_facts(chosen[start : len(chosen) - last])
    new, gone, hosts = after.numbers - before.numbers, before.numbers - after.numbers, after.hosts - before.hosts
    if new or gone or hosts:
        shared = read_facts(f"{chosen[:first]} x {chosen[len(chosen) - last :]}")
        new, gone, hosts = new - shared.numbers, gone - shared.numbers, hosts - shared.hosts
    return new, gone, hosts


# Cuts are made behind a space between two small letters, which no number, date or address has inside.
_SMALL_LETTERS = frozenset(ascii_lowercase)


def _find_cut_before(text: str, end: int) -> int:
    """Find the last cut whose letters are before `end`; 0 where there is none."""
    place = text.rfind(" ", 1, max(1, end - 1))
    while place > 0 and not (text[place - 1] in _SMALL_LETTERS and text[place + 1] in _SMALL_LETTERS):
        place = text.rfind(" ", 1, place)
    return place + 1 if place > 0 else 0


def _find_cut_behind(text: str, begin: int) -> int:
    """Count the characters behind the first cut whose letters are not before `begin`; 0 where there is none."""
    place = text.find(" ", begin + 1, len(text) - 1)
    while place > 0 and not (text[place - 1] in _SMALL_LETTERS and text[place + 1] in _SMALL_LETTERS):
        place = text.find(" ", place + 1, len(text) - 1)
    return len(text) - place - 1 if place > 0 else 0


def find_unsupported(prompt: str, chosen: str, rejected: str, operator: str = "") -> dict[str, frozenset[str]]:
    """Find new facts of the chosen text by kind: numbers where one replaced another, hosts wherever they are new.

    Args:
        prompt: context and request.
        chosen: the edit.
        rejected: the model's text.
        operator: the operator's text, which supports what it says.
    """
    new_numbers, gone, new_hosts = _find_changes(rejected, chosen)
    if not gone:
        new_numbers = frozenset()
    turned = find_turned_negations(prompt, chosen, rejected)
    if not new_numbers and not new_hosts and not turned:
        return {}
    asked, instructed = read_facts(prompt), _read_operator_facts(operator)
    unsaid = new_numbers - asked.numbers - instructed.numbers
    in_words = {
        number for number in unsaid & _WORDS_FOR.keys() if any(map(_WORDS_FOR[number].search, (prompt, rejected)))
    }
    new_hosts -= asked.hosts | instructed.hosts
    return {"number": unsaid - in_words, "address": new_hosts, "negation": turned}


_NEGATION = re.compile(r"\b(?:not|no|none|never|cannot|nothing)\b|n['’]t\b", re.IGNORECASE)
_SAID = re.compile(r"\w+(?:['’]\w+)?")
_AROUND, _LONGEST_TURN = 2, 4
_MOST_WORDS = 2_000
"""Of the part that differs: more words are another text, and none of it is compared."""


def _count_negations(texts: Array) -> npt.NDArray[np.int64]:
    """Count "no", "nev" and "n'" per text: equal counts are the rule, and few other rows change a negation.

    RE2's count of the words themselves took 5 µs a row.
    """
    starts, content = view_bytes(texts)
    low = np.frombuffer(content.tobytes().lower() + b"  ", np.uint8)
    first, second, third = low[:-2] == ord("n"), low[1:-1], low[2:]
    begins = (second == ord("o")) | (second == ord("'")) | (second == _APOSTROPHE)
    begins |= (second == ord("e")) & (third == ord("v"))
    counted = np.searchsorted(np.flatnonzero(first & begins), starts)
    return np.diff(counted)


_APOSTROPHE = "’".encode()[0]


def find_turned_negations(prompt: str, chosen: str, rejected: str) -> frozenset[str]:
    """Find phrases of the edit that turn around what prompt and model's text say in the same words.

    A phrase is at most four words that differ, with two words on either side, in lower case.
    """
    turns = _find_turns(chosen, rejected)
    if not turns:
        return frozenset()
    said = f" {' '.join(_SAID.findall(prompt.lower()))} "
    return frozenset(after for after, before in turns.items() if f" {before} " in said and f" {after} " not in said)


def _find_turns(chosen: str, rejected: str) -> dict[str, str]:
    """Find where a negation comes or goes: the edit's phrase and the model's."""
    if len(_NEGATION.findall(chosen)) == len(_NEGATION.findall(rejected)):
        return {}
    old, new = _SAID.findall(rejected.lower()), _SAID.findall(chosen.lower())
    begin = Prefix.similarity(old, new)
    end = min(Postfix.similarity(old, new), min(len(old), len(new)) - begin)
    begin, end = max(0, begin - _AROUND), max(0, end - _AROUND)
    old, new = old[begin : len(old) - end], new[begin : len(new) - end]
    turns: dict[str, str] = {}
    if max(len(old), len(new)) > _MOST_WORDS:
        return turns
    for code in Levenshtein.opcodes(old, new):
        before, after = old[code.src_start : code.src_end], new[code.dest_start : code.dest_end]
        if code.tag == "equal" or max(len(before), len(after)) > _LONGEST_TURN:
            continue
        # Where the words around differ as well, it is said in other words, and none of it is compared.
        starts = old[: code.src_start][-1:] == new[: code.dest_start][-1:]
        if not starts or old[code.src_end :][:1] != new[code.dest_end :][:1]:
            continue
        if _is_negative(before) != _is_negative(after):
            phrase = " ".join(new[max(0, code.dest_start - _AROUND) : code.dest_end + _AROUND])
            turns[phrase] = " ".join(old[max(0, code.src_start - _AROUND) : code.src_end + _AROUND])
    return turns


def _is_negative(words: list[str]) -> bool:
    return any(map(_NEGATION.search, words))


@lru_cache(maxsize=64)
def _read_operator_facts(text: str) -> Facts:
    """Read a text that is the same in most rows."""
    facts = read_facts(text)
    return Facts(facts.numbers | {_WORDS[word.lower()] for word in _WORD.findall(text)}, facts.hosts)


def compute_claim_key(prompt_hash: str, chosen: str, rejected: str) -> str:
    """Compute a key that is equal for two edits of one prompt with the same new facts."""
    new, gone, hosts = _find_changes(rejected, chosen)
    # Of the negations themselves: whether the prompt says them is the same for every edit of it.
    turned = sorted(_find_turns(chosen, rejected))
    return make_stable_id("claim", prompt_hash, sorted(new), sorted(gone), sorted(hosts), *([turned] if turned else []))


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


_GROUPING = re.compile(r"[,\u00a0\u202f']")


def _parse_number(number: str) -> str:
    plain = number if number.isdigit() else _GROUPING.sub("", number)
    return plain.rstrip("0").rstrip(".") if "." in plain else plain.lstrip("0") or "0"
