"""Reads some rows of a gold version's set, or of a day of gold, for people who look at them."""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice
from typing import Any

import msgspec

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.errors import UnknownNameError
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.tables.specs import TableSpec
from flywheel_assets.lake.versions.exports import ExportedRow, ExportSet, Manifest, read_manifest
from flywheel_assets.lake.versions.folders import VersionFolder

Row = dict[str, Any]

TEXTS = ("prompt", "chosen", "rejected", "features")
"""Columns of user text, or of the values that a classifier saw."""
_GOLD = (
    *("completed_date", "pair_id", "feedback_event_id", "example_kind", "stance", "subject_kind", "subject"),
    *("similarity", "admitted_by", "held_reason", "refused_reason", "model_version"),
    *("prediction_id", "is_positive", "labeling_source", "discrepancy", "selection_reason", "inclusion_probability"),
)


def read_day_rows(lake: Lake, gold: TableSpec, day: date, limit: int, *, with_texts: bool = False) -> list[Row]:
    """Read the first rows of a day of gold, in the order of their keys."""
    columns = [name for name in (*_GOLD, *(TEXTS if with_texts else ())) if name in gold.schema.names]
    if not lake.has_table(gold):
        return []
    with lake.connect() as connection:
        lake.register(connection, gold, [day], columns, view="rows_of_day")
        rows = connection.sql(f"SELECT * FROM rows_of_day ORDER BY {', '.join(gold.order_by[:1])} LIMIT {limit:d}")
        found: list[Row] = rows.to_arrow_table().to_pylist()
    return found


def read_version_rows(
    lake: Lake, gold: TableSpec, folder: VersionFolder, which: str, limit: int, *, with_texts: bool = False
) -> list[Row]:
    """Read the first rows of one set of an exported version, with what gold knows about them.

    Raises:
        UnknownNameError: the version was never exported, or has no such set; the message lists those it has.
    """
    manifest = read_manifest(folder.export)
    if which not in manifest.files:
        raise UnknownNameError(f"set of {folder.version}", which, manifest.files)
    path = folder.export / manifest.files[ExportSet(which)].name
    if path.suffix == ".parquet":
        with lake.connect() as connection:
            excluded = "" if with_texts else "EXCLUDE (features)"
            file = f"read_parquet({quote(str(path))})"
            rows = connection.sql(f"SELECT * {excluded} FROM {file} ORDER BY prediction_id LIMIT {limit:d}")
            found: list[Row] = rows.to_arrow_table().to_pylist()
        return found
    with open(path, "rb") as lines:
        decode = msgspec.json.Decoder(ExportedRow).decode
        exported = [msgspec.structs.asdict(decode(line)) for line in islice(lines, limit)]
    left_out = () if with_texts else TEXTS
    return list(_add_gold(lake, gold, manifest, exported, left_out))


def _add_gold(
    lake: Lake, gold: TableSpec, manifest: Manifest, exported: Sequence[Row], left_out: Sequence[str]
) -> Iterator[Row]:
    """Yield each exported row with gold's columns of the pair on its day."""
    days = {date.fromisoformat(row["completed_date"]) for row in exported}
    columns = [name for name in _GOLD if name in gold.schema.names]
    ids = ", ".join(quote(row["pair_id"]) for row in exported)
    where = f"pair_id IN ({ids}) AND refused_reason IS NULL" if ids else "false"
    rows = lake.read(gold, sorted(days), columns, snapshot_id=manifest.snapshot_id, where=where).to_pylist()
    known = {(row["pair_id"], row["completed_date"].isoformat(), row["similarity"]): row for row in rows}
    for row in exported:
        more = known.get((row["pair_id"], row["completed_date"], row["similarity"]), {})
        yield {name: value for name, value in {**more, **row}.items() if name not in left_out}
