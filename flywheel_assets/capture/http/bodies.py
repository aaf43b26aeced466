"""Reads request bodies within bounds, and cuts them into elements.

The bounds are the size of one body, inflated or not, its time, and the memory of all bodies together. Cutting judges no
element, so that one bad element cannot spoil the others.
"""

import asyncio
import re
import threading
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice

import msgspec
import zstandard
from starlette.requests import ClientDisconnect, Request

from flywheel_assets.capture.http.answers import Refusal, RefusedError

BODY_TIMEOUT_S = 60.0

_GZIP_WINDOW_BITS = 31  # gzip framing only: the header does not mean zlib's own format or raw deflate
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BZIP2_MAGIC = b"BZh"
_LARGEST_WINDOW_BYTES = 8 * 2**20
_UNPACKED_AT_ONCE_BYTES = 256  # 4 bytes of zstd may become 128 KiB: at most 8 MiB at a time
_INFLATED_AT_ONCE_BYTES = 256 * 2**10
_REQUEST_OVERHEAD_BYTES = 16 * 2**10  # the cost of a request before its first byte: connection, task, headers


class MemoryBudget:
    """Bounds the bytes that the bodies of all requests of this process hold together; used from one event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def open_share(self) -> "Share":
        """Open one request's part of the budget; its `with` block gives the bytes back."""
        return Share(self)


class Share:
    """Counts the bytes that one request holds. Entering it raises `RefusedError` when the budget is used up."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._held_bytes = 0

    @property
    def body_bytes(self) -> int:
        """Return the bytes of the request's body that were read, packed and unpacked ones."""
        return max(0, self._held_bytes - _REQUEST_OVERHEAD_BYTES)

    def __enter__(self) -> "Share":
        self.take(_REQUEST_OVERHEAD_BYTES)
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held_bytes -= self._held_bytes

    def take(self, size_bytes: int) -> None:
        """Count more bytes of this request.

        Raises:
            RefusedError: all requests together would hold too much.
        """
        budget = self._budget
        if budget.held_bytes + size_bytes > budget.limit_bytes:
            raise RefusedError(
                Refusal.OVERLOADED, f"the requests in progress hold {budget.held_bytes} bytes; try again later"
            )
        budget.held_bytes += size_bytes
        self._held_bytes += size_bytes


@dataclass(frozen=True)
class BodyReader:
    """Reads bodies up to a size and a time."""

    limit_bytes: int
    timeout_s: float = BODY_TIMEOUT_S

    async def read(self, request: Request, share: Share) -> bytes:
        """Read the whole body, inflated where its encoding says gzip or zstd.

        Raises:
            RefusedError: it is larger than the limit, is not the gzip or zstd it claims to be, takes too long, its
                sender went away, or the other bodies leave no room for it.
        """
        encoding = _read_encoding(request)
        # Counted while it streams: Content-Length may lie or be absent.
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > self.limit_bytes:
            raise self._build_too_large()
        try:
            async with asyncio.timeout(self.timeout_s):
                match encoding:
                    case "gzip":
                        return await self._inflate(request.stream(), share, "content-encoding is gzip")
                    case "zstd":
                        packed = await self._read_plain(request, share)
                        return await self._decompress(packed, share, "content-encoding is zstd")
                    case _:
                        return await self._read_plain(request, share)
        except TimeoutError:
            raise RefusedError(Refusal.TIMEOUT, f"the body did not arrive within {self.timeout_s:g} s") from None
        except ClientDisconnect:
            raise RefusedError(Refusal.DISCONNECTED, "the client went away before the body was complete") from None

    async def _read_plain(self, request: Request, share: Share) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            if chunk:  # the end of the stream is an empty one
                self._append(body, chunk, share)
        return bytes(body)

    async def unpack(self, body: bytes, share: Share) -> bytes:
        """Return a body that is a compressed file without its compression, as its first bytes show it.

        Raises:
            RefusedError: it is torn, larger than the limit, compressed twice, or compressed in a way that is not read.
        """
        if body.startswith(_GZIP_MAGIC):
            body = await self._inflate(_give(body), share, "the body begins like gzip")
        elif body.startswith(_ZSTD_MAGIC):
            body = await self._decompress(body, share, "the body begins like zstd")
        if body.startswith((_GZIP_MAGIC, _ZSTD_MAGIC, _BZIP2_MAGIC)):
            # The reading layer would unpack it without a bound.
            raise RefusedError(Refusal.MALFORMED_BODY, "the body is compressed twice, or with bzip2; use gzip or zstd")
        return body

    async def _inflate(self, chunks: AsyncIterable[bytes], share: Share, claim: str) -> bytes:
        body = bytearray()
        gzip = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            async for chunk in chunks:
                while chunk:
                    self._append(body, gzip.decompress(chunk, _INFLATED_AT_ONCE_BYTES), share)
                    chunk = gzip.unconsumed_tail
                    if gzip.unused_data:
                        raise RefusedError(Refusal.MALFORMED_BODY, "unexpected bytes after the end of the gzip body")
                    await asyncio.sleep(0)  # 64 KB may become 64 MB: this lets other requests run in between
        except zlib.error:
            raise RefusedError(Refusal.MALFORMED_BODY, f"{claim}, but the body is not") from None
        if not gzip.eof:
            raise RefusedError(Refusal.MALFORMED_BODY, "the gzip body ends in the middle")
        return bytes(body)

    async def _decompress(self, packed: bytes, share: Share, claim: str) -> bytes:
        body = bytearray()
        # RFC 8878 asks receivers for windows up to 8 MB; a larger one would cost memory that no budget counts.
        zstd = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW_BYTES).decompressobj()
        unyielded_bytes = 0
        try:
            for start in range(0, len(packed), _UNPACKED_AT_ONCE_BYTES):
                chunk = zstd.decompress(packed[start : start + _UNPACKED_AT_ONCE_BYTES])
                self._append(body, chunk, share)
                unyielded_bytes += len(chunk) + _UNPACKED_AT_ONCE_BYTES
                if zstd.eof and (zstd.unused_data or start + _UNPACKED_AT_ONCE_BYTES < len(packed)):
                    raise RefusedError(Refusal.MALFORMED_BODY, "unexpected bytes after the end of the zstd body")
                if unyielded_bytes > _INFLATED_AT_ONCE_BYTES:
                    unyielded_bytes = 0
                    await asyncio.sleep(0)
        except zstandard.ZstdError:
            raise RefusedError(
                Refusal.MALFORMED_BODY, f"{claim}, but the body is not, or its window exceeds 8 MiB"
            ) from None
        if not zstd.eof:
            raise RefusedError(Refusal.MALFORMED_BODY, "the zstd body ends in the middle")
        return bytes(body)

    def _append(self, body: bytearray, chunk: bytes, share: Share) -> None:
        if len(body) + len(chunk) > self.limit_bytes:
            raise self._build_too_large()
        share.take(len(chunk))
        body += chunk

    def _build_too_large(self) -> RefusedError:
        return RefusedError(
            Refusal.TOO_LARGE, f"the request is larger than {self.limit_bytes} bytes; send fewer events at a time"
        )


