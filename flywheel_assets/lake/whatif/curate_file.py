"""Curates pairs in files through the same edit gate as the lake, without Dagster (`flywheel curate`).

A record is whatever a format turns into events (`formats.conversion`): an edit, a choice between two answers, or a
prediction with its correction. Kept pairs are written as {"prompt", "chosen", "rejected"}, with `tools`, and with a
message where a text does not say everything. `do_not_train` is honoured. Records without a pair, for instance thumbs,
are counted as `not_trainable_signal`.

Records with one `id` are revisions of one statement, as they are when the file is imported: the highest `revision`
counts, of equal ones the last. A line {"retracts": id} takes back what stands above it under that id. Records without
an id each say something of their own: the file names no people whose statements could be weighed.

The files are read twice, in chunks of bounded size: once for the ids, once for the texts. Both rules and the removal of
equal pairs hold for all files together; rules that compare many texts (the same text on many requests) hold within a
chunk. What stays in memory are 16 bytes per kept pair and about 200 per id.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.conversations import encode_answer, encode_prompt, encode_tools
from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.catalog import AUTO
from flywheel_assets.formats.causes import Cause, Causes
from flywheel_assets.formats.conversion import SAMPLE_RECORDS, FieldMap, choose_conversion, is_record
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable
from flywheel_assets.formats.reading.opening import open_reading
from flywheel_assets.formats.reading.sources import Source
from flywheel_assets.lake.storage.files import make_hidden_path, sync_folder
from flywheel_assets.lake.whatif._pairs import Pair, Retraction, find_statements
from flywheel_assets.records import JOINED_FEEDBACK, ExampleKind, PromptFormat, Reason, SubjectKind

CHUNK_RECORDS = 16_384
CHUNK_BYTES = 64 * 2**20
LONGEST_RECORD_BYTES = 32 * 2**20

_LAST_NUMBER = 10**12
_NO_NUMBER = (-(2**63), 0)
"""A revision that every record is newer than."""
_PAIR_KINDS = [ExampleKind.PREFERENCE_PAIR.value, ExampleKind.COMPARISON.value]


@dataclass(frozen=True, kw_only=True)
class CuratePlan:
    """Holds what a person has said about the files."""

    format: str = AUTO
    mapping: FieldMap | None = None
    reading: ReadingOptions = field(default_factory=lambda: ReadingOptions(longest_bytes=LONGEST_RECORD_BYTES))
    allows_empty: bool = False
    """Whether an existing output is replaced although no pair was kept."""


@dataclass(frozen=True)
class FileResult:
    """Counts the kept and the dropped pairs of files; blank lines do not count."""

    kept: int
    dropped: dict[str, int]
    """Pairs by reason code, and records without one; with `kept` it accounts for every record."""
    causes: tuple[Cause, ...] = ()
    """Why records could not be read."""
    is_written: bool = True
    exit_code: int = 0
    """0: every record could be read; 1: no pair was kept; 3: some records could not be read."""


@dataclass
class _Numbered:
    """Holds what one record says, or why it cannot be read; numbers count over all files, from 1."""

    number: int
    size_bytes: int
    statements: Sequence[Pair | Retraction] = ()
    problem: str | None = None
    file: str = ""
    unit: str = ""
    place: int = 0


_encoder = msgspec.json.Encoder()


def curate_files(sources: Sequence[Source], out: Path, rules: GateRules, plan: CuratePlan | None = None) -> FileResult:
    """Pass the pairs in the sources through the edit gate, and replace `out` by the kept ones.

    One atomic rename replaces it. Of pairs with the same normalized prompt and chosen text the first is kept. A record
    that cannot be read is counted as `malformed_event`; the others are not affected. An older revision is `superseded`,
    also by one that the gate refuses; a retracted one is `withdrawn`, and the record that retracts it a `statement`.
    Without a kept pair, an existing output stays as it is unless the plan says otherwise.

    Raises:
        UnknownNameError: no format or encoding has the plan's name.
    """
    plan = plan or CuratePlan()
    kept, dropped, causes = 0, Counter[str](), Causes()
    seen: set[bytes] = set()
    out.parent.mkdir(parents=True, exist_ok=True)
    building = make_hidden_path(out)
    try:
        with ExitStack() as copies, open(building, "wb") as file:
            twice = [_open_twice(each, out.parent, copies) for each in sources]
            outdated = _find_outdated(_read_records(twice, plan))
            for chunk in _cut_chunks(_read_records(twice, plan)):
                rows = _build_rows(chunk, outdated, dropped, causes)
                curated = curate(pa.Table.from_pylist(rows, schema=JOINED_FEEDBACK), "file", rules)
                dropped.update(curated.counts)
                # Gold holds refused rows as statements too; `counts` says why.
                pairs = curated.kept.filter(pc.is_in(curated.kept["example_kind"], pa.array(_PAIR_KINDS)))
                written = _write_new(file, pairs, seen)
                kept += written
                dropped[Reason.DUPLICATE.value] += pairs.num_rows - written
            file.flush()
            os.fsync(file.fileno())
        is_written = bool(kept) or plan.allows_empty or not out.exists()
        if is_written:
            os.replace(building, out)
            sync_folder(out.parent)
    finally:
        building.unlink(missing_ok=True)
    malformed = dropped[Reason.MALFORMED_EVENT.value]
    exit_code = 1 if not kept and not (plan.allows_empty and not malformed) else 3 if malformed else 0
    counts = {reason: count for reason, count in sorted(dropped.items()) if count}
    return FileResult(kept, counts, causes.sort(), is_written, exit_code)


def _open_twice(source: Source, scratch: Path, copies: ExitStack) -> Source:
    """Return a source that can be read twice; a pipe is copied to a passing file in `scratch`."""
    if source.size_bytes is not None:
        return source
    copy = Path(copies.enter_context(tempfile.TemporaryDirectory(dir=scratch))) / "copy"
    with source.open() as given, open(copy, "wb") as file:
        shutil.copyfileobj(given, file)
    return replace(source, open=lambda: open(copy, "rb"))


def _read_records(sources: Sequence[Source], plan: CuratePlan) -> Iterator[_Numbered]:
    """Read the records of all sources in their order."""
    number = 0
    options = replace(plan.reading, is_record=is_record)
    for source in sources:
        try:
            with open_reading(source, options) as reading:
                entries = iter(reading)
                sample = list(islice(entries, SAMPLE_RECORDS))
                known = [each for each in sample if isinstance(each, Entry)]
                convert = choose_conversion(known, source.name, plan.format, plan.mapping).convert
                for entries_part in (sample, entries):
                    for entry in entries_part:
                        number += 1
                        yield _read_record(entry, number, convert, source.name, reading.unit)
        except InvalidEventError as error:
            number += 1
            yield _Numbered(number, 0, problem=str(error), file=source.name, unit="file", place=1)


def _read_record(entry: Entry | Unreadable, number: int, convert: Any, file: str, unit: str) -> _Numbered:
    if isinstance(entry, Unreadable):
        return _Numbered(number, 0, problem=entry.problem, file=file, unit=unit, place=entry.number)
    size = len(entry.value) if isinstance(entry.value, bytes) else sum(len(str(each)) for each in entry.value.values())
    try:
        return _Numbered(number, size, find_statements(convert(entry.value)))
    except InvalidEventError as error:
        return _Numbered(number, 0, problem=str(error), file=file, unit=unit, place=entry.number)


def _find_outdated(records: Iterator[_Numbered]) -> dict[int, Reason]:
    """Return the numbers of the records that do not count, with why.

    They are older revisions, retracted and retracting ones.
    """
    newest: dict[bytes, tuple[int, int]] = {}
    outdated: dict[int, Reason] = {}
    for record in records:
        for statement in record.statements:
            if isinstance(statement, Retraction):
                outdated[record.number] = Reason.STATEMENT
                retracted = newest.pop(_hash_id(statement.key), None)
                if retracted is not None:
                    outdated[retracted[1]] = Reason.WITHDRAWN
            elif statement.key is not None:
                key = _hash_id(statement.key)
                older, newest[key] = sorted([(statement.revision, record.number), newest.get(key, _NO_NUMBER)])
                if older is not _NO_NUMBER and older[1] != newest[key][1]:
                    outdated[older[1]] = Reason.SUPERSEDED
    return outdated


def _hash_id(key: tuple[str, str]) -> bytes:
    return blake2b(_encoder.encode(key), digest_size=16).digest()


def _cut_chunks(records: Iterator[_Numbered]) -> Iterator[list[_Numbered]]:
    """Cut records into lists of at most `CHUNK_RECORDS`, or about `CHUNK_BYTES` together."""
    chunk: list[_Numbered] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += record.size_bytes
        if len(chunk) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _build_rows(
    chunk: Sequence[_Numbered], outdated: dict[int, Reason], dropped: Counter[str], causes: Causes
) -> list[dict[str, Any]]:
    """Build the joined rows of the pairs that count, and count everything else."""
    rows: list[dict[str, Any]] = []
    for record in chunk:
        pairs = [each for each in record.statements if isinstance(each, Pair)]
        if record.problem is not None:
            dropped[Reason.MALFORMED_EVENT.value] += 1
            causes.add(record.problem, record.file, record.unit, record.place)
        elif record.number in outdated:
            dropped[outdated[record.number].value] += 1
        elif not pairs:
            dropped[Reason.NOT_TRAINABLE_SIGNAL.value] += 1
        rows.extend(
            _build_joined_row(record.number, part, pair)
            for part, pair in enumerate(pairs)
            if record.number not in outdated
        )
    return rows


def _build_joined_row(number: int, part: int, pair: Pair) -> dict[str, Any]:
    """Build the row that capture and the join would make of the `part`-th pair of a record."""
    prompt, prompt_format = encode_prompt(pair.prompt)
    output, output_message = encode_answer(pair.rejected)
    final_text, final_message = encode_answer(pair.chosen)
    # Descending ids: of equal duplicates the edit gate keeps the highest id, which makes it the first record.
    statement_id = f"{_LAST_NUMBER - number:013d}-{999 - part:03d}"
    return {
        **_UNKNOWN,
        "feedback_event_id": statement_id,
        "statement_id": statement_id,
        "signal": pair.signal.value,
        "prediction_id": f"{number}-{part}",
        "subject": f"{number}-{part}",
        "do_not_train": pair.do_not_train,
        "prompt": prompt,
        "prompt_format": prompt_format.value,
        "output": output,
        "output_message": output_message,
        "final_text": final_text,
        "final_message": final_message,
        "tools": encode_tools(pair.tools),
    }


# The columns that a record does not give. The lake's columns need a time; nothing here depends on it.
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
