"""Curates a file of edits through the same edit gate as the lake, without Dagster (`flywheel curate`).

A line is {"prompt", "original_llm_output", "final_user_edit"} or {"prompt", "chosen", "rejected"}; the prompt may be a
list of messages, other keys are ignored, `do_not_train` is honoured. Kept lines are written as {"prompt", "chosen",
"rejected"}. The file is read in chunks of bounded size; of the whole file only 16 bytes per kept line stay in memory.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.lake.storage.files import make_hidden_path, sync_folder
from flywheel_assets.records import JOINED_FEEDBACK, PromptFormat, Reason, Signal, SubjectKind

CHUNK_LINES = 16_384
CHUNK_BYTES = 64 * 2**20
LONGEST_LINE_BYTES = 32 * 2**20
MOST_COMPLAINTS = 100

_LAST_LINE = 10**12


@dataclass(frozen=True)
class FileResult:
    """Counts the kept and the dropped lines of a file; blank lines do not count."""

    kept: int
    dropped: dict[str, int]
    """Lines by reason code; with `kept` it accounts for every line."""
    malformed: tuple[tuple[int, str], ...]
    """Line number (from 1) and complaint of the first `MOST_COMPLAINTS` lines that could not be read."""


class _Line(msgspec.Struct):
    prompt: str | list[dict[str, Any]]
    original_llm_output: str | None = None
    final_user_edit: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    do_not_train: bool | None = None


class _UnreadableLineError(Exception):
    """Says why one line is no edit."""


_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def curate_file(path: Path, out: Path, rules: GateRules) -> FileResult:
    """Pass the edits in `path` through the edit gate and replace `out` by the kept ones, in one atomic rename.

    Of lines with the same normalized prompt and chosen text the first is kept. A line that cannot be read is counted
    as `malformed_event`; the others are not affected.
    """
    kept, dropped, malformed = 0, Counter[str](), list[tuple[int, str]]()
    seen: set[bytes] = set()
    out.parent.mkdir(parents=True, exist_ok=True)
    building = make_hidden_path(out)
    try:
        with open(path, "rb") as lines, open(building, "wb") as file:
            for chunk in _read_chunks(lines):
                rows, complaints = _decode_chunk(chunk)
                dropped[Reason.MALFORMED_EVENT.value] += len(complaints)
                malformed += complaints[: MOST_COMPLAINTS - len(malformed)]
                curated = curate(pa.Table.from_pylist(rows, schema=JOINED_FEEDBACK), "file", rules)
                dropped.update(curated.counts)
                written = _write_new(file, curated.kept, seen)
                kept += written
                dropped[Reason.DUPLICATE.value] += curated.kept.num_rows - written
            file.flush()
            os.fsync(file.fileno())
        os.replace(building, out)
        sync_folder(out.parent)
    finally:
        building.unlink(missing_ok=True)
    return FileResult(kept, {reason: count for reason, count in sorted(dropped.items()) if count}, tuple(malformed))


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


def _build_joined_row(number: int, line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise _UnreadableLineError(f"longer than {LONGEST_LINE_BYTES // 2**20} MiB")
    try:
        edit = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _UnreadableLineError(f"not a JSON object with a prompt and two texts: {error}") from None
    if edit.original_llm_output is not None and edit.final_user_edit is not None:
        rejected, chosen = edit.original_llm_output, edit.final_user_edit
    elif edit.chosen is not None and edit.rejected is not None:
        rejected, chosen = edit.rejected, edit.chosen
    else:
        raise _UnreadableLineError("needs original_llm_output and final_user_edit, or chosen and rejected")
    is_text = isinstance(edit.prompt, str)
    return {
        **_UNKNOWN,
        # Descending ids: of equal duplicates the edit gate keeps the highest id, which makes it the first line.
        "feedback_event_id": f"{_LAST_LINE - number:013d}",
        "prediction_id": str(number),
        "subject": str(number),
        "do_not_train": bool(edit.do_not_train),
        "prompt": edit.prompt if is_text else _encoder.encode(edit.prompt).decode(),
        "prompt_format": (PromptFormat.TEXT if is_text else PromptFormat.MESSAGES).value,
        "output": rejected,
        "final_text": chosen,
    }


# The columns that a line does not give. The lake's columns need a time; nothing here depends on it.
_EPOCH = datetime.fromtimestamp(0, UTC)
_UNKNOWN = {
    "completed_date": _EPOCH.date(),
    "feedback_received_date": _EPOCH.date(),
    "feedback_received_at": _EPOCH,
    "occurred_at": _EPOCH,
    "signal": Signal.EDIT.value,
    "source": "file",
    "subject_kind": SubjectKind.PROMPT.value,
    "sampling_probability": 1.0,
}


def _write_new(file: BinaryIO, kept: pa.Table, seen: set[bytes]) -> int:
    """Write the rows whose content no earlier chunk had; return their number."""
    written = 0
    columns = [kept[name].to_pylist() for name in ("prompt", "prompt_format", "chosen", "rejected", "content_hash")]
    for prompt, prompt_format, chosen, rejected, content_hash in zip(*columns, strict=True):
        key = bytes.fromhex(content_hash)
        if key in seen:
            continue
        seen.add(key)
        value = prompt if prompt_format == PromptFormat.TEXT else msgspec.Raw(prompt.encode())
        file.write(_encoder.encode({"prompt": value, "chosen": chosen, "rejected": rejected}) + b"\n")
        written += 1
    return written
