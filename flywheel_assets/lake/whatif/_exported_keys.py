"""Finds the sets of a version that hold a row.

The version is not read as a whole: its files are sorted by their keys.
"""

from pathlib import Path

import msgspec

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.lake.storage.duckdb_engine import connect
from flywheel_assets.lake.versions.exports import ExportSet, Manifest


class _Key(msgspec.Struct):
    pair_id: str


_decoder = msgspec.json.Decoder(_Key)


def find_sets(export: Path, manifest: Manifest, pair_id: str | None, prediction_id: str) -> list[ExportSet]:
    """Find the sets of an export that hold the pair, or of a classification version the prediction."""
    found = []
    for which, file in manifest.files.items():
        path = export / file.name
        if path.suffix == ".parquet":
            is_there = _holds_prediction(path, prediction_id)
        else:
            is_there = pair_id is not None and _holds_pair(path, pair_id)
        if is_there:
            found.append(which)
    return found


def _holds_prediction(path: Path, prediction_id: str) -> bool:
    query = f"SELECT 1 FROM read_parquet({quote(str(path))}) WHERE prediction_id = {quote(prediction_id)} LIMIT 1"
    with connect() as connection:
        return bool(connection.execute(query).fetchall())


def _holds_pair(path: Path, pair_id: str) -> bool:
    """Search a file of lines in the order of `pair_id` by halves: some 30 lines of however many."""
    low, high = 0, path.stat().st_size
    with open(path, "rb") as file:
        while low < high:
            middle = (low + high) // 2
            # One byte earlier: where a line begins exactly in the middle, only the end of the one before is skipped.
            file.seek(max(low, middle - 1))
            if middle > low:
                file.readline()
            start = file.tell()
            if start >= high:
                high = middle
                continue
            line = file.readline()
            key = _decoder.decode(line).pair_id
            if key == pair_id:
                return True
            if key < pair_id:
                low = start + len(line)
            else:
                high = middle
    return False
