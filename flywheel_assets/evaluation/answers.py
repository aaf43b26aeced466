"""Keeps the answers that an evaluation has written so far, so that a killed one goes on from them.

    <work_dir>/answers.jsonl   first line {"request": digest}, then one answer a line: {"key", "text", "ended"}

A key names model, row and sample. The digest names everything else that decides an answer; a file of another request
is thrown away. Lines are appended batch by batch and are on disk before the next batch begins. The last line may be
torn: it is cut off, and what it held is written again. The file holds what models wrote, which may repeat people's
texts; it is deleted with the result's appearance, by an erasure, and a day after its last write.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from flywheel_assets.records import make_stable_id

ANSWERS_FILE = "answers.jsonl"


class Answer(msgspec.Struct, frozen=True):
    """One answer as it is compared: without what the template writes before it and without reasoning."""

    text: str
    ended: bool
    """False where it had to be cut off."""


class _Header(msgspec.Struct, frozen=True):
    request: str


class _Line(msgspec.Struct, frozen=True):
    key: str
    text: str
    ended: bool


def make_answer_key(model: str | None, pair_id: str, sample: int | None) -> str:
    """Name one answer.

    Args:
        model: digest of the adapter's weights; None: the base.
        pair_id: of the row.
        sample: number of the sampled answer; None: the most likely one.
    """
    return make_stable_id("answer", model, pair_id, sample)


class AnswerFile:
    """The answers of one request; one process at a time may have it open."""

    def __init__(self, path: Path, request: str) -> None:
        self._path = path
        self.answers: dict[str, Answer] = {}
        whole = self._read(request) if path.exists() else 0
        if not whole:
            path.write_bytes(msgspec.json.encode(_Header(request)) + b"\n")
        elif whole < path.stat().st_size:
            os.truncate(path, whole)
        self.taken_over = len(self.answers)

    def append(self, answers: Mapping[str, Answer]) -> None:
        """Add answers that are not there yet; they are on disk when this returns."""
        new = {key: answer for key, answer in answers.items() if key not in self.answers}
        lines = (msgspec.json.encode(_Line(key, each.text, each.ended)) + b"\n" for key, each in new.items())
        with open(self._path, "ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        self.answers |= new

    def delete(self) -> None:
        """Delete the file: the result holds what is wanted of it."""
        self._path.unlink(missing_ok=True)

    def _read(self, request: str) -> int:
        """Read the answers of this request; return the bytes of the lines that are whole, 0 for another request."""
        content = self._path.read_bytes()
        header, *lines = content.splitlines(keepends=True) or [b""]
        try:
            if not header.endswith(b"\n") or msgspec.json.decode(header, type=_Header).request != request:
                return 0
        except msgspec.DecodeError:
            return 0
        whole = len(header)
        for line in lines:
            try:
                found = msgspec.json.decode(line if line.endswith(b"\n") else b"", type=_Line)
            except msgspec.DecodeError:
                break
            self.answers[found.key] = Answer(found.text, found.ended)
            whole += len(line)
        return whole
