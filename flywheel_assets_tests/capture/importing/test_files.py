import json
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets_tests.capture.imports import import_into
from flywheel_assets_tests.capture.samples import Clock, edit, feedback_event, landed, prediction_event

REALDATA = Path(os.environ.get("FLYWHEEL_REALDATA_DIR", Path(__file__).parents[4] / "shared" / "data"))


def write_jsonl(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def test_every_line_format_lands(tmp_path: Path) -> None:
    pair = {"prompt": "Why?", "chosen": "mine", "rejected": "the model's", "user_id": "ann"}
    events = [prediction_event(source="reviewer"), feedback_event(data={"signal": "thumb", "value": 1})]
    path = write_jsonl(tmp_path / "old.jsonl", edit(), pair, *events)
    result = import_into(tmp_path / "landing", path, clock=Clock())
    assert (result.records, result.accepted, result.refused, result.causes) == (4, 4, 0, ())
    assert result.events == {"edit": 1, "choice": 1, "prediction": 1, "thumb": 1}
    first, second, thumb = landed(tmp_path / "landing", "feedback")
    assert (second["signal"], second["original_output"], second["final_text"]) == ("choice", "the model's", "mine")
    assert len(landed(tmp_path / "landing", "prediction")) == 2, "a choice carries its texts"
    assert thumb["prediction_id"] == "p-1"
    assert {row["source"] for row in (first, second, thumb)} == {"import:old.jsonl"}
    assert {row["source"] for row in landed(tmp_path / "landing", "prediction")} == {"import:old.jsonl"}


def test_a_bad_line_costs_only_itself_and_is_listed(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "old.jsonl",
        b"\xef\xbb\xbf" + json.dumps(edit(id="1")).encode(),
        b"",
        b'{"prompt":"\\ud800","original_llm_output":"","final_user_edit":""}',
        b'{"prompt":"\xff","original_llm_output":"","final_user_edit":""}',
        {"prompt": "p", "chosen": "c", "rejected": "r", "score": 1},
        {"prompt": "p", "chosen": "c", "original_llm_output": "r"},
        b"[1]",
        b"{" + b" " * 5_000 + b"}",
        edit(id="9"),
    )
    result = import_into(tmp_path / "landing", path, reading={"longest_bytes": 4_000})
    assert (result.records, result.accepted, result.refused) == (8, 3, 5)
    assert [(cause.number, cause.unit) for cause in result.causes] == [(number, "line") for number in (3, 4, 6, 7, 8)]
    problems = [cause.problem for cause in result.causes]
    assert "lone surrogate \\ud800" in problems[0]
    assert "name its encoding with --encoding latin-1" in problems[1]
    assert problems[2].startswith("lacks `final_user_edit`") or "lacks `rejected`" in problems[2]
    assert problems[4] == "the record is longer than 4000 bytes, which is the most that is held of one"
    assert result.files[0].unread == ("score",), "a field more is no reason to refuse an answer"
    assert len(landed(tmp_path / "landing", "feedback")) == 3


def test_causes_are_grouped_and_all_are_counted(tmp_path: Path) -> None:
    """The first hundred of 1,500 equal complaints were listed, and the one that was different was not."""
    lines: list[Any] = [edit()]
    lines += [{"prompt": "p", "chosen": str(number)} for number in range(300)]
    path = write_jsonl(tmp_path / "bad.jsonl", *lines, edit(id=[1]))
    result = import_into(tmp_path / "landing", path)
    assert [(cause.count, cause.number) for cause in result.causes] == [(300, 2), (1, 302)]
    assert result.exit_code == 3


def test_importing_twice_lands_the_same_event_ids(tmp_path: Path) -> None:
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b"}
    path = write_jsonl(tmp_path / "old.jsonl", edit(), edit(id="7"), prediction_event(), pair)
    for _ in range(2):
        import_into(tmp_path / "landing", path)
    for kind, distinct in (("prediction", 3), ("feedback", 3)):
        ids = [row["event_id"] for row in landed(tmp_path / "landing", kind)]
        assert len(ids) == 2 * distinct
        assert len(set(ids)) == distinct


def test_row_numbers_of_two_files_do_not_meet(tmp_path: Path) -> None:
    """Row number 1 of one file is not row number 1 of another; the same content without an id is the same pair."""
    for name in ("a.jsonl", "b.jsonl"):
        path = write_jsonl(tmp_path / name, edit(id="1", prompt=name), edit(prompt="the same"))
        import_into(tmp_path / "landing", path)
    predictions = [row["prediction_id"] for row in landed(tmp_path / "landing", "prediction")]
    assert len(predictions) == 4
    assert len(set(predictions)) == 3


def test_comparisons_with_tools_and_messages(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "light", "arguments": {"room": "hall"}}}
    prompt = [{"role": "user", "content": "Lights on."}, {"role": "assistant", "tool_calls": [call]}]
    prompt.append({"role": "tool", "name": "light", "content": "on"})
    done = {"role": "assistant", "content": "Done."}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    tool = {"type": "function", "function": {"name": "light"}}
    path = write_jsonl(
        tmp_path / "old.jsonl",
        {"prompt": prompt, "chosen": [done], "rejected": [calling], "tools": [tool], "id": "1"},
        {"prompt": prompt, "chosen": "Done.", "rejected": calling},
        {"prompt": prompt, "chosen": [done, done], "rejected": "No."},
        {"prompt": [{"role": "human", "content": "Hi"}], "chosen": "a", "rejected": "b"},
    )
    result = import_into(tmp_path / "landing", path, clock=Clock())
    first, second = landed(tmp_path / "landing", "feedback")
    for row in (first, second):
        assert (row["signal"], row["final_text"]) == ("choice", "Done.")
        assert json.loads(row["prompt"]) == prompt
        assert json.loads(row["original_message"])["tool_calls"] == [call]
    assert json.loads(first["tools"]) == [tool]
    assert "final_message" not in first
    assert first["received_at"] < second["received_at"], "lines keep their order"
    answers, roles = result.causes
    assert (answers.number, roles.number) == (3, 4)
    assert "`chosen`: 2 messages; an answer is one" in answers.problem
    assert "valid: system, developer, user, assistant, tool" in roles.problem


