"""A real Dagster daemon turns the wheel while its trainer and its evaluator are killed and starved.

The daemon's sensor requests the runs, its queue launches them as processes of their own, and each run starts the
product's trainer in another: nothing here runs in the test's process.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, TRANSIENT
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.partitions import TURN_JOB
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver, open_instance, request_retry
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION, FIRST, LAST, NOW, land_traffic
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.saboteur import Saboteur, write_saboteur

VERSION = "fraud_gold_v1"
JOB = TURN_JOB.format("fraud")
DEADLINE_S = 300.0

# The clock is the real one, as that by which a failed run's pause is measured.
LOCATION = """
from dataclasses import replace
from pathlib import Path
import sys
sys.path.insert(0, {root!r})
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION

recipe = CommandRecipe(command=("python", "train.py"), folder={folder!r}, timeout_s=60.0, scoring_timeout_s=60.0)
application = replace(APPLICATION, recipe=recipe, trigger=replace(APPLICATION.trigger, retry_backoff_s=0.0))
defs = classification_flywheel(application, Stores(home={home!r}), Clock())
"""


@pytest.fixture
def saboteur(tmp_path: Path) -> Saboteur:
    return write_saboteur(tmp_path / "trainer")


@pytest.fixture
def instance(tmp_path: Path, saboteur: Saboteur) -> Iterator[dg.DagsterInstance]:
    """The daemon's instance, in whose home all days are done."""
    home = tmp_path / "home"
    land_traffic(Workbench(home, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud"))
    with open_instance(home / "dagster", ROOT / "dagster.yaml") as instance:
        application = replace(APPLICATION, recipe=saboteur.recipe)
        definitions = classification_flywheel(application, Stores(home=str(home)), Clock(fixed=NOW.isoformat()))
        daily = Driver(application, definitions, instance).materialize(FIRST, LAST)
        assert daily.succeeded, daily.error
        yield instance


@pytest.fixture
def daemon(tmp_path: Path, instance: dg.DagsterInstance, saboteur: Saboteur) -> Iterator[Path]:
    """A daemon with the application's code location; yields its log."""
    location, log = tmp_path / "location.py", tmp_path / "daemon.log"
    settings = {"root": str(ROOT), "folder": saboteur.recipe.folder, "home": str(tmp_path / "home")}
    location.write_text(LOCATION.format(**settings))
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "home" / "dagster"), "PYTHONPATH": str(ROOT)}
    command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-f", str(location)]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        finally:
            for each in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, each)
                except ProcessLookupError:
                    break
            process.wait()


def wait_for(found: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def list_ended(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs of the version that have ended, oldest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=JOB), ascending=True)
    return [record.dagster_run for record in records if record.dagster_run.is_finished]


def read_sentence(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What the run's page shows of its failed step."""
    logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    data = logged[0].get_dagster_event().step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the saboteur limits another process's memory")
def test_a_daemon_tries_a_killed_trainer_again_and_leaves_a_starved_one_to_people(
    instance: dg.DagsterInstance, daemon: Path, saboteur: Saboteur, tmp_path: Path
) -> None:
    saboteur.do("SIGKILL")

    def wait_for_runs(count: int) -> dg.DagsterRun:
        wait_for(lambda: len(list_ended(instance)) >= count, daemon)
        return list_ended(instance)[count - 1]

    first = wait_for_runs(1)
    assert first.status is dg.DagsterRunStatus.FAILURE
    assert first.tags[FAILURE_TAG] == TRANSIENT
    said = read_sentence(instance, first)
    assert said.startswith(f"{VERSION}: the training process was killed (SIGKILL) after it held at most ")

    # The sensor ticks every 30 s, and requests the same version again.
    second = wait_for_runs(2)
    assert "killed for the 2nd time in a row (SIGKILL)" in read_sentence(instance, second)
    assert "most likely memory is too small" in read_sentence(instance, second)
    assert second.tags["dagster/partition"] == VERSION

    saboteur.do("no_memory")
    third = wait_for_runs(3)
    if third.tags[FAILURE_TAG] == TRANSIENT:  # it had begun before the order
        third = wait_for_runs(4)
    assert third.tags[FAILURE_TAG] == PERMANENT
    said = read_sentence(instance, third)
    assert "ran out of memory" in said
    assert f"`flywheel retry {VERSION} --application fraud`" in said

    # People mend it, and ask for another attempt.
    saboteur.do("nothing")
    ended = len(list_ended(instance))
    request_retry(instance, "fraud", VERSION)
    last = wait_for_runs(ended + 1)
    assert last.status is dg.DagsterRunStatus.SUCCESS, read_sentence(instance, last)
    folder = Stores(home=str(tmp_path / "home")).versions("fraud").folder(VERSION)
    assert folder.is_finished
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]
