"""Real trainers and evaluators that are killed, starved and broken: what their run says, and whether it comes again.

`DagsterPipesExecutionError` is no `DagsterError`: until this was known, each of these failures was reported as "line
132 of subprocess.py" and was permanent.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest

from flywheel_assets.defs.failures import FAILURE_TAG, PERMANENT, TRANSIENT, classify_failures
from flywheel_assets.defs.piped import _ending_when_silent, run_in_own_process
from flywheel_assets.evaluation.requests import ClassifierEvaluationRequest
from flywheel_assets.lake.versions.exports import ExportSet, hash_manifest
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.training.requests import ClassifierTrainingRequest
from flywheel_assets_tests.capture.chromium import eventually
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.evaluation.test_classifier import write_version
from flywheel_assets_tests.mounted_disk import MountedDisk, mount_disk
from flywheel_assets_tests.saboteur import write_saboteur
from flywheel_assets_tests.training import small_world as world

VERSION = "fraud_gold_v1"
TRAINER, EVALUATOR = "flywheel_assets.training.classifier", "flywheel_assets.evaluation.classifier"
ADAPTER = "flywheel_assets.training.adapter"


@dataclass(frozen=True)
class Reported:
    """What a run's page shows of its failed step; "" and None where it succeeded."""

    sentence: str
    tag: str | None
    logged: str


def run(module: str, request: Any, **limits: float) -> Reported:
    """One run whose only step is this process."""

    @dg.asset(key=[request_application(request), "step"], partitions_def=dg.StaticPartitionsDefinition([VERSION]))
    def step(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult[None]:
        with classify_failures(context):
            run_in_own_process(context, pipes, module, request, **limits)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"pipes": dg.PipesSubprocessClient()}
        result = dg.materialize(
            [step], instance=instance, resources=resources, partition_key=VERSION, raise_on_error=False
        )
        logged = "".join(str(entry) for entry in instance.all_logs(result.run_id))
        failed = [event for event in result.all_events if event.is_step_failure]
        if not failed:
            return Reported("", None, logged)
        data = failed[0].step_failure_data.user_failure_data
        assert data is not None
        return Reported(str(data.description), instance.get_run_by_id(result.run_id).tags[FAILURE_TAG], logged)


def request_application(request: Any) -> str:
    return str(getattr(request, "application", "fraud"))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_version(tmp_path_factory.mktemp("version"), weeks=1) / "export"


def training(export: Path, root: Path, recipe: CommandRecipe) -> ClassifierTrainingRequest:
    return ClassifierTrainingRequest(
        application="fraud",
        version=VERSION,
        export_dir=str(export),
        manifest_sha256=hash_manifest(export),
        recipe=recipe,
        output_dir=str(root / "training"),
        work_dir=str(root / "work"),
    )


def evaluation(asked: ClassifierTrainingRequest, root: Path) -> ClassifierEvaluationRequest:
    return ClassifierEvaluationRequest(
        export_dir=asked.export_dir,
        manifest_sha256=asked.manifest_sha256,
        challenger_dir=asked.output_dir,
        bootstrap_draws=20,
        output_dir=str(root / "evaluation"),
        work_dir=str(root / "evaluation_work"),
    )


def leftovers(root: Path) -> list[str]:
    """Half-written results, and folders that hold people's rows."""
    return [
        str(path) for path in root.rglob("*") if path.name.startswith((".training", ".evaluation", "fit-", "scoring-"))
    ]


@pytest.mark.long
def test_a_killed_trainer_is_tried_again_and_memory_is_named_from_the_second_time_on(
    export: Path, tmp_path: Path
) -> None:
    saboteur = write_saboteur(tmp_path / "trainer")
    asked = training(export, tmp_path, saboteur.recipe)
    saboteur.do("SIGKILL")
    first = run(TRAINER, asked)
    assert first.tag == TRANSIENT
    assert first.sentence.startswith("fraud_gold_v1: the training process was killed (SIGKILL) after it held at most ")
    assert "by a person, or by the system for memory" in first.sentence
    assert "at once: `flywheel retry fraud_gold_v1 --application fraud`" in first.sentence
    assert not Path(asked.output_dir).exists()
    assert leftovers(tmp_path) == []

    second = run(TRAINER, asked)
    assert second.tag == TRANSIENT
    assert "was killed for the 2nd time in a row (SIGKILL)" in second.sentence
    assert "most likely memory is too small. Give it more memory" in second.sentence

    saboteur.do("nothing")
    assert run(TRAINER, asked).tag is None
    saboteur.do("SIGKILL")
    evaluated = evaluation(asked, tmp_path)
    after = run(EVALUATOR, evaluated)
    assert after.sentence.startswith("fraud_gold_v1: the evaluation process was killed (SIGKILL)")
    assert after.tag == TRANSIENT
    assert leftovers(tmp_path) == []
    saboteur.do("nothing")
    assert run(EVALUATOR, evaluated).tag is None


