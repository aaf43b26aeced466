"""The page "moderation": its files make a project that loads, and its commands run as written on the public table."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flywheel_assets.cli.init import Kind, write_project
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.real_data import REAL_DATA, needs_real_data
from flywheel_assets_tests.test_init import blocks, environment, run

PAGE = ROOT / "docs" / "moderation.md"
EXAMPLE = ROOT / "docs" / "examples" / "moderation"


@pytest.mark.long
def test_the_files_replace_those_of_a_new_project(tmp_path: Path) -> None:
    project = write_project(tmp_path, "moderation", Kind.CLASSIFICATION)
    shutil.copytree(EXAMPLE, project, dirs_exist_ok=True)
    tested = run(project, "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout


def test_the_page_names_what_the_application_says() -> None:
    application = (EXAMPLE / "moderation" / "application.py").read_text()
    (settings,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    for said in ('silence="unknown"', 'label_propensity="review_chance"', "evaluation_weeks=4", "min_new_positives=50"):
        assert said in settings
        assert said in application


@pytest.mark.slow
@pytest.mark.realdata
@needs_real_data("surge_toxicity", "toxicity_en.csv")
def test_the_commands_run_as_written_and_the_champion_beats_the_word_list(tmp_path: Path) -> None:
    (commands,) = blocks(PAGE.read_text())
    assert "git clone --depth 1 https://github.com/surge-ai/toxicity\n" in commands
    script = re.sub(r"^git clone .*\n", "", commands, flags=re.MULTILINE)
    script = script.replace("flywheel_assets/docs/examples", str(ROOT / "docs" / "examples"))
    script = script.replace("../toxicity/", f"{REAL_DATA / 'surge_toxicity'}/")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,268 of 1,268 records accepted, 0 refused" in done.stdout
    assert re.search(r"^week of .*served by moderation_gold_v1: .*Promoted: ", done.stdout, flags=re.MULTILINE)
    found = dict(re.findall(r"^(word list|champion|TF-IDF, if all).*? +(0\.\d{3}) ", done.stdout, flags=re.MULTILINE))
    assert float(found["champion"]) > float(found["word list"]) + 0.1, done.stdout
    assert float(found["TF-IDF, if all"]) > float(found["champion"]) - 0.02, done.stdout
