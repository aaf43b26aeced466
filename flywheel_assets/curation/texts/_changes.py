"""Says what a small change is about: a negation, a number, a name … or nothing worth training on.

The judgement looks at the changed lines only, so that a correction in 60 KB counts like one in a line. In prose it goes
by words, in code by Pygments' tokens. A typo, an article, an ending, punctuation and spacing stay trivial; white space
and case are cosmetic where the language says so.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from rapidfuzz.distance import OSA, Editop, Levenshtein, Prefix

from flywheel_assets.curation.texts._code import INDENTED, Languages, changes_indentation, compare_code
from flywheel_assets.curation.texts.alignment import Hunk, count_common, count_shared, cut_lines, find_hunks
from flywheel_assets.curation.texts.answers import FUNCTION_WORDS, NEGATIONS, gather_words


class Change(StrEnum):
    """Names what a small change is about; all but the last two are worth training on at any similarity."""

    NEGATION = "negation"
    NUMBER = "number"
    UNIT = "unit"
    DATE = "date"
    OPERATOR = "operator"
    NAME = "name"
    IDENTIFIER = "identifier"
    CALL = "call"
    LITERAL = "literal"
    STRING = "string"
    KEYWORD = "keyword"
    STRUCTURE = "structure"
    WORD = "word"
    TRIVIAL = "trivial"
    COSMETIC = "cosmetic"


def name_change(rejected: str, chosen: str) -> Change:
    """Name what the change from one text to another, unequal one is about."""
    in_one_line = "\n" not in rejected and "\n" not in chosen and max(len(rejected), len(chosen)) <= _SHORT
    if in_one_line and not (_SIGNS.search(chosen) and _SIGNS_OF_CODE.search(chosen)):
        return compare_prose(rejected, chosen)
    old_lines, new_lines = cut_lines(rejected), cut_lines(chosen)
    languages = Languages(new_lines)
    found: set[Change] = set()
    hunks = find_hunks(old_lines, new_lines)
    for hunk in hunks:
        change = _name_hunk(hunk, old_lines, new_lines, languages)
        if change not in _MINOR:
            return change
        found.add(change)
    return Change.TRIVIAL if Change.TRIVIAL in found else Change.COSMETIC


_MINOR = (Change.TRIVIAL, Change.COSMETIC)
_SIGNS_OF_CODE = re.compile(r"[={}`<]|\w[(\[]|;\s*$|^\s*[$>#]")
_SIGNS = re.compile(r"[={}`<(\[;$>#]")
"""One of them is in every sign of code; a search for it alone takes a tenth of the time."""
_LIST_ITEM = re.compile(r"\s*(?:[-*•+]|\d{1,3}[.)]|[a-z]\))\s+\S")


def _name_hunk(hunk: Hunk, old_lines: Sequence[str], new_lines: Sequence[str], languages: Languages) -> Change:
    if not any(line.strip() for line in (*hunk.old, *hunk.new)):
        return Change.COSMETIC
    old, new = "\n".join(hunk.old), "\n".join(hunk.new)
    language = languages.find(hunk.new_at, hunk.new or hunk.old)
    if language is None:
        if _move_list_items(hunk):
            return Change.STRUCTURE
        return compare_prose(old, new)
    kind, old_comments, new_comments = compare_code(old[:_LONGEST_READ], new[:_LONGEST_READ], language)
    if kind:
        return Change(kind)
    before = _find_filled(reversed(old_lines[max(0, hunk.old_at - 20) : hunk.old_at]))
    after = _find_filled(old_lines[hunk.old_at + len(hunk.old) : hunk.old_at + len(hunk.old) + 20])
    if (
        kind is None
        and language in INDENTED
        and old_comments == new_comments
        and changes_indentation(hunk.old, hunk.new, before, after, language)
    ):
        return Change.STRUCTURE
    if old_comments != new_comments:
        return compare_prose(old_comments, new_comments)
    return Change.COSMETIC if kind is None else Change.TRIVIAL


def _find_filled(lines: Iterable[str]) -> str:
    return next((line for line in lines if line.strip()), "")


def _move_list_items(hunk: Hunk) -> bool:
    """Return whether only white space differs, and items of a list got or lost lines or depth of their own."""
    if "".join("".join(hunk.old).split()) != "".join("".join(hunk.new).split()):
        return False
    items = [
        [len(line) - len(line.lstrip()) for line in lines if _LIST_ITEM.match(line)] for lines in (hunk.old, hunk.new)
    ]
    return len(items[0]) != len(items[1]) or _rank(items[0]) != _rank(items[1])


def _rank(depths: list[int]) -> list[int]:
    order = sorted(set(depths))
    return [order.index(depth) for depth in depths]


# A word, a number with its signs, a name of code, or one sign. Han and kana have no spaces: each character is a token.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0962\u0963"
_TOKEN = re.compile(
    rf"[{_CJK}]"
    r"|(?<![\w.])[-+−±]?\d+(?:[.,:/\-–]\d+)*(?!\w)"
    r"|(?:https?://)?\w+(?:[._/\\@]\w+)+"
    rf"|(?:[^\W{_CJK}]|[{_MARKS}])+(?:['’](?:t|re|ve|ll|d|m)\b)?"
    r"|['’]s\b|\S"
)
_DIGIT = re.compile(r"\d")
_CODE_NAME = re.compile(r"https?://|\w{2,}[._/\\@]\w{2,}|_|[a-z][A-Z]")

_UNITS = gather_words(
    "% ‰ ° $ € £ ¥ ₹ ₽ kg g mg µg mcg t km cm mm nm mi ft l ml dl h min ms hz khz mhz ghz kb mb gb tb kib"
    " mib gib w kw mw kwh v ma mol pa kpa bar psi degrees celsius fahrenheit kelvin percent euro euros dollar"
    " dollars pounds usd eur gbp chf jpy million millions billion billions thousand thousands hundred trillion"
    " seconds minutes hours days weeks months years minute hour day week month year miles kilometres"
    " kilometers metres meters grams litres liters tonnes tons"
)
_DATES = gather_words(
    "january february april june july august september october november december monday tuesday wednesday"
    " thursday friday saturday sunday today tomorrow yesterday januar februar märz juni juli oktober dezember"
    " montag dienstag mittwoch donnerstag freitag samstag sonntag janvier février avril juin juillet août"
    " septembre octobre novembre décembre enero febrero marzo abril mayo junio julio agosto septiembre octubre"
    " noviembre diciembre"
)
_NUMBER_WORDS = gather_words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million"
    " billion first second third half double twice once both 一 二 三 四 五 六 七 八 九 十 百 千 万 亿 两"
)
# Function words whose change is a change of meaning: modality, quantity, order, contrast.
_WEIGHTY = gather_words(
    "might must should shall all some every many few more less least or but before after above below under until"
    " unless if because although during except always often sometimes only up down inside outside against"
)
_MODALS = gather_words("may might must should shall can could need")
_PRONOUNS = gather_words(
    "i me my mine you your yours he him his she her hers it its we us our ours they them their theirs who whom"
)
_TELLING = _WEIGHTY | _MODALS | _PRONOUNS
_FILLERS = gather_words(
    "very really just also quite rather even ever simply actually basically indeed too then mr mrs ms dr please etc"
    " however therefore thus well still already so such"
)
_AMBIGUOUS = gather_words(
    "us it who aids polish may march august turkey china pole poles mobile nice reading bath job swift rust go sie"
    " ihr ihnen ihre"
)
"""Words that mean something else with a capital: "us" → "US", "polish" → "Polish", German "sie" → "Sie"."""
_LIGHT = FUNCTION_WORDS | _FILLERS | {"'s", "’s"}
_NEGATING = ("un", "in", "im", "ir", "il", "dis", "non", "mis", "anti", "de")


def compare_prose(old: str, new: str) -> Change:
    """Name what a change of prose is about."""
    before, after, begin = _select_window(old, new)
    old_tokens, new_tokens = _cut_tokens(before), _cut_tokens(after)
    if old_tokens == new_tokens:
        return Change.COSMETIC
    if "`" in new and _is_in_backticks(old, begin) and _is_in_backticks(new, begin):
        return Change.IDENTIFIER
    opens = begin == 0
    begin, end = count_shared(old_tokens, new_tokens)
    old_rest, new_rest = old_tokens[begin : len(old_tokens) - end], new_tokens[begin : len(new_tokens) - end]
    if len(old_rest) <= 1 or len(new_rest) <= 1:
        changes = [(begin, begin + len(old_rest), begin, begin + len(new_rest))]
    else:
        changes = [
            (begin + code.src_start, begin + code.src_end, begin + code.dest_start, begin + code.dest_end)
            for code in Levenshtein.opcodes(old_rest, new_rest)
            if code.tag != "equal"
        ]
    worst = Change.COSMETIC
    for src, src_end, dest, dest_end in changes:
        starts = _is_sentence_start(new_tokens, dest, opens) or _is_sentence_start(old_tokens, src, opens)
        change = _name_replacement(old_tokens[src:src_end], new_tokens[dest:dest_end], starts)
        if change not in _MINOR:
            return change
        if change is Change.TRIVIAL:
            worst = change
    return worst


def _cut_tokens(text: str) -> list[str]:
    """Cut prose into tokens; no token has white space inside, and plain words need no expression."""
    parts = text.split()
    if text.isascii() and "".join(parts).isalpha():
        return parts
    tokens = []
    for part in parts:
        if part.isascii() and part.isalpha():
            tokens.append(part)
        else:
            tokens += _TOKEN.findall(part)
    return tokens


_SHORT = 4_000
_LONGEST_READ = 20_000
"""Characters of one change that are read: so much says what it is about."""


def _select_window(old: str, new: str) -> tuple[str, str, int]:
    """Select the words that differ, and one on either side, so that a token that was split is read whole.

    Returns:
        The two windows, and the place in both texts at which they begin.
    """
    if max(len(old), len(new)) <= _SHORT:
        edits = Levenshtein.editops(old, new)
        first, last = edits[0], edits[-1]
        assert isinstance(first, Editop)
        assert isinstance(last, Editop)
        begin = min(first.src_pos, first.dest_pos)
        end = min(len(old) - last.src_pos, len(new) - last.dest_pos) - 1
    else:
        begin, end = count_common(old, new)
    begin = old.rfind(" ", 0, max(0, old.rfind(" ", 0, begin))) + 1
    # A word before the end that both share; the end of the text where there is none.
    tail = new.find(" ", new.find(" ", len(new) - max(0, end)) + 1) if end > 0 else -1
    rest = len(new) - tail if tail > 0 and new.find(" ", len(new) - end) >= 0 else 0
    ends = [min(len(text) - rest, begin + _LONGEST_READ) for text in (old, new)]
    return old[begin : ends[0]], new[begin : ends[1]], begin


def _is_in_backticks(text: str, place: int) -> bool:
    return text.count("`", 0, place) % 2 == 1


def _is_sentence_start(tokens: list[str], place: int, opens: bool) -> bool:
    if place == 0:
        return opens
    return tokens[place - 1] in '.!?:"“«(*-•#。！？'


def _name_replacement(old: list[str], new: list[str], starts: bool) -> Change:
    """Name what one replacement of tokens is about."""
    old_low, new_low = [each.lower() for each in old], [each.lower() for each in new]
    if old_low == new_low:
        return _name_case(old, new, starts)
    changed = set(old_low) ^ set(new_low) or {*old_low, *new_low}
    before, after = "".join(old_low), "".join(new_low)
    # Most replacements are of letters alone, and need none of the searches for signs.
    is_plain = before.isalpha() and after.isalpha()
    if not changed.isdisjoint(NEGATIONS):
        return Change.NEGATION
    signs = "" if is_plain else " ".join(changed)
    if "n't" in signs or "n’t" in signs:
        return Change.NEGATION
    if before == after:
        return Change.COSMETIC
    plain = "" if is_plain else _NOT_WORD.sub("", before)
    if plain and plain == _NOT_WORD.sub("", after):
        return _name_signs(old, new)
    if signs and _DIGIT.search(signs):
        return _name_digits(old, new)
    if not changed.isdisjoint(_WORDS_OF_KINDS):
        return next(kind for kind, words in _KINDS if not changed.isdisjoint(words))
    is_common = is_plain and all(each.islower() or each.istitle() or each.isupper() for each in (*old, *new))
    if not is_common and _CODE_NAME.search(" ".join(token for token in (*old, *new) if token.lower() in changed)):
        return Change.IDENTIFIER
    return _name_words(old, new, starts)


_NOT_WORD = re.compile(r"[\W_]+")
_KINDS = ((Change.DATE, _DATES), (Change.UNIT, _UNITS), (Change.NUMBER, _NUMBER_WORDS))
_WORDS_OF_KINDS = _DATES | _UNITS | _NUMBER_WORDS


def _name_case(old: list[str], new: list[str], starts: bool) -> Change:
    if len(old) > 2 and any("".join(each).isupper() for each in (old, new)):
        return Change.COSMETIC
    for place, (before, after) in enumerate(zip(old, new, strict=True)):
        if before == after:
            continue
        if _CODE_NAME.search(before) or _CODE_NAME.search(after):
            return Change.IDENTIFIER
        first = starts and place == 0
        if before.lower() in _AMBIGUOUS and not first and len(old) <= 2:
            return Change.NAME
    return Change.COSMETIC


def _name_signs(old: list[str], new: list[str]) -> Change:
    """Name a change that only moves signs and spaces: a number's point and sign count, a hyphen does not."""
    digits = [[token for token in each if _DIGIT.search(token)] for each in (old, new)]
    if _read_values(digits[0]) != _read_values(digits[1]):
        return Change.NUMBER
    code = [[token for token in each if _CODE_NAME.search(token)] for each in (old, new)]
    return Change.IDENTIFIER if code[0] and code[1] and code[0] != code[1] else Change.TRIVIAL


