import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.formats.own import convert_entry
from flywheel_assets.formats.reading.entries import ReadingOptions
from flywheel_assets.formats.reading.sources import open_file
from flywheel_assets.lake.whatif import curate_file as module
from flywheel_assets.lake.whatif._pairs import Pair, find_statements
from flywheel_assets.lake.whatif.curate_file import CuratePlan, FileResult, curate_files


def edit(prompt: Any = "How do I sum?", before: str = "use sumall(x)", after: str = "use sum(x)", **more: Any) -> bytes:
    return json.dumps({"prompt": prompt, "original_llm_output": before, "final_user_edit": after, **more}).encode()


def curated(folder: Path, *lines: bytes, plan: CuratePlan | None = None) -> tuple[FileResult, list[dict[str, Any]]]:
    (folder / "in.jsonl").write_bytes(b"\n".join(lines))
    result = curate_files([open_file(folder / "in.jsonl")], folder / "out" / "gold.jsonl", GateRules(), plan)
    return result, [json.loads(line) for line in (folder / "out" / "gold.jsonl").read_bytes().splitlines()]


def test_texts_and_messages_are_written_as_they_came(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "add them"}]
    result, written = curated(
        tmp_path,
        edit(),
        edit("nul \0", before="use sumall(y) שלום 👍", after="use sum(y) שלום 👍"),
        edit(messages, thread_id="t", extra=1),
    )
    assert written == [
        {"prompt": "How do I sum?", "chosen": "use sum(x)", "rejected": "use sumall(x)"},
        {"prompt": "nul \0", "chosen": "use sum(y) שלום 👍", "rejected": "use sumall(y) שלום 👍"},
        {"prompt": messages, "chosen": "use sum(x)", "rejected": "use sumall(x)"},
    ]
    assert result == FileResult(3, {}, ())


