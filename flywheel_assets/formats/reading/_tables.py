r"""Reads CSV and TSV: a header that names columns, then one record per row, as texts by column.

Python's own reader does the work: rows are needed as Python objects, with the number of their first line, and one bad
row may cost only itself. (Arrow's reader ended 200,000 rows as soon, in eight times the memory; see ADR 34.)

Texts of people are full of quotation marks, which writers of tables with tabs often leave as they are. So a table with
tabs is read as RFC 4180 has it only where its first rows are quoted as a writer of that would: see `is_quoted`.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import TextIO

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable
from flywheel_assets.formats.reading.quoting import Quoting

_DELIMITERS = ("\t", ";", ",", "|")
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_EXCEL = re.compile(rb"(?:\xef\xbb\xbf)?sep=[^\r\n]\r?\n", re.IGNORECASE)
"""A first line that tells only Excel which delimiter follows; the header shows it as well."""
_ESCAPE = re.compile(r"\\([nrt\\])")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_NULL = r"\N"
"""Which Postgres, MySQL and Hive write for a missing value."""
_SAMPLE_CHARACTERS = 65_536


class Table:
    """Reads the rows of one table."""

    def __init__(self, stream: io.BufferedReader, head: bytes, options: ReadingOptions, name: str) -> None:
        """Read the header.

        Raises:
            InvalidEventError: it names no columns, or one of them twice.
        """
        named = _EXCEL.match(head)
        if named is not None:
            stream.read(named.end())
            head = head[named.end() :]
        sample = head.decode(errors="replace")[:_SAMPLE_CHARACTERS]
        self.delimiter = _NAMES.get(options.delimiter or "", options.delimiter) or find_delimiter(sample)
        if len(self.delimiter) != 1:
            raise InvalidEventError(f"--delimiter is {options.delimiter!r}; valid: one character, or tab")
        is_csv = self.delimiter != "\t" or is_quoted(sample, self.delimiter)
        self.quoting = options.quoting or (Quoting.CSV if is_csv else Quoting.NONE)
        self.escaped_rows = 0
        r"""Rows with `\n`, `\r` or `\t` as two characters each, which were kept as they stand."""
        self._escapes = options.escapes
        self._lines = _Lines(stream, options.longest_bytes)
        csv.field_size_limit(options.longest_bytes)  # of this process; nothing else here reads with `csv`
        self._rows = _build_reader(self._lines, self.delimiter, self.quoting)
        self.columns = self._read_header(name)

    def _read_header(self, name: str) -> list[str]:
        header: list[str] = next((cells for cells in self._rows if any(map(str.strip, cells))), [])
        columns = [cell.strip() for cell in header]
        named = [column for column in columns if column]
        twice = sorted({column for column in named if named.count(column) > 1})
        if twice:
            raise InvalidEventError(f"the header of {name} names {', '.join(twice)[:200]} more than once")
        return columns

    def read(self) -> Iterator[Entry | Unreadable]:
        """Read the rows; numbers are those of their first lines, the header's included."""
        while True:
            start = self._rows.line_num + 1
            try:
                cells = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Unreadable(start, f"no row of the table: {error}; is a quotation mark left open?")
                continue
            problem = self._lines.take_problem()
            if problem is not None:
                yield Unreadable(start, problem)
            elif any(cells):
                yield self._build_entry(start, cells)

    def _build_entry(self, number: int, cells: list[str]) -> Entry | Unreadable:
        if len(cells) != len(self.columns):
            is_long = self._rows.line_num > number
            hint = "; is a quotation mark left open, or literal (--quoting none)?" if is_long else ""
            return Unreadable(number, f"the line has {len(cells)} cells; the header names {len(self.columns)}{hint}")
        # A column without a name is the index that pandas writes.
        values: dict[str, str | None] = {
            column: cell for column, cell in zip(self.columns, cells, strict=True) if column
        }
        if _NULL in cells:
            values = {column: None if cell == _NULL else cell for column, cell in values.items()}
        if any("\\" in cell and _ESCAPE.search(cell) for cell in cells):
            if self._escapes:
                values = {column: cell and _ESCAPE.sub(_unescape, cell) for column, cell in values.items()}
            else:
                self.escaped_rows += 1
        return Entry(number, values)


def find_delimiter(sample: str) -> str:
    """Return the delimiter that cuts the header into the most columns."""
    header = next((line for line in sample.splitlines() if line.strip()), "")
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def is_quoted(sample: str, delimiter: str) -> bool:
    """Return whether the first rows are quoted as a writer of RFC 4180 would quote them.

    Such a writer doubles every mark within a cell, has as many cells in each row, leaves no mark in a cell without
    quotes, and quotes either every text or those cells that need it.
    """
    if '"' not in sample:
        return False
    lines = sample.splitlines(keepends=True)
    rows: list[list[str]] = []
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                rows.append(row)
    except csv.Error:
        # The sample may end within a cell; anywhere else the marks are literal.
        if reader.line_num < len(lines) or len(sample) < _SAMPLE_CHARACTERS:
            return False
    if len(sample) >= _SAMPLE_CHARACTERS:
        rows = rows[:-1]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return False
    quoted, plain = _list_quoted(sample, delimiter)
    if any('"' in cell for cell in plain):
        return False
    is_each_needed = all(any(mark in cell for mark in (delimiter, "\n", "\r", '""', ",")) for cell in quoted)
    return bool(quoted) and (is_each_needed or all(_is_plain(cell) for cell in plain))


def _list_quoted(sample: str, delimiter: str) -> tuple[list[str], list[str]]:
    """List the cells with quotes, between them, and the cells without; the last ones of a sample may be torn."""
    cell = re.compile(rf'(?:^|(?<=[{re.escape(delimiter)}\r\n]))(?:"((?:[^"]|"")*+)"|([^{re.escape(delimiter)}\r\n]*))')
    quoted, plain = [], []
    for found in cell.finditer(sample):
        if found[1] is not None:
            quoted.append(found[1])
        elif found.end() < len(sample):
            plain.append(found[2])
    return quoted, plain


def _is_plain(cell: str) -> bool:
    """Return whether a cell is empty or a number, which writers that quote every text leave without quotes."""
    if not cell.strip():
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _build_reader(lines: "_Lines", delimiter: str, quoting: Quoting) -> "csv._reader":  # type: ignore[name-defined]
    if quoting is Quoting.NONE:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, quotechar=None)
    return csv.reader(lines, delimiter=delimiter)


def _unescape(found: re.Match[str]) -> str:
    return _ESCAPED[found[1]]


class _Lines:
    """Reads lines with their ends, and remembers what is wrong with one of them."""

    def __init__(self, stream: io.BufferedReader, longest: int) -> None:
        self._text: TextIO = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
        self._longest = longest
        self._problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._longest + 1)
        if not line:
            raise StopIteration
        if len(line) > self._longest and line[-1] not in "\r\n":
            while (rest := self._text.readline(self._longest)) and rest[-1] not in "\r\n":
                pass
            self._problem = f"the line is longer than {self._longest} characters"
            return "-\n"
        if not line.isascii():
            self._check_text(line)
        return line

    def take_problem(self) -> str | None:
        """Return what was wrong with the lines since the last question."""
        problem, self._problem = self._problem, None
        return problem

    def _check_text(self, line: str) -> None:
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            self._problem = (
                f"not valid UTF-8: byte 0x{byte:02x} at position {error.start} of the line; send UTF-8, or name its "
                "encoding with --encoding latin-1"
            )
