"""The README and the docs say what is there: commands, targets, rooms, links, and the example as written."""

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import typer

from flywheel_assets import cli
from flywheel_assets.applications import fraud
from flywheel_assets.capture.service import running_capture
from flywheel_assets.records import Reason

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
# The map of rooms stands where a reader of the code looks; the README's first screen is for those who are new.
ROOM_BY_ROOM = (ROOT / "docs" / "architecture.md").read_text()
README_LINES = 150
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Decisions keep the names of their day: ADRs are not among the pages whose names must be those of the tree.
CURRENT_PAGES = [page for page in PAGES if page.parent.name != "adr"]
CODE = ("flywheel_assets", "flywheel_assets_tests", "benchmarks", "clients", "docs")
ROOMS = sorted(path.name for path in (ROOT / "flywheel_assets").iterdir() if (path / "__init__.py").exists())
MADE_BY_INIT = ("my_flywheel/", "my_fraud/", "tests/test_application.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)\b(?=`|\s{2,}|\n)", page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flywheel_commands_that_are_named_exist(page: Path) -> None:
    command = typer.main.get_command(cli.app)
    assert isinstance(command, typer.core.TyperGroup)
    known = set(command.commands)
    named = set(re.findall(r"(?:`|bin/)flywheel ([a-z]+)", page.read_text()))
    assert named <= known, f"{page.name} names {named - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def backticked(page: Path) -> Iterator[str]:
    """Yield every piece of code in the page's prose and tables, without blocks of code."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


@pytest.fixture(scope="module")
def modules() -> list[str]:
    return [path.as_posix() for folder in CODE for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.name)
def test_modules_that_are_named_exist(page: Path, modules: list[str]) -> None:
    """A path names a file of the tree by its end: `rollback.py`, `lake/versions/rollback.py` and more of it."""
    paths = {code for code in backticked(page) if re.fullmatch(r"[\w/-]+\.py", code)}
    named = {path for path in paths if Path(path).name != "_name.py" and not path.startswith(MADE_BY_INIT)}
    assert not [path for path in sorted(named) if not any(module.endswith(f"/{path}") for module in modules)]


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.name)
def test_dotted_names_of_the_product_resolve(page: Path) -> None:
    """Full names, and names from a room on, as `capture.auth.access.require_scope`; also in blocks of code."""
    text = page.read_text()
    full = set(re.findall(r"\b(?<!['\"])flywheel_assets(?:\.\w+)+", text))
    short = {code for code in backticked(page) if re.fullmatch(rf"(?:{'|'.join(ROOMS)})(?:\.\w+){{2,}}", code)}
    for name in sorted(full | {f"flywheel_assets.{name}" for name in short}):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.name)
def test_benchmarks_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"python -m benchmarks\.([a-z_]+)", page.read_text())
    assert not [name for name in named if not (ROOT / "benchmarks" / f"{name}.py").exists()]


def test_the_readme_is_a_first_screen() -> None:
    """One sentence, the loop, the commands, the picture, what a person gets; details lie behind links."""
    assert len(README.splitlines()) < README_LINES
    order = ["champion ◄──", "make demo ", "make demo-fraud", "(docs/demo.png)", "## What you get", "## Try it"]
    places = [README.index(each) for each in order]
    assert places == sorted(places)
    assert README[: README.index("## What you get")].count("\n") <= 33


def test_every_room_has_its_line_in_the_architecture() -> None:
    rooms = {path.name for path in (ROOT / "flywheel_assets").iterdir() if (path / "__init__.py").exists()}
    modules = {path.name for path in (ROOT / "flywheel_assets").glob("*.py")} - {"__init__.py"}
    for name in rooms:
        assert f"`{name}/`" in ROOM_BY_ROOM, f"the folder map lacks {name}/"
    for name in modules:
        assert f"`{name}`" in ROOM_BY_ROOM, f"the folder map lacks {name}"


def test_every_command_is_named_in_the_line_of_its_room() -> None:
    command = typer.main.get_command(cli.app)
    assert isinstance(command, typer.core.TyperGroup)
    [line] = re.findall(r"^\| `cli/` \|.*$", ROOM_BY_ROOM, flags=re.MULTILINE)
    assert set(command.commands) == set(re.findall(r"[a-z]+", line.split("…`: ")[1]))


def test_every_reason_code_is_explained() -> None:
    pages = ("curation.md", "gold.md", "training.md", "architecture.md", "hard_examples.md")
    explained = "".join((ROOT / "docs" / page).read_text() for page in pages)
    for reason in Reason:
        assert f"`{reason.value}`" in explained, reason


def test_the_curl_examples_are_accepted_as_written(tmp_path: Path) -> None:
    bodies = re.findall(r"curl -s http://127\.0\.0\.1:8700(\S+) .*?-d '(\{.*?\})'", README, flags=re.DOTALL)
    assert [path for path, _ in bodies] == ["/v1/assistant/edits", "/v1/fraud/labels"]
    applications = {"assistant": None, "fraud": fraud.APPLICATION.contract}
    with running_capture(tmp_path, applications, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC)) as capture:
        for path, body in bodies:
            answer = httpx.post(capture.url + path, content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text


def test_the_picture_of_the_rooms_is_current() -> None:
    """Run `python docs/draw_rooms.py` after a room was added, moved or described otherwise."""
    assert subprocess.run([sys.executable, ROOT / "docs" / "draw_rooms.py", "--check"], check=False).returncode == 0


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert [path.name for path in sorted((ROOT / "docs" / "adr").glob("0*.md")) if f"({path.name})" not in index] == []


def test_the_table_of_command_modules_names_every_command() -> None:
    command = typer.main.get_command(cli.app)
    assert isinstance(command, typer.core.TyperGroup)
    rows = [row.split("|")[2] for row in (cli.__doc__ or "").splitlines() if row.startswith("| `")]
    assert set(re.findall(r"[a-z]+", " ".join(rows))) == set(command.commands)
