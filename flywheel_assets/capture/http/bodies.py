"""Reads request bodies within bounds: the size of one, inflated or not, its time, and the memory of all together."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import zstandard
from starlette.requests import ClientDisconnect, Request

from flywheel_assets.capture.http.answers import Refusal, RefusedError

T = TypeVar("T")

BODY_TIMEOUT_S = 60.0

_GZIP_WINDOW_BITS = 31  # gzip framing only: the header does not mean zlib's own format or raw deflate
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BZIP2_MAGIC = b"BZh"
_LARGEST_WINDOW_BYTES = 8 * 2**20
_UNPACKED_AT_ONCE_BYTES = 256  # 4 bytes of zstd may become 128 KiB: at most 8 MiB at a time
_INFLATED_AT_ONCE_BYTES = 256 * 2**10
_BYTES_OF_ONE_EVENT = 16 * 2**10
_CPU_S_OF_ONE_EVENT = 200e-6
_REQUEST_OVERHEAD_BYTES = 16 * 2**10  # the cost of a request before its first byte: connection, task, headers


CHECKED_FROM_BYTES = 256 * 2**10
_CHECKED_AGAIN_AT = 4
"""A growing body is checked again when it has this many times its bytes: all checks cost a third of one of it all."""

Check = Callable[[bytearray], Awaitable[None]]
"""Judges what has come of a body while the rest arrives; raises `RefusedError`."""


class MemoryBudget:
    """Bounds the bytes that the bodies of all requests of this process hold together; used from one event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def open_share(self, part: "Part | None" = None, holder: str = "") -> "Share":
        """Open one request's part of the budget; its `with` block gives the bytes back.

        Args:
            part: bounds what requests of this kind hold together; None: only the budget bounds them.
            holder: the key or address that this request comes from, for the part's bound of each.
        """
        return Share(self, part, holder)


