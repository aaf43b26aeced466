import base64
import os
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.capture.brokers import messages
from flywheel_assets.capture.brokers.messages import (
    UnreadableMessageError,
    compute_largest_event_bytes,
    compute_raw_bytes,
    pack_rows,
    split_rows,
    unpack_message,
)
from flywheel_assets.capture.events.texts import LandedRow, Reception, decode_edit
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.capture.samples import NOON

rows = st.builds(
    lambda kind, text: LandedRow(kind, msgspec.json.encode({"text": text}) + b"\n"),
    st.sampled_from(EventKind),
    st.text(),
)


@given(st.lists(rows, max_size=8))
def test_rows_come_out_as_they_went_in(given_rows: list[LandedRow]) -> None:
    content = unpack_message(pack_rows("assistant", given_rows))
    assert content.application == "assistant"
    for kind in EventKind:
        assert [row for row in content.rows if row.kind is kind] == [row for row in given_rows if row.kind is kind]


@given(st.lists(rows, max_size=8), st.integers(1, 300))
def test_runs_hold_every_row_once_and_in_order(given_rows: list[LandedRow], largest: int) -> None:
    runs = list(split_rows(given_rows, largest))
    assert [row for run in runs for row in run] == given_rows
    assert all(sum(len(row.line) for row in run) <= largest or len(run) == 1 for run in runs)


@pytest.mark.parametrize("message_bytes", [16 * 1024, 192 * 1024, 1_000_000])
def test_what_does_not_compress_still_fits(message_bytes: int) -> None:
    line = base64.b85encode(os.urandom(message_bytes)).replace(b'"', b"'").replace(b"\\", b"/")
    row = LandedRow(EventKind.FEEDBACK, b'{"a":"' + line[: compute_raw_bytes(message_bytes) - 9] + b'"}\n')
    assert len(row.line) == compute_raw_bytes(message_bytes)
    assert len(pack_rows("a" * 100, [row])) <= message_bytes


def test_the_largest_event_makes_rows_that_fit_even_where_every_character_must_be_escaped() -> None:
    """A conversation is a JSON text in a JSON line: its quotation marks are escaped twice."""
    message_bytes = 192 * 1024
    frame = '{"prompt":[{"role":"user","content":"CONTENT"}],"original_llm_output":"","final_user_edit":"x"}'
    quotes = '\\"' * ((compute_largest_event_bytes(message_bytes) - len(frame) + len("CONTENT")) // 2)
    element = frame.replace("CONTENT", quotes).encode()
    event = decode_edit(element, Reception("assistant", NOON))
    assert max(len(row.line) for row in event.rows) <= compute_raw_bytes(message_bytes)


def packed(**content: object) -> bytes:
    return zlib.compress(msgspec.json.encode(content))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"", "cut off"),
        (b"hello", "not compressed"),
        (pack_rows("assistant", [LandedRow(EventKind.FEEDBACK, b"{}\n")])[:-3], "cut off"),
        (zlib.compress(b"[1"), "not the JSON"),
        (zlib.compress(b"[" * 100_000), "not the JSON"),
        (packed(version=2, application="assistant"), "version 2"),
        (packed(version=1, application="../../etc"), "no name"),
        (packed(version=1, application="a\x00b"), "no name"),
        (packed(version=1, application="a" * 101), "no name"),
        (packed(version=1, application="assistant", more=1), "not the JSON"),
        (zlib.compress(b'{"version":1,"application":"a","feedback":[{"a":\n1}]}'), "several lines"),
    ],
)
def test_what_is_none_of_ours_is_refused_with_a_reason(message: bytes, problem: str) -> None:
    with pytest.raises(UnreadableMessageError, match=problem):
        unpack_message(message)


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_LARGEST_INFLATED_BYTES", 10_000)
    with pytest.raises(UnreadableMessageError, match="larger"):
        unpack_message(zlib.compress(b" " * 100_000))
