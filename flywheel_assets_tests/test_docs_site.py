"""The site is built strictly, its reference is current, and the snippets of its tutorials and how-to pages work."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pyarrow as pa
import pytest
import typer

from flywheel_assets import cli
from flywheel_assets.applications import fraud
from flywheel_assets.capture.service import running_capture
from flywheel_assets.config import ClassificationApplication, PreferenceApplication
from flywheel_assets.curation.policy.verdicts import TEXTS
from flywheel_assets.defs.flywheels import classification_flywheel, preference_flywheel
from flywheel_assets.records import Signal

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
HOW_TO = sorted((DOCS / "howto").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OURS = ("flywheel_assets", "docs", "clients")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def execute(source: str) -> dict[str, Any]:
    """Run a snippet as a module of its own, which dataclasses want."""
    module = ModuleType("snippet")
    sys.modules["snippet"] = module
    try:
        exec(source, module.__dict__)
    finally:
        del sys.modules["snippet"]
    return module.__dict__


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """`docs/write_reference.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("write_reference", DOCS / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_reference_is_current(reference: ModuleType) -> None:
    """Run `python docs/write_reference.py` after a setting, command, type, column, reason or endpoint was changed."""
    stale = [name for name, page in reference.draw_pages().items() if (DOCS / "reference" / name).read_text() != page]
    assert not stale, "run `python docs/write_reference.py`"


def test_every_reason_has_a_sentence_in_the_reference() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| \[", (DOCS / "reference" / "reasons.md").read_text(), flags=re.MULTILINE
    )
    assert len(rows) > 50
    assert not [reason for reason, meaning in rows if len(meaning) < 10 or meaning == "see below"]


def test_every_option_and_column_of_the_reference_is_described() -> None:
    """An empty last cell means that a help text or a docstring is missing; arguments explain themselves."""
    for name in ("cli", "settings", "tables"):
        lines = (DOCS / "reference" / f"{name}.md").read_text().splitlines()
        assert not [line for line in lines if line.startswith("| `-") and line.endswith("| |")], name
        if name != "cli":
            assert not [line for line in lines if line.startswith("| `") and line.endswith("| |")], name


@pytest.mark.long
def test_links_anchors_and_navigation_hold(tmp_path: Path) -> None:
    """As strict as `make docs`, without writing a site: links lead to pages and headings, pages have their place."""
    built = build_site(tmp_path, "dummy")
    assert built.returncode == 0, built.stderr


@pytest.mark.slow
def test_the_site_needs_no_other_host(tmp_path: Path) -> None:
    built = build_site(tmp_path, "html")
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").exists()
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"(https?:)?//", page.read_text())
        styles = re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect)\"[^>]*href=\"(?:https?:)?//", page.read_text())
        assert not loaded + styles, page
        # Two findings of axe-core: captions without a level, and code that only a mouse could scroll.
        assert 'role="heading">' not in page.read_text(), page
        assert "<pre>" not in page.read_text(), page


