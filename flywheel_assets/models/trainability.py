"""Finds the rows of a version that the base model's tokenizer cannot encode, in a process of its own.

Model libraries cost a second and some hundred megabytes that a code location must not pay, and a chat template is a
program that may hang. Every failure of the process fails the cut, which can be tried again; no row is let in unread.
"""

import logging
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, Self

import msgspec

from flywheel_assets.errors import ProcessDiedError, SettingsError
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet
from flywheel_assets.lake.versions.trainability import Untrainable
from flywheel_assets.models.base_model import PLAIN_TURNS, SET_A_TEMPLATE, fingerprint_tokenizer
from flywheel_assets.models.generation import require_train_extra
from flywheel_assets.models.rendering import Rendering
from flywheel_assets.records import PromptFormat

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 1024


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Tells the process which tokenizer to load, and how rows are rendered."""

    base_model: str
    rendering: Rendering


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the refused rows of one batch, or why there is no answer at all."""

    refused: list[tuple[int, str, str]] = []
    """(place in the batch, reason, sentence)"""
    error: str | None = None
    has_template: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainabilityCheck:
    """Asks the base model's tokenizer about every row of a version that is being cut."""

    base_model: str
    """Path or hub id."""
    rendering: Rendering
    timeout_s: float = 600.0
    """Of one batch; the first one includes loading the tokenizer."""

    @property
    def judged_by(self) -> dict[str, Any]:
        """The tokenizer and the settings that decide which rows are refused, as JSON values; no path."""
        return {
            "tokenizer_sha256": fingerprint_tokenizer(self.base_model),
            "rendering": msgspec.to_builtins(self.rendering),
        }

    def __call__(self, rows: Iterable[tuple[ExportSet, ExportedRow]]) -> Iterator[Untrainable]:
        """Yield each row that cannot be encoded, with its reason.

        Raises:
            SettingsError: the extra `train` is not installed, or the base model has no tokenizer.
            ProcessDiedError: the process ended, or gave no answer in time; to cut again is safe.
        """
        require_train_extra("cutting a version for a language model", only=("tokenizers", "transformers"))
        with _Process(self.timeout_s) as process:
            ready = process.ask(msgspec.json.encode(Question(base_model=self.base_model, rendering=self.rendering)))
            remaining, conversations = iter(rows), 0
            while batch := list(islice(remaining, ROWS_AT_ONCE)):
                conversations += sum(row.prompt_format == PromptFormat.MESSAGES for _, row in batch)
                answer = process.ask(msgspec.json.encode([row for _, row in batch]))
                for place, reason, sentence in answer.refused:
                    which, row = batch[place]
                    yield Untrainable(which, row.pair_id, reason, sentence)
        if conversations and not ready.has_template:
            log.warning(
                f"the prompts of {conversations:,} rows are messages, and the base model's tokenizer has no chat "
                f"template: {PLAIN_TURNS}. {SET_A_TEMPLATE}"
            )


class _Process:
    """A running `trainability_process`, asked one line of JSON at a time."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._child = subprocess.Popen(
            [sys.executable, "-m", "flywheel_assets.models.trainability_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._exchanges = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        self._exchanges.shutdown()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def ask(self, line: bytes) -> Answer:
        """Send one line and read its answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        # A process that hangs reads nothing either: also the writing is waited for no longer than the limit.
        exchange = self._exchanges.submit(_exchange, self._child.stdin, self._child.stdout, line)
        try:
            answered = exchange.result(self._timeout_s)
        except FutureTimeoutError:
            raise ProcessDiedError(
                f"the tokenizer's process gave no answer within {self._timeout_s:g} s, so no version was cut; cut it "
                "again. If it hangs again, the base model's chat template does."
            ) from None
        except OSError:
            answered = b""
        try:
            answer = msgspec.json.decode(answered, type=Answer)
        except msgspec.DecodeError:
            raise ProcessDiedError(
                "the tokenizer's process ended without an answer, so no version was cut; cut it again (it may have had "
                "too little memory)"
            ) from None
        if answer.error is not None:
            raise SettingsError(answer.error)
        return answer


def _exchange(to: IO[bytes], back: IO[bytes], line: bytes) -> bytes:
    to.write(line + b"\n")
    to.flush()
    return back.readline()
