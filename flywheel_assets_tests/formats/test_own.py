"""Our own records in files: edits, choices, events, and what a file may say more loosely than a request."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from flywheel_assets.conversations import Message
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.own import OWN, RETRACTING_SOURCE, convert_entry
from flywheel_assets.formats.record import Record
from flywheel_assets.wire import Choice, Edit, FeedbackCloudEvent, PredictionCloudEvent

EDIT = {"prompt": "How?", "original_llm_output": "Thus.", "final_user_edit": "Like this."}
CHOICE = {"prompt": "How?", "chosen": "Like this.", "rejected": "Thus."}
PREDICTION = {
    "specversion": "1.0",
    "id": "p",
    "source": "app",
    "type": "flywheel.prediction",
    "data": {"prompt": "a", "output": "b"},
}


def convert(**fields: Any) -> Any:
    """Convert a record as JSON, and check that the row of a table with the same values says the same."""
    [event] = convert_entry(json.dumps(fields).encode())
    assert convert_entry(fields) == [event]
    return event


def test_the_two_statements_and_events() -> None:
    assert convert(**EDIT) == Edit("How?", "Thus.", "Like this.")
    assert convert(**CHOICE) == Choice("How?", "Like this.", "Thus.")
    [event] = convert_entry(json.dumps(PREDICTION).encode())
    assert isinstance(event, PredictionCloudEvent)


@pytest.mark.parametrize(("given", "text"), [(7, "7"), ("7", "7"), (7.0, "7"), (2**60, str(2**60)), (0, "0")])
def test_whole_numbers_are_ids(given: Any, text: str) -> None:
    """Exports of databases number their rows; every one of them was refused."""
    event = convert(**EDIT, id=given, user_id=given, thread_id=given, model_version=given)
    assert [event.id, event.user_id, event.thread_id, event.model_version] == [text] * 4
    [event] = convert_entry(json.dumps(PREDICTION | {"id": given}).encode())
    assert event.id == text


@pytest.mark.parametrize("given", [7.5, [7], {"a": 1}, ""])
def test_anything_else_is_no_id(given: Any) -> None:
    with pytest.raises(InvalidEventError):
        convert_entry(json.dumps({**EDIT, "id": given}).encode())


def test_fields_more_are_passed_over_and_listed() -> None:
    """One column more than we know refused every row of a file."""
    assert convert(**EDIT, score=1, session={"id": 2}) == Edit("How?", "Thus.", "Like this.")
    record = Record({**EDIT, "score": 1, "user_id": "ann"})
    OWN.convert(record)
    assert record.list_unread() == ["score"]
    more = PREDICTION | {"traceparent": "x", "data": {"prompt": "a", "output": "b", "cost": 1, "prediction_id": 7}}
    record = Record(more)
    [event] = OWN.convert(record)
    assert isinstance(event, PredictionCloudEvent)
    assert event.data.prediction_id == "7"
    assert sorted(record.list_unread()) == ["data.cost", "traceparent"]


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01 14:00:00+02:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        (1767268800, datetime(2026, 1, 1, 12, tzinfo=UTC)),
        (1767268800000, datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ],
)
def test_times_as_databases_write_them(given: Any, moment: datetime) -> None:
    assert convert(**EDIT, occurred_at=given).occurred_at == moment


def test_cells_of_a_table() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    row = EDIT | {
        "user_id": "",
        "do_not_train": "TRUE",
        "revision": "3",
        "occurred_at": moment,
    }
    [event] = convert_entry(row)
    assert isinstance(event, Edit)
    assert (event.user_id, event.do_not_train, event.revision) == (None, True, 3)
    assert event.occurred_at == moment
    messages = [{"role": "user", "content": "How?"}]
    for given in (messages, json.dumps(messages)):
        [event] = convert_entry({**EDIT, "prompt": given})
        assert isinstance(event, Edit)
        assert isinstance(event.prompt, list)
        assert isinstance(event.prompt[0], Message)
    [event] = convert_entry({**EDIT, "prompt": '[{"no": "message"}]'})
    assert isinstance(event, Edit)
    assert event.prompt == '[{"no": "message"}]', "a text that looks like JSON is a text"
    with pytest.raises(InvalidEventError, match="Python's own notation"):
        convert_entry({**EDIT, "prompt": "[{'role': 'user', 'content': 'How?'}]"})
    with pytest.raises(InvalidEventError, match="do_not_train is 'maybe'; valid: true, 1"):
        convert_entry({**EDIT, "do_not_train": "maybe"})


@pytest.mark.parametrize("base", [EDIT, CHOICE])
def test_tools_may_be_a_text_of_json(base: dict[str, Any]) -> None:
    """TRL and our own exports write them so: one column holds tools of any shape."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    for given in (json.dumps({**base, "tools": json.dumps(tools)}).encode(), {**base, "tools": json.dumps(tools)}):
        [event] = convert_entry(given)
        assert isinstance(event, Edit | Choice)
        assert event.tools == tools
    for empty in ("", "null", "[]"):
        assert not convert(**base, tools=empty).tools
    with pytest.raises(InvalidEventError, match=r"`tools` is no list of tools: .*; valid: a list of descriptions"):
        convert(**base, tools="a hammer")


def test_a_line_that_takes_back() -> None:
    event = convert(retracts=7)
    assert isinstance(event, FeedbackCloudEvent)
    assert (event.source, event.data.retracts) == (RETRACTING_SOURCE, "7")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "a"}, "lacks `original_llm_output`, `final_user_edit`; valid: prompt, original_llm_output, "),
        ({"prompt": "a", "chosen": "b"}, "lacks `rejected`"),
        ({"chosen": "b", "rejected": "c"}, "lacks `prompt`"),
        ({**EDIT, "prompt": 1}, r"at `\$.prompt`"),
        ({**CHOICE, "occurred_at": "yesterday"}, "`occurred_at` is 'yesterday'; valid: a time in ISO 8601"),
        ({"specversion": "1.0", "type": "other", "id": "1", "source": "s"}, "valid: flywheel.prediction, flywheel.f"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidEventError, match=says):
        convert_entry(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("values", "is_own"),
    [
        (EDIT, True),
        (CHOICE, True),
        (PREDICTION, True),
        ({**CHOICE, "chosen": [{"role": "assistant", "content": "x"}]}, True),
        ({**CHOICE, "chosen": [{"role": "user"}, {"role": "assistant"}]}, False),
        ({**CHOICE, "chosen": json.dumps([{"role": "assistant", "content": "x"}])}, True),
        ({**CHOICE, "chosen": json.dumps([{"role": "user"}, {"role": "assistant"}])}, False),
        ({"chosen": "x", "rejected": "y"}, False),
        ({"specversion": "1.0", "type": "com.example.order"}, False),
        ({}, False),
    ],
)
def test_recognition(values: dict[str, Any], is_own: bool) -> None:
    assert OWN.matches(Record(values)) is is_own
