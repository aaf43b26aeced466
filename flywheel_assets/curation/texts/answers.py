"""Finds edits that are no answers: remarks about the answer, canned texts, another language than the request asked for.

All three are judgements that go to a person. They look at edits that left little of the model's text.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import Array, Column, to_mask, values_of, view_bytes
from flywheel_assets.curation.likeness.words import cut_into_parts


def gather_words(text: str) -> frozenset[str]:
    """Return the words of a text that lists them."""
    return frozenset(text.split())


_STOP_WORDS = {
    "english": "the a an of and to in is was are were be been it its that this these those for on with as at by from or"
    " which he she they we you i his her their our your has have had not but will would can could may do does did who"
    " what when there than then into also about if so no him them us me my more some any all such only other",
    "german": "der die das und ist nicht ein eine einer einem einen des dem den zu von mit auf für im in sich es er sie"
    " wir ihr ich auch als an nach bei aus war waren wird werden hat haben sind wie oder aber dass über zum zur so",
    "french": "le la les de des du un une et est dans que qui pour pas sur avec par au aux il elle nous vous ils ce"
    " cette ces son sa ses se plus ne été être sont a ont mais ou où en y à d l totalement cela",
    "spanish": "el la los las de del y que en un una es por con para no se su al lo como más pero sus le ya o este sí"
    " porque esta entre cuando muy sin sobre también fue ha son está",
    "italian": "il lo la i gli le di del della dei e che in un una è per con non si al da come più ma su anche sono"
    " nel alla questo ha era dal delle degli",
    "portuguese": "o a os as de do da dos das e que em um uma é para com não se por mais como mas foi ao ele ela seu"
    " sua ou ser quando muito nos já está também só pelo pela são",
    "dutch": "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij of uit nog naar heeft"
    " hij zij wordt werd deze door over",
    "polish": "i w na z do się nie że jest o jak po od za co to przez ale dla jego jej tym był była są oraz przy",
    "romanian": "și în de la a cu pe pentru din este nu că o un care mai sau au fost fi ca se lui prin era sunt după"
    " despre între dar al ale cel ce",
    "estonian": "ja on ei et oli see ta kui ka oma mis aga või ning kes seda olid nii siis veel juba selle tema pärast"
    " üks aastal",
    "swedish": "och att det som en på är av för med till den har de inte om ett han men var jag från kan när så eller",
    "russian": "и в не на что он с как это по но из у за от для о же так все его она они был была было к мы вы быть",
}
_LANGUAGES_OF = {
    word: [language for language, words in _STOP_WORDS.items() if word in words.split()]
    for word in " ".join(_STOP_WORDS.values()).split()
}
_ENGLISH_CONTENT = gather_words("die war hat son men den van met ale era come care per fast till pod note")
FUNCTION_WORDS = frozenset(_LANGUAGES_OF) - _ENGLISH_CONTENT
"""The words of twelve languages that carry no content in English either."""

NEGATIONS = gather_words(
    "not no never none without cannot neither hardly n't nicht kein keine keinen keinem"
    " keiner nie niemals ohne nunca jamás ningún ninguna nada pas jamais sans aucun aucune rien non senza não nem"
    " sem niet geen nooit zonder nie nigdy bez nu fără niciodată ei mitte ilma inte aldrig ingen utan не нет ни без"
    " никогда 不 没 無 无 非 未 勿 لا ليس لم لن नहीं मत"
) | {f"no{word}" for word in ("body", "thing", "where")}

_SCRIPT_RANGES = (
    (0x41, 0x24F, "latin"),
    (0x370, 0x3FF, "greek"),
    (0x400, 0x4FF, "cyrillic"),
    (0x590, 0x5FF, "hebrew"),
    (0x600, 0x6FF, "arabic"),
    (0x900, 0x97F, "devanagari"),
    (0x980, 0x9FF, "bengali"),
    (0xB80, 0xBFF, "tamil"),
    (0xD80, 0xDFF, "sinhala"),
    (0xE00, 0xE7F, "thai"),
    (0x3040, 0x30FF, "kana"),
    (0x4E00, 0x9FFF, "han"),
    (0xAC00, 0xD7AF, "hangul"),
)
_SCRIPT_LANGUAGES = {
    "greek": "greek",
    "arabic": "arabic",
    "hebrew": "hebrew",
    "devanagari": "hindi",
    "bengali": "bengali",
    "tamil": "tamil",
    "sinhala": "sinhala",
    "thai": "thai",
    "hangul": "korean",
    "kana": "japanese",
    "han": "chinese",
}
_LANGUAGE_NAMES = {
    **{name: name for name in (*_STOP_WORDS, *_SCRIPT_LANGUAGES.values())},
    "deutsch": "german",
    "englisch": "english",
    "français": "french",
    "anglais": "english",
    "español": "spanish",
    "inglés": "english",
    "italiano": "italian",
    "português": "portuguese",
    "русский": "russian",
    "中文": "chinese",
}
_ASKED = re.compile(
    r"\b(?:in(?:to)?|to|auf|ins|en|al|in het|po|на|übersetze .{0,40}?auf)\s+(?:the\s+)?("
    + "|".join(sorted(_LANGUAGE_NAMES, key=len, reverse=True))
    + r")\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_FEWEST_WORDS = 6
_LONGEST_SAMPLE = 2_000


def detect_script(text: str) -> str | None:
    """Name the script of nine tenths of a text's letters.

    None where no script has as many, or there are fewer than four letters.
    """
    if text.isascii():
        return "latin"
    counts: Counter[str] = Counter()
    for letter, number in Counter(filter(str.isalpha, text[:_LONGEST_SAMPLE])).items():
        code = ord(letter)
        counts[next((name for low, high, name in _SCRIPT_RANGES if low <= code <= high), "other")] += number
    total = counts.total()
    if counts["kana"] and counts["kana"] + counts["han"] > 0.9 * total:
        return "kana"
    [(best, number)] = counts.most_common(1) or [("other", 0)]
    return best if total >= 4 and number >= 0.9 * total and best != "other" else None


def detect_language(text: str) -> str | None:
    """Name a text's language by its script or its stop words; None unless it is sure.

    Sure of a Latin or Cyrillic text is: six words or more, a quarter of them stop words of the language, and half as
    many again as of any other.
    """
    script = detect_script(text)
    if script in _SCRIPT_LANGUAGES:
        return _SCRIPT_LANGUAGES[script]
    words = _WORD.findall(text[:_LONGEST_SAMPLE].lower())
    if script is None or len(words) < _FEWEST_WORDS:
        return None
    counts: dict[str, int] = {}
    for word in words:
        for language in _LANGUAGES_OF.get(word, ()):
            counts[language] = counts.get(language, 0) + 1
    if not counts:
        return None
    language = max(counts, key=lambda name: counts[name])
    best = counts.pop(language)
    return language if best >= max(2, 0.25 * len(words)) and best >= 1.5 * max(counts.values(), default=0) else None


def find_asked_language(request: str) -> str | None:
    """Return the language that a request names as its answer's ("translate into French"); None: it names none."""
    asked = {_LANGUAGE_NAMES[name.lower()] for name in _ASKED.findall(request[:_LONGEST_SAMPLE])}
    return asked.pop() if len(asked) == 1 else None


