"""Trains with a team's own program, and scores with the ONNX model or the scoring command that it wrote.

docs/own_trainer.md is the contract: files and their columns. Nothing of the program is imported here, no shell reads
its words, and what it prints is never passed on: it may quote a user's text.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile, mkdtemp
from typing import IO, Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import MinLen

from flywheel_assets.errors import ProcessDiedError, SettingsError, TrainingError
from flywheel_assets.lake.storage.files import hash_file
from flywheel_assets.models.boosting import check_training_rows
from flywheel_assets.models.model_folder import (
    KIND_FILE,
    RECALIBRATION_FILE,
    copy_model,
    list_model_files,
    refuse_unsafe_files,
)
from flywheel_assets.models.trainer_recipe import RecalibrationMethod, TrainerRecipe
from flywheel_assets.models.trainers.model import FeatureKind, check_scores, derive_kinds, select_features
from flywheel_assets.models.trainers.onnx_model import ONNX_FILE, OnnxModel, save_onnx_kind
from flywheel_assets.ranges import Name, Positive

Floats = npt.NDArray[np.float64]

COMMAND = "command"
"""The kind of model that a scoring command is."""
TRAIN_FILE, REQUEST_FILE, SCORE_FILE = "train.parquet", "request.json", "score.json"
LABEL, WEIGHT, SCORE = "is_positive", "sample_weight", "score"
_GUARD = Path(__file__).with_name("_guard.py")
_ENDING_S = 15.0
"""Longer than the guard needs to end what has left the command's session."""
_STDERR_BYTES = 64 * 1024
_SHOWN_LINES = 12
_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>[\w<>.]+))?')
_RAISED = re.compile(r"(?P<name>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Warning))\b")
_OWN_LINE = "error: "
# Of Python, of torch, of C++, and of the loader of a program that starts with too little.
_MEMORY_WORDS = ("MemoryError", "OutOfMemoryError", "bad_alloc", "annot allocate memory", "failed to map segment")


@dataclass(frozen=True, kw_only=True)
class CommandRecipe(TrainerRecipe):
    """Runs a team's own trainer: a command that reads rows from one folder and writes a model into another."""

    kind: Literal["command"] = "command"
    command: Annotated[tuple[Name, ...], MinLen(1)]
    """Program and arguments; the paths of both folders are added. `python` is the interpreter that runs this."""
    folder: Name = "."
    """Where the command runs and its files lie; `str(Path(__file__).parent / "trainer")` holds on every machine."""
    files: tuple[Name, ...] = ()
    """Files in `folder` that decide the result too; those that `command` names need no mention."""
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Settings of the trainer, handed over in request.json."""
    timeout_s: Positive = 3600.0
    """Of one training."""
    scoring_timeout_s: Positive = 600.0
    """Of one scoring command; it scores all rows of an evaluation at once."""
    seed: int = 0
    """Handed over in request.json."""
    recalibration: RecalibrationMethod = "none"
    """Last step, fitted on out-of-sample scores."""

    def describe(self) -> dict[str, Any]:
        """Return the settings with the hashes of the files instead of the folder that holds them.

        Raises:
            SettingsError: the folder, or a file that `files` names, does not exist.
        """
        described = super().describe()
        described["folder"] = {path.name: hash_file(path) for path in self.find_files()}
        return described

    def find_files(self) -> list[Path]:
        """Find the files of the folder that decide the result.

        Raises:
            SettingsError: the folder, or a file that `files` names, does not exist.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise SettingsError(f"CommandRecipe.folder {folder.absolute()} is no folder; name the trainer's own folder")
        if absent := [name for name in self.files if not (folder / name).is_file()]:
            raise SettingsError(f"CommandRecipe.files names {', '.join(absent)}, which {folder.absolute()} lacks")
        named = (*self.files, *self.command)
        return sorted({folder / name for name in named if (folder / name).is_file()})


class ScoringCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes the content of `score.json`."""

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class _CommandKind(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["command"] = "command"
    features: dict[str, FeatureKind]
    timeout_s: float


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the content of `request.json`."""

    format: int = 1
    features: dict[str, FeatureKind]
    rows: int
    positives: int
    seed: int
    options: dict[str, str | int | float | bool]


