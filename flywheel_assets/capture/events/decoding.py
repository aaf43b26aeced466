"""Decodes one element strictly, and says in words what is wrong with one that cannot be accepted."""

import re
from typing import TypeVar

import msgspec

from flywheel_assets.capture.events.wire import FeedbackCloudEvent, Identifier, PredictionCloudEvent
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.records import Signal

T = TypeVar("T")

_LONGEST_MESSAGE = 500  # a field name in a message is the client's: it may be as long as an event
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_VALID_VALUES = {
    "$.type": ", ".join(str(event.__struct_config__.tag) for event in (PredictionCloudEvent, FeedbackCloudEvent)),
    "$.data.signal": ", ".join(signal.value for signal in Signal),
}


class _ClaimedId(msgspec.Struct, frozen=True):
    id: Identifier | None = None


_id_decoder = msgspec.json.Decoder(_ClaimedId)


def decoded(element: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The element as the decoder's type.

    Raises:
        InvalidEventError: it is not JSON, not text, or not of that type; the message names the field.
    """
    try:
        return decoder.decode(element)
    except msgspec.ValidationError as error:
        raise InvalidEventError(_invalid(str(error))) from None
    except msgspec.DecodeError as error:
        raise InvalidEventError(_malformed(element, error)) from None
    except UnicodeDecodeError as error:
        position = error.start
        raise InvalidEventError(
            f"not valid UTF-8: byte 0x{error.object[position]:02x} at position {position} of a text; send UTF-8"
        ) from None
    except RecursionError:
        raise InvalidEventError("nested too deeply to be an event") from None


def claimed_id(element: bytes) -> str | None:
    """The id of a refused element, where it can be read, so that the answer names it."""
    try:
        return _id_decoder.decode(element).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def shortened(message: str) -> str:
    """An error message of bounded length."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def _invalid(message: str) -> str:
    for path, valid in _VALID_VALUES.items():
        if message.startswith("Invalid") and message.endswith(f"`{path}`"):
            received, _, place = message.rpartition(" - at ")
            return f"{shortened(received)} - at {place}; valid: {valid}"
    return shortened(message)


def _malformed(element: bytes, error: msgspec.DecodeError) -> str:
    surrogate = lone_surrogate(element)
    if surrogate is not None:
        return f"holds the lone surrogate {surrogate}, which is not text; send the character itself in UTF-8"
    if not element.strip():
        return "not JSON: nothing between two commas"
    return shortened(f"not JSON: {error}")


def lone_surrogate(element: bytes) -> str | None:
    r"""The first `\uD800`–`\uDFFF` escape that has no partner, as it is written."""
    high: re.Match[bytes] | None = None
    for escape in _ESCAPE.finditer(element):
        code = int(escape[1], 16) if escape[1] else 0
        pairs = high is not None and high.end() == escape.start() and 0xDC00 <= code <= 0xDFFF
        if high is not None and not pairs:
            return high[0].decode()
        if 0xDC00 <= code <= 0xDFFF and not pairs:
            return escape[0].decode()
        high = escape if 0xD800 <= code <= 0xDBFF else None
    return high[0].decode() if high is not None else None
