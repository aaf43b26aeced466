"""Cuts a request body into its elements without judging them, so that one bad element cannot spoil its neighbours."""

import re
from collections.abc import Iterator

import msgspec

# One JSON token that matters for finding commas of the outermost array. Possessive quantifiers: linear time.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_WHITESPACE = b" \t\r\n"


class FramingError(ValueError):
    """The body as a whole is not what its content type says; the message is safe to send to the client."""


def split_array(body: bytes) -> list[bytes]:
    """The elements of a JSON array, each as its own bytes.

    Raises:
        FramingError: the body is not one array with balanced brackets and closed strings.
    """
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec validates what it skips: one lone surrogate or bad byte would refuse the whole batch.
        return _scan_array(body.strip(_WHITESPACE))


def split_lines(body: bytes) -> list[bytes]:
    """The lines of an NDJSON body; blank ones carry no event."""
    return [line for line in body.split(b"\n") if not line.isspace() and line]


def starts_with_array(body: bytes) -> bool:
    """Whether the first character that matters opens an array."""
    return body[:64].lstrip(_WHITESPACE)[:1] == b"["


def _scan_array(body: bytes) -> list[bytes]:
    if not body.startswith(b"["):
        raise FramingError("expected a JSON array of events")
    if not body[1:-1].strip(_WHITESPACE) and body.endswith(b"]"):
        return []
    return list(_scan_elements(body))


def _scan_elements(body: bytes) -> Iterator[bytes]:
    depth = 0
    start = 1
    for token in _TOKEN.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
                if depth == 0:
                    if token.end() != len(body):
                        raise FramingError(f"unexpected text after the array's end (byte {token.end()})")
                    yield body[start : token.start()].strip(_WHITESPACE)
                    return
            case b"," if depth == 1:
                yield body[start : token.start()].strip(_WHITESPACE)
                start = token.end()
            case b'"':
                break  # a whole string is one token: this quotation mark has no partner
            case _:
                pass
    raise FramingError("the array of events never ends: a bracket or a quotation mark is missing")
