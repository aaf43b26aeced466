"""The product's prose is plain: no riddle words, first sentences that are short and have a subject or an imperative."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ROOT / "flywheel_assets"
# Rooms whose prose is still to be rewritten; only to become shorter.
EXEMPT: tuple[str, ...] = ()
# Their literals are texts to search for or that a simulated vandal writes, no prose of ours.
DATA = (
    "curation/policy/_injection.py",
    "curation/policy/language.py",
    "screening/heads/functional_suite.py",
    "demo/assistant/people.py",
)
FORBIDDEN = re.compile(r"(?<![a-z])(told|whoever|somebody|nobody|anybody|anew|beside)(?![a-z])", re.IGNORECASE)
RELATIVE = re.compile(r"(What|Whether|How|Who|Whose|Whom|Where|Which|When|Why)\b")
PARTICIPLES = ("told", "said", "shown", "held", "listed", "done", "opened", "merged", "copied", "sampled", "withheld")
MOST_WORDS = 20
# Every page that a reader may open; decisions and the change log keep the words of their date, and the generated
# reference repeats sentences that are held where they stand.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name not in ("adr", "reference")),
    ROOT / "docs" / "reference" / "events.md",
    *sorted((ROOT / "clients").glob("*/README.md")),
]
# Either gate could be meant: "edit gate" and "promotion gate" are the terms.
BARE_GATE = re.compile(r"(?<!edit )(?<!promotion )\bgates?\b", re.IGNORECASE)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`|(?<=\]\()[^)\n]+", re.DOTALL | re.MULTILINE)


def is_exempt(path: Path) -> bool:
    inside = path.relative_to(PRODUCT).as_posix()
    return any(inside == room or inside.startswith(f"{room}/") for room in EXEMPT)


FILES = [path for path in sorted(PRODUCT.rglob("*.py")) if not is_exempt(path)]


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """(name, docstring) of the module, its classes and its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", path.stem), text


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s|\n\n", text)[0]


def pytest_ids(path: object) -> str:
    return Path(str(path)).relative_to(PRODUCT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=pytest_ids)
def test_riddle_words_are_not_used(path: Path) -> None:
    is_data = path.relative_to(PRODUCT).as_posix() in DATA
    kinds = {tokenize.NAME, tokenize.COMMENT} | (set() if is_data else {tokenize.STRING})
    if not is_data and hasattr(tokenize, "FSTRING_MIDDLE"):
        kinds.add(tokenize.FSTRING_MIDDLE)
    found = [
        f"line {token.start[0]}: {word}"
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type in kinds
        for word in FORBIDDEN.findall(token.string)
    ]
    assert not found


@pytest.mark.parametrize("path", FILES, ids=pytest_ids)
def test_no_docstring_begins_with_a_relative_pronoun(path: Path) -> None:
    assert not [name for name, text in docstrings(path) if RELATIVE.match(text)]


@pytest.mark.parametrize("path", FILES, ids=pytest_ids)
def test_first_sentences_are_short(path: Path) -> None:
    long = [name for name, text in docstrings(path) if len(first_sentence(text).split()) > MOST_WORDS]
    assert not long, f"longer than {MOST_WORDS} words"


@pytest.mark.parametrize("path", FILES, ids=pytest_ids)
def test_functions_are_not_named_by_participles(path: Path) -> None:
    functions = [
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not [
        name for name in functions if name.split("_")[-1] in PARTICIPLES and not name.startswith(("is_", "has_"))
    ]


def test_the_exempt_rooms_exist() -> None:
    assert not [room for room in EXEMPT if not (PRODUCT / room).exists()]


def page_name(page: object) -> str:
    return Path(str(page)).relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_pages_are_in_plain_words(page: Path) -> None:
    """Commands, names of code and link targets are no prose."""
    prose = CODE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())
    assert not [
        f"line {prose[: found.start()].count(chr(10)) + 1}: {found[0]}"
        for words in (FORBIDDEN, BARE_GATE)
        for found in words.finditer(prose)
    ]


def test_every_term_of_the_glossary_is_used() -> None:
    page = ROOT / "docs" / "glossary.md"
    terms = re.findall(r"^\*\*(.+?)\*\*", page.read_text(), flags=re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    prose = [path.read_text() for path in [*pages, *PRODUCT.rglob("*.py")] if path != page]
    used = re.sub(r"[\s_-]+", " ", " ".join(prose)).lower()
    assert not [term for term in terms if re.sub(r"[\s_-]+", " ", term).lower() not in used]
