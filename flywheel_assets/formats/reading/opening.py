"""Recognises the shape of a source and reads its entries."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.reading._objects import is_lines, read_document, read_lines
from flywheel_assets.formats.reading._parquet import MAGIC, read_parquet
from flywheel_assets.formats.reading._streams import HEAD_BYTES, Filled, decode_text, inflate
from flywheel_assets.formats.reading._tables import Table
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable
from flywheel_assets.formats.reading.quoting import Quoting
from flywheel_assets.formats.reading.sources import Source


class Reading:
    """Reads the entries of one source once."""

    def __init__(self, file: BinaryIO, source: Source, options: ReadingOptions) -> None:
        """Look at the beginning of an open source.

        Raises:
            InvalidEventError: it is of no kind that is read; the message says what to do.
            UnknownNameError: its encoding does not exist.
        """
        self._file = file
        self._counted = Filled(file.read)
        self.shape = ""
        """The shape in words, as a person recognises it: `JSON lines, gzip`."""
        self.unit = "record"
        """What numbers count: `line`, `record` or `row`."""
        self._table: Table | None = None
        content, compression = inflate(io.BufferedReader(self._counted, HEAD_BYTES), source.name)
        if content.peek(1).startswith(MAGIC):
            self.shape, self.unit = "Parquet", "row"
            is_in_place = compression is None and file.seekable()
            self._entries: Iterator[Entry | Unreadable] = read_parquet(
                file if is_in_place else content, options.rows_at_once
            )
        else:
            self._open_text(decode_text(content, options.encoding), source, options)
        if compression is not None:
            self.shape = f"{self.shape}, {compression}"

    @property
    def bytes_read(self) -> int:
        """Bytes of the source that were read so far, compressed as they are."""
        return self._counted.bytes_read

    @property
    def escaped_rows(self) -> int:
        r"""Rows of a table in which `\n` and the like were kept as two characters."""
        return 0 if self._table is None else self._table.escaped_rows

    def __iter__(self) -> Iterator[Entry | Unreadable]:
        number = 0
        try:
            for entry in self._entries:
                number = entry.number
                yield entry
        except UnicodeDecodeError as error:
            yield Unreadable(number + 1, f"the text is no {error.encoding} from here on: {error.reason}")
        except OSError as error:
            yield Unreadable(number + 1, f"the file cannot be read from here on: {error}")

    def _open_text(self, stream: io.BufferedReader, source: Source, options: ReadingOptions) -> None:
        head = stream.peek(HEAD_BYTES)
        has_lines = None if options.delimiter else is_lines(head)
        if has_lines is not None:
            self.shape = "JSON lines" if has_lines else "JSON"
            self.unit = "line" if has_lines else "record"
            self._entries = read_lines(stream, options) if has_lines else read_document(stream, options)
            return
        if b"\0" in head:
            raise InvalidEventError(
                f"{source.name} holds zero bytes: it is no text, or UTF-16 without a byte order mark; name that with "
                "--encoding utf-16-le or utf-16-be"
            )
        table = Table(stream, head, options, source.name)
        if len(table.columns) < 2:
            raise InvalidEventError(
                f"{source.name} is neither JSON nor a table: it begins with {head[:40].decode(errors='replace')!r}; "
                "valid: JSON, JSON lines, CSV or TSV with a header, Parquet, each also as gzip or zstd; another "
                "delimiter of a table is named, for instance --delimiter :"
            )
        name = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "pipes"}.get(
            table.delimiter, repr(table.delimiter)
        )
        literal = ", quotation marks literal" if table.quoting is Quoting.NONE else ""
        self.shape, self.unit = f"table separated by {name}{literal}", "line"
        self._table, self._entries = table, table.read()


@contextmanager
def open_reading(source: Source, options: ReadingOptions) -> Iterator[Reading]:
    """Open a source and look at its beginning; its entries are read one by one.

    Raises:
        InvalidEventError: it cannot be opened or is of no kind that is read.
        UnknownNameError: the encoding does not exist.
    """
    try:
        file = source.open()
    except OSError as error:
        raise InvalidEventError(f"{source.name} cannot be opened: {error.strerror}") from None
    with file:
        try:
            reading = Reading(file, source, options)
        except UnicodeDecodeError as error:
            raise InvalidEventError(f"{source.name} is no {error.encoding}: {error.reason}") from None
        except OSError as error:
            raise InvalidEventError(f"{source.name} cannot be read: {error}") from None
        yield reading


def read_source(source: Source, options: ReadingOptions | None = None) -> Iterator[Entry | Unreadable]:
    """Read the entries of a source.

    Raises:
        InvalidEventError: it cannot be opened or is of no kind that is read.
        UnknownNameError: the encoding does not exist.
    """
    with open_reading(source, options or ReadingOptions()) as reading:
        yield from reading