def is_in_wrong_language(request: str, rejected: str, chosen: str) -> bool:
    """Return whether an edit is surely in another language than the request asked for.

    Sure is: its language is known, it is neither the one asked for nor, where none was named, the request's or the
    model's; and the model's text was in a right one.
    """
    if share_function_word(rejected, chosen):
        return False
    written = detect_language(chosen)
    before = detect_language(rejected) if written is not None else None
    if before is None or written == before:
        return False
    return before == (find_asked_language(request) or detect_language(request))


_TALK = (
    r"(?:the |this |that |your |my )?(?:string|text|sentence|task|translation|answer|response|output|summary|source"
    r"|input|prompt|question|language|document|article|segment|line|code|result)"
)
_REMARK = re.compile(
    rf"""\A\W*(?:
    (?:rejected|refused|declined|skipped?|untranslatable|not\ translatable)\b(?=\W|\Z).{{0,160}}
    |(?:wrong|bad|incorrect|false|nonsense|garbage|gibberish|useless|terrible|unusable|no\ good)
        (?:\ {_TALK})?(?:,?\ (?:please\ )?(?:redo|retry|try\ again|do\ it\ again|again))?
    |(?:please,?\ )?(?:redo|retry|try\ again|rewrite|regenerate|do\ (?:it|this)\ again|start\ over)(?:\ {_TALK}|\ it)?
        (?:,?\ please)?
    |(?:n/?a|none|null|nil|tbd|todo|test|testing|idk|ok|okay|good|fine|same|as\ above|no\ (?:idea|changes?|comment)
        |not\ applicable|don'?t\ know|no\ translation|correct|perfect)
    |[\d?.!x+*-]{{1,3}}
    )\W*\Z""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_ABOUT = re.compile(
    rf"""\b(?:
    (?:string|text|sentence|source|segment|input|this|it)\ (?:is|was|seems)\ (?:written\ )?(?:not\ )?
        (?:in\ )?(?:a\ |an\ )?(?:another|other|different|foreign|wrong|unknown|not\ my|my)\ language
    |(?:is|are|was)(?:\ not|n'?t)\ (?:in\ )?(?:my\ language|english|german|french|spanish|the\ right\ language)
    |(?:i\ )?(?:can(?:'?t|not|\ not)|could\ not|couldn'?t|am\ unable\ to|do\ not|don'?t)\ (?:check|translate|evaluate
        |rate|judge|assess|read|understand|correct|edit|annotate)\ {_TALK}
    |{_TALK}\ (?:is|was)\ (?:refused|rejected|skipped|declined|useless|nonsense|gibberish|unusable|incomprehensible
        |not\ (?:correct|usable|right|understandable))
    |(?:translation|answer|response|output|summary)\ (?:is|was)\ (?:wrong|bad|incorrect|poor)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_LONGEST_REMARK = 200
_SHORTEST_ANSWERED = 20
"""Characters of the model's text: a shorter one may well be corrected to "OK" or "1"."""


_REMARK_WORDS = (
    r"(?i)language|(?:not|n't) (?:in )?(?:english|german|french|spanish|the right)"
    r"|(?:can'?t|cannot|can not|could not|couldn't|unable to|do not|don'?t) (?:check|trans|eval|rate|judge|assess|read"
    r"|under|corr|edit|anno)"
    r"|(?:is|was) (?:refused|rejected|skipped|declined|useless|nonsense|gibberish|unusable|incompreh|not (?:corr|usab"
    r"|right|under)|wrong|bad|incorrect|poor)"
    r"|^\W*(?:rejected|refused|declined|skip|untrans|not trans|wrong|bad|incorrect|false|nonsense|garbage|gibberish"
    r"|useless|terrible|unusable|no (?:good|idea|change|comment|trans)|please|redo|retry|try again|rewrite|regen|do it"
    r"|do this|start over|n/?a\b|none|null|nil|tbd|todo|test|idk|ok|good|fine|same|as above|not appl|don'?t know"
    r"|correct|perfect|[\d?.!x+*-]{1,3}\W*$)"
)


def may_be_remarks(chosen: Array) -> npt.NDArray[np.bool_]:
    """Mark the texts that `is_remark` may find, for few microseconds each."""
    short = to_mask(pc.less(pc.binary_length(chosen), 4 * _LONGEST_REMARK))  # type: ignore[call-overload]
    return short & to_mask(pc.match_substring_regex(chosen, _REMARK_WORDS))


def is_remark(request: str, rejected: str, chosen: str) -> bool:
    """Return whether an edit talks about the answer instead of being one.

    The same words in the request or the model's text make it an answer: "Is the text rejected?" may ask for it.
    """
    text = chosen.strip()
    if len(text) > _LONGEST_REMARK:
        return False
    if _REMARK.match(text):
        return len(rejected.strip()) >= _SHORTEST_ANSWERED and text.lower() not in request.lower()
    found = _ABOUT.search(text)
    return found is not None and found[0].lower() not in f"{request}\n{rejected}".lower()


def describe_relation(request: str, chosen: str) -> str | None:
    """Describe how a text that replaced the answer relates to the request; None: in no way that can be seen."""
    shared = _read_content_words(chosen) & _read_content_words(request)
    if shared:
        return f"shares {len(shared)} content word{'s' if len(shared) > 1 else ''} with the request"
    asked = find_asked_language(request)
    if asked is not None and detect_language(chosen) == asked:
        return f"in {asked.capitalize()}, as the request asked"
    return None


def are_unrelated(rejected: str, chosen: str) -> bool:
    """Return whether two texts have no word in common, or none but function words where there are enough others.

    "No." may well correct "Yes.": of fewer than four words the lack says nothing.
    """
    before, after = rejected.lower(), chosen.lower()
    # What stands between spaces is found in a fraction of the time of a search for words, and settles most pairs.
    plain = set(before.split()).intersection(after.split()) - FUNCTION_WORDS
    if any(len(word) > 1 and word.isalnum() for word in plain):
        return False
    words = set(_LETTERS.findall(before))
    shared = words.intersection(_LETTERS.findall(after))
    if shared - FUNCTION_WORDS:
        return False
    return len(words - FUNCTION_WORDS if shared else words) >= 4


def share_function_word(rejected: str, chosen: str) -> bool:
    """Return whether two texts have a function word in common: then they are in one language."""
    words = _LETTERS.findall(rejected.lower())
    return not FUNCTION_WORDS.isdisjoint(set(words).intersection(_LETTERS.findall(chosen.lower())))


_LETTERS = re.compile(r"\w{2,}")


def _read_content_words(text: str) -> set[str]:
    words = set(_LETTERS.findall(text.lower())) - FUNCTION_WORDS
    # "dogs" is about "dog": a plural is no other word here.
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words}


FEWEST_REQUESTS = 5
_SHORTEST_CANNED = 12
_MOST_ALIKE = 0.3


# Byte → weight; white space weighs nothing, and capitals as much as small letters.
_WEIGHTS = np.random.default_rng(16).integers(2**62, 2**63, 256, np.uint64)
_WEIGHTS[65:91] = _WEIGHTS[97:123]
_WEIGHTS[[byte for byte in range(128) if chr(byte).isspace()]] = 0


def find_recurring_texts(chosen: Column) -> npt.NDArray[np.int64]:
    """Find the rows whose text the day may have on as many requests as a canned one.

    Equal texts have equal sums of bytes. Nearly all texts of a day are there once, and need no comparison in Python.
    """
    pieces = chosen.chunks if isinstance(chosen, pa.ChunkedArray) else [chosen]
    sums = [_sum_letters(piece[part]) for piece in pieces for part in cut_into_parts(piece)]
    _, numbers, rows = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *sums]), return_inverse=True, return_counts=True
    )
    return np.flatnonzero(rows[numbers] >= FEWEST_REQUESTS)


