"""Finds the sources that a person names: files, folders, patterns and standard input."""

import glob
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flywheel_assets.errors import UnknownNameError

STANDARD_INPUT = "-"
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2")
_DATA = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq")


@dataclass(frozen=True)
class Source:
    """Names one stream of bytes and opens it."""

    name: str
    """The file's name without its folder; `stdin` for standard input."""
    open: Callable[[], BinaryIO]
    size_bytes: int | None = None
    """None: it shows when it ends."""


@dataclass(frozen=True)
class Found:
    """Lists sources, and the files of folders that are no data by their names."""

    sources: tuple[Source, ...]
    skipped: tuple[Path, ...] = ()


def find_sources(arguments: Sequence[str | Path]) -> Found:
    """Find what each argument names: `-`, a file, a folder with all below it, or a pattern such as `logs/*.jsonl.gz`.

    Files come in the order of the arguments; those of a folder or a pattern in alphabetical order. In folders, hidden
    files and those that begin with `_` are passed over, and files that are no data by their suffix are listed.

    Raises:
        UnknownNameError: an argument names nothing.
    """
    sources: list[Source] = []
    skipped: list[Path] = []
    for argument in map(str, arguments):
        if argument == STANDARD_INPUT:
            sources.append(Source("stdin", lambda: sys.stdin.buffer))
            continue
        path = Path(argument)
        matched = [path] if path.exists() else sorted(map(Path, glob.glob(argument, recursive=True)))
        if not matched:
            raise UnknownNameError(
                "file", argument, [], "Name a file, a folder, a pattern in quotation marks, or - for standard input."
            )
        for each in matched:
            files = _list_files(each, skipped) if each.is_dir() else [each]
            sources.extend(map(open_file, files))
    return Found(tuple(sources), tuple(skipped))


def open_file(path: Path) -> Source:
    """Return the source that a file is."""
    size = path.stat().st_size if path.is_file() else None
    return Source(os.fsencode(path.name).decode(errors="replace"), lambda: open(path, "rb"), size)


def hold_bytes(name: str, content: bytes) -> Source:
    """Return the source that bytes in memory are, such as the body of a request."""
    return Source(name, lambda: io.BytesIO(content), len(content))


def _list_files(folder: Path, skipped: list[Path]) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "_")) for part in parts) or not path.is_file():
            continue
        suffixes = [suffix for suffix in map(str.lower, path.suffixes) if suffix not in _COMPRESSED]
        if suffixes and suffixes[-1] in _DATA:
            yield path
        else:
            skipped.append(path)
