"""Puts a CloudEvent in binary mode, its attributes in `ce-` headers, into one JSON object."""

from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from flywheel_assets.capture.http.answers import Refusal, RefusedError

_PREFIX = "ce-"


def build_structured_event(headers: Mapping[str, str], data: bytes) -> bytes:
    """Return the event in structured mode. Values are unquoted and percent-decoded as the HTTP binding says.

    Raises:
        RefusedError: a header's value is no UTF-8 once it is decoded, or there are no data.
    """
    if not data.strip():
        raise RefusedError(Refusal.MALFORMED_BODY, "the event has `ce-` headers and no data in the body")
    event: dict[str, object] = {
        name.removeprefix(_PREFIX): _decode_value(name, value)
        for name, value in headers.items()
        if name.startswith(_PREFIX) and name != "ce-data"
    }
    event["data"] = msgspec.Raw(data)
    return msgspec.json.encode(event)


def _decode_value(name: str, value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise RefusedError(
            Refusal.MALFORMED_BODY, f"the header {name[:80]} is no UTF-8 after percent-decoding"
        ) from None
