"""The page "bring your data": its commands run as written, on the small files next to it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_assets_tests.command_line import ROOT, flywheel

PAGE = (ROOT / "docs" / "bring_your_data.md").read_text()
EXAMPLES = ROOT / "docs" / "examples" / "bring_your_data"
SECTIONS = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
LONGEST_SECTION = 10
"""Lines of prose and commands."""


def commands(section: str) -> Iterator[list[str]]:
    """Yield the arguments of each `flywheel` line in the section's blocks."""
    for block in re.findall(r"^```sh\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "flywheel", line
            yield arguments


def with_paths(arguments: list[str]) -> list[str]:
    return [str(EXAMPLES / each) if (EXAMPLES / each).is_file() else each for each in arguments]


IMPORTS = [each for _, section in SECTIONS for each in commands(section) if each[0] == "import"]


@pytest.mark.parametrize("section", [text for _, text in SECTIONS], ids=[name for name, _ in SECTIONS])
def test_a_section_has_ten_lines_and_names_files_that_exist(section: str) -> None:
    lines = [line for line in section.splitlines() if line.strip() and not line.startswith("```")]
    assert len(lines) <= LONGEST_SECTION
    for arguments in commands(section):
        for name in arguments:
            if re.fullmatch(r"\w+\.(json|jsonl|csv)", name):
                assert (EXAMPLES / name).is_file(), name


def test_every_example_is_used() -> None:
    used = {name for _, section in SECTIONS for arguments in commands(section) for name in arguments}
    assert {path.name for path in EXAMPLES.iterdir()} <= used


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the page, read from top to bottom."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(
    "arguments", IMPORTS, ids=[f"{each[1]}{' history' * ('--history' in each)}" for each in IMPORTS]
)
def test_each_import_takes_every_record_in_a_dry_run(home: Path, arguments: list[str]) -> None:
    done = flywheel(home, *with_paths(arguments), *(() if "--dry-run" in arguments else ("--dry-run",)))
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    assert re.search(r"^(\d+) of \1 records would be accepted, 0 refused$", done.stdout, flags=re.MULTILINE), (
        done.stdout
    )


@pytest.mark.slow
@pytest.mark.parametrize("section", [text for _, text in SECTIONS[:-1]], ids=[name for name, _ in SECTIONS[:-1]])
def test_the_commands_run_as_written(home: Path, section: str) -> None:
    for arguments in commands(section):
        done = flywheel(home, *with_paths(arguments))
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        if arguments[:2] == ["gold", "rows"]:
            assert not re.search(r": 0 rows", done.stdout), f"{arguments}: {done.stdout}"
