"""Runs a model in a process of its own, asked one JSON line of texts at a time.

Model libraries cost seconds and gigabytes that a code location must not pay, and a crash in them must not take a run
along.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Generic, TypeVar

import msgspec

from flywheel_assets.errors import SettingsError
from flywheel_assets.models.generation import require_train_extra

Result = TypeVar("Result")


class WorkerError(Exception):
    """The process gave no answer; the message holds no user text."""


class Worker(Generic[Result]):
    """A running module that answers each line of texts by a line `{"results": […]}` or `{"error": …}`."""

    def __init__(self, module: str, arguments: list[str], result: type[Result]) -> None:
        class Answer(msgspec.Struct):
            results: list[result] = []  # type: ignore[valid-type]
            error: str | None = None

        self._answer = Answer
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._reader = ThreadPoolExecutor(1)

    def ask(self, texts: list[str], timeout_s: float) -> list[Result]:
        """Get one result for every text.

        Raises:
            WorkerError: the process ended, was too slow, or answered something else. Its state is unknown: end it.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(msgspec.json.encode(texts) + b"\n")
            self._child.stdin.flush()
            line = self._read_line(self._child.stdout).result(timeout_s)
        except FutureTimeoutError:
            raise WorkerError(f"no answer within {timeout_s:g} s") from None
        except OSError:
            raise WorkerError("its process ended") from None
        try:
            answer = msgspec.json.decode(line, type=self._answer)
        except msgspec.DecodeError:
            raise WorkerError("its process ended" if not line else "its process spoke no JSON") from None
        if answer.error is not None:
            raise WorkerError(answer.error)
        if len(answer.results) != len(texts):
            raise WorkerError(f"gave {len(answer.results)} scores for {len(texts)} texts")
        return answer.results

    def end(self) -> None:
        """Kill the process and collect its exit status."""
        self._child.kill()
        self._child.wait()
        self._reader.shutdown()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _read_line(self, stream: IO[bytes]) -> "Future[bytes]":
        return self._reader.submit(stream.readline)


@dataclass
class KeptWorker(Generic[Result]):
    """Starts a module over a model's folder at the first use, and keeps it until it fails; safe between threads."""

    module: str
    folder: Path
    arguments: list[str]
    """Behind the folder on the module's command line."""
    result: type[Result]
    what: str
    """Names what stands in the folder, for the message of an empty one."""
    work: str
    """Names what needs the model libraries, for the message where they are missing."""
    _running: list[Worker[Result]] = field(default_factory=list, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @contextmanager
    def open(self) -> Iterator[Worker[Result]]:
        """Yield the running process, one caller at a time; a failure ends it, and the next caller starts another.

        Raises:
            WorkerError: the folder holds no model, or the model libraries are not installed.
        """
        with self._lock:
            if not self._running:
                if not (self.folder / "config.json").is_file():
                    raise WorkerError(f"there is no config.json in the {self.what}'s folder")
                try:
                    require_train_extra(self.work)
                except SettingsError as error:
                    raise WorkerError(str(error)) from None
                self._running.append(Worker(self.module, [str(self.folder), *self.arguments], self.result))
            try:
                yield self._running[0]
            except WorkerError:
                # In an unknown state: an answer that comes too late would be taken for the next one's.
                self._running.pop().end()
                raise

    def close(self) -> None:
        """End the process, if one runs."""
        with self._lock:
            while self._running:
                self._running.pop().end()
