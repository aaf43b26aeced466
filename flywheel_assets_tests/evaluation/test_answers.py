"""The answers that a killed evaluation leaves: taken over by the same request, whatever the last line looks like."""

from pathlib import Path

import pytest

from flywheel_assets.evaluation.answers import Answer, AnswerFile, make_answer_key

ONE, TWO = Answer("orders = lake.read('orders')", ended=True), Answer("so and so\nand so", ended=False)


def keys() -> tuple[str, str, str]:
    return (
        make_answer_key(None, "pair", None),
        make_answer_key("a" * 64, "pair", None),
        make_answer_key(None, "pair", 0),
    )


def test_model_row_and_sample_make_the_key() -> None:
    assert len({*keys(), make_answer_key(None, "other", None), make_answer_key(None, "pair", 1)}) == 5


def test_what_was_written_is_taken_over_and_stays_as_it_was(tmp_path: Path) -> None:
    one, two, three = keys()
    first = AnswerFile(tmp_path / "answers.jsonl", "request")
    first.append({one: ONE})
    first.append({one: TWO, two: TWO})
    again = AnswerFile(tmp_path / "answers.jsonl", "request")
    assert (again.answers, again.taken_over) == ({one: ONE, two: TWO}, 2)
    again.append({three: ONE})
    assert AnswerFile(tmp_path / "answers.jsonl", "request").answers == {one: ONE, two: TWO, three: ONE}
    again.delete()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_written_again(tmp_path: Path, cut: int) -> None:
    """A kill in the middle of a write left half a line; what was appended to it was lost with it."""
    path = tmp_path / "answers.jsonl"
    one, two, three = keys()
    AnswerFile(path, "request").append({one: ONE, two: TWO})
    path.write_bytes(path.read_bytes()[:-cut])
    again = AnswerFile(path, "request")
    assert again.answers == {one: ONE}
    again.append({two: TWO, three: ONE})
    assert AnswerFile(path, "request").answers == {one: ONE, two: TWO, three: ONE}


def test_another_request_takes_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswerFile(path, "request").append({keys()[0]: ONE})
    assert AnswerFile(path, "another").answers == {}
    assert AnswerFile(path, "request").answers == {}


@pytest.mark.parametrize("content", [b"", b'{"request": "requ', b"\x00\xff\n{}\n", b"[]\n"])
def test_a_file_without_a_whole_first_line_is_begun_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    AnswerFile(path, "request").append({keys()[0]: ONE})
    assert AnswerFile(path, "request").answers == {keys()[0]: ONE}
