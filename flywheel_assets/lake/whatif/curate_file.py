"""Curates a file of edits through the same edit gate as the lake, without Dagster (`flywheel curate`).

A line is an edit, {"prompt", "original_llm_output", "final_user_edit"}, or a choice between two answers, {"prompt",
"chosen", "rejected"}. The prompt may be a list of messages, each answer an assistant message or a list of one; `tools`
belong to the prompt, other keys are ignored, `do_not_train` is honoured. Kept lines are written as {"prompt", "chosen",
"rejected"}, with `tools`, and with a message where a text does not say everything.

Lines with one `id` are revisions of one statement, as they are when the file is imported: the highest `revision`
counts, of equal ones the last line. A line {"retracts": id} takes back what stands above it under that id. Lines
without an id each say something of their own: the file names no people whose statements could be weighed.

The file is read twice, in chunks of bounded size: once for the ids, once for the texts. Both rules and the removal of
equal pairs hold for the whole file; rules that compare many texts (the same text on many requests) hold within a chunk.
What stays in memory are 16 bytes per kept line and about 200 per id.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.conversations import (
    FiledAnswer,
    Prompt,
    Tools,
    encode_answer,
    encode_prompt,
    encode_tools,
    find_answer_problem,
    find_role_problem,
    find_tools_problem,
)
from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.lake.storage.files import make_hidden_path, sync_folder
from flywheel_assets.records import JOINED_FEEDBACK, ExampleKind, PromptFormat, Reason, Signal, SubjectKind

CHUNK_LINES = 16_384
CHUNK_BYTES = 64 * 2**20
LONGEST_LINE_BYTES = 32 * 2**20
MOST_COMPLAINTS = 100

_LAST_LINE = 10**12
_NO_LINE = (-(2**63), 0)
"""A revision that every line is newer than."""
_PAIR_KINDS = [ExampleKind.PREFERENCE_PAIR.value, ExampleKind.COMPARISON.value]


@dataclass(frozen=True)
class FileResult:
    """Counts the kept and the dropped lines of a file; blank lines do not count."""

    kept: int
    dropped: dict[str, int]
    """Lines by reason code; with `kept` it accounts for every line."""
    malformed: tuple[tuple[int, str], ...]
    """Line number (from 1) and complaint of the first `MOST_COMPLAINTS` lines that could not be read."""


class _Line(msgspec.Struct):
    prompt: Prompt | None = None
    original_llm_output: FiledAnswer | None = None
    final_user_edit: FiledAnswer | None = None
    chosen: FiledAnswer | None = None
    rejected: FiledAnswer | None = None
    tools: Tools | None = None
    do_not_train: bool | None = None
    id: Any = None
    revision: Any = None
    retracts: Any = None


class _UnreadableLineError(Exception):
    """Says why one line is no edit."""


_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def curate_file(path: Path, out: Path, rules: GateRules) -> FileResult:
    """Pass the edits in `path` through the edit gate and replace `out` by the kept ones, in one atomic rename.

    Of lines with the same normalized prompt and chosen text the first is kept. A line that cannot be read is counted
    as `malformed_event`; the others are not affected. An older revision is `superseded`, also by one that the gate
    refuses; a retracted line is `withdrawn`, and the line that retracts it a `statement`.
    """
    kept, dropped, malformed = 0, Counter[str](), list[tuple[int, str]]()
    seen: set[bytes] = set()
    out.parent.mkdir(parents=True, exist_ok=True)
    building = make_hidden_path(out)
    try:
        with _open_twice(path, out.parent) as lines, open(building, "wb") as file:
            outdated = _find_outdated(lines)
            lines.seek(0)
            for chunk in _read_chunks(lines):
                current = [(number, line) for number, line in chunk if number not in outdated]
                dropped.update(outdated[number].value for number, _ in chunk if number in outdated)
                rows, complaints = _decode_chunk(current)
                dropped[Reason.MALFORMED_EVENT.value] += len(complaints)
                malformed += complaints[: MOST_COMPLAINTS - len(malformed)]
                curated = curate(pa.Table.from_pylist(rows, schema=JOINED_FEEDBACK), "file", rules)
                dropped.update(curated.counts)
                # Gold holds refused rows as statements too; `counts` says why.
                pairs = curated.kept.filter(pc.is_in(curated.kept["example_kind"], pa.array(_PAIR_KINDS)))
                written = _write_new(file, pairs, seen)
                kept += written
                dropped[Reason.DUPLICATE.value] += pairs.num_rows - written
            file.flush()
            os.fsync(file.fileno())
        os.replace(building, out)
        sync_folder(out.parent)
    finally:
        building.unlink(missing_ok=True)
    return FileResult(kept, {reason: count for reason, count in sorted(dropped.items()) if count}, tuple(malformed))


@contextmanager
def _open_twice(path: Path, scratch: Path) -> Iterator[BinaryIO]:
    """Open a file so that it can be read twice: a pipe is copied to a nameless file in `scratch`."""
    with open(path, "rb") as given:
        if given.seekable():
            yield given
            return
        with tempfile.TemporaryFile(dir=scratch) as copy:
            shutil.copyfileobj(given, copy)
            copy.seek(0)
            yield copy


def _find_outdated(lines: BinaryIO) -> dict[int, Reason]:
    """Return the numbers of the lines that do not count, with why: older revisions, retracted and retracting ones."""
    newest: dict[bytes, tuple[int, int]] = {}
    outdated: dict[int, Reason] = {}
    for chunk in _read_chunks(lines):
        for number, line in chunk:
            try:
                found = _decode_line(line)
            except _UnreadableLineError:
                continue
            if found.retracts is not None:
                outdated[number] = Reason.STATEMENT
                retracted = newest.pop(_hash_id(found.retracts), None)
                if retracted is not None:
                    outdated[retracted[1]] = Reason.WITHDRAWN
            elif found.id is not None:
                key = _hash_id(found.id)
                revision = found.revision if isinstance(found.revision, int) else 0
                older, newest[key] = sorted([(revision, number), newest.get(key, _NO_LINE)])
                if older is not _NO_LINE:
                    outdated[older[1]] = Reason.SUPERSEDED
    return outdated


def _hash_id(given: Any) -> bytes:
    return blake2b(_encoder.encode(given), digest_size=16).digest()


def _read_chunks(lines: BinaryIO) -> Iterator[list[tuple[int, bytes | None]]]:
    """Read numbered lines, at most `CHUNK_LINES` or about `CHUNK_BYTES` together; None stands for one too long."""
    chunk: list[tuple[int, bytes | None]] = []
    size = number = 0
    while line := lines.readline(LONGEST_LINE_BYTES):
        number += 1
        content: bytes | None = line
        if len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
            content = None
            while (rest := lines.readline(LONGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        if content is None or content.strip():
            chunk.append((number, content))
            size += len(content or b"")
        if len(chunk) == CHUNK_LINES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _decode_chunk(chunk: list[tuple[int, bytes | None]]) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    rows, complaints = [], []
    for number, line in chunk:
        try:
            rows.append(_build_joined_row(number, line))
        except _UnreadableLineError as error:
            complaints.append((number, str(error)))
    return rows, complaints


def _decode_line(line: bytes | None) -> _Line:
    if line is None:
        raise _UnreadableLineError(f"longer than {LONGEST_LINE_BYTES // 2**20} MiB")
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _UnreadableLineError(f"not a JSON object with a prompt and two texts: {error}") from None
    if found.retracts is None:
        _check_line(found)
    return found


def _build_joined_row(number: int, line: bytes | None) -> dict[str, Any]:
    edit = _decode_line(line)
    signal, chosen, rejected = _read_texts(edit)
    assert edit.prompt is not None
    prompt, prompt_format = encode_prompt(edit.prompt)
    output, output_message = encode_answer(rejected)
    final_text, final_message = encode_answer(chosen)
    return {
        **_UNKNOWN,
        # Descending ids: of equal duplicates the edit gate keeps the highest id, which makes it the first line.
        "feedback_event_id": f"{_LAST_LINE - number:013d}",
        "statement_id": f"{_LAST_LINE - number:013d}",
        "signal": signal.value,
        "prediction_id": str(number),
        "subject": str(number),
        "do_not_train": bool(edit.do_not_train),
        "prompt": prompt,
        "prompt_format": prompt_format.value,
        "output": output,
        "output_message": output_message,
        "final_text": final_text,
        "final_message": final_message,
        "tools": encode_tools(edit.tools),
    }


def _read_texts(line: _Line) -> tuple[Signal, FiledAnswer, FiledAnswer]:
    """Return a line's signal, its chosen and its rejected text."""
    if line.original_llm_output is not None and line.final_user_edit is not None:
        return Signal.EDIT, line.final_user_edit, line.original_llm_output
    if line.chosen is not None and line.rejected is not None:
        return Signal.CHOICE, line.chosen, line.rejected
    raise _UnreadableLineError("needs original_llm_output and final_user_edit, or chosen and rejected")


