"""Opens the text or the columns of a source: compression by magic bytes, encodings by byte order marks."""

import codecs
import io
from collections.abc import Callable
from typing import BinaryIO, Literal

from flywheel_assets.errors import InvalidEventError, UnknownNameError

HEAD_BYTES = 2**20
"""Looked at before anything is read; it holds the header of a table and the first records of anything."""

_Compression = Literal["gzip", "zstd", "bz2"]
_COMPRESSIONS: dict[bytes, _Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""The little-endian mark of UTF-32 begins with that of UTF-16, and so stands before it."""
_UNREAD = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV",
    b"SQLite format 3": "an SQLite database; write the table to a file of CSV or JSON lines first",
    b"\xfd7zXZ": "compressed with xz; decompress it, or use gzip or zstd",
    b"ORC": "an ORC file; write it as Parquet",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"Obj\x01": "an Avro file; write it as Parquet or JSON lines",
    b"%PDF": "a PDF document",
    b"\x80\x04\x95": "a Python pickle, which is never read here; write JSON lines or Parquet",
}


class Filled(io.RawIOBase):
    """Makes a raw stream of a function that reads bytes; it fills what it can, and counts."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.bytes_read = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the target; less means that the stream has ended."""
        filled, size = 0, len(target)
        while filled < size and (part := self._read(size - filled)):
            target[filled : filled + len(part)] = part
            filled += len(part)
        self.bytes_read += filled
        return filled


def buffer_stream(read: Callable[[int], bytes]) -> io.BufferedReader:
    """Return a stream whose `peek` shows its first `HEAD_BYTES`."""
    return io.BufferedReader(Filled(read), HEAD_BYTES)


def inflate(stream: io.BufferedReader, name: str) -> tuple[io.BufferedReader, str | None]:
    """Return the stream without its compression, and the name of that.

    Raises:
        InvalidEventError: it is of a kind that is not read here; the message says what to do.
    """
    head = stream.peek(1)
    for magic, compression in _COMPRESSIONS.items():
        if head.startswith(magic):
            import pyarrow as pa

            inflated = buffer_stream(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), compression).read)
            _refuse_unread(inflated.peek(1), name)
            return inflated, compression
    _refuse_unread(head, name)
    return stream, None


def decode_text(stream: io.BufferedReader, encoding: str | None) -> io.BufferedReader:
    """Return the stream in UTF-8, without a byte order mark, and with line feeds where only carriage returns stand.

    Raises:
        UnknownNameError: there is no such encoding.
    """
    head = stream.peek(4)
    for mark, marked in _MARKS:
        if head.startswith(mark):
            stream.read(len(mark))
            encoding = marked
            break
    if encoding is not None and _name_encoding(encoding) != "utf-8":
        stream = buffer_stream(_Recoder(stream, encoding).read)
    head = stream.peek(1)
    if b"\n" not in head and b"\r" in head:
        lines = stream
        stream = buffer_stream(lambda size: lines.read(size).replace(b"\r", b"\n"))
    return stream


def _name_encoding(encoding: str) -> str:
    try:
        b"".decode(encoding)
        return codecs.lookup(encoding).name
    except LookupError:
        known = ("utf-8", "utf-16", "latin-1", "cp1252")
        raise UnknownNameError("encoding", encoding, known, "Any encoding that Python knows is read.") from None


class _Recoder:
    """Reads text of an encoding as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Read about so many bytes; none at the end."""
        while not self._rest:
            raw = self._stream.read(size)
            self._rest = self._decoder.decode(raw, final=not raw).encode()
            if not raw:
                break
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def _refuse_unread(head: bytes, name: str) -> None:
    for magic, described in _UNREAD.items():
        if head.startswith(magic):
            raise InvalidEventError(f"{name} is {described}")
    if head[257:262] == b"ustar":
        raise InvalidEventError(f"{name} is a tar archive; unpack it, and name the folder")
