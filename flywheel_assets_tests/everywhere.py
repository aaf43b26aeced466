"""Looking for a word in everything under a folder, with what hides it undone: Parquet, Avro, SQLite."""

import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import duckdb

_SQLITE = b"SQLite format 3\x00"


def quoting(root: Path, word: str) -> list[str]:
    """Every file under `root` that has the word in its name or content, as paths relative to it."""
    return sorted(
        {
            str(path.relative_to(root))
            for path, text in contents(root)
            if word in text or word in str(path.relative_to(root))
        }
    )


def contents(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file under `root`, as it is and decoded."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        yield path, raw.decode("utf-8", "replace")
        yield path, raw.decode("latin-1")
        if path.suffix == ".parquet":
            yield path, str(duckdb.sql(f"SELECT * FROM read_parquet('{path}')").fetchall())
        elif path.suffix == ".avro":
            yield path, _inflate(raw).decode("latin-1")
        elif raw.startswith(_SQLITE):
            # Long texts lie in pieces on several pages.
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                yield path, "\n".join(connection.iterdump())
            finally:
                connection.close()


def _inflate(avro: bytes) -> bytes:
    """The blocks of an Avro file, between its sync markers: two lengths of a few bytes each, then raw deflate."""
    blocks = []
    for block in avro.split(avro[-16:])[1:-1]:
        for begin in range(2, 12):
            try:
                blocks.append(zlib.decompress(block[begin:], -15))
                break
            except zlib.error:
                continue
        else:
            raise AssertionError("a block that cannot be read might hide anything")
    return b"".join(blocks)