def build_site(folder: Path, builder: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sphinx", "-c", str(DOCS), "-b", builder, "-d", str(folder / "trees")]
    return subprocess.run(
        [*command, "-W", "--keep-going", "-q", str(ROOT), str(folder / "site")],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_the_site_has_a_target_and_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split("[>=]", each)[0] for each in project["optional-dependencies"]["docs"]} == {
        "furo",
        "myst-parser",
        "sphinx",
    }
    assert re.search(r"^docs: install .*\n(?:\t.*\n)*\t.*-m sphinx .*-W", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_index_has_the_four_kinds_of_pages() -> None:
    """Diátaxis: to learn, to do, to look up, to understand."""
    sections = re.findall(r"^## (.+)$", (DOCS / "index.md").read_text(), flags=re.MULTILINE)
    assert sections == ["Tutorials", "How to", "Reference", "Explanation"]


def test_the_examples_of_events_are_accepted_and_show_every_signal(tmp_path: Path) -> None:
    events = [json.loads(block) for block in blocks(DOCS / "reference" / "events.md", "json")]
    assert {event["data"].get("signal") for event in events} - {None} == set(Signal)
    applications = {"assistant": None, "fraud": fraud.APPLICATION.contract}
    with running_capture(tmp_path, applications, clock=lambda: datetime(2026, 11, 29, tzinfo=UTC)) as capture:
        for event in events:
            is_score = "score" in event["data"] or event["data"].get("signal") == "label"
            name = "fraud" if is_score else "assistant"
            answer = httpx.post(f"{capture.url}/v1/{name}/events", json=event)
            assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text


def shell_lines(page: Path) -> Iterator[list[str]]:
    """Yield each command of a page; a body in quotation marks is one word."""
    for block in blocks(page, "sh"):
        for line in re.split(r"\n(?=[a-z])", block.strip()):
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", [*TUTORIALS, *HOW_TO, DOCS / "own_project.md"], ids=lambda page: page.stem)
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    """Their names, options and numbers of arguments; the tutorials' commands also run, by hand (`slow`)."""
    for words in shell_lines(page):
        if words[0] != "flywheel":
            continue
        command: Any = typer.main.get_command(cli.app)
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        options = {flag: each for each in command.params for flag in [*each.opts, *each.secondary_opts]}
        given = [word for word in rest if word.startswith("-") and word != "-"]
        assert set(given) <= set(options), words
        values = sum(not getattr(options[each], "is_flag", False) for each in given)
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        count = len(rest) - len(given) - values
        assert any(each.nargs == -1 for each in arguments) or count <= len(arguments), words
        assert count >= sum(each.required for each in arguments), words


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_files_that_a_tutorial_runs_exist(page: Path) -> None:
    named = [Path(word) for words in shell_lines(page) for word in words if word.endswith(".py")]
    assert named
    # Its folder is one of the clone's.
    assert not [path for path in named if not (ROOT / "any" / path).resolve().exists()]


def test_the_tutorials_applications_are_flywheels() -> None:
    for page in TUTORIALS:
        (source,) = blocks(page, "python")
        application = execute(source)["APPLICATION"]
        if isinstance(application, PreferenceApplication):
            assert preference_flywheel(application).resolve_job_def(f"{application.name}_daily")
        else:
            assert isinstance(application, ClassificationApplication)
            assert classification_flywheel(application).resolve_job_def(f"{application.name}_daily")


# What the daemon of `flywheel dev` does: evaluate the trigger, and run what it requests.
TURN = """
import sys
from flywheel_assets.cli.terminal import build_driver, load_application
driver = build_driver(load_application(sys.argv[1]))
ticked = driver.tick()
assert ticked.version, ticked.reason
finished = driver.turn(ticked.version, ticked.tags)
assert finished.succeeded, finished.error
"""
# Answered by other tests, or by people: the environment, the services, and the edit that needs them.
NOT_HERE = {"make", "source", "cd", "head", "curl"}


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_ends_with_a_promotion(page: Path, tmp_path: Path) -> None:
    """Every command as written, in its order, with the days that the import names."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLYWHEEL_", "DAGSTER_"))}
    environment = {**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
    environment["FLYWHEEL_CAPTURE_PORT"] = "0"
    folder, days, printed = tmp_path, ["", ""], ""

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=3_000
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    for words in shell_lines(page):
        if words[0] in NOT_HERE or words[:2] == ["flywheel", "dev"]:
            continue
        if words[0] == "python":
            run(sys.executable, str((ROOT / "any" / words[1]).resolve()), *words[2:])
            continue
        assert words[0] == "flywheel", words
        if words[1:3] == ["gold", "list"]:
            run(sys.executable, "-c", TURN, folder.name)
        arguments = [*words[1:2], *days] if words[1] == "backfill" else words[1:]
        printed = run(sys.executable, "-m", "flywheel_assets.cli", *arguments)
        if words[1] == "init":
            folder = tmp_path / words[2]
            (source,) = blocks(page, "python")
            (folder / words[2] / "application.py").write_text(source)
        if words[1] == "import" and "--history" in words:
            found = re.findall(r"next: flywheel backfill (\S+) (\S+)", printed)[0]
            days = [min(filter(None, [days[0], found[0]])), max(days[1], found[1])]
        if words[1:3] == ["gold", "list"]:
            assert "champion now" in printed


def test_the_configuration_of_the_how_to_page_loads() -> None:
    (source,) = blocks(DOCS / "howto" / "configure.md", "python")
    assert execute(source)["APPLICATION"].trigger.min_new_pairs == 300


def test_the_policy_check_of_the_how_to_page_finds_and_passes() -> None:
    (source,) = blocks(DOCS / "howto" / "policy_check.md", "python")
    names = execute(source)
    rows = [("Write a line", "Soon: Project Ivory", "Soon."), ("Write a line", "Soon: more.", "Soon.")]
    texts = pa.Table.from_pylist([dict(zip(TEXTS.names, row, strict=True)) for row in rows], schema=TEXTS)
    found = names["GATE"].policy.audit(texts)
    assert list(found) == [0]
    assert found[0].reason == "policy"
    assert found[0].may_be_overruled
