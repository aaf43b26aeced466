"""Runs a model in a process of its own, asked one JSON line of texts at a time.

Model libraries cost seconds and gigabytes that a code location must not pay, and a crash in them must not take a run
along.
"""

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import IO, Generic, TypeVar

import msgspec

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
