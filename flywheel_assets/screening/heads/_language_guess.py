"""Guesses the language of a text from its script and its stop words, where it is sure.

Made for one question: is this text confidently in a language for which a head was not evaluated? Code, names, tables
and short texts have no answer, and no answer counts as a language that was evaluated. Languages of one script without
a list here are known by the script alone ("und-Thai"), which is enough to know what they are not.
"""

import re
from functools import cache

_LEAST_LETTERS = 12
_SCRIPT_SHARE = 0.5
_LEAST_STOP_WORDS = 2
_STOP_WORD_SHARE = 0.12

# Words that are frequent in one language and rare in the others of the list.
_STOP_WORDS = {
    "en": "the of and to is was that with for are this have not you it on be as by from they which would their what",
    "de": "der die das und ist nicht ein eine mit auf für dem den von zu sich auch wird sind ich sie aber oder wie",
    "fr": "le les des est et une dans pour pas que qui sur avec du au ce cette il elle sont nous vous mais ou je",
    "es": "el los las una es y que para con por no del como pero está son más muy esta se su lo al este",
    "it": "il gli che è una per non con di sono della dei nel come anche più questo alla del ma si lo le",
    "pt": "o os as um uma é não que para com por do da dos das mas como mais está são ao você se em",
    "nl": "het een en van is niet dat op te zijn voor met die maar ook aan er naar wordt ik je deze",
    "pl": "nie jest się na do że to w z i są jak ale od po tylko przez dla tak czy tym",
    "tr": "bir ve bu için ile çok da de ama değil var daha gibi olarak olan kadar ne sonra her",
    "sv": "och att det som en är på för av med inte den till har ett om men jag vi kan",
    "ro": "și este nu de la în cu pe care din pentru sunt mai că o un să au fost ca",
    "et": "ja on ei see et oli kui mis ka oma aga siis ning seda kes tema ma sa olen",
    "fi": "ja on ei että se oli hän mutta myös kun ovat tai joka ole niin kuin minä olla",
    "cs": "je se na že to v z s a ale jako jsem jsou byl pro do by tak jeho jen",
    "hu": "a az és hogy nem egy is van ez de meg csak mint volt ha már vagy azt",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam akan pada adalah ke juga bisa saya",
    "vi": "là của và không có được cho một người trong những với các này đã như khi",
    "ru": "и в не на что это с он как по но из у за то все его был они для так же мы",
    "uk": "і в не на що це з він як по але та у за його був вони для так ми є",
    "bg": "и в не на че това с той като по но от за да се са беше ще",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+")

# Script → first and last code points of its letters. Latin and Cyrillic are distinguished by words.
_SCRIPTS = {
    "el": ((0x370, 0x3FF),),
    "he": ((0x590, 0x5FF),),
    "und-Arab": ((0x600, 0x6FF), (0x750, 0x77F)),
    "und-Deva": ((0x900, 0x97F),),
    "bn": ((0x980, 0x9FF),),
    "ta": ((0xB80, 0xBFF),),
    "und-Thai": ((0xE00, 0xE7F),),
    "ka": ((0x10A0, 0x10FF),),
    "ko": ((0x1100, 0x11FF), (0xAC00, 0xD7AF)),
    "ja": ((0x3040, 0x30FF),),
    "und-Hani": ((0x4E00, 0x9FFF),),
    "und-Cyrl": ((0x400, 0x4FF),),
    "und-Sinh": ((0xD80, 0xDFF),),
}


def guess_language(text: str) -> str | None:
    """Guess a text's language: an ISO 639-1 code, "und-Script" where only the script is known, or None."""
    words = _WORD.findall(text[:4000].lower())
    letters = sum(map(len, words))
    if letters == 0:
        return None
    counts = _count_scripts("".join(words))
    # Japanese mixes Han characters with a share of kana.
    if counts.get("ja", 0) >= 0.1 * letters and counts.get("ja", 0) + counts.get("und-Hani", 0) >= 0.5 * letters:
        return "ja"
    script, count = max(counts.items(), key=lambda entry: entry[1], default=("", 0))
    if count >= _SCRIPT_SHARE * letters:
        # Four Han characters say as much as twelve letters.
        is_enough = count >= (4 if script in ("ja", "ko", "und-Hani") else _LEAST_LETTERS)
        return (_guess_by_words(words) or script) if is_enough else None
    return _guess_by_words(words) if letters >= _LEAST_LETTERS else None


def _guess_by_words(words: list[str]) -> str | None:
    # Different words count, not one again and again; a single letter is more often a variable's name.
    known = {word: 1.0 if len(word) > 1 else 0.25 for word in words}
    hits = {language: sum(known.get(word, 0) for word in stop) for language, stop in _read_stop_words().items()}
    best, second = sorted(hits.items(), key=lambda entry: -entry[1])[:2]
    is_sure = best[1] >= max(_LEAST_STOP_WORDS, _STOP_WORD_SHARE * len(known)) and best[1] >= 1.5 * second[1]
    return best[0] if is_sure else None


def _count_scripts(letters: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    if letters.isascii():
        return counts
    for letter in letters:
        code = ord(letter)
        if code < 0x370:
            continue
        for script, ranges in _SCRIPTS.items():
            if any(first <= code <= last for first, last in ranges):
                counts[script] = counts.get(script, 0) + 1
                break
    return counts


@cache
def _read_stop_words() -> dict[str, frozenset[str]]:
    return {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
