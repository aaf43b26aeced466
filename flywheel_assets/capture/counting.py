"""Counts the objects of a JSON text before they exist.

msgspec does it in C; two bytes of JSON become 64 bytes and more as objects.
"""

import threading
from collections.abc import Callable

import msgspec


class TooManyElementsError(ValueError):
    """Reports a body of more elements than allowed; found before they exist."""


class _Left(threading.local):
    """Counts, for each thread, how many elements may still come."""

    elements = 0


_left = _Left()


class _TooManyObjects(Exception):  # noqa: N818 (an error of the decoder's own kind would look like a bad element)
    pass


class CountedObject(msgspec.Struct):
    """Skips the content of an object in C and counts it."""

    def __post_init__(self) -> None:
        """Count this object.

        Raises:
            TooManyElementsError: by way of `count_objects`: it is one too many.
        """
        _left.elements -= 1
        if _left.elements < 0:
            raise _TooManyObjects


def count_objects(decode: Callable[[bytes | bytearray], object], body: bytes | bytearray, limit: int) -> None:
    """Decode a body by a type that holds `CountedObject`; stop at the first object beyond the limit.

    Raises:
        TooManyElementsError: there are more.
        msgspec.DecodeError: the body is no JSON, or not of that type.
    """
    _left.elements = limit
    try:
        decode(body)
    except _TooManyObjects:
        raise TooManyElementsError from None
