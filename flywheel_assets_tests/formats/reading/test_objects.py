"""JSON in any usual shape: lines, arrays, pretty printed, concatenated, wrapped."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable, decode_object
from flywheel_assets.formats.reading.opening import open_reading, read_source
from flywheel_assets.formats.reading.sources import Source, hold_bytes

ONE, TWO = {"prompt": "Why?", "n": 1}, {"prompt": 'a "b" {c} [d] \\ , é', "n": [{"x": {}}, [1, "}]"]]}
A, B = (json.dumps(each).encode() for each in (ONE, TWO))
PRETTY = json.dumps(TWO, indent=2).encode()


def read(content: bytes, **said: Any) -> list[Entry | Unreadable]:
    return list(read_source(hold_bytes("x", content), ReadingOptions(**said)))


def values(content: bytes, **said: Any) -> list[Any]:
    return [
        decode_object(each.value) if isinstance(each, Entry) and isinstance(each.value, bytes) else each
        for each in read(content, **said)
    ]


@pytest.mark.parametrize(
    "content",
    [
        A + b"\n" + B,
        A + b"\r\n" + B + b"\r\n",
        A + b"\r" + B + b"\r",
        b"\n\n" + A + b"\n  \n\t\n" + B + b"\n\n",
        A + b",\n" + B + b",\n",
        b"[" + A + b"," + B + b"]",
        b"[\n" + A + b",\n" + B + b"\n]\n",
        b"[" + A + b",\n" + B + b"]",
        b"[" + A + b"]\n[" + B + b"]",
        json.dumps([ONE, TWO], indent=4).encode(),
        A + B,
        A + b" " + B,
        json.dumps(ONE, indent=2).encode() + b"\n" + PRETTY,
        json.dumps(ONE, indent=2).encode() + b",\n" + PRETTY + b",",
        b'{"data": [' + A + b"," + B + b'], "meta": {"page": 1, "errors": []}}',
        json.dumps({"meta": {"a": [1]}, "records": [ONE, TWO], "next": None}, indent=1).encode(),
        b"\x1e" + A + b"\n\x1e" + B + b"\n",
        b"\xef\xbb\xbf" + A + b"\n\xef\xbb\xbf" + B + b"\n",
        b"\xef\xbb\xbf[" + A + b"]\n\xef\xbb\xbf[" + B + b"]\n",
    ],
)
def test_two_records_in_every_shape(content: bytes) -> None:
    assert values(content) == [ONE, TWO]


def test_lines_are_numbered_as_an_editor_does_and_other_records_by_their_order() -> None:
    with open_reading(hold_bytes("x", b"\n" + A + b"\n\n" + B), ReadingOptions()) as reading:
        assert (reading.unit, [each.number for each in reading]) == ("line", [2, 4])
    with open_reading(hold_bytes("x", b"[" + A + b",\n\n" + B + b"]"), ReadingOptions()) as reading:
        assert (reading.unit, [each.number for each in reading]) == ("record", [1, 2])


def test_a_torn_line_costs_only_itself() -> None:
    """Its open quotation mark swallowed the next line, when objects were found by their brackets alone."""
    for content in (
        A + b'\n{"prompt": "torn\n' + B,
        b'{"prompt": "torn\n' + A + b"\n" + B,
        b"garbage\n" + A + b"\n" + B,
    ):
        found = read(content)
        assert [type(each) for each in found].count(Unreadable) == 1
        assert [decode_object(each.value) for each in found if isinstance(each, Entry)] == [ONE, TWO]  # type: ignore[arg-type]


def test_a_broken_record_of_an_array_costs_only_itself() -> None:
    content = b'[\n{\n "a": 1\n},\n{\n "a": oops,\n "b": 1\n},\n{\n "a": 3\n}\n]'
    one, broken, three = values(content)
    assert (one, three) == ({"a": 1}, {"a": 3})
    assert isinstance(broken, Unreadable)
    assert (broken.number, "not JSON" in broken.problem) == (2, True)


@pytest.mark.parametrize("content", [b"[1, 2]", b'["a", "b"]', b"[[1]]", b"[1]\n[2]"])
def test_what_is_no_object_is_refused_with_what_stands_there(content: bytes) -> None:
    found = values(content)
    assert found
    assert all(isinstance(each, Unreadable) for each in found)
    assert "an object" in found[0].problem or "`object`" in found[0].problem


def test_an_array_of_numbers_and_objects() -> None:
    number, one = values(b"[7, " + A + b"]")
    assert (number.number, one) == (1, ONE)


def test_nan_becomes_null_and_stays_within_texts() -> None:
    content = b'{"a": NaN, "b": [Infinity, -Infinity], "c": "NaN"}'
    assert values(content) == [{"a": None, "b": [None, None], "c": "NaN"}]
    assert values(b"[" + content + b",\n" + content + b"]")[1]["a"] is None


def test_pythons_notation_gets_the_sentence_that_helps() -> None:
    [entry] = read(b"{'a': 'b', 'c': None}\n")
    assert isinstance(entry, Entry)
    with pytest.raises(InvalidEventError, match=r"json.dumps\(record\), or a data frame with to_json"):
        decode_object(entry.value)  # type: ignore[arg-type]
    with pytest.raises(InvalidEventError, match="Python's own notation"):
        decode_object(b'{"a": True}')


def test_a_line_separator_of_unicode_within_a_text_ends_nothing() -> None:
    content = '{"a": "x\u2028y\u2029z\u0085"}\n{"a": "w"}'.encode()
    assert values(content) == [{"a": "x\u2028y\u2029z\u0085"}, {"a": "w"}]


def test_an_object_that_a_format_knows_is_not_unwrapped() -> None:
    content = json.dumps({"data": [ONE, TWO]}).encode()
    assert values(content, is_record=lambda found: "data" in found) == [{"data": [ONE, TWO]}]


@pytest.mark.parametrize(
    "whole",
    [
        {"data": [ONE], "records": [TWO]},
        {"data": [1, 2]},
        {"spans_of_mine": [ONE]},
        {"result": {"records": [ONE]}, "other": {"items": [TWO]}},
        {"data": {"inner": {"records": [ONE]}}},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}], "odd": 1},
        {"values": [{"content": "q", "role": "user"}]},
    ],
)
def test_what_is_ambiguous_stays_as_it_is(whole: dict[str, Any]) -> None:
    assert values(json.dumps(whole).encode()) == [whole]
    assert values(json.dumps([{"data": [ONE]}]).encode()) == [{"data": [ONE]}], "it is a record of an array"


@pytest.mark.parametrize("text", ["x" * 5000, "\\" * 5001, '"' * 3000, "{[" * 3000])
def test_a_record_beyond_the_bound_is_refused_alone(text: str) -> None:
    long = json.dumps({"a": text, "b": ["}", {"c": text}]}).encode()
    for content in (A + b"\n" + long + b"\n" + B, b"[" + A + b"," + long + b"," + B + b"]"):
        one, refused, two = values(content, longest_bytes=1000)
        assert (one, two) == (ONE, TWO)
        assert isinstance(refused, Unreadable)
        assert refused.problem.startswith("the record is longer than 1000 bytes")


class Endless(io.RawIOBase):
    """Makes its bytes when they are asked for."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (part := next(self._parts, b"")):
            self._rest += part
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