def test_a_line_becomes_the_row_that_capture_and_the_join_would_make() -> None:
    """A row of a comparison set was judged as if a person had written one answer into the other."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {}}}
    calling = {"role": "assistant", "tool_calls": [call]}
    tools = [{"type": "function", "function": {"name": "f"}}]
    chosen = [{"role": "assistant", "content": "Done."}]
    line = json.dumps({"prompt": "Do.", "chosen": chosen, "rejected": calling, "tools": tools}).encode()
    row = module._build_joined_row(7, 0, find_pair(line))
    assert (row["signal"], row["final_text"], row["final_message"]) == ("choice", "Done.", None)
    assert row["output"] == '{"name": "f", "arguments": {}}'
    assert json.loads(row["output_message"])["tool_calls"] == [call]
    assert json.loads(row["tools"]) == tools
    assert module._build_joined_row(8, 0, find_pair(edit()))["signal"] == "edit"


def find_pair(line: bytes) -> Pair:
    [pair] = find_statements(convert_entry(line))
    assert isinstance(pair, Pair)
    return pair


def choice(prompt: Any, chosen: Any, rejected: Any, **more: Any) -> bytes:
    return json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}).encode()


LIGHTS = [
    {"role": "user", "content": "Turn on the living room lights."},
    {
        "role": "assistant",
        "tool_calls": [
            {"type": "function", "function": {"name": "control_light", "arguments": {"room": "hall", "state": "on"}}}
        ],
    },
    {"role": "tool", "name": "control_light", "content": "The lights in the hall are now on."},
]


@pytest.mark.parametrize("chunk_records", [1, 2, 1000])
def test_both_shapes_of_lines_are_reduced_to_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_records: int
) -> None:
    """An editor that saved every minute gave one pair per minute, of which a version keeps the last."""
    monkeypatch.setattr(module, "CHUNK_RECORDS", chunk_records)
    tools = [{"type": "function", "function": {"name": "control_light"}}]
    done, did = "Done! The hall lights are on.", "I did something to the lights of the house."
    result, written = curated(
        tmp_path,
        edit(after="use sum(x), slow", id="autosave"),
        choice(LIGHTS, [{"role": "assistant", "content": done}], did, tools=tools),
        edit("Who?", id=7, revision=2),
        edit(after="use sum(x), fast", id="autosave"),
        choice("Which?", "use sum(y)", "use sumall(y)", id="compared"),
        b'{"retracts": "compared"}',
        edit("Who?", after="use sums(x)", id=7, revision=1),
        b'{"retracts": "unknown"}',
        edit("Why?", id="secret"),
        edit("Why?", after="use sum(z)", id="secret", do_not_train=True),
        edit("When?", id="again"),
        b'{"retracts": "again"}',
        edit("When?", after="use sum(w)", id="again"),
        edit("How?", id="torn"),
        b'{"prompt": "How?", "id": "torn"}',
    )
    assert {row["chosen"] for row in written} == {"use sum(x), fast", done, "use sum(x)", "use sum(w)"}
    [lights] = [row for row in written if row["chosen"] == done]
    assert (lights["rejected"], lights["tools"], lights["prompt"][1]["role"]) == (did, tools, "assistant")
    assert [row["prompt"] for row in written if row is not lights] == ["Who?", "How do I sum?", "When?", "How?"]
    assert result.dropped == {
        "malformed_event": 1, "no_consent": 1, "statement": 3, "superseded": 3, "withdrawn": 2,
    }  # fmt: skip
    [cause] = result.causes
    assert (cause.number, cause.count) == (15, 1)
    assert cause.problem.startswith("lacks `original_llm_output`, `final_user_edit`; valid: prompt, ")


def test_a_file_that_can_be_read_once_is_reduced_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = b"\n".join([edit(after="use sum(x), slow", id="a"), edit(id="a")])
    writer = threading.Thread(target=pipe.write_bytes, args=(lines,))
    writer.start()
    result = curate_files([open_file(pipe)], tmp_path / "out.jsonl", GateRules())
    writer.join()
    assert result == FileResult(1, {"superseded": 1}, ())
    assert json.loads((tmp_path / "out.jsonl").read_bytes())["chosen"] == "use sum(x)"


def test_a_bad_line_costs_only_itself(tmp_path: Path) -> None:
    bad = [
        b"not json",
        b'"text"',
        b'{"prompt": 1, "chosen": "a", "rejected": "b"}',
        b'{"prompt": [{"role": "human", "content": "x"}], "chosen": "a", "rejected": "b"}',
        b'{"prompt": [{"role": "system", "content": "x"}], "chosen": "a", "rejected": "b"}',
        b'{"prompt": "p", "chosen": {"role": "user", "content": "a"}, "rejected": "b"}',
        b'{"prompt": "p", "chosen": "a"}',
        b'{"prompt": "p", "chosen": "lone \\ud800", "rejected": "b"}',
        b'{"prompt": "p", "chosen": "\xff", "rejected": "b"}',
        b'{"prompt": ' + b"[" * 100_000,
    ]
    result, written = curated(tmp_path, edit(), b"", *bad, b"  ", edit("Why?", do_not_train=True), edit("Who?"))
    assert [row["prompt"] for row in written] == ["How do I sum?", "Who?"]
    assert result.kept == 2
    assert result.dropped == {"malformed_event": len(bad), "no_consent": 1}
    assert sum(cause.count for cause in result.causes) == len(bad)
    assert sorted(cause.number for cause in result.causes)[0] == 3
    assert result.exit_code == 3


def test_chunks_are_invisible_and_the_first_of_duplicates_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [edit(f"How {number % 5}?", before=f"use sumall({number})") for number in range(23)]
    whole = curated(tmp_path, *lines)
    monkeypatch.setattr(module, "CHUNK_RECORDS", 4)
    assert curated(tmp_path, *lines) == whole
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    assert curated(tmp_path, *lines) == whole
    assert [row["rejected"] for row in whole[1]] == [f"use sumall({number})" for number in range(5)]
    assert whole[0].dropped == {"duplicate": 18}


def test_a_line_without_end_is_refused_without_reading_it_whole(tmp_path: Path) -> None:
    plan = CuratePlan(reading=ReadingOptions(longest_bytes=200))
    result, written = curated(tmp_path, edit(), edit("x" * 900), edit("Who?"), edit("y" * 500), plan=plan)
    assert [row["prompt"] for row in written] == ["How do I sum?", "Who?"]
    assert [(cause.number, cause.count) for cause in result.causes] == [(2, 2)]


def test_a_failure_leaves_the_old_result_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, before = curated(tmp_path, edit())

    def fail(*_: object) -> int:
        raise OSError("disk full")

    monkeypatch.setattr(module, "_write_new", fail)
    with pytest.raises(OSError, match="disk full"):
        curated(tmp_path, edit("Who?"))
    assert [json.loads(line) for line in (tmp_path / "out" / "gold.jsonl").read_bytes().splitlines()] == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gold.jsonl"]


def test_an_empty_file_gives_an_empty_file_where_there_was_none(tmp_path: Path) -> None:
    assert curated(tmp_path) == (FileResult(0, {}, (), is_written=True, exit_code=1), [])


def test_an_output_is_not_replaced_by_an_empty_file_unless_it_is_said_so(tmp_path: Path) -> None:
    """A typing error in the input's name had emptied a data set of a week's work."""
    _, before = curated(tmp_path, edit())
    unchanged = edit(after="use sumall(x)")
    result, written = curated(tmp_path, unchanged)
    assert (result.kept, result.is_written, result.exit_code) == (0, False, 1)
    assert written == before
    result, written = curated(tmp_path, unchanged, plan=CuratePlan(allows_empty=True))
    assert (result.is_written, result.exit_code, written) == (True, 0, [])


def test_any_format_that_is_imported_is_curated(tmp_path: Path) -> None:
    """A prediction and the correction of it in one file are a pair; a thumb alone is none."""
    prediction = {"specversion": "1.0", "id": "p", "source": "app", "type": "flywheel.prediction"}
    correction = {"prompt": "How?", "original_output": "use sumall(x)", "final_text": "use sum(x)", "signal": "edit"}
    feedback = {"specversion": "1.0", "source": "app", "type": "flywheel.feedback"}
    events = [
        prediction | {"data": {"prompt": "How?", "output": "use sumall(x)"}},
        feedback | {"id": "f", "data": correction},
        feedback | {"id": "t", "data": {"signal": "thumb", "value": 1, "prediction_id": "p"}},
    ]
    result, written = curated(tmp_path, *(json.dumps(event).encode() for event in events))
    assert written == [{"prompt": "How?", "chosen": "use sum(x)", "rejected": "use sumall(x)"}]
    assert result.dropped == {"not_trainable_signal": 2}


def test_a_table_is_curated(tmp_path: Path) -> None:
    table = tmp_path / "edits.csv"
    table.write_text('\ufeffprompt;original_llm_output;final_user_edit\r\n"How; why?";use sumall(x);use sum(x)\r\n')
    result = curate_files([open_file(table)], tmp_path / "gold.jsonl", GateRules())
    assert result == FileResult(1, {})
    assert json.loads((tmp_path / "gold.jsonl").read_bytes())["prompt"] == "How; why?"
