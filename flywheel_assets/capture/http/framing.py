"""Cuts bodies into elements, in C speed, and finds those with too many of them while they still arrive.

Cutting judges no element, so that one bad element cannot spoil the others. msgspec skips what is valid. Where
something is not, one regular expression matches a whole element at a time, to a depth of `_DEEPEST`; its quantifiers
are possessive, so that its time is linear.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice

import msgspec

from flywheel_assets.capture.counting import CountedObject, TooManyElementsError, count_objects

_WHITESPACE = b" \t\r\n"
_LINE = re.compile(rb"\s*+(\S[^\n]*+)")
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_DEEPEST = 32
"""Brackets within brackets in an element of an array that is no valid JSON as a whole; msgspec's own bound is 1,000."""
_LONGEST_BYTES = 4 * 2**20
"""An element of an array that is no valid JSON as a whole; as many bytes as one event may have."""
_MOST_PARTS = 2_000_000
"""Quotation marks, objects and arrays in an array that is no valid JSON as a whole: at about 0.1 µs each."""
_PARTS = (b'"', b"[", b"{")
_OPENING = (b"[", b"{")
_FOLLOWING = (b",", b"]", b"}")
"""What may follow an element; a wrong closing bracket ends the array as well."""


class FramingError(ValueError):
    """Reports a body that does not match its content type; the message is safe to send to the client."""


def starts_with_array(body: bytes | bytearray) -> bool:
    """Return whether the first character that matters opens an array."""
    return body[:64].lstrip(_WHITESPACE)[:1] == b"["


def split_array(body: bytes, limit: int) -> list[bytes]:
    """Split a JSON array into its elements, each as its own bytes.

    Raises:
        FramingError: the body is not one array with balanced brackets and closed strings.
        TooManyElementsError: it has more elements than the limit.
    """
    try:
        if body.count(b",") >= limit:
            _count_objects(body, limit)
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec validates what it skips: one lone surrogate or bad byte would refuse the whole batch.
        return _scan_array(body.strip(_WHITESPACE), limit)


def split_lines(body: bytes, limit: int) -> list[bytes]:
    """Split an NDJSON body into its lines; blank lines carry no event.

    Raises:
        TooManyElementsError: it has more lines than the limit.
    """
    lines = [found[1] for found in islice(_LINE.finditer(body.rstrip()), limit + 1)]
    if len(lines) > limit:
        raise TooManyElementsError
    return lines


def check_array_start(start: bytearray, limit: int) -> None:
    """Check the first bytes of an array while the others still arrive.

    Raises:
        FramingError: it nests so deep that its elements cannot be found.
        TooManyElementsError: more elements than the limit have come.
    """
    try:
        _count_objects(start, limit)
    except msgspec.DecodeError as error:
        if "truncated" in str(error):
            return  # as it must be in the middle of an array of objects
    except (UnicodeDecodeError, RecursionError):
        pass
    begin = 1 + len(start) - len(start.lstrip(_WHITESPACE))
    for count, (found, end, terminator) in enumerate(_find_elements(start, begin)):
        begin = found
        if terminator not in _FOLLOWING:
            break
        if count == limit:
            raise TooManyElementsError
        begin = end
    try:
        msgspec.json.decode(memoryview(start)[begin:], type=msgspec.Raw)
    except RecursionError:
        raise _build_too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # an element in the middle, or a bad one: judged when it is whole


def check_lines_start(start: bytearray, limit: int) -> None:
    """Check the first bytes of an NDJSON body while the others still arrive.

    Raises:
        TooManyElementsError: more lines than the limit have come.
    """
    if sum(1 for _ in islice(_LINE.finditer(start), limit + 1)) > limit:
        raise TooManyElementsError


_count_decoder = msgspec.json.Decoder(list[CountedObject])


def _count_objects(body: bytes | bytearray, limit: int) -> None:
    """Stop at the first object beyond the limit; an element that is no object raises `msgspec.ValidationError`."""
    count_objects(_count_decoder.decode, body, limit)


def _scan_array(body: bytes, limit: int) -> list[bytes]:
    if not body.startswith(b"["):
        raise FramingError("expected a JSON array of events")
    elements: list[bytes] = []
    left = _MOST_PARTS
    for begin, end, terminator in _find_elements(body, 1):
        if terminator not in _FOLLOWING:
            is_long = len(body) - begin > _LONGEST_BYTES
            is_deep = terminator in _OPENING and body.count(b"[", end) + body.count(b"{", end) > _DEEPEST
            if is_long or is_deep:
                raise _build_too_deep()
            raise FramingError("the array of events never ends: a bracket or a quotation mark is missing")
        if len(elements) == limit:
            raise TooManyElementsError
        left -= sum(body.count(opening, begin, end) for opening in _PARTS)
        if left < 0:
            raise _build_too_deep()
        elements.append(body[begin:end].strip(_WHITESPACE))
        if terminator != b"," and end + 1 != len(body):
            raise FramingError(f"unexpected text after the array's end (byte {end + 1})")
    return [] if elements == [b""] else elements


def _find_elements(body: bytes | bytearray, begin: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield begin, end and what follows of each element.

    The last one ends the array, or cannot be matched.
    """
    match = _compile_element().match
    terminator: bytes | bytearray = b","
    while terminator == b",":
        found = match(body, begin, begin + _LONGEST_BYTES)
        assert found is not None  # nothing at all is a match, too
        end = found.end()
        terminator = body[end : end + 1]
        yield begin, end, bytes(terminator)
        begin = end + 1


@cache
def _compile_element() -> re.Pattern[bytes]:
    """Compile the expression of one element: everything up to a comma or an end that no bracket encloses."""
    within = rb"(?:[^\"\[\]{}]++|%s)*+" % _STRING
    for _ in range(_DEEPEST - 1):
        within = rb"(?:[^\"\[\]{}]++|%s|[\[{]%s[\]}])*+" % (_STRING, within)
    return re.compile(rb"(?:[^\"\[\]{},]++|%s|[\[{]%s[\]}])*+" % (_STRING, within), re.DOTALL)


def _build_too_deep() -> FramingError:
    return FramingError(
        "the array is no valid JSON, and too large or too deep to find its elements; send one event a line as "
        "application/x-ndjson"
    )