@pytest.mark.parametrize("shape", ["lines", "array", "wrapped", "long"])
def test_memory_is_bounded_whatever_the_length(shape: str) -> None:
    records = 10_000
    between, begin, end = {
        "lines": (b"\n", b"", b""),
        "array": (b",", b"[", b"]"),
        "wrapped": (b",", b'{"v": [1], "data": [', b'], "x": {}}'),
        "long": (b",", b'{"a": [', b"]}"),
    }[shape]
    one = json.dumps({"text": "x" * 1500}).encode()

    def make() -> Iterator[bytes]:
        yield begin + one
        for _ in range(records - 1):
            yield between + one
        yield end

    source = Source("x", lambda: Endless(make()))  # type: ignore[arg-type, return-value]
    tracemalloc.start()
    try:
        found = sum(isinstance(each, Entry) for each in read_source(source, ReadingOptions(longest_bytes=2**20)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == (0 if shape == "long" else records)
    assert peak_bytes < 10 * 2**20, "15 MB went through"


def test_records_one_level_deeper_are_unwrapped() -> None:
    """APIs answer {"status", "result": {"page", "items"}}, which was refused as one record with unknown fields."""
    content = json.dumps({"status": "ok", "result": {"page": 1, "items": [ONE, TWO]}}, indent=2).encode()
    assert values(content) == [ONE, TWO]