@dataclass(frozen=True)
class CommandModel:
    """A folder with a scoring command."""

    folder: Path
    scoring: ScoringCommand
    features: Mapping[str, FeatureKind]
    timeout_s: float
    work_dir: Path | None

    def predict(self, features: pa.Table) -> Floats:
        """Run the scoring command on the rows and read its scores.

        Raises:
            TrainingError: the rows do not fit, or the command fails, takes too long, or gives no valid scores.
            ProcessDiedError: it was killed.
        """
        rows = select_features(features, self.features)
        if not rows.num_rows:
            return np.zeros(0)
        with TemporaryDirectory(prefix="scoring-", dir=self.work_dir) as scratch:
            asked, answered = Path(scratch) / "rows.parquet", Path(scratch) / "scores.parquet"
            pq.write_table(rows, asked)
            run_command(self.scoring.command, (asked, answered), self.folder, self.timeout_s, "the scoring command")
            return _read_scores(answered, rows.num_rows)

    def compute_gains(self) -> Mapping[str, float]:
        """Return nothing: the command says only scores."""
        return {}

    def save(self, folder: Path) -> None:
        """Copy the model's files into `folder`."""
        copy_model(self.folder, folder)


def fit_with_command(
    recipe: CommandRecipe, features: pa.Table, labels: npt.ArrayLike, weights: npt.ArrayLike | None, work_dir: Path
) -> CommandModel | OnnxModel:
    """Run the trainer on weighted rows, and take the model that it wrote.

    Args:
        recipe: names the command.
        features: one column per feature.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: how many rows each one stands for.
        work_dir: the model's files lie in a new folder there.

    Raises:
        TrainingError: the rows cannot be trained on; or the command fails, takes too long, or writes no model.
        SettingsError: the trainer's folder does not exist, or onnxruntime is needed and not installed.
        ProcessDiedError: the command was killed.
    """
    targets = np.asarray(labels, dtype=np.float64)
    row_weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    check_training_rows(features.num_rows, targets, row_weights)
    kinds = derive_kinds(features)
    if taken := {LABEL, WEIGHT} & set(kinds):
        raise TrainingError(f"feature {taken.pop()!r} has the name of a column of {TRAIN_FILE}; rename it")
    recipe.find_files()
    result = Path(mkdtemp(prefix="model-", dir=work_dir))
    try:
        with TemporaryDirectory(prefix="export-", dir=work_dir) as export:
            rows = select_features(features, kinds)
            rows = rows.append_column(LABEL, pa.array(targets == 1)).append_column(WEIGHT, pa.array(row_weights))
            pq.write_table(rows, Path(export) / TRAIN_FILE)
            request = _Request(
                features=kinds,
                rows=rows.num_rows,
                positives=int(targets.sum()),
                seed=recipe.seed,
                options=dict(recipe.options),
            )
            (Path(export) / REQUEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(request)))
            folders = (Path(export).absolute(), result.absolute())
            run_command(recipe.command, folders, Path(recipe.folder), recipe.timeout_s, "the trainer")
        return _take_model(result, kinds, recipe, work_dir)
    except BaseException:
        shutil.rmtree(result, ignore_errors=True)
        raise


def load_command_model(folder: Path, work_dir: Path | None) -> CommandModel:
    """Load a folder with a scoring command.

    Raises:
        TrainingError: `model.json` or `score.json` is not what it should be.
    """
    try:
        kind = msgspec.json.decode((folder / KIND_FILE).read_bytes(), type=_CommandKind)
    except msgspec.DecodeError as unreadable:
        raise TrainingError(f"{folder / KIND_FILE} is unreadable: {unreadable}; train the version again") from None
    return CommandModel(folder, _read_scoring_command(folder), kind.features, kind.timeout_s, work_dir)


def run_command(command: Sequence[str], arguments: Sequence[Path], folder: Path, timeout_s: float, who: str) -> None:
    """Run a command in `folder` without a shell, and wait for it.

    It and the processes that it started end at the time limit, and within seconds when this process is killed
    (`_guard`).

    Args:
        command: program and arguments.
        arguments: paths, added as the last words.
        folder: the working directory.
        timeout_s: the limit.
        who: the command's name in a message.

    Raises:
        TrainingError: it cannot be started, failed, or took longer; the message has the safe part of its last lines.
        ProcessDiedError: it was killed by a signal.
    """
    program, *words = command
    # Bytecode of a scoring command would change a model's folder.
    started = [sys.executable, "-B"] if program == "python" else [program]
    line = " ".join(command)
    with TemporaryFile() as stderr, _pipe() as (alive, living), _pipe() as (status, reporting):
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(alive.fileno()), str(reporting.fileno())]
        try:
            child = subprocess.Popen(
                [*guard, *started, *words, *map(str, arguments)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(alive.fileno(), reporting.fileno()),
            )
        except OSError as refused:
            raise _refuse_start(who, line, refused.strerror, refused.filename) from None
        reporting.close()
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TrainingError(
                f"{who} `{line}` was ended after {timeout_s:g} s.{_describe_tail(stderr)} Make it faster, or raise the "
                "recipe's time limit"
            ) from None
        finally:
            if child.returncode is None:
                living.close()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_ENDING_S)
            if child.returncode is None or child.returncode < 0:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if refusal := status.read().decode():
            raise _refuse_start(who, line, refusal.partition(" ")[2], program)
        if code < 0:
            raise ProcessDiedError(
                f"{who} `{line}` was killed by {signal.Signals(-code).name}, perhaps for memory; it is safe to run "
                "again"
            )
        if code and _is_memory_short(stderr):
            raise TrainingError(
                f"{who} `{line}` ran out of memory (exit code {code}), and would again.{_describe_tail(stderr)} Give "
                "it more memory, or let it read fewer rows at a time."
            )
        if code:
            raise TrainingError(f"{who} `{line}` failed with exit code {code}.{_describe_tail(stderr)}")


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a pipe; yield its reading and its writing end."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        yield reader, writer


