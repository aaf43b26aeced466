"""The same records give the same rows, whatever file they lie in."""

import csv
import gzip
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.sinks import FirstRows
from flywheel_assets.formats.reading.sources import hold_bytes
from flywheel_assets_tests.capture.samples import Clock

Rows = list[dict[str, str]]

# A cell of CSV cannot tell an absent text from an empty one, and some writers fold line ends: neither is at issue here.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1, max_size=40)
TEXTS = TEXTS.filter(lambda text: text != r"\N")  # in a table it is null
ROWS = st.lists(
    st.fixed_dictionaries({"prompt": TEXTS, "original_llm_output": TEXTS, "final_user_edit": TEXTS, "user_id": TEXTS}),
    min_size=1,
    max_size=6,
)


def write_lines(rows: Rows) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def write_table(rows: Rows, delimiter: str = ",", quoting: int = csv.QUOTE_ALL) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write_parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


SHAPES: dict[str, Callable[[Rows], bytes]] = {
    "array": lambda rows: json.dumps(rows).encode(),
    "pretty": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False).encode(),
    "concatenated": lambda rows: b"".join(json.dumps(row, indent=1).encode() for row in rows),
    "wrapped": lambda rows: json.dumps({"meta": {"n": 1}, "data": rows}).encode(),
    "commas": lambda rows: write_lines(rows).replace(b"\n", b",\r\n"),
    "utf16": lambda rows: write_lines(rows).decode().encode("utf-16"),
    "gzip": lambda rows: gzip.compress(write_lines(rows)),
    "zstd": lambda rows: bytes(pa.Codec("zstd").compress(write_lines(rows))),
    "csv": write_table,
    "semicolons": lambda rows: b"\xef\xbb\xbf" + write_table(rows, ";", csv.QUOTE_MINIMAL),
    "tabs": lambda rows: write_table(rows, "\t"),
    "parquet": write_parquet,
}


def land(content: bytes) -> list[LandedRow]:
    sink = FirstRows(most=1000)
    import_files([hold_bytes("x", content)], ImportPlan(application="assistant"), sink, Clock())
    return sink.rows


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_twelve_shapes_of_the_same_records_land_the_same_rows(rows: Rows) -> None:
    expected = land(write_lines(rows))
    assert len(expected) == 2 * len(rows), "a prediction and the feedback on it"
    for name, write in SHAPES.items():
        assert land(write(rows)) == expected, name