class Part:
    """Bounds what some senders hold of the budget, all of them together and each alone: the rest stays for others."""

    def __init__(self, limit_bytes: int, limit_of_one_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.limit_of_one_bytes = limit_of_one_bytes
        self.held_bytes = 0
        self._held_by: dict[str, int] = {}

    def take(self, holder: str, size_bytes: int) -> None:
        """Count more bytes of one holder.

        Raises:
            RefusedError: it would hold too much, or all together would.
        """
        held_bytes = self._held_by.get(holder, 0) + size_bytes
        if held_bytes > self.limit_of_one_bytes:
            raise RefusedError(
                Refusal.OVERLOADED,
                f"the requests in progress of this key or address hold {held_bytes - size_bytes} bytes; valid: at most "
                f"{self.limit_of_one_bytes}; try again later",
            )
        if self.held_bytes + size_bytes > self.limit_bytes:
            raise RefusedError(
                Refusal.OVERLOADED,
                f"the requests in progress of senders of this kind hold {self.held_bytes} bytes; try again later",
            )
        self._held_by[holder] = held_bytes
        self.held_bytes += size_bytes

    def give_back(self, holder: str, size_bytes: int) -> None:
        """Count bytes of one holder no longer."""
        self.held_bytes -= size_bytes
        left_bytes = self._held_by.get(holder, 0) - size_bytes
        if left_bytes > 0:
            self._held_by[holder] = left_bytes
        else:
            self._held_by.pop(holder, None)


class Share:
    """Counts the bytes that one request holds. Entering it raises `RefusedError` when the budget is used up."""

    def __init__(self, budget: MemoryBudget, part: Part | None = None, holder: str = "") -> None:
        self._budget = budget
        self._part = part
        self.holder = holder
        self._held_bytes = 0
        self.cpu_s = 0.0
        """CPU time that unpacking and reading this request's body took; what costs little is not measured."""

    @property
    def body_bytes(self) -> int:
        """Return the bytes of the request's body that were read, packed and unpacked ones."""
        return max(0, self._held_bytes - _REQUEST_OVERHEAD_BYTES)

    @property
    def cost(self) -> int:
        """Return for how many events this body counts: one for 16 KiB, or for 200 µs of CPU time.

        Events of a kilobyte in a batch take about 12 µs each, so that only senders of what costs much more than its
        number of events pay by this.
        """
        return int(max(self.body_bytes / _BYTES_OF_ONE_EVENT, self.cpu_s / _CPU_S_OF_ONE_EVENT))

    def __enter__(self) -> "Share":
        self.take(_REQUEST_OVERHEAD_BYTES)
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held_bytes -= self._held_bytes
        if self._part is not None:
            self._part.give_back(self.holder, self._held_bytes)

    def take(self, size_bytes: int) -> None:
        """Count more bytes of this request.

        Raises:
            RefusedError: all requests together would hold too much, or those of its kind, key or address.
        """
        budget = self._budget
        if budget.held_bytes + size_bytes > budget.limit_bytes:
            raise RefusedError(
                Refusal.OVERLOADED, f"the requests in progress hold {budget.held_bytes} bytes; try again later"
            )
        if self._part is not None:
            self._part.take(self.holder, size_bytes)
        budget.held_bytes += size_bytes
        self._held_bytes += size_bytes

    def measure(self, work: Callable[[], T]) -> T:
        """Do work and count its CPU time, in whichever thread this is, also where it raises."""
        began_s = time.thread_time()
        try:
            return work()
        finally:
            self.cpu_s += time.thread_time() - began_s


@dataclass(frozen=True)
class BodyReader:
    """Reads bodies up to a size and a time."""

    limit_bytes: int
    timeout_s: float = BODY_TIMEOUT_S

    def limit_to(self, limit_bytes: int, timeout_s: float | None = None) -> "BodyReader":
        """Return a reader of smaller bodies, or one that waits less long."""
        return replace(
            self,
            limit_bytes=min(self.limit_bytes, limit_bytes),
            timeout_s=self.timeout_s if timeout_s is None else min(self.timeout_s, timeout_s),
        )

    async def read(self, request: Request, share: Share, check: Check | None = None) -> bytes:
        """Read the whole body, inflated where its encoding says gzip or zstd.

        Args:
            request: whose body it is.
            share: counts what the body holds.
            check: judges what has come of the body at 256 KiB, and again whenever it has four times as much.

        Raises:
            RefusedError: it is larger than the limit, is not the gzip or zstd it claims to be, takes too long, its
                sender went away, the other bodies leave no room for it, or the check refuses it.
        """
        encoding = _read_encoding(request)
        # Counted while it streams: Content-Length may lie or be absent.
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > self.limit_bytes:
            raise _build_too_large(self.limit_bytes)
        body = _GrowingBody(self.limit_bytes, share, check)
        try:
            async with asyncio.timeout(self.timeout_s):
                match encoding:
                    case "gzip":
                        await _inflate(request.stream(), body, "content-encoding is gzip")
                    case "zstd":
                        packed = _GrowingBody(self.limit_bytes, share)
                        await _read_plain(request, packed)
                        await _decompress(bytes(packed.content), body, "content-encoding is zstd")
                    case _:
                        await _read_plain(request, body)
        except TimeoutError:
            raise RefusedError(Refusal.TIMEOUT, f"the body did not arrive within {self.timeout_s:g} s") from None
        except ClientDisconnect:
            raise RefusedError(Refusal.DISCONNECTED, "the client went away before the body was complete") from None
        return bytes(body.content)

    async def unpack(self, body: bytes, share: Share) -> bytes:
        """Return a body that is a compressed file without its compression, as its first bytes show it.

        Raises:
            RefusedError: it is torn, larger than the limit, compressed twice, or compressed in a way that is not read.
        """
        if body.startswith((_GZIP_MAGIC, _ZSTD_MAGIC)):
            unpacked = _GrowingBody(self.limit_bytes, share)
            if body.startswith(_GZIP_MAGIC):
                await _inflate(_give(body), unpacked, "the body begins like gzip")
            else:
                await _decompress(body, unpacked, "the body begins like zstd")
            body = bytes(unpacked.content)
        if body.startswith((_GZIP_MAGIC, _ZSTD_MAGIC, _BZIP2_MAGIC)):
            # The reading layer would unpack it without a bound.
            raise RefusedError(Refusal.MALFORMED_BODY, "the body is compressed twice, or with bzip2; use gzip or zstd")
        return body


class _GrowingBody:
    """Takes a body's chunks up to a limit, and has what has come checked now and then."""

    def __init__(self, limit_bytes: int, share: Share, check: Check | None = None) -> None:
        self.content = bytearray()
        self.share = share
        self._limit_bytes = limit_bytes
        self._check = check
        self._checked_at_bytes = CHECKED_FROM_BYTES

    async def take(self, chunk: bytes) -> None:
        """Add a chunk.

        Raises:
            RefusedError: the body is too large, there is no room for it, or the check refuses it.
        """
        size_bytes = len(self.content) + len(chunk)
        if size_bytes > self._limit_bytes:
            raise _build_too_large(self._limit_bytes)
        self.share.take(len(chunk))
        self.content += chunk
        if size_bytes >= self._checked_at_bytes and self._check is not None:
            self._checked_at_bytes = size_bytes * _CHECKED_AGAIN_AT
            await self._check(self.content)


async def _read_plain(request: Request, body: _GrowingBody) -> None:
    async for chunk in request.stream():
        if chunk:  # the end of the stream is an empty one
            await body.take(chunk)


async def _inflate(chunks: AsyncIterable[bytes], body: _GrowingBody, claim: str) -> None:
    gzip = zlib.decompressobj(_GZIP_WINDOW_BITS)
    measure = body.share.measure
    try:
        async for chunk in chunks:
            while chunk:
                await body.take(measure(partial(gzip.decompress, chunk, _INFLATED_AT_ONCE_BYTES)))
                chunk = gzip.unconsumed_tail
                if gzip.unused_data:
                    raise RefusedError(Refusal.MALFORMED_BODY, "unexpected bytes after the end of the gzip body")
                await asyncio.sleep(0)  # 64 KB may become 64 MB: this lets other requests run in between
    except zlib.error:
        raise RefusedError(Refusal.MALFORMED_BODY, f"{claim}, but the body is not") from None
    if not gzip.eof:
        raise RefusedError(Refusal.MALFORMED_BODY, "the gzip body ends in the middle")


async def _decompress(packed: bytes, body: _GrowingBody, claim: str) -> None:
    # RFC 8878 asks receivers for windows up to 8 MB; a larger one would cost memory that no budget counts.
    zstd = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW_BYTES).decompressobj()
    measure = body.share.measure
    unyielded_bytes = 0
    try:
        for start in range(0, len(packed), _UNPACKED_AT_ONCE_BYTES):
            chunk = measure(partial(zstd.decompress, packed[start : start + _UNPACKED_AT_ONCE_BYTES]))
            await body.take(chunk)
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


def _build_too_large(limit_bytes: int) -> RefusedError:
    return RefusedError(
        Refusal.TOO_LARGE, f"the request is larger than {limit_bytes} bytes; send fewer events at a time"
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