def test_a_trainer_that_is_ended_from_outside_is_tried_again(export: Path, tmp_path: Path) -> None:
    saboteur = write_saboteur(tmp_path / "trainer")
    asked = training(export, tmp_path, saboteur.recipe)
    saboteur.do("SIGTERM")
    reported = run(TRAINER, asked)
    assert "the training process was ended from outside (SIGTERM)" in reported.sentence
    assert reported.tag == TRANSIENT
    assert leftovers(tmp_path) == []


@pytest.mark.long
def test_a_crash_is_tried_once_more_and_not_a_third_time(export: Path, tmp_path: Path) -> None:
    """A library that breaks on this request would break in every attempt."""
    saboteur = write_saboteur(tmp_path / "trainer")
    asked = training(export, tmp_path, saboteur.recipe)
    saboteur.do("SIGSEGV")
    first, second = run(TRAINER, asked), run(TRAINER, asked)
    assert (first.tag, second.tag) == (TRANSIENT, PERMANENT)
    assert "the training process crashed (SIGSEGV)" in first.sentence
    assert "crashed for the 2nd time in a row (SIGSEGV)" in second.sentence
    assert "mend the cause, then `flywheel retry fraud_gold_v1 --application fraud`" in second.sentence


def test_a_process_that_could_not_leave_its_report_is_not_taken_for_a_success(export: Path, tmp_path: Path) -> None:
    """It may write no byte more: neither its result, nor error.json."""
    saboteur = write_saboteur(tmp_path / "trainer")
    asked = training(export, tmp_path, saboteur.recipe)
    saboteur.do("no_writes")
    reported = run(TRAINER, asked)
    assert "the training process crashed (exit code 1)" in reported.sentence
    assert not Path(asked.output_dir).exists()
    assert leftovers(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[MountedDisk]:
    with mount_disk(tmp_path / "disk", megabytes=16) as mounted:
        yield mounted


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_named_and_the_run_comes_again_when_there_is_room(
    export: Path, tmp_path: Path, small_disk: MountedDisk
) -> None:
    saboteur = write_saboteur(tmp_path / "trainer")
    asked = training(export, small_disk.folder, saboteur.recipe)
    saboteur.do(f"fill {small_disk.folder}")
    reported = run(TRAINER, asked)
    assert reported.tag == TRANSIENT
    assert (
        f"no space left at {small_disk.folder}" in reported.sentence
        or "could not leave its report" in reported.sentence
    )
    assert "make room there, then run it again" in reported.sentence
    assert leftovers(small_disk.folder) == []
    small_disk.ballast.unlink()
    saboteur.do("nothing")
    assert run(TRAINER, asked).tag is None


@pytest.mark.long
def test_a_trainer_without_memory_is_not_tried_again_and_says_what_helps(export: Path, tmp_path: Path) -> None:
    saboteur = write_saboteur(tmp_path / "trainer")
    asked = training(export, tmp_path, saboteur.recipe)
    saboteur.do("no_memory")
    reported = run(TRAINER, asked)
    assert reported.tag == PERMANENT
    assert "ran out of memory" in reported.sentence
    assert "Give it more memory" in reported.sentence
    assert leftovers(tmp_path) == []


def adapter_training(tmp_path: Path, **recipe: Any) -> Any:
    rows = world.rows_of_a_week(1, pairs=24, accepted=6, holdout=4, regression=2)
    export = world.write_version(tmp_path / "export", rows)
    return world.request(export, world.blank_base(), tmp_path, sft_epochs=1.0, preference_epochs=0.0, **recipe)


@pytest.mark.slow
def test_an_adapter_that_needs_more_memory_than_there_is_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch has no MemoryError for a CPU: a RuntimeError of its allocator was a defect of the code before."""
    starved = tmp_path / "python"
    starved.write_text(f'#!/bin/sh\nulimit -v 6000000\nexec {sys.executable} "$@"\n')
    starved.chmod(0o755)
    asked = adapter_training(tmp_path, lora_rank=50_000_000, batch_size=4)
    monkeypatch.setattr(sys, "executable", str(starved))
    reported = run(ADAPTER, asked)
    assert reported.tag == PERMANENT
    assert "ran out of memory when it asked for 12800000000 bytes, and would again" in reported.sentence
    assert (
        "Lower the recipe's `batch_size` (now 4) and raise `accumulation_steps` (now 1) as much; then `max_length` "
        "(now 64)." in reported.sentence
    )
    assert not Path(asked.output_dir).exists()


@pytest.mark.slow
def test_a_recipe_that_a_library_refuses_is_reported_in_the_librarys_words(tmp_path: Path) -> None:
    reported = run(ADAPTER, adapter_training(tmp_path, lora_targets=("no_such_module",)))
    assert reported.tag == PERMANENT
    assert reported.sentence.startswith("fraud_gold_v1: the training process failed: ")
    assert "not found in the base model. Please check the target modules and try again." in reported.sentence


@pytest.mark.slow
def test_an_adapter_without_its_base_model_is_not_tried_again(tmp_path: Path) -> None:
    asked = adapter_training(tmp_path)
    reported = run(ADAPTER, msgspec.structs.replace(asked, base_model="/no/such/model"))
    assert reported.tag == PERMANENT
    assert "base model '/no/such/model'" in reported.sentence
    assert "`flywheel retry fraud_gold_v1 --application assistant`" in reported.sentence


@pytest.mark.slow
def test_a_row_that_the_chat_template_refuses_is_named_without_its_text(tmp_path: Path) -> None:
    base = world.give_template(world.blank_base(), tmp_path / "base")
    rows = world.rows_of_a_week(1, pairs=24, accepted=6, holdout=4, regression=2)
    secret = "what-a-person-wrote"
    first = rows[ExportSet.TRAIN][0]
    prompt = json.dumps([{"role": "system", "content": secret}, {"role": "user", "content": secret}])
    rows[ExportSet.TRAIN][0] = msgspec.structs.replace(first, prompt=prompt, prompt_format="messages")
    export = world.write_version(tmp_path / "export", rows)
    reported = run(ADAPTER, world.request(export, base, tmp_path, preference_epochs=0.0))
    assert reported.tag == PERMANENT
    assert f"row {first.pair_id} cannot be encoded (template_refused)" in reported.sentence
    assert "only users ask, not system" in reported.sentence
    assert secret not in reported.logged


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_an_adapter_goes_on_when_its_disk_has_room_again(tmp_path: Path, small_disk: MountedDisk) -> None:
    """A checkpoint that is half written is not gone on from; torch's writer has no OSError for a full disk."""
    asked = msgspec.structs.replace(
        adapter_training(tmp_path, checkpoint_every_steps=1),
        output_dir=str(small_disk.folder / "training"),
        work_dir=str(small_disk.folder / "work"),
    )
    small_disk.leave_free(900 * 1024)
    reported = run(ADAPTER, asked)
    assert reported.tag == TRANSIENT
    assert str(small_disk.folder) in reported.sentence
    assert "make room there, then run it again" in reported.sentence
    assert not Path(asked.output_dir).exists()
    small_disk.ballast.unlink()
    assert run(ADAPTER, asked).tag is None


_WRITER = """
import itertools, sys, time
for number in itertools.count():
    with open(sys.argv[1], "w") as file:
        file.write(str(number))
    time.sleep(0.05)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="waits for a process by its state")
def test_a_process_lives_as_long_as_it_leaves_traces_and_is_ended_when_it_stops(tmp_path: Path) -> None:
    """The limit of run time ended a training after six hours, however well it went on."""
    trace = tmp_path / "checkpoint"
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(trace)])
    try:
        with _ending_when_silent(child, tmp_path, 2.0) as was_silent:
            eventually(lambda: trace.exists() and int(trace.read_text() or 0) >= 80, "four seconds of progress")
            assert child.poll() is None
            child.send_signal(signal.SIGSTOP)
            assert child.wait(60) == -signal.SIGKILL
            assert was_silent.is_set()
    finally:
        child.kill()


def test_a_silent_trainer_is_tried_again(export: Path, tmp_path: Path) -> None:
    saboteur = write_saboteur(tmp_path / "trainer")
    saboteur.do("wait")
    reported = run(TRAINER, training(export, tmp_path, saboteur.recipe), longest_silence_s=0.2)
    assert reported.tag == TRANSIENT
    assert "the training process was ended: nothing in" in reported.sentence
    assert "had changed for hours" in reported.sentence


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's prctl")
def test_a_killed_run_takes_its_trainer_along(tmp_path: Path) -> None:
    """The trainer lived on when only its run was killed, and the next attempt began next to it in the same folder."""
    (tmp_path / "sleeper.py").write_text(
        "import os, time\ndef main(_):\n    print(os.getpid(), flush=True)\n    time.sleep(600)\n"
    )
    entry = "[sys.executable, '-m', 'flywheel_assets.defs.piped_entry', 'sleeper', 'request.json', str(os.getpid())]"
    code = f"import os, subprocess, sys; subprocess.run({entry})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout as said:
        trainer = int(said.readline())
        parent.kill()
        assert said.read() == b"", "the trainer holds the other end until it is gone"
    parent.wait()
    eventually(lambda: not is_running(trainer), "the end of the trainer")


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
