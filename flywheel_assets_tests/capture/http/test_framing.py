import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.capture.counting import TooManyElementsError
from flywheel_assets.capture.http.framing import (
    FramingError,
    split_array,
    split_lines,
    starts_with_array,
)

SURROGATE = b'{"a":"\\ud800"}'


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        (b"[]", []),
        (b" [ ] ", []),
        (b'[{"a":1}, 2]', [b'{"a":1}', b"2"]),
        (b"[" + SURROGATE + b', {"b":[1,{"c":2}]}]', [SURROGATE, b'{"b":[1,{"c":2}]}']),
        (b'["\xff", "ok"]', [b'"\xff"', b'"ok"']),
        (b'["\xff", "a \\"quoted, ] text\\\\"]', [b'"\xff"', b'"a \\"quoted, ] text\\\\"']),
        (b'[tru, {"a":1}]', [b"tru", b'{"a":1}']),
        (b'[,{"a":1}]', [b"", b'{"a":1}']),
    ],
)
def test_an_array_is_cut_into_its_elements_however_bad_they_are(body: bytes, elements: list[bytes]) -> None:
    assert split_array(body, 10_000) == elements


@pytest.mark.parametrize("body", [b'{"a":1}', b"[1,", b'["\\ud800]', b"[1] 2", b"[" * 100_000, b"", b"]", b"[1}x"])
def test_a_body_that_is_no_array_is_an_error_as_a_whole(body: bytes) -> None:
    with pytest.raises(FramingError):
        split_array(body, 10_000)


@pytest.mark.long
@given(
    st.lists(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
)
def test_the_scanner_agrees_with_a_json_parser(elements: list[object]) -> None:
    """A lone surrogate in front forces the scanner; what follows it must come out unharmed."""
    rest = json.dumps(elements, ensure_ascii=False).encode("utf-8", "surrogatepass").removeprefix(b"[")
    comma = b"," if elements else b""
    first, *others = split_array(b"[" + SURROGATE + comma + rest, 10_000)
    assert first == SURROGATE
    assert [json.loads(other) for other in others] == elements


def test_lines_without_content_carry_no_event() -> None:
    assert split_lines(b'{"a":1}\r\n\n  \n{"b":2}', 2) == [b'{"a":1}\r', b'{"b":2}']


@pytest.mark.parametrize(("body", "expected"), [(b" \n[1]", True), (b"{}", False), (b"", False)])
def test_plain_json_may_be_one_event_or_an_array(body: bytes, expected: bool) -> None:
    assert starts_with_array(body) is expected


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * 16_000_000 + b"1]",
        b"[" + b"{}," * 11_000_000 + b"{}]",
        b"[" + SURROGATE + b",{}" * 11_000_000 + b"]",
    ],
    ids=["numbers", "objects", "invalid"],
)
def test_an_array_of_millions_of_elements_is_refused_before_they_exist(body: bytes) -> None:
    """32 KB of gzip became 16.7 M elements and 2.4 GB, before anything counted them."""
    tracemalloc.start()
    try:
        with pytest.raises(TooManyElementsError):
            split_array(body, 10_000)
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_millions_of_lines_are_refused_before_they_exist() -> None:
    with pytest.raises(TooManyElementsError):
        split_lines(b"1\n" * 16_000_000, 10_000)


def test_deep_brackets_end_the_scan() -> None:
    with pytest.raises(FramingError, match="too deep"):
        split_array(b"[" * 33_000_000, 10_000)


def test_as_many_elements_as_allowed_are_split() -> None:
    assert split_array(b'[{"a":1,"b":2},{}]', 2) == [b'{"a":1,"b":2}', b"{}"]
    with pytest.raises(TooManyElementsError):
        split_array(b"[{},{},{}]", 2)
