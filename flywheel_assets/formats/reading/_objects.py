r"""Reads JSON objects one by one: lines, arrays, pretty printed, concatenated, or wrapped in one object.

Where a file has one object per line, lines are what separates records, so that a torn one costs only itself; brackets
and commas around them are passed over. Everywhere else the end of an object is found by its brackets. A line may hold
U+2028 and other separators of Unicode within a text: only line feeds and carriage returns end it.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable, decode_object, normalize_object

USUAL_NAMES = frozenset(
    """
    annotations comparisons conversations data dataset docs documents edits entries events examples feedback feedbacks
    generations hits instances items labels list logs observations pairs predictions preferences records requests
    responses results rows runs samples scores sessions tasks test traces train validation value values
    """.split()  # noqa: SIM905
)
"""Under which a list of records stands in an object around it."""

_CHUNK_BYTES = 2**20
_AROUND = b" \t\r\n,\x1e"
_MARK = codecs.BOM_UTF8
"""Stands in the middle where files have been joined."""
_BETWEEN = re.compile(rb"(?:[\s,\[\]\x1e]|%b)*+" % _MARK)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[{}\[\]]', re.DOTALL)
_REST_OF_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_NEXT_START = re.compile(rb"[\r\n][ \t,\[]*(?=\{)")
_MESSAGE = re.compile(
    rb'\[\s*\{[^{}\[\]]{0,200}?"(?:role|from|sender)"\s*:\s*"(?:system|developer|user|human|assistant|gpt)"'
)
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_items_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONG = "the record is longer than {} bytes, which is the most that is held of one"


def is_lines(head: bytes) -> bool | None:
    """Return whether a text holds a JSON object per line; False: other JSON; None: no JSON object at all."""
    lines = [line for each in head.split(b"\n", 200)[:200] if (line := each.removeprefix(_MARK).strip(_AROUND))]
    if not lines:
        return True
    first = lines[0]
    if _is_object(first):
        return True
    if first[:1] == b"[":
        return False
    if first[:1] != b"{":
        return True if any(map(_is_object, lines)) else None
    if re.match(rb"\{\s*'", first):
        return True
    start = head.index(b"{")
    end = _Scan(head, start).find_end()
    if end is not None:
        return not _is_object(head[start:end])
    # One object, longer than what is looked at; or a torn first line, whose quotation marks swallow what follows.
    return len(lines) > 1 and first[-1:] not in b"{[," and any(map(_is_object, lines[1:]))


def read_lines(stream: io.BufferedReader, options: ReadingOptions) -> Iterator[Entry | Unreadable]:
    """Read one object per line; numbers are those of the lines."""
    return _release_one(_split_lines(stream, options.longest_bytes), options, lambda: True)


def read_document(stream: io.BufferedReader, options: ReadingOptions) -> Iterator[Entry | Unreadable]:
    """Read objects that follow each other, in arrays or not; numbers are those of the records."""
    document = _Document(stream, options)
    return _release_one(document.read(), options, lambda: not document.has_array)


def _split_lines(stream: io.BufferedReader, longest_bytes: int) -> Iterator[Entry | Unreadable]:
    number = 0
    while line := stream.readline(longest_bytes + 1):
        number += 1
        if len(line) > longest_bytes and not line.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Unreadable(number, _LONG.format(longest_bytes))
            continue
        content = line.strip(_AROUND)
        if content[:1] == b"\xef":
            content = content.removeprefix(_MARK)
        if content[:1] == b"{" and content[-1:] == b"}":
            yield Entry(number, content)
        elif content and content.strip(b"[]" + _AROUND):
            yield from _read_odd_line(number, content)


def _read_odd_line(number: int, content: bytes) -> Iterator[Entry | Unreadable]:
    """Read a line that is no object: an array of objects, or anything else."""
    if content[:1] == b"[":
        inner = content[1:-1].strip(_AROUND) if content[-1:] == b"]" else content[1:].strip(_AROUND)
        if inner[:1] == b"{":
            for each in _Document(buffered(inner), ReadingOptions(longest_bytes=len(inner) + 1)).read():
                yield msgspec.structs.replace(each, number=number)
            return
    elif content[-2:] == b"}]" and content[:1] == b"{":
        yield Entry(number, content[:-1].rstrip(_AROUND))
        return
    try:
        decode_object(content)
    except InvalidEventError as error:
        yield Unreadable(number, str(error))


def buffered(content: bytes) -> io.BufferedReader:
    """Return a stream of bytes in memory."""
    return io.BufferedReader(io.BytesIO(content))


class _Scan:
    """Finds the end of the object at a place of some bytes, of which more may follow."""

    def __init__(self, content: bytes, start: int = 0) -> None:
        self.content = content
        self.at = start
        self.depth = 0

    def find_end(self) -> int | None:
        """Return the position after the object; None: it goes on in what follows."""
        for token in _TOKEN.finditer(self.content, self.at):
            first = token[0][0]
            if first == 0x22:
                if not token[1]:
                    self.at = token.start()
                    return None
            elif first in b"{[":
                self.depth += 1
            else:
                self.depth -= 1
                if self.depth <= 0:
                    return token.end()
        self.at = len(self.content)
        return None

    def extend(self, start: int, more: bytes) -> None:
        """Add what follows, and forget what lies before `start`."""
        self.content = self.content[start:] + more
        self.at -= start


class _Document:
    """Reads the objects of a stream by their brackets."""

    def __init__(self, stream: io.BufferedReader, options: ReadingOptions) -> None:
        self._stream = stream
        self._longest_bytes = options.longest_bytes
        self._buffer = b""
        self._at = 0
        self._ends_with_array = False
        self.has_array = False
        """Whether objects stood in an array, as far as the stream was read."""

    def read(self) -> Iterator[Entry | Unreadable]:
        number = 0
        while self._go_to_next():
            if self._buffer[self._at] != 0x7B:
                number += 1
                yield Unreadable(number, self._pass_over_other())
                continue
            scan = _Scan(self._buffer, self._at)
            end = self._find_end(scan)
            if end is None and not self._ends_with_array and len(self._buffer) > self._longest_bytes:
                start = _find_wrapped_start(self._buffer)
                if start is not None:
                    self._at, self._ends_with_array = start, True
                    continue
            number += 1
            if end is None or end - self._at > self._longest_bytes:
                self._pass_over_long(scan, end)
                yield Unreadable(number, _LONG.format(self._longest_bytes))
                continue
            content = self._buffer[self._at : end]
            problem = _find_problem(content)
            if problem is None:
                self._at = end
                yield Entry(number, content)
            else:
                # Its brackets may lie: what begins a line with an object after its start is a record of its own.
                again = _NEXT_START.search(self._buffer, self._at + 1, end)
                self._at = again.end() if again else end
                yield Unreadable(number, problem)

    def _find_end(self, scan: _Scan) -> int | None:
        """Find the end of the object at the present place, reading on as far as a record may reach."""
        end = scan.find_end()
        while end is None and len(scan.content) - self._at <= self._longest_bytes:
            more = self._stream.read(max(_CHUNK_BYTES, len(scan.content) - self._at))
            if not more:
                break
            scan.extend(self._at, more)
            self._buffer, self._at = scan.content, 0
            end = scan.find_end()
        return end

    def _read_on(self) -> bool:
        self._buffer, self._at = self._stream.read(_CHUNK_BYTES), 0
        return bool(self._buffer)

    def _go_to_next(self) -> bool:
        """Pass over what stands between objects; return whether anything is left."""
        while True:
            between = _BETWEEN.match(self._buffer, self._at)
            assert between is not None
            if self._ends_with_array and b"]" in between[0]:
                return False
            self.has_array = self.has_array or b"[" in between[0]
            self._at = between.end()
            if self._at < len(self._buffer):
                return True
            if not self._read_on():
                return False

    def _pass_over_other(self) -> str:
        """Pass over what is no object, up to the next one; return a sentence about it."""
        shown = self._buffer[self._at : self._at + 40].decode(errors="replace")
        while (start := self._buffer.find(b"{", self._at)) < 0:
            if not self._read_on():
                break
        self._at = max(start, 0)
        return f"an object is expected where {shown!r} stands; valid: one JSON object per record"

    def _pass_over_long(self, scan: _Scan, end: int | None) -> None:
        """Find the end of an object without holding it."""
        while end is None:
            if scan.content[scan.at : scan.at + 1] == b'"':
                rest = self._pass_over_text(scan.content[scan.at + 1 :])
            else:
                rest = self._stream.read(_CHUNK_BYTES)
            scan.content, scan.at = rest, 0
            if not rest:
                break
            end = scan.find_end()
        self._buffer, self._at = scan.content, end or 0

    def _pass_over_text(self, begun: bytes) -> bytes:
        """Pass over a text that has begun; return what follows its closing quotation mark."""
        while True:
            found = _REST_OF_TEXT.match(begun)
            assert found is not None
            if found[1]:
                return begun[found.end() :] or self._stream.read(_CHUNK_BYTES)
            more = self._stream.read(_CHUNK_BYTES)
            if not more:
                return b""
            begun = begun[found.end() :] + more  # a backslash whose partner comes with the next part


def _release_one(
    entries: Iterator[Entry | Unreadable], options: ReadingOptions, is_bare: Callable[[], bool]
) -> Iterator[Entry | Unreadable]:
    """Read entries; where the source is one bare object around a list of objects, read those instead."""
    first = next(entries, None)
    if first is None:
        return
    second = next(entries, None)
    if second is None and isinstance(first, Entry) and is_bare():
        assert isinstance(first.value, bytes)
        wrapped = _find_wrapped(first.value, options)
        if wrapped is not None:
            yield from _Document(buffered(wrapped), options).read()
            return
    yield from chain([first], [] if second is None else [second], entries)


def _find_wrapped(content: bytes, options: ReadingOptions) -> bytes | None:
    """Return the only list of objects under a usual name; None: it has none, or is a record."""
    try:
        items = _items_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            items = _items_decoder.decode(normalize_object(content))
        except InvalidEventError:
            return None
    lists = _list_wrapped(items)
    if not lists:  # what an API answers may lie one level deeper: {"result": {"items": […]}}
        deeper = [raw for raw in items.values() if bytes(raw)[:1] == b"{"]
        lists = [found for raw in deeper for found in _list_wrapped(_items_decoder.decode(raw))]
    if len(lists) != 1 or options.is_record(decode_object(content)):
        return None
    return lists[0]


def _list_wrapped(items: Mapping[str, msgspec.Raw]) -> list[bytes]:
    """List the lists of objects under usual names; messages are no records."""
    usual = [bytes(raw) for name, raw in items.items() if name.lower() in USUAL_NAMES]
    return [raw for raw in usual if re.match(rb"\[\s*\{", raw) and not _MESSAGE.match(raw)]


def _find_wrapped_start(begun: bytes) -> int | None:
    """Return where the first object stands in a list under a usual name, in the first part of an object."""
    depth = 0
    name: Any = b""
    for token in _TOKEN.finditer(begun):
        if token[0][:1] == b'"':
            name = token if depth == 1 else name
        elif token[0] in b"{[":
            depth += 1
            if depth == 2 and token[0] == b"[" and _is_usual(begun, name, token.start()):
                inner = re.compile(rb"\s*\{").match(begun, token.end())
                return None if inner is None else inner.end() - 1
        else:
            depth -= 1
    return None


def _is_usual(begun: bytes, name: Any, bracket: int) -> bool:
    is_key = isinstance(name, re.Match) and begun[name.end() : bracket].strip() == b":"
    return is_key and name[0].strip(b'"').decode(errors="replace").lower() in USUAL_NAMES


def _is_object(content: bytes) -> bool:
    return content[:1] == b"{" and _find_problem(content) is None


def _find_problem(content: bytes) -> str | None:
    try:
        _raw_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            decode_object(content)
        except InvalidEventError as error:
            return str(error)
    return None
