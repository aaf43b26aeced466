"""A real Dagster daemon turns the wheel while its trainer and its evaluator are killed and starved.

The daemon's sensor requests the runs, its queue launches them as processes of their own, and each run starts the
product's trainer in another: nothing here runs in the test's process.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, TRANSIENT
from flywheel_assets.defs.resources import Stores
from flywheel_assets.defs.running import request_retry
from flywheel_assets_tests.e2e.real_daemon import (
    VERSION,
    RunningDaemon,
    list_ended,
    open_filled_home,
    read_sentence,
    running_daemon,
)
from flywheel_assets_tests.saboteur import Saboteur, write_saboteur


@pytest.fixture
def saboteur(tmp_path: Path) -> Saboteur:
    return write_saboteur(tmp_path / "trainer")


@pytest.fixture
def instance(tmp_path: Path, saboteur: Saboteur) -> Iterator[dg.DagsterInstance]:
    with open_filled_home(tmp_path / "home", saboteur) as instance:
        yield instance


@pytest.fixture
def daemon(tmp_path: Path, instance: dg.DagsterInstance, saboteur: Saboteur) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, saboteur) as daemon:
        yield daemon


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the saboteur limits another process's memory")
def test_a_daemon_tries_a_killed_trainer_again_and_leaves_a_starved_one_to_people(
    instance: dg.DagsterInstance, daemon: RunningDaemon, saboteur: Saboteur, tmp_path: Path
) -> None:
    saboteur.do("SIGKILL")

    def wait_for_runs(count: int) -> dg.DagsterRun:
        daemon.wait_for(lambda: len(list_ended(instance)) >= count)
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