async def _give(body: bytes) -> AsyncIterator[bytes]:
    yield body


def is_compressed(request: Request) -> bool:
    """Return whether the body's bytes on the wire differ from its content."""
    return request.headers.get("content-encoding", "identity").strip().lower() != "identity"


def _read_encoding(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "zstd"):
        # `gzip, gzip` too: a bomb in a bomb.
        raise RefusedError(
            Refusal.CONTENT_TYPE, f"content-encoding is {encoding[:80]!r}; valid: identity, gzip or zstd once"
        )
    return encoding


# One JSON token that matters for finding commas of the outermost array. Possessive quantifiers: linear time.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_WHITESPACE = b" \t\r\n"
_LINE = re.compile(rb"\s*+(\S[^\n]*+)")
_DEEPEST = 1_000  # msgspec's own bound is near
_MOST_TOKENS = 2_000_000  # about a second of the only decoder thread


class FramingError(ValueError):
    """Reports a body that does not match its content type; the message is safe to send to the client."""


class TooManyElementsError(ValueError):
    """Reports a body of more elements than allowed; found before they exist."""


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


class _Left(threading.local):
    """Counts, for each thread, how many elements may still come."""

    elements = 0


_left = _Left()


class _TooManyObjects(Exception):  # noqa: N818 (an error of the decoder's own kind would look like a bad element)
    pass


class _CountedObject(msgspec.Struct):
    """Skips the content of an object in C and counts it."""

    def __post_init__(self) -> None:
        _left.elements -= 1
        if _left.elements < 0:
            raise _TooManyObjects


_count_decoder = msgspec.json.Decoder(list[_CountedObject])


def _count_objects(body: bytes, limit: int) -> None:
    """Stop at the first object beyond the limit; an element that is no object raises `msgspec.ValidationError`."""
    _left.elements = limit
    try:
        _count_decoder.decode(body)
    except _TooManyObjects:
        raise TooManyElementsError from None


def starts_with_array(body: bytes) -> bool:
    """Return whether the first character that matters opens an array."""
    return body[:64].lstrip(_WHITESPACE)[:1] == b"["


def _scan_array(body: bytes, limit: int) -> list[bytes]:
    if not body.startswith(b"["):
        raise FramingError("expected a JSON array of events")
    if not body[1:-1].strip(_WHITESPACE) and body.endswith(b"]"):
        return []
    elements = list(islice(_scan_elements(body), limit + 1))
    if len(elements) > limit:
        raise TooManyElementsError
    return elements


def _scan_elements(body: bytes) -> Iterator[bytes]:
    depth = 0
    start = 1
    for number, token in enumerate(_TOKEN.finditer(body)):
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
        if depth > _DEEPEST or number > _MOST_TOKENS:
            raise FramingError(
                "the array is no valid JSON, and too large or too deep to find its elements; send one event a line as "
                "application/x-ndjson"
            )
    raise FramingError("the array of events never ends: a bracket or a quotation mark is missing")