_THOUSANDS = re.compile(r"(?<=\d)[,.](?=\d{3}(?:\D|$))")


def _read_values(tokens: Sequence[str]) -> Counter[str]:
    return Counter(
        "".join(str(unicodedata.digit(each, each)) for each in _THOUSANDS.sub("", token)).lstrip("+")
        for token in tokens
    )


def _name_digits(old: list[str], new: list[str]) -> Change:
    values = [_read_values([token for token in each if _DIGIT.search(token)]) for each in (old, new)]
    if values[0] != values[1]:
        return Change.NUMBER
    words = [[token for token in each if not _DIGIT.search(token)] for each in (old, new)]
    return _name_words(words[0], words[1], starts=False)


def _name_words(old: list[str], new: list[str], starts: bool) -> Change:
    """Name a replacement of words, after everything that has a form of its own."""
    old_words = [word for word in old if _is_word(word)]
    new_words = [word for word in new if _is_word(word)]
    if not old_words and not new_words:
        signs = {*old, *new}
        return Change.OPERATOR if signs & {"<", ">", "=", "≤", "≥", "≠", "×", "÷", "±", "→"} else Change.TRIVIAL
    if all(map(_is_cjk, (*old_words, *new_words))):
        return Change.WORD if min(len(old_words), len(new_words)) > 1 else Change.TRIVIAL
    low = [{word.lower() for word in words} for words in (old_words, new_words)]
    if not (low[0] | low[1]).isdisjoint(_TELLING) and _change_meaning(*low):
        return Change.WORD
    old_words, new_words = _cancel(old_words, new_words)
    for place in range(max(len(old_words), len(new_words))):
        before = old_words[place] if place < len(old_words) else ""
        after = new_words[place] if place < len(new_words) else ""
        change = _name_word(before, after, starts and place == 0)
        if change is not Change.TRIVIAL:
            return change
    return Change.TRIVIAL