def _check_line(line: _Line) -> None:
    if line.prompt is None:
        raise _UnreadableLineError("needs a prompt, or `retracts` with the id of a line above")
    _, chosen, rejected = _read_texts(line)
    problems = [
        find_role_problem(line.prompt) if isinstance(line.prompt, list) else None,
        find_answer_problem(chosen),
        find_answer_problem(rejected),
        find_tools_problem(line.tools or []),
    ]
    for name, problem in zip(("prompt", "the chosen text", "the rejected text", "tools"), problems, strict=True):
        if problem is not None:
            raise _UnreadableLineError(f"{name}: {problem}")


# The columns that a line does not give. The lake's columns need a time; nothing here depends on it.
_EPOCH = datetime.fromtimestamp(0, UTC)
_UNKNOWN = {
    "completed_date": _EPOCH.date(),
    "feedback_received_date": _EPOCH.date(),
    "feedback_received_at": _EPOCH,
    "occurred_at": _EPOCH,
    "source": "file",
    "subject_kind": SubjectKind.PROMPT.value,
    "sampling_probability": 1.0,
}


_WRITTEN = [
    *("prompt", "prompt_format", "chosen", "rejected", "content_hash"),
    *("tools", "chosen_message", "rejected_message"),
]


def _embed(stored: str | None) -> msgspec.Raw | None:
    """Return stored JSON as it is, to be a part of a line."""
    return None if stored is None else msgspec.Raw(stored.encode())


def _write_new(file: BinaryIO, kept: pa.Table, seen: set[bytes]) -> int:
    """Write the rows whose content no earlier chunk had; return their number."""
    written = 0
    for row in kept.select(_WRITTEN).to_pylist():
        key = bytes.fromhex(row["content_hash"])
        if key in seen:
            continue
        seen.add(key)
        pair = {
            "prompt": row["prompt"] if row["prompt_format"] == PromptFormat.TEXT else _embed(row["prompt"]),
            "chosen": _embed(row["chosen_message"]) or row["chosen"],
            "rejected": _embed(row["rejected_message"]) or row["rejected"],
        }
        if row["tools"] is not None:
            pair["tools"] = _embed(row["tools"])
        file.write(_encoder.encode(pair) + b"\n")
        written += 1
    return written
