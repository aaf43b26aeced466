"""Compression by magic bytes, encodings, Parquet, and what is not read at all."""

import gzip
import json
import os
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.errors import InvalidEventError, UnknownNameError
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable, decode_object
from flywheel_assets.formats.reading.opening import open_reading, read_source
from flywheel_assets.formats.reading.sources import find_sources, hold_bytes, open_file

RECORDS = [{"a": "Grüße é 👍"}, {"a": "x"}]
LINES = "\n".join(json.dumps(each, ensure_ascii=False) for each in RECORDS)


def values(content: bytes, **said: Any) -> list[Any]:
    return [
        (decode_object(each.value) if isinstance(each.value, bytes) else each.value)
        if isinstance(each, Entry)
        else each
        for each in read_source(hold_bytes("x", content), ReadingOptions(**said))
    ]


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        LINES.encode("utf-32"),
        gzip.compress(LINES.encode()),
        gzip.compress(LINES[:20].encode()) + gzip.compress(LINES[20:].encode()),
        zstd(LINES.encode()),
        gzip.compress(LINES.encode("utf-16")),
        gzip.compress(f"a,b\n{RECORDS[0]['a']},\nx,\n".encode()),
    ],
)
def test_bytes_show_what_they_are(content: bytes) -> None:
    assert [{"a": each["a"]} for each in values(content)] == RECORDS


def test_latin_1_is_read_only_when_it_is_said() -> None:
    content = b'{"a": "Gr\xfc\xdfe"}'
    assert values(content, encoding="latin-1") == [{"a": "Grüße"}]
    with pytest.raises(InvalidEventError, match="name its encoding with --encoding latin-1"):
        values(content)
    with pytest.raises(UnknownNameError, match="latin-7x"):
        values(content, encoding="latin-7x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04rest", "an Excel workbook; unpack it, or save the sheet as CSV"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"%PDF-1.7", "a PDF"),
        (gzip.compress(b"\0" * 257 + b"ustar"), "a tar archive; unpack it"),
    ],
)
def test_what_is_not_read_says_what_to_do(content: bytes, says: str) -> None:
    with pytest.raises(InvalidEventError, match=says):
        values(content)


def test_a_torn_archive_gives_what_it_holds_and_a_sentence() -> None:
    whole = gzip.compress("\n".join(json.dumps({"a": os.urandom(2000).hex()}) for _ in range(1000)).encode())
    found = values(whole[: len(whole) // 2])
    assert len(found) > 100
    assert isinstance(found[-1], Unreadable)
    assert "cannot be read from here on" in found[-1].problem


def test_nothing_is_nothing() -> None:
    assert values(b"") == values(b"\n\n") == values(b"[]") == values(gzip.compress(b"")) == []


def write_parquet(path: Path, rows: list[dict[str, Any]], **said: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **said)
    return path


def test_parquet_with_nested_columns(tmp_path: Path) -> None:
    when = datetime(2026, 3, 2, tzinfo=UTC)
    messages = [{"role": "user", "content": "Why?"}]
    row = {"m": messages, "t": when, "n": 1, "f": float("nan"), "d": Decimal("7.00"), "b": b"bytes", "s": "x"}
    path = write_parquet(tmp_path / "x.parquet", [row, row | {"f": 0.5, "m": None}], row_group_size=1)
    first, second = read_source(open_file(path))
    assert first.value == {"m": messages, "t": when, "n": 1, "f": None, "d": 7, "b": "bytes", "s": "x"}  # type: ignore[union-attr]
    assert (second.number, second.value["m"]) == (2, None)  # type: ignore[union-attr, index, call-overload]


def test_parquet_through_a_pipe(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", RECORDS)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),))
    writer.start()
    assert [each.value for each in read_source(open_file(pipe))] == RECORDS  # type: ignore[union-attr]
    writer.join()


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    [found] = values(b"PAR1 and no more")
    assert "cannot be read from here on" in found.problem


def test_folders_patterns_and_what_is_passed_over(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/1.csv.gz", "a.json", ".hidden/x.json", "_delta_log/0.json", "README.md", "b/.x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    found = find_sources([tmp_path])
    assert [each.name for each in found.sources] == ["a.json", "1.csv.gz", "2.jsonl"]
    assert [each.name for each in found.skipped] == ["README.md"]
    assert [each.name for each in find_sources([f"{tmp_path}/b/*.jsonl", "-"]).sources] == ["2.jsonl", "stdin"]
    with pytest.raises(UnknownNameError, match="Name a file, a folder, a pattern in quotation marks, or -"):
        find_sources([f"{tmp_path}/nothing*"])


def test_bytes_are_counted_as_they_lie_in_the_file() -> None:
    content = gzip.compress(LINES.encode() * 100)
    with open_reading(hold_bytes("x", content), ReadingOptions()) as reading:
        list(reading)
        assert reading.bytes_read == len(content)
        assert reading.shape == "JSON lines, gzip"


def test_nanoseconds_are_times_as_others_are(tmp_path: Path) -> None:
    """They came as a type of pandas that JSON does not know: hashing a label's row ended the import."""
    kind = pa.timestamp("ns")
    pq.write_table(pa.table({"at": pa.array([1735689600123456789], kind)}), tmp_path / "x.parquet")
    (row,) = [each.value for each in read_source(open_file(tmp_path / "x.parquet")) if isinstance(each, Entry)]
    assert isinstance(row, dict)
    assert type(row["at"]) is datetime
    assert row["at"].isoformat() == "2025-01-01T00:00:00.123456"