def _change_meaning(old: set[str], new: set[str]) -> bool:
    """Return whether pronouns, modality, quantity, order or contrast differ."""
    if old and new:
        pronouns = new & _PRONOUNS
        if pronouns and pronouns != old & _PRONOUNS:
            return True
        if (old ^ new) & _WEIGHTY:
            return True
    return (old & _MODALS) != (new & _MODALS)


def _cancel(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    """Drop what says little: function words, fillers and words on both sides."""
    old_low, new_low = [word.lower() for word in old], [word.lower() for word in new]
    both = set(old_low).intersection(new_low)
    return (
        [word for word, low in zip(old, old_low, strict=True) if low not in both and not _is_light(low)],
        [word for word, low in zip(new, new_low, strict=True) if low not in both and not _is_light(low)],
    )


def _name_word(old: str, new: str, starts: bool) -> Change:
    if not old or not new:
        word = old or new
        return Change.NAME if word[0].isupper() and not starts else Change.WORD
    plain = [_fold(old), _fold(new)]
    named = old[0].isupper() and new[0].isupper() and (not starts or not _is_typo(*plain))
    if plain[0] == plain[1] or _is_inflection(plain[0], plain[1], _NAME_ENDINGS if named else _ENDINGS):
        return Change.TRIVIAL
    if named:
        return Change.NAME
    if _is_negated(*plain) or _is_negated(plain[1], plain[0]):
        return Change.NEGATION
    return Change.TRIVIAL if _is_typo(*plain) else Change.WORD


def _is_word(token: str) -> bool:
    return token[0].isalpha() or len(token) > 1


def _is_light(low: str) -> bool:
    if low in _LIGHT:
        return True
    # Of scripts without a list here, the shortest words are mostly particles.
    return len(low) <= (1 if low.isascii() else 2)


def _is_cjk(word: str) -> bool:
    return "\u3040" <= word[0] <= "\u9fff" or "\uf900" <= word[0] <= "\ufaff"


def _fold(word: str) -> str:
    folded = word.lower()
    if folded.isascii():
        return folded
    return "".join(each for each in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(each))


def _is_typo(old: str, new: str) -> bool:
    """Return whether one slip of the fingers lies between two words.

    Short words one letter apart are other words ("sell", "tell"), and hardly any typo is in the first letter.
    """
    longer = max(len(old), len(new))
    distance = OSA.distance(old, new, score_cutoff=2)
    if longer <= 4:
        return sorted(old) == sorted(new) or (distance == 1 and len(set(old)) == len(set(new)) and len(old) != len(new))
    if distance == 1:
        return old[0] == new[0] or len(old) != len(new)
    return distance == 2 and longer >= 8 and old[:2] == new[:2]


def _is_inflection(old: str, new: str, endings: frozenset[str]) -> bool:
    longer, shorter = (old, new) if len(old) >= len(new) else (new, old)
    shared = Prefix.similarity(old, new)
    ends = (longer[shared:], shorter[shared:])
    if ends[0] in ("less", "ful") or (ends[0], ends[1]) in (("less", "ful"), ("ful", "less")):
        return False
    return shared >= 3 and all(end in endings for end in ends)


_ENDINGS = frozenset(("", "'s")) | gather_words(
    "s es ed d ing e y ies ied ly er est al ally ic n en i ii a o um us em ns ation ions ion"
)
_NAME_ENDINGS = frozenset(("", "s", "'s", "es", "e", "en", "er", "n"))
"""A name that differs otherwise is another name, or was spelled wrongly, which is a fact about the world."""


def _is_negated(word: str, negated: str) -> bool:
    if negated.endswith("less") and word.startswith(negated[:-4]) and len(negated) > 6:
        return True
    return any(negated == prefix + word for prefix in _NEGATING) and len(word) > 3