def _sum_letters(texts: Array) -> npt.NDArray[np.uint64]:
    foreign = pc.invert(pc.string_is_ascii(texts))
    if pc.any(foreign).as_py():
        # Bytes of other letters say nothing about their case.
        plain = ["".join(text.lower().split()) for text in values_of(texts.filter(foreign))]
        texts = pc.replace_with_mask(texts, foreign, pa.array(plain, pa.string()))
    starts, content = view_bytes(texts)
    # One more byte, so that empty texts at the end have a place to begin at.
    weights = np.append(_WEIGHTS[content], np.uint64(0))
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(weights, starts[:-1])
    sums[starts[1:] == starts[:-1]] = 0
    return sums


def mark_canned_texts(request: Sequence[str], rejected: Sequence[str], chosen: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Mark edits whose text a day has on five or more distinct requests, in place of five unrelated outputs.

    Texts are compared without case and white space; labels and other texts of fewer than 12 characters are none.
    Outputs are unrelated that share less than 0.3 of their words (Jaccard): the same answer to one question, asked in
    many words, is a correction.

    Args:
        request: what was asked, or its hash, per edit of one day.
        rejected: the model's texts.
        chosen: the users' texts.
    """
    keys = [" ".join(text.lower().split()) for text in chosen]
    rows_by_key: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if len(key) >= _SHORTEST_CANNED:
            rows_by_key.setdefault(key, []).append(row)
    canned = np.zeros(len(keys), dtype=bool)
    for rows in rows_by_key.values():
        if (
            len(rows) >= FEWEST_REQUESTS
            and len({request[row] for row in rows}) >= FEWEST_REQUESTS
            and _count_unrelated({rejected[row] for row in rows}) >= FEWEST_REQUESTS
        ):
            canned[rows] = True
    return canned


def _count_unrelated(texts: set[str]) -> int:
    """Count texts of which no two share many words, at most as many as are asked for."""
    found: list[set[str]] = []
    for text in sorted(texts):
        words = set(_LETTERS.findall(text.lower()))
        if all(len(words & other) < _MOST_ALIKE * max(1, len(words | other)) for other in found):
            found.append(words)
            if len(found) == FEWEST_REQUESTS:
                break
    return len(found)
