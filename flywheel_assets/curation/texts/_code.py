"""Finds the language of changed lines, and what a change of code is about, from Pygments' tokens.

Pygments rather than tree-sitter: one dependency knows 500 languages, answers are often fragments that no grammar
parses, and a token's type is all that is asked. It reads 0.2 MB a second, so only changed lines are tokenized. They
begin in the lexer's first state; the inside of a Python docstring is recognised and read as prose.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

from rapidfuzz.distance import Levenshtein

from flywheel_assets.curation.texts.answers import gather_words

INDENTED = gather_words(
    "python py python3 yaml yml make makefile haml pug sass coffee coffeescript nim haskell hs fsharp"
)
"""Languages in which leading white space is structure."""
_CASELESS = gather_words("sql mysql postgresql plpgsql tsql html xml css vb vbnet pascal fortran")

_FENCE = re.compile(r"\s*(?:```|~~~)\s*([\w+#.-]*)")
_YAML = re.compile(r"\s*(?:- )*[a-zA-Z_][\w.-]*:(?:\s+\S.*)?$|\s*- \S.*$|\s*#|---$")
_YAML_KEY = re.compile(r"\s*(?:- )*[a-z_][\w.-]*:(?:\s|$)")
_MAKE_TARGET = re.compile(r"[\w.%/$()-]+:(?!=)[^:]*$")
_PYTHON = re.compile(
    r"\s*(?:(?:async )?def \w+\(.*|class \w+.*:|from [\w.]+ import .*|import [\w., ]+|@\w[\w.]*.*"
    r"|(?:el)?if .+:|else:|try:|except.*:|finally:|with .+:|for .+ in .+:|while .+:|(?:return|raise|yield|assert)\b.*"
    r"|print\(.*)\s*(?:#.*)?$"
)
_BRACED = re.compile(r".*[;{}]\s*(?://.*)?$|\s*(?://|/\*|\*/|#include\b).*|.*=>.*\(?.*")
_SQL = re.compile(r"\s*(?:select\b.+\bfrom\b|insert into\b|update \w+ set\b|delete from\b|create table\b)", re.I)
_SHELL = re.compile(r"\s*(?:\$ |#!/|(?:sudo|apt|apt-get|pip|curl|git|cd|kill|docker|kubectl|npm|export|echo|chmod) )")
_STATEMENT = re.compile(
    r"\s*(?:[\w.\[\]'\"*, ]+\s*(?:[-+*/|&%:]?=)(?!=)\s*\S.*|[\w.]+\(.*\)?[,:]?|[\])}]+[,;]?"
    r"|\"[^\"]*\":.*|<\/?\w[^>]*>.*)$"
)
_SENTENCE = re.compile(r"(?:[^\W\d_]+[,;]? ){4,}[^\W\d_]+|[^\W\d_]+[.!?]$")

_OPERATORS = gather_words("and or in is xor div mod")
_LITERALS = gather_words("true false none null nil undefined yes no on off nan")
_NUMBER = re.compile(r"[-+]?\d")
_BRACKETS = str.maketrans({"(": "(", "[": "(", "{": "(", ")": ")", "]": ")", "}": ")"})
_QUOTES = frozenset(("'", '"', "'''", '"""', "`"))
_ORDER = ("negation", "operator", "number", "literal", "call", "identifier", "string", "keyword", "structure")


class Languages:
    """Knows the language at each line of one text; built once per text, asked per change."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._fences: list[str | None] | None = None
        self._quotes: list[int] | None = None
        if any("```" in line or "~~~" in line for line in lines):
            self._fences = list(self._follow_fences())

    def _follow_fences(self) -> Iterable[str | None]:
        inside: str | None = None
        for line in self._lines:
            if found := _FENCE.match(line):
                inside = None if inside is not None else found[1].lower()
                yield None
            else:
                yield inside

    def find(self, at: int, changed: Sequence[str]) -> str | None:
        """Return the language of the changed lines, which begin at this number; None where they are prose.

        Lines of a docstring are prose unless they look like code themselves.
        """
        # Comments and docstrings around may outnumber the code, so that the nearest lines are asked as well.
        wide, near = self._lines[max(0, at - 15) : at + 15], self._lines[max(0, at - 3) : at + 4]
        fence = self._fences[min(at, len(self._fences) - 1)] if self._fences else None
        if fence is not None:
            language = fence if fence and find_lexer(fence) else guess_language(wide) or "text"
        elif self._fences is not None and not any(self._fences[max(0, at - 15) : at + 15]):
            language = None
        else:
            language = guess_language(wide) or guess_language(near)
        if language is not None and self._is_in_docstring(language, at) and guess_language(changed) is None:
            return None
        return language

    def _is_in_docstring(self, language: str, at: int) -> bool:
        if not language.startswith("py"):
            return False
        if self._quotes is None:
            self._quotes = [0, *accumulate(line.count('"""') for line in self._lines)]
        return self._quotes[min(at, len(self._lines))] % 2 == 1


