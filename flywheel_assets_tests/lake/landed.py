"""Landed lines, good ones and every sort of malformed ones."""

from typing import Any

import msgspec

from flywheel_assets_tests.builders import make_prediction


def encoded(**overrides: Any) -> bytes:
    return msgspec.json.encode(make_prediction(**overrides))


def without(line: bytes, column: str) -> bytes:
    return msgspec.json.encode({name: value for name, value in msgspec.json.decode(line).items() if name != column})


def instead(line: bytes, column: str, value: object) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(line), column: value})


MALFORMED = {
    "truncated": encoded()[:-20],
    "brace": b"{",
    "zeros after a power cut": b"\x00\x00\x00\x00",
    "no json": b"not json",
    "null": b"null",
    "number": b"7",
    "string": b'"text"',
    "empty array": b"[]",
    "array": b"[" + encoded() + b"]",
    "empty object": b"{}",
    "two objects": encoded() + encoded(),
    "garbage behind": encoded() + b" garbage",
    "missing id": without(encoded(), "event_id"),
    "missing text": without(encoded(), "prompt"),
    "null text": instead(encoded(), "output", None),
    "wrong time": instead(encoded(), "received_at", "yesterday"),
    "number as time": instead(encoded(), "received_at", 12),
    "wrong boolean": instead(encoded(), "do_not_train", "perhaps"),
    "object as text": instead(encoded(), "prompt", {"role": "user"}),
    "array as text": instead(encoded(), "output", ["a"]),
    "number as id": instead(encoded(), "event_id", 7),
    "boolean as text": instead(encoded(), "user_id", True),
    "invalid utf-8": encoded(prompt="MARK").replace(b"MARK", b"\xff\xfe"),
    "lone surrogate": encoded(prompt="MARK").replace(b"MARK", b"\\ud800"),
    "surrogates reversed": encoded(output="MARK").replace(b"MARK", b"\\udc00\\ud800"),
    "unknown escape": encoded(prompt="MARK").replace(b"MARK", b"\\x"),
    "bare control character": encoded(prompt="MARK").replace(b"MARK", b"a\tb"),
}
"""Lines that are no prediction event, by what is wrong with them."""

BLANK = {"empty": b"", "spaces": b"   ", "carriage return": b"\r", "tab": b"\t"}