def test_a_retraction_in_a_file_takes_back_a_statement_of_that_file(tmp_path: Path) -> None:
    taken_back = feedback_event(id="f-2", data={"signal": "retract", "prediction_id": None, "retracts": "f-1"})
    path = write_jsonl(tmp_path / "x.ndjson", feedback_event(), taken_back)
    import_into(tmp_path / "landing", path)
    accepted, retracted = landed(tmp_path / "landing", "feedback")
    assert retracted["retracts"] == accepted["statement_id"]


def test_events_of_two_sources_with_one_id_stay_apart(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.ndjson", feedback_event(source="web"), feedback_event(source="ide"))
    import_into(tmp_path / "landing", path)
    assert len({row["event_id"] for row in landed(tmp_path / "landing", "feedback")}) == 2


def test_tsv_cells_are_literal(tmp_path: Path) -> None:
    path = tmp_path / "old.tsv"
    path.write_bytes(
        "final_user_edit\tprompt\toriginal_llm_output\tuser_id\tdo_not_train\toccurred_at\r\n"
        '"quoted" text\tא "b\t\tann\tTRUE\t2026-01-01T00:00:00Z\r\n'
        "\tp\to\t\t\t\n"
        "too\tfew\n"
        "a\tb\tc\td\tmaybe\t\n"
        "a\tb\tc\td\t0\tyesterday\n".encode()
        + b"\xff\tp\to\t\t\t\n"
    )
    result = import_into(tmp_path / "landing", path, clock=Clock())
    first, second = landed(tmp_path / "landing", "feedback")
    assert (first["final_text"], first["prompt"], first["original_output"]) == ('"quoted" text', 'א "b', "")
    assert (first["user_id"], first["do_not_train"]) == ("ann", True)
    assert first["occurred_at"] == "2026-01-01T00:00:00.000000Z"
    assert (second["final_text"], second["do_not_train"]) == ("", False)
    assert "user_id" not in second
    cells, truth, moment, encoding = result.causes
    assert [cause.number for cause in result.causes] == [4, 5, 6, 7]
    assert "2 cells; the header names 6" in cells.problem
    assert "valid: true, 1, yes, false, 0, no" in truth.problem
    assert "`occurred_at` is 'yesterday'" in moment.problem
    assert "not valid UTF-8: byte 0xff" in encoding.problem


@pytest.mark.parametrize("header", ["colour\tshape\tsize", "prompt\tprompt\tprompt"])
def test_a_header_that_names_no_known_columns(tmp_path: Path, header: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(header + "\na\tb\tc\n")
    result = import_into(tmp_path / "landing", path)
    assert (result.accepted, result.exit_code) == (0, 1)
    problem = result.files[0].problem or result.causes[0].problem
    assert "valid: " in problem or "more than once" in problem


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with open(path, "w") as file:
        for number in range(6_000):
            file.write(json.dumps(edit(id=str(number), final_user_edit="x" * 10_000)) + "\n")
    assert path.stat().st_size > 60e6
    tracemalloc.start()
    try:
        result = import_into(tmp_path / "landing", path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.accepted == 6_000
    assert peak_bytes < 45e6


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.skipif(not (REALDATA / "mlqe_pe").is_dir(), reason=f"{REALDATA / 'mlqe_pe'} is absent")
def test_sixteen_thousand_real_post_edits(tmp_path: Path) -> None:
    path = tmp_path / "mlqe.tsv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("prompt\toriginal_llm_output\tfinal_user_edit\n")
        for archive in sorted((REALDATA / "mlqe_pe").glob("*.tar.gz")):
            with tarfile.open(archive) as tar:
                members = {member.name.rpartition(".")[2]: member for member in tar.getmembers() if member.isfile()}
                columns = [
                    tar.extractfile(members[suffix]).read().decode().rstrip("\n").split("\n")  # type: ignore[union-attr]
                    for suffix in ("src", "mt", "pe")
                ]
            file.writelines("\t".join(row) + "\n" for row in zip(*columns, strict=True))
    result = import_into(tmp_path / "landing", path)
    assert (result.records, result.accepted, result.refused) == (16_000, 16_000, 0)
    assert len(landed(tmp_path / "landing", "feedback")) == 16_000
