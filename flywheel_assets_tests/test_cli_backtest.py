"""`flywheel backtest` as a person uses it: what is wrong is said in one line with the next command."""

import json
import sys
from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets_tests.backtest.traffic import FIRST, GO_LIVE, LAST, land_history
from flywheel_assets_tests.builders import make_score
from flywheel_assets_tests.command_line import flywheel
from flywheel_assets_tests.lake.workbench import Workbench

RANGE = ("--from", str(GO_LIVE), "--to", str(LAST))
SMALL_BANK = "from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small bank's application."""
    folder = tmp_path / "project"
    (folder / "small_bank").mkdir(parents=True)
    (folder / "small_bank" / "fraud.py").write_text(SMALL_BANK)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("small_bank", "small_bank.fraud"):  # of the test before, imported into this process
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("FLYWHEEL_APPLICATIONS", "small_bank.fraud")
    return folder


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-a", "assistant", *RANGE], "assistant is no classification application"),
        (["-a", "nothing", *RANGE], "unknown application 'nothing'"),
        (["--to", str(LAST)], "--from is nothing; valid: a day as YYYY-MM-DD. Try --from 2026-03-01"),
        (["--from", "soon", "--to", str(LAST)], "--from is 'soon'; valid: a day as YYYY-MM-DD"),
        (["--from", "2026-04-01", "--to", "2026-04-07"], "are 7 days; valid: at least 14"),
        (["--from", "2026-04-07", "--to", "2026-04-01"], "are 0 days; valid: at least 14"),
        (
            [*RANGE],
            "it has no predictions at all. Choose other days, or bring history: `flywheel import FILE --history",
        ),
    ],
)
def test_errors_are_one_line_with_the_next_action(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    failed = flywheel(tmp_path, "backtest", *arguments)
    assert failed.returncode == 1
    assert complaint in failed.stderr
    assert "Traceback" not in failed.stderr


def test_history_without_a_label_is_refused(tmp_path: Path, project: Path) -> None:
    """Predictions alone: nothing could be trained, and the message names the import that is missing."""
    bench = Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud")
    features = '{"risk":0.5,"country":"NL"}'
    at = datetime.combine(GO_LIVE, time(12), UTC)
    event = make_score(prediction_id="p", event_id="p", features=features, received_at=at, occurred_at=at)
    bench.land(EventKind.PREDICTION, GO_LIVE, [event])
    failed = flywheel(tmp_path, "backtest", *RANGE, folder=project)
    assert failed.returncode == 1
    assert "no label of fraud has landed, so that nothing can be trained or judged" in failed.stderr


def test_a_folder_with_files_is_not_made_the_home(tmp_path: Path) -> None:
    failed = flywheel(tmp_path, "backtest", *RANGE, "--keep", str(Path(__file__).parent))
    assert failed.returncode == 1
    assert "is not empty; valid: a new or empty folder" in failed.stderr


@pytest.mark.slow
def test_a_small_history_is_compared_written_and_kept(tmp_path: Path, project: Path) -> None:
    home, output, kept = (tmp_path / name for name in ("home", "report", "kept"))
    land_history(home, per_day=60)
    done = flywheel(home, "backtest", *RANGE, "--output", str(output), "--keep", str(kept), folder=project)
    assert done.returncode == 0, done.stderr
    assert f"week of {GO_LIVE}, served by" in done.stdout
    for strategy in ("static", "flywheel", "weekly, all rows"):
        assert f"│ {strategy} " in done.stdout, done.stdout
    assert json.loads((output / "backtest.json").read_text())["application"] == "fraud"
    assert {path.name for path in output.iterdir()} == {"backtest.json", "backtest.md", "backtest.png"}
    assert f"FLYWHEEL_HOME={kept} flywheel gold list -a fraud" in done.stdout
    assert flywheel(kept, "gold", "list", "-a", "fraud", folder=project).returncode == 0


def test_an_application_of_several_classes_is_refused(tmp_path: Path, project: Path) -> None:
    several = (
        "from dataclasses import replace\n"
        "from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION as BINARY\n"
        "contract = replace(BINARY.contract, classes=('legit', 'stolen', 'friendly'), negative_label='legit')\n"
        "APPLICATION = replace(BINARY, contract=contract)\n"
    )
    (project / "small_bank" / "fraud.py").write_text(several)
    failed = flywheel(tmp_path, "backtest", *RANGE, folder=project)
    assert failed.returncode == 1
    assert "fraud declares 3 classes, and a backtest replays two" in failed.stderr
    assert "flywheel retrain -a fraud" in failed.stderr
