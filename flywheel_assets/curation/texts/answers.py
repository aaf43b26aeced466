"""Finds edits that are no answers: remarks about the answer, canned texts, another language than the request asked for.

All three are judgements that go to a person. They look at edits that left little of the model's text.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
_STOP_SETS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
_ENGLISH_CONTENT = gather_words("die war hat son men den van met ale era come care per fast till pod note")
FUNCTION_WORDS = frozenset(word for words in _STOP_SETS.values() for word in words) - _ENGLISH_CONTENT
"""The words of twelve languages that carry no content in English either."""

NEGATIONS = gather_words(
    "not no never none without cannot neither nobody nothing nowhere hardly n't nicht kein keine keinen keinem"
    " keiner nie niemals ohne nunca jamás ningún ninguna nada pas jamais sans aucun aucune rien non senza não nem"
    " sem niet geen nooit zonder nie nigdy bez nu fără niciodată ei mitte ilma inte aldrig ingen utan не нет ни без"
    " никогда 不 没 無 无 非 未 勿 لا ليس لم لن नहीं मत"
)

_SCRIPTS = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "greek": re.compile(r"[\u0370-\u03ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
    "bengali": re.compile(r"[\u0980-\u09ff]"),
    "tamil": re.compile(r"[\u0b80-\u0bff]"),
    "sinhala": re.compile(r"[\u0d80-\u0dff]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
    "hangul": re.compile(r"[\uac00-\ud7af]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "han": re.compile(r"[\u4e00-\u9fff]"),
}
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
    """Name the script of nine tenths of a text's letters; None where no script has as many, or there are too few."""
    counts = {name: len(pattern.findall(text[:_LONGEST_SAMPLE])) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    if counts["kana"] and counts["kana"] + counts["han"] > 0.9 * total:
        return "kana"
    best = max(counts, key=lambda name: counts[name])
    return best if total >= 4 and counts[best] >= 0.9 * total else None


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
    counts = sorted(((sum(word in stop for word in words), name) for name, stop in _STOP_SETS.items()), reverse=True)
    (best, language), (second, _) = counts[:2]
    return language if best >= max(2, 0.25 * len(words)) and best >= 1.5 * second else None


def find_asked_language(request: str) -> str | None:
    """Return the language that a request names as its answer's ("translate into French"); None: it names none."""
    asked = {_LANGUAGE_NAMES[name.lower()] for name in _ASKED.findall(request[:_LONGEST_SAMPLE])}
    return asked.pop() if len(asked) == 1 else None


def is_in_wrong_language(request: str, rejected: str, chosen: str) -> bool:
    """Return whether an edit is surely in another language than the request asked for.

    Sure is: its language is known, it is neither the one asked for nor, where none was named, the request's or the
    model's; and the model's text was in a right one.
    """
    written = detect_language(chosen)
    if written is None:
        return False
    if asked := find_asked_language(request):
        return written != asked and detect_language(rejected) == asked
    expected = detect_language(request)
    before = detect_language(rejected)
    return expected is not None and before == expected and written != expected


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


def describe_relation(request: str, rejected: str, chosen: str) -> str | None:
    """Describe how a text that replaced the answer relates to the request; None: in no way that can be seen."""
    shared = _read_content_words(chosen) & _read_content_words(request)
    if shared:
        return f"shares {len(shared)} content word{'s' if len(shared) > 1 else ''} with the request"
    written = detect_language(chosen)
    if written is not None and written in (find_asked_language(request), detect_language(rejected)):
        return f"in {written.capitalize()}, the language of the task"
    return None


def share_no_content_word(rejected: str, chosen: str) -> bool:
    """Return whether two texts have no word in common that carries content; False where the first has fewer than three.

    "No." may well correct "Yes.": so few words say nothing.
    """
    if len(_LETTERS.findall(rejected)) < 3:
        return False
    before, after = _read_content_words(rejected), _read_content_words(chosen)
    return before.isdisjoint(after) if before else set(_LETTERS.findall(rejected.lower())).isdisjoint(after)


_LETTERS = re.compile(r"\w{2,}")


def _read_content_words(text: str) -> set[str]:
    return {word for word in _LETTERS.findall(text.lower()) if word not in FUNCTION_WORDS}


FEWEST_REQUESTS = 5
_SHORTEST_CANNED = 12


def mark_canned_texts(request: Sequence[str], rejected: Sequence[str], chosen: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Mark edits whose text a day has on five or more distinct requests, for as many distinct outputs.

    Texts are compared without case and white space; labels and other texts of fewer than 12 characters are none.

    Args:
        request: what was asked, per edit of one day.
        rejected: the model's texts.
        chosen: the users' texts.
    """
    keys = [" ".join(text.lower().split()) if text else "" for text in chosen]
    asked: dict[str, set[str]] = {}
    given: dict[str, set[str]] = {}
    for key, question, output in zip(keys, request, rejected, strict=True):
        if len(key) >= _SHORTEST_CANNED:
            asked.setdefault(key, set()).add(question)
            given.setdefault(key, set()).add(output)
    canned = {
        key
        for key, questions in asked.items()
        if len(questions) >= FEWEST_REQUESTS and len(given[key]) >= FEWEST_REQUESTS
    }
    return np.array([key in canned for key in keys], dtype=bool)
