"""What newer Pythons ask for, checked on the oldest; `make test-pythons` runs the core tests on each that is here."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("flywheel_assets", "clients/python", "benchmarks")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.long
def test_every_docstring_can_be_written_as_utf_8() -> None:
    """On Python 3.13 capture could not be imported: its compiler encodes docstrings, and one held a lone surrogate."""
    refused = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, DOCUMENTED) and re.search(
                r"[\ud800-\udfff]", ast.get_docstring(node, clean=False) or ""
            ):
                refused.append(f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}")
    assert refused == []


def test_the_pythons_that_are_tested_are_those_that_are_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [each.rpartition(" ")[2] for each in declared["classifiers"] if each.startswith("Programming Language")]
    tested = re.search(r"^PYTHONS \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tested is not None
    assert [f"python{version}" for version in named] == tested[1].split()
    assert declared["requires-python"] == f">={named[0]}"
