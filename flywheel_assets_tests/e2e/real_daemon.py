"""A real Dagster daemon with the fraud application's code location, its trainer a saboteur's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.partitions import TURN_JOB
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.defs.running import Driver, open_instance
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION, FIRST, LAST, NOW, land_traffic
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.saboteur import Saboteur

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


@contextmanager
def open_filled_home(home: Path, saboteur: Saboteur) -> Iterator[dg.DagsterInstance]:
    """The daemon's instance, in whose home all days are done."""
    land_traffic(Workbench(home, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud"))
    with open_instance(home / "dagster", ROOT / "dagster.yaml") as instance:
        application = replace(APPLICATION, recipe=saboteur.recipe)
        definitions = classification_flywheel(application, Stores(home=str(home)), Clock(fixed=NOW.isoformat()))
        daily = Driver(application, definitions, instance).materialize(FIRST, LAST)
        assert daily.succeeded, daily.error
        yield instance


@dataclass(frozen=True)
class RunningDaemon:
    """The daemon's process group, and its log."""

    process_id: int
    log: Path

    def wait_for(self, found: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not found():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.2)


@contextmanager
def running_daemon(folder: Path, saboteur: Saboteur) -> Iterator[RunningDaemon]:
    """A daemon with the application's code location; its home is `folder / "home"`."""
    location, log = folder / "location.py", folder / "daemon.log"
    settings = {"root": str(ROOT), "folder": saboteur.recipe.folder, "home": str(folder / "home")}
    location.write_text(LOCATION.format(**settings))
    environment = {**os.environ, "DAGSTER_HOME": str(folder / "home" / "dagster"), "PYTHONPATH": str(ROOT)}
    command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-f", str(location)]
    with open(log, "ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield RunningDaemon(process.pid, log)
    finally:
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, ending)
            except ProcessLookupError:
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(30 if ending is signal.SIGINT else 5)
        process.wait()


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