def _refuse_start(who: str, line: str, why: str | None, what: str | None) -> TrainingError:
    return TrainingError(
        f"{who} `{line}` cannot be started: {why} ({what}); name a program of this machine, `python` for the "
        "interpreter that runs the flywheel"
    )


def _take_model(
    result: Path, kinds: dict[str, FeatureKind], recipe: CommandRecipe, work_dir: Path
) -> CommandModel | OnnxModel:
    written = [path.relative_to(result).as_posix() for path in list_model_files(result)]
    if reserved := {KIND_FILE, RECALIBRATION_FILE} & set(written):
        raise TrainingError(f"the trainer wrote {reserved.pop()}, a name that is ours; give the file another name")
    refuse_unsafe_files(result)
    if ONNX_FILE in written:
        save_onnx_kind(result, kinds)
        return OnnxModel(result, kinds)
    if SCORE_FILE not in written:
        raise TrainingError(
            f"the trainer ended well, but wrote neither {ONNX_FILE} nor {SCORE_FILE} into its second argument; it "
            f"wrote {', '.join(written) or 'nothing'}"
        )
    scoring = _read_scoring_command(result)
    (result / KIND_FILE).write_bytes(
        msgspec.json.encode(_CommandKind(features=kinds, timeout_s=recipe.scoring_timeout_s))
    )
    return CommandModel(result, scoring, kinds, recipe.scoring_timeout_s, work_dir)


def _read_scoring_command(folder: Path) -> ScoringCommand:
    path = folder / SCORE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ScoringCommand)
    except FileNotFoundError:
        raise TrainingError(f"{folder} holds no {SCORE_FILE}; train the version again") from None
    except msgspec.DecodeError as unreadable:
        raise TrainingError(
            f'{SCORE_FILE} is not {{"command": ["python", "score.py"]}}: {unreadable}; correct what the trainer writes'
        ) from None


def _read_scores(path: Path, rows: int) -> Floats:
    who = "the scoring command"
    if not path.is_file():
        raise TrainingError(f"{who} ended well, but did not write its second argument, {path.name}")
    try:
        table = pq.read_table(path)
    except pa.ArrowException:
        raise TrainingError(f"{who} wrote {path.name} in another format than Parquet") from None
    if SCORE not in table.column_names:
        raise TrainingError(f"{who} wrote the columns {', '.join(table.column_names) or 'none'}; needs {SCORE!r}")
    return check_scores(table[SCORE].to_numpy(), rows, who)


def _is_memory_short(stderr: IO[bytes]) -> bool:
    return any(word in _read_tail(stderr) for word in _MEMORY_WORDS)


def _describe_tail(stderr: IO[bytes]) -> str:
    """Describe the last lines of a command's errors, without any user's text.

    Kept are the places of a Python traceback, the names of exceptions without their messages, and whole lines that
    begin with `error: `, which the trainer's author wrote for this.
    """
    shown = []
    for line in _read_tail(stderr).splitlines():
        if line.startswith(_OWN_LINE):
            shown.append(line.removeprefix(_OWN_LINE).strip())
        elif place := _FRAME.match(line):
            function = f" in {place['function']}" if place["function"] else ""
            shown.append(f"{Path(place['file']).name}, line {place['line']}{function}")
        elif raised := _RAISED.match(line):
            shown.append(raised["name"])
    if not shown:
        return " It said nothing that can be repeated here: lines of standard error that begin with `error: ` are."
    return f" Its last words: {'; '.join(shown[-_SHOWN_LINES:])}."


def _read_tail(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_BYTES))
    return stderr.read().decode(errors="replace")