def guess_language(lines: Sequence[str]) -> str | None:
    """Guess the language of a few lines from their form; None: they are prose, or too unlike code to say."""
    filled = [line for line in lines if line.strip()]
    if not filled:
        return None
    keyed = len(filled) > 1 and all(_YAML.match(line) for line in filled)
    if keyed and any(_YAML_KEY.match(line) for line in filled) and not any(_SENTENCE.search(line) for line in filled):
        return "yaml"
    targets = sum(_MAKE_TARGET.match(line) is not None for line in filled)
    if targets and any(line.startswith("\t") for line in filled) and not any(_PYTHON.match(line) for line in filled):
        return "make"
    python = braced = sql = shell = statements = 0
    for line in filled:
        if _PYTHON.match(line):
            python += 1
        elif _SQL.match(line):
            sql += 1
        elif _SHELL.match(line):
            shell += 1
        elif _BRACED.match(line):
            braced += 1
        elif _STATEMENT.match(line) and not _SENTENCE.search(line):
            statements += 1
    if 2 * (python + braced + sql + shell + statements) < len(filled):
        return None
    counts = {"sql": sql, "bash": shell, "javascript": braced, "python": python + statements}
    return max(counts, key=lambda name: counts[name])


@lru_cache(maxsize=64)
def find_lexer(language: str) -> Any:
    """Return Pygments' lexer of a language's name; None where it knows none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    options = {"startinline": True} if language == "php" else {}
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False, **options)
    except ClassNotFound:
        return None


def compare_code(old: str, new: str, language: str) -> tuple[str | None, str, str]:
    """Compare changed lines of code.

    Returns:
        What the change is about; "" where it is neither nothing nor worth much (a semicolon, the style of quotes); None
        where no token differs. Then the comments of both sides, which are prose.
    """
    before, old_comments = _read_tokens(old, language)
    after, new_comments = _read_tokens(new, language)
    kinds: set[str] = set()
    for code in Levenshtein.opcodes([value for _, value in before], [value for _, value in after]):
        if code.tag != "equal":
            kinds |= _name_kinds(before, code.src_start, code.src_end)
            kinds |= _name_kinds(after, code.dest_start, code.dest_end)
    if kinds <= {"structure", ""} and _count_unbalanced(new) > _count_unbalanced(old):
        kinds.discard("structure")
        kinds.add("")
    kind = next((each for each in _ORDER if each in kinds), "" if kinds else None)
    return kind, old_comments, new_comments


def _read_tokens(text: str, language: str) -> tuple[list[tuple[Any, str]], str]:
    from pygments.token import Comment, Text, Whitespace

    lexer = find_lexer(language) or find_lexer("python")
    assert lexer is not None
    tokens, comments = [], []
    for kind, value in lexer.get_tokens(text):
        if kind in Comment and not value.startswith(("#!", "#include")) and kind not in Comment.Preproc:
            comments.append(value)
        elif kind in Whitespace or (kind in Text and not value.strip()):
            continue
        elif value.strip():
            tokens.append((kind, value.lower() if language in _CASELESS and kind not in _strings() else value))
    return tokens, " ".join(comments)


def _strings() -> Any:
    from pygments.token import String

    return String


def _name_kinds(tokens: list[tuple[Any, str]], begin: int, end: int) -> set[str]:
    from pygments.token import Keyword, Name, Number, Operator, Punctuation, String

    kinds = set()
    for place in range(begin, end):
        kind, value = tokens[place]
        lower = value.lower().strip()
        if lower in ("not", "!"):
            kinds.add("negation")
        elif lower in _LITERALS:
            kinds.add("literal")
        elif kind in Number or _NUMBER.match(lower):
            kinds.add("number")
        elif kind in String:
            kinds.add("" if lower in _QUOTES else "string")
        elif lower in _OPERATORS or (kind in Operator and lower not in ",;"):
            kinds.add("operator")
        elif kind in Punctuation or not any(character.isalnum() for character in value):
            if lower in ("<", ">", "=", "?", "|", "&"):
                kinds.add("operator")
            else:
                kinds.add("" if lower == ";" else "structure")
        elif kind in Keyword and kind not in Keyword.Type:
            kinds.add("keyword")
        elif place + 1 < len(tokens) and tokens[place + 1][1].startswith("("):
            kinds.add("call")
        elif kind in Name or kind in Keyword:
            kinds.add("identifier")
        else:
            kinds.add("string")
    return kinds


def _count_unbalanced(text: str) -> int:
    signs = text.translate(_BRACKETS)
    return abs(signs.count("(") - signs.count(")"))


def changes_indentation(old: Sequence[str], new: Sequence[str], before: str, after: str, language: str) -> bool:
    """Return whether the levels of indentation differ, between the filled lines before and after the change.

    Another width of a level, or tabs for spaces, is the same structure; in a Makefile a tab is syntax.
    """
    if language in ("make", "makefile"):
        starts = [[line.startswith("\t") for line in lines if line.strip()] for lines in (old, new)]
        return starts[0] != starts[1]
    levels = [_read_levels([before, *lines, after]) for lines in (old, new)]
    return levels[0] != levels[1]


def _read_levels(lines: Iterable[str]) -> list[int]:
    levels: list[int] = []
    widths: list[int] = []
    base = depth = 0
    for line in lines:
        filled = line.expandtabs(4)
        width = len(filled) - len(filled.lstrip())
        if filled.strip() and depth <= 0:
            if not widths or width < widths[0]:
                base -= bool(widths)
                widths = [width]
            while widths[-1] > width:
                widths.pop()
            if widths[-1] < width:
                widths.append(width)
            levels.append(base + len(widths))
        signs = filled.translate(_BRACKETS)
        depth += signs.count("(") - signs.count(")")
    return levels
