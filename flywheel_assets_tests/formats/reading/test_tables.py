"""CSV and TSV as spreadsheets, pandas and people write them."""

import csv
import io
from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable
from flywheel_assets.formats.reading.opening import open_reading
from flywheel_assets.formats.reading.quoting import Quoting
from flywheel_assets.formats.reading.sources import hold_bytes


def read(content: str | bytes, **said: Any) -> list[Any]:
    raw = content if isinstance(content, bytes) else content.encode()
    with open_reading(hold_bytes("x.csv", raw), ReadingOptions(**said)) as reading:
        return [each.value if isinstance(each, Entry) else each for each in reading]


@pytest.mark.parametrize(
    "content",
    [
        'a,b\n"x, y",z\n',
        'a;b\n"x, y";z\n',
        "a;b\r\nx, y;z",
        "\ufeffa;b\r\nx, y;z\r\n",
        "a\tb\nx, y\tz\n",
        '"a","b"\r"x, y","z"\r',
        "\n\na\tb\n\nx, y\tz\n\n",
        "\ta\tb\n0\tx, y\tz\n",
        "a,b,\n" + '"x, y",z,\n',
    ],
)
def test_one_row_in_every_shape(content: str) -> None:
    assert read(content) == [{"a": "x, y", "b": "z"}]


def test_cells_over_several_lines_and_numbers_of_rows() -> None:
    content = 'a,b\n"one\ntwo ""three""",x\n\ny,z\n'
    with open_reading(hold_bytes("x.csv", content.encode()), ReadingOptions()) as reading:
        assert list(reading) == [Entry(2, {"a": 'one\ntwo "three"', "b": "x"}), Entry(5, {"a": "y", "b": "z"})]
        assert reading.shape == "table separated by commas"


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_tabs_quoted_by_a_writer_are_read_back(quoting: Any) -> None:
    rows = [['say "hi"', "two\nlines", "plain"], ["", "tab\there", "x"]]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", quoting=quoting).writerows([["a", "b", "c"], *rows])
    assert [list(row.values()) for row in read(text.getvalue())] == rows


@pytest.mark.parametrize(
    "cell", ['"quoted" text', 'He said "no"', '"Yes," he said. "No."', '"', 'a "b', '5" pipe', '"whole answer"']
)
def test_literal_quotation_marks_between_tabs_are_kept(cell: str) -> None:
    """Post-edits of translators came with half of their quotation marks, and two rows became one."""
    rows = read(f"a\tb\nplain text\tmore text\n{cell}\tmore\nlast\tone\n")
    assert [row["a"] for row in rows] == ["plain text", cell, "last"]


def test_quoting_can_be_said() -> None:
    content = 'a\tb\n"whole answer"\tmore\nplain\tx\n'
    assert read(content, quoting=Quoting.CSV)[0]["a"] == "whole answer"
    assert read('a,b\n"x",y\n', quoting=Quoting.NONE)[0]["a"] == '"x"'


@pytest.mark.parametrize(("given", "content"), [("|", "a|b\nx|y"), ("tab", "a\tb\nx\ty"), (";", "a;b\nx;y")])
def test_a_delimiter_can_be_said(given: str, content: str) -> None:
    assert read(content, delimiter=given) == [{"a": "x", "b": "y"}]
    with pytest.raises(InvalidEventError, match="valid: one character, or tab"):
        read(content, delimiter="ab")


def test_rows_of_another_length_cost_only_themselves() -> None:
    few, good, many = read("a,b\nx\nx,y\nx,y,z\n")
    assert few == Unreadable(2, "the line has 1 cells; the header names 2")
    assert good == {"a": "x", "b": "y"}
    assert many.number == 4


def test_an_open_quotation_mark_is_bounded_and_named() -> None:
    rows = read('a,b\nx,y\n"open,z\n' + "more,text\n" * 300_000 + "", longest_bytes=150_000)
    assert rows[0] == {"a": "x", "b": "y"}
    assert "is a quotation mark left open?" in rows[1].problem


def test_a_long_line_and_a_wrong_byte_cost_only_themselves() -> None:
    long, wrong, good = read(b"a,b\n" + b"x" * 500_000 + b",y\n\xff,y\nx,\xc3\xa9\n", longest_bytes=200_000)
    assert long.problem == "the line is longer than 200000 characters"
    assert "byte 0xff at position 0 of the line" in wrong.problem
    assert good == {"a": "x", "b": "é"}


def test_escapes_are_literal_and_counted_unless_they_are_said_to_be_read() -> None:
    content = b"a\tb\nold\\nline\tc:\\\\x\\tz\nplain\tx\n"
    with open_reading(hold_bytes("x", content), ReadingOptions()) as reading:
        assert [each.value["a"] for each in reading] == ["old\\nline", "plain"]  # type: ignore[union-attr]
        assert reading.escaped_rows == 1
    assert read(content, escapes=True)[0] == {"a": "old\nline", "b": "c:\\x\tz"}


def test_a_column_twice_is_refused_and_words_are_no_table() -> None:
    with pytest.raises(InvalidEventError, match=r"the header of x.csv names a more than once"):
        read("a,b,a\n1,2,3\n")
    with pytest.raises(InvalidEventError, match="neither JSON nor a table: it begins with 'Dear team'"):
        read("Dear team")


@pytest.mark.parametrize("escapes", [False, True])
def test_the_null_of_postgres_is_no_text(escapes: bool) -> None:
    r"""COPY, MySQL and Hive write \\N for null; it had become a person of that name."""
    content = "text\tuser_id\nq\t\\N\nr\tu\n"
    assert read(content, escapes=escapes) == [{"text": "q", "user_id": None}, {"text": "r", "user_id": "u"}]


def test_the_line_that_tells_excel_the_delimiter_is_no_header() -> None:
    assert read("sep=;\r\na;b\r\n1,5;x\r\n") == [{"a": "1,5", "b": "x"}]
    assert read("\ufeffsep=;\r\na;b\r\n1,5;x\r\n") == [{"a": "1,5", "b": "x"}]


def test_pipes_are_found() -> None:
    assert read("a|b\nx, y|z\n") == [{"a": "x, y", "b": "z"}]


def test_utf_16_without_a_mark_names_the_option() -> None:
    content = "a,b\n1,2\n".encode("utf-16-le")
    with pytest.raises(InvalidEventError, match="--encoding utf-16-le"):
        read(content)
    assert read(content, encoding="utf-16-le") == [{"a": "1", "b": "2"}]
