import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets import records
from flywheel_assets.capture.events.texts import (
    DecodedEvent,
    Reception,
    decode_cloud_event,
    decode_edit,
    identify_statement,
)
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets_tests.capture.samples import NOON, edit, feedback_event, prediction_event

RECEPTION = Reception("assistant", NOON)
USER = {"role": "user", "content": "How?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CHOICE = {"signal": "choice", "prompt": "How?", "final_text": "Thus.", "original_output": "So."}
WEIRD_TEXTS = [
    "",
    "\0",
    "a\0b",
    "\u05e9\u05dc\u05d5\u05dd \u202egnp",
    "👩‍👩‍👧 🇪🇺",
    "\u2028\u2029",
    "\x1b[31m\r\n\t\x7f",
    "é" * 500_000,
]


def cloud_event(event: Any) -> DecodedEvent:
    return decode_cloud_event(json.dumps(event).encode(), RECEPTION)


def row(decoded: DecodedEvent, index: int = 0) -> dict[str, Any]:
    line = decoded.rows[index].line
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_prediction_lands_with_the_columns_of_its_schema() -> None:
    data = {"model_version": "m7", "user_id": "ann", "thread_id": "t", "do_not_train": True, "prediction_id": "x"}
    landed = row(cloud_event(prediction_event(data=data, time="2026-03-02T10:00:00.5+02:00")))
    assert landed == {
        "event_id": records.make_event_id("assistant", "app", "p-1"),
        "received_at": "2026-03-02T12:00:00.000000Z",
        "occurred_at": "2026-03-02T08:00:00.500000Z",
        "source": "app",
        "prediction_id": "x",
        "model_version": "m7",
        "user_id": "ann",
        "thread_id": "t",
        "do_not_train": True,
        "prompt": "How?",
        "prompt_format": "text",
        "output": "Thus.",
    }
    assert set(landed) == set(records.PREDICTION_EVENT.names) - {"tools", "output_message"}


def test_every_feedback_column_can_be_filled() -> None:
    data = {
        "signal": "rating", "value": 0.9, "final_text": "z", "comment": "c", "prompt": "How?", "original_output": "o",
        "model_version": "m", "user_id": "u", "thread_id": "t", "do_not_train": True, "sampling_probability": 0.25,
        "revision": 2, "tools": [TOOL],
    }  # fmt: skip
    landed = row(cloud_event(feedback_event(data=data)))
    others = {"label", "labeling_source", "known_at", "sibling_id", "retracts", "original_message", "final_message"}
    others |= {"attested_source", "is_attested"}  # from a key
    assert set(landed) == set(records.FEEDBACK_EVENT.names) - others
    assert (landed["value"], landed["sampling_probability"], landed["do_not_train"]) == (0.9, 0.25, True)


def test_every_field_lands_in_the_column_of_its_name() -> None:
    """Lines are built by position, for speed: no type checker sees two texts that change places."""
    names = ("prediction_id", "model_version", "user_id", "thread_id")
    ids = {name: f"the {name}" for name in names}
    texts = {name: f"the {name}" for name in ("prompt", "original_output", "final_text")}
    values = {"do_not_train": True, "sampling_probability": 0.25, "revision": 2}
    carried: list[dict[str, Any]] = [
        {"signal": "choice", "sibling_id": "the sibling", **ids, **texts, **values},
        {"signal": "rating", "value": 0.75, "comment": "hm", **ids, **texts, **values},
        {"signal": "label", "label": "fraud", "labeling_source": "analyst", "known_at": "2026-03-01T00:00:00Z", **ids},
        {"signal": "retract", "retracts": "another", "prediction_id": None},
    ]
    for data in carried:
        landed = row(cloud_event(feedback_event(data=data)))
        assert landed["statement_id"] == records.make_event_id("assistant", "app", "f-1")
        for name, value in data.items():
            if name == "retracts":
                assert landed[name] == records.make_event_id("assistant", "app", value)
            elif value is not None:
                assert landed[name] == (value if name != "known_at" else "2026-03-01T00:00:00.000000Z")
    about = {name: f"the {name}" for name in names[1:]}
    both = decode_edit(json.dumps(edit(**about, id="the id", revision=3, tools=[TOOL])).encode(), RECEPTION).rows
    prediction, feedback = (json.loads(each.line) for each in both)
    for landed in (prediction, feedback):
        assert {name: landed[name] for name in about} == about
        assert (landed["prediction_id"], landed["tools"]) == ("the id", json.dumps([TOOL], separators=(",", ":")))
        assert landed["prompt"] == edit()["prompt"]
    assert prediction["output"] == feedback["original_output"] == edit()["original_llm_output"]
    assert (feedback["final_text"], feedback["revision"]) == (edit()["final_user_edit"], 3)


def test_defaults_are_the_receipt_the_event_id_and_the_subject() -> None:
    landed = row(cloud_event(prediction_event(subject="ann", traceparent="00-1", datacontenttype="application/json")))
    assert landed["occurred_at"] == landed["received_at"]
    assert landed["prediction_id"] == "p-1"
    assert landed["user_id"] == "ann"
    assert row(cloud_event(prediction_event(subject="ann", data={"user_id": "bob"})))["user_id"] == "bob"


def test_a_prompt_of_messages_is_stored_as_one_canonical_array() -> None:
    spaced = {"prompt": [{"content": "Hé", "role": "user"}]}
    landed = row(cloud_event(prediction_event(data=spaced)))
    assert landed["prompt"] == '[{"role":"user","content":"Hé"}]'
    assert landed["prompt_format"] == "messages"


@pytest.mark.parametrize(
    ("signal", "fields"),
    [
        ("edit", {"final_text": ""}),
        ("thumb", {"value": -1}),
        ("thumb", {"value": 1, "final_text": "z"}),
        ("rating", {"value": 0}),
        ("copy", {}),
        ("accept", {"comment": "nice"}),
        ("regenerate", {}),
        ("label", {"label": "fraud"}),
        ("comment", {"comment": ""}),
        ("choice", {**CHOICE, "sibling_id": "p-2"}),
        ("regenerate", {**CHOICE, "signal": "regenerate", "sibling_id": "p-2"}),
        ("demonstration", {"prompt": "How?", "final_text": "Thus."}),
        ("retract", {}),
    ],
)
def test_each_signal_with_what_it_needs(signal: str, fields: dict[str, Any]) -> None:
    landed = row(cloud_event(feedback_event(data={"signal": signal} | fields)))
    assert landed["signal"] == signal
    assert {name: landed[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (3, "Expected `object`, got `int`"),
        ([], "Expected `object`, got `array`"),
        (prediction_event(specversion="0.3"), "specversion is '0.3'; valid: '1.0'"),
        (prediction_event(id=""), "length >= 1 - at `$.id`"),
        (prediction_event(id=7.5), "Expected `str`, got `float` - at `$.id`"),
        (prediction_event(source="reviewer"), "reserved"),
        (prediction_event(source="import:x.tsv"), "reserved"),
        (prediction_event(type="flywheel.edit"), "valid: flywheel.prediction, flywheel.feedback"),
        (prediction_event(data={"prompt": None}), "Expected `str | array`, got `null` - at `$.data.prompt`"),
        (prediction_event(data={"prompt": []}), "length >= 1 - at `$.data.prompt`"),
        (prediction_event(data={"prompt": [{"role": "user"}]}), "message 0 (user) has neither `content` nor `tool_c"),
        (
            prediction_event(data={"prompt": [{"role": "u", "content": ""}]}),
            "Invalid enum value 'u' - at `$.data.prompt[0].role`; valid: system, developer, user, assistant, tool",
        ),
        (prediction_event(data={"output": {"role": "bot"}}), "valid: system, developer, user, assistant, tool"),
        (prediction_event(data={"output": {"role": "user", "content": "x"}}), "`output`: role 'user'; an answer has"),
        (prediction_event(data={"output": {"role": "assistant"}}), "`output`: neither `content` nor `tool_calls`"),
        (prediction_event(data={"prompt": [{"role": "system", "content": "x"}]}), "no message of role 'user'"),
        (prediction_event(data={"prompt": [USER, {"role": "tool", "tool_calls": [CALL]}]}), "only 'assistant' calls"),
        (prediction_event(data={"prompt": [{"role": "user", "content": [{"text": "x"}]}]}), "part 0 of `content` has"),
        (prediction_event(data={"prompt": [{"role": "user", "content": [{"type": "text"}]}]}), "and no `text`"),
        (prediction_event(data={"output": {"role": "assistant", "tool_calls": [{"id": "1"}]}}), "no `function` with"),
        (prediction_event(data={"tools": [{"description": "x"}]}), "`tools`: tool 0 has no `function` with a `name`"),
        (prediction_event(data={"tools": {}}), "Expected `array | null`, got `object` - at `$.data.tools`"),
        (prediction_event(data={"output": 1}), "Expected `str | object`, got `int` - at `$.data.output`"),
        (prediction_event(data={"outptu": "x"}), "unknown field `outptu` - at `$.data`"),
        (prediction_event(data={"do_not_train": 1}), "Expected `bool`, got `int`"),
        (prediction_event(data={"user_id": ""}), "length >= 1 - at `$.data.user_id`"),
        (prediction_event(data_base64="aGk="), "send `data` as a JSON object"),
        (prediction_event(datacontenttype="text/xml"), "datacontenttype is 'text/xml'"),
        (prediction_event(time="yesterday"), "Invalid RFC3339 encoded datetime - at `$.time`"),
        (prediction_event(time="2026-03-02T12:00:00"), "timezone component - at `$.time`"),
        (prediction_event(time=1e300), "at `$.time`"),
        (prediction_event(time="1999-12-31T23:59:59Z"), "valid: from 2000-01-01T00:00:00.000000Z"),
        (prediction_event(time="0001-01-01T00:00:00+14:00"), "valid: from 2000"),
        (prediction_event(time="2026-03-03T12:00:00.000001Z"), "2026-03-03T12:00:00.000000Z"),
        (prediction_event(time="9999-12-31T23:59:59-14:00"), "valid: from 2000"),
        (feedback_event(data={"prediction_id": None}), "signal 'accept' needs the field `prediction_id` in `data`"),
        (feedback_event(data={"prediction_id": ""}), "length >= 1 - at `$.data.prediction_id`"),
        (feedback_event(data={"revision": -1}), "`int` >= 0 - at `$.data.revision`"),
        (feedback_event(data={"tools": [TOOL]}), "`tools` belong to a prompt"),
        (feedback_event(data={"sibling_id": "p-2"}), "signals that do: regenerate, choice"),
        (feedback_event(data={"retracts": "f-2"}), "signals that do: retract"),
        (
            feedback_event(data={"signal": "regenerate", "sibling_id": "p-2"}),
            "signal 'regenerate' with the new answer lacks `final_text`, `prompt`, `original_output`; send all of",
        ),
        (feedback_event(data={"signal": "regenerate", "final_text": "x", "prompt": "p"}), "lacks `sibling_id`, `orig"),
        (feedback_event(data={"signal": "choice", "final_text": "x", "prompt": "p"}), "needs the field `original_out"),
        (feedback_event(data={**CHOICE, "prediction_id": None}), "'choice' needs the field `prediction_id`"),
        (feedback_event(data={**CHOICE, "sibling_id": "p-1"}), "`sibling_id` is the `prediction_id` itself"),
        (feedback_event(data={"signal": "demonstration", "final_text": "x"}), "needs the field `prompt`"),
        (feedback_event(data={**CHOICE, "signal": "demonstration"}), "cannot carry `original_output`"),
        (feedback_event(data={"signal": "retract", "prediction_id": None}), "`prediction_id` (or `retracts`) in"),
        (feedback_event(data={"signal": "retract", "retracts": "f-2"}), "both `retracts` and `prediction_id`"),
        (feedback_event(data={"signal": "like"}), "valid: edit, thumb, rating, copy, accept, regenerate, label"),
        (feedback_event(data={"signal": "edit"}), "needs the field `final_text`"),
        (feedback_event(data={"signal": "thumb"}), "needs the field `value`"),
        (feedback_event(data={"signal": "thumb", "value": 0}), "valid: -1 (down) or 1 (up)"),
        (feedback_event(data={"signal": "thumb", "value": True}), "got `bool`"),
        (feedback_event(data={"signal": "rating", "value": 1.01}), "valid: 0 to 1"),
        (feedback_event(data={"signal": "label"}), "needs the field `label`"),
        (feedback_event(data={"signal": "comment"}), "needs the field `comment`"),
        (feedback_event(data={"signal": "copy", "final_text": "x"}), "do: edit, thumb, rating, regenerate, choice"),
        (feedback_event(data={"sampling_probability": 0}), "at `$.data.sampling_probability`"),
        (feedback_event(data={"sampling_probability": 1.5}), "at `$.data.sampling_probability`"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_wrong(event: Any, says: str) -> None:
    with pytest.raises(InvalidEventError) as error:
        cloud_event(event)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("element", "says"),
    [
        (b"", "not JSON"),
        (b'{"prompt":"x",', "not JSON"),
        (b'{"prompt":"\xff"}', "not valid UTF-8: byte 0xff"),
        (b'{"prompt":"\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"prompt":"\\ud800"}', r"lone surrogate \ud800"),
        (b'{"prompt":"\\udc00 x"}', r"lone surrogate \udc00"),
        (b'{"prompt":"\\ud83d\\ude00 \\\\ud800 \\uD800\\u0041"}', r"lone surrogate \uD800"),
        (b'{"prompt":NaN}', "NaN (byte"),
        (b'{"prompt":' + b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"id":"x","' + b"y" * 10_000 + b'":1}', "…"),
    ],
)
def test_bytes_that_are_no_event(element: bytes, says: str) -> None:
    with pytest.raises(InvalidEventError) as error:
        decode_edit(element, RECEPTION)
    assert says in str(error.value)
    assert len(str(error.value)) < 1000


def test_deep_nesting_is_refused_without_harm() -> None:
    nested = b'{"type":"flywheel.prediction","data":{"prompt":' * 100_000
    with pytest.raises(InvalidEventError):
        decode_cloud_event(nested, RECEPTION)


def test_an_edit_becomes_a_prediction_and_its_feedback() -> None:
    decoded = decode_edit(json.dumps(edit(user_id="ann", model_version="m", do_not_train=True)).encode(), RECEPTION)
    assert [landed.kind for landed in decoded.rows] == [EventKind.PREDICTION, EventKind.FEEDBACK]
    prediction, feedback = row(decoded), row(decoded, 1)
    assert prediction["prediction_id"] == feedback["prediction_id"] == decoded.client_id
    assert prediction["event_id"] != feedback["event_id"]
    assert prediction["source"] == feedback["source"] == "edits-api"
    assert prediction["output"] == feedback["original_output"] == "Thus."
    assert (feedback["signal"], feedback["final_text"], feedback["prompt"]) == ("edit", "Like this.", "How?")
    for landed in (prediction, feedback):
        assert (landed["user_id"], landed["model_version"], landed["do_not_train"]) == ("ann", "m", True)


@pytest.mark.parametrize(
    ("change", "is_same_event"),
    [
        ({}, True),
        ({"do_not_train": False}, True),
        ({"user_id": None}, True),
        ({"user_id": "ann"}, False),
        ({"prompt": "How? "}, False),
        ({"prompt": [{"role": "user", "content": "How?"}]}, False),
        ({"final_user_edit": "Like that."}, False),
        ({"do_not_train": True}, False),
        ({"occurred_at": "2026-03-01T00:00:00Z"}, False),
    ],
)
def test_a_missing_id_is_the_hash_of_all_fields(change: dict[str, Any], is_same_event: bool) -> None:
    first = decode_edit(json.dumps(edit()).encode(), RECEPTION)
    second = decode_edit(json.dumps(edit(**change)).encode(), RECEPTION)
    other_application = decode_edit(json.dumps(edit()).encode(), Reception("copilot", NOON))
    assert (first.client_id == second.client_id) is is_same_event
    assert first.client_id != other_application.client_id


def test_the_same_client_id_is_the_same_prediction_whatever_it_says() -> None:
    first = row(cloud_event(prediction_event()))
    retried = row(cloud_event(prediction_event(data={"output": "Other."})))
    elsewhere = row(cloud_event(prediction_event(source="other-app")))
    assert first["event_id"] == retried["event_id"]
    assert first["event_id"] != elsewhere["event_id"]


@pytest.mark.parametrize(
    ("change", "is_same_event"),
    [
        ({}, True),
        ({"data": {"user_id": None}}, True),
        ({"time": "2026-03-02T11:00:00Z"}, False),
        ({"subject": "ann"}, False),
        ({"data": {"revision": 1}}, False),
        ({"data": {"signal": "copy"}}, False),
        ({"data": {"comment": "no"}}, False),
    ],
)
def test_feedback_with_other_content_is_another_event_of_the_same_statement(
    change: dict[str, Any], is_same_event: bool
) -> None:
    """An autosave sent one id with newer text each time: the half-written text was kept, the final one dropped."""
    first = row(cloud_event(feedback_event()))
    later = Reception("assistant", NOON + timedelta(hours=1))
    second = row(decode_cloud_event(json.dumps(feedback_event(**change)).encode(), later))
    assert first["statement_id"] == second["statement_id"] == records.make_event_id("assistant", "app", "f-1")
    assert (first["event_id"] == second["event_id"]) is is_same_event
    elsewhere = row(cloud_event(feedback_event(source="other-app")))
    assert elsewhere["statement_id"] != first["statement_id"]
    assert elsewhere["event_id"] != first["event_id"]


def test_an_edit_with_other_text_under_its_id_is_a_revision_of_one_statement() -> None:
    half = decode_edit(json.dumps(edit(id="m-1", final_user_edit="Like th")).encode(), RECEPTION)
    whole = decode_edit(json.dumps(edit(id="m-1", revision=2)).encode(), RECEPTION)
    assert row(half)["event_id"] == row(whole)["event_id"]
    assert row(half, 1)["event_id"] != row(whole, 1)["event_id"]
    assert row(half, 1)["statement_id"] == row(whole, 1)["statement_id"]
    assert row(whole, 1)["statement_id"] == identify_statement("assistant", "edits-api", "m-1")
    assert row(whole, 1)["revision"] == 2


def test_elements_of_a_request_are_received_one_after_the_other() -> None:
    reception = Reception("assistant", NOON - timedelta(microseconds=2))
    stamps = []
    for _ in range(4):
        stamps.append(row(decode_cloud_event(json.dumps(feedback_event()).encode(), reception))["received_at"])
        reception.advance()
    assert stamps == [
        "2026-03-02T11:59:59.999998Z",
        "2026-03-02T11:59:59.999999Z",
        "2026-03-02T12:00:00.000000Z",
        "2026-03-02T12:00:00.000001Z",
    ]


def test_a_retraction_names_a_statement_of_its_own_source() -> None:
    retracts = {"signal": "retract", "prediction_id": None, "retracts": "f-7"}
    landed = row(cloud_event(feedback_event(data=retracts)))
    assert landed["retracts"] == row(cloud_event(feedback_event(id="f-7")))["statement_id"]
    assert landed["prediction_id"] == ""


def test_a_demonstration_gets_a_prediction_of_its_own() -> None:
    shown = {"signal": "demonstration", "prediction_id": None, "prompt": "How?", "final_text": "Thus."}
    first, second = (row(cloud_event(feedback_event(id=name, data=shown))) for name in ("f-1", "f-2"))
    assert len(first["prediction_id"]) == 32
    assert first["prediction_id"] != second["prediction_id"]


def test_answers_of_an_agent_land_as_text_and_message() -> None:
    """A tool call, a content of parts, and null content were refused everywhere."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Look first."}
    landed = row(cloud_event(prediction_event(data={"prompt": [USER], "output": message, "tools": [TOOL]})))
    assert landed["output"] == '{"name": "look_up", "arguments": {"city": "Oslo"}}'
    assert json.loads(landed["output_message"]) == {name: each for name, each in message.items() if each is not None}
    assert json.loads(landed["tools"]) == [TOOL]
    corrected = decode_edit(
        json.dumps(edit(prompt=[USER], original_llm_output=message, tools=[TOOL])).encode(), RECEPTION
    )
    prediction, feedback = row(corrected), row(corrected, 1)
    assert prediction["output_message"] == feedback["original_message"] == landed["output_message"]
    assert prediction["tools"] == feedback["tools"]
    assert "final_message" not in feedback


@given(
    st.sampled_from([prediction_event(time="2026-03-02T10:00:00Z"), feedback_event(), edit(user_id="ann")]),
    st.integers(0, 300),
    st.integers(0, 300),
    st.binary(max_size=12) | st.sampled_from([b'"\\ud800"', b"1e999", b"-0", b'{"a":', b"\x00", b"null", b"[[["]),
)
def test_whatever_arrives_is_either_landed_or_refused(
    sample: dict[str, Any], start: int, length: int, noise: bytes
) -> None:
    valid = json.dumps(sample).encode()
    element = valid[:start] + noise + valid[start + length :]
    for decode in (decode_cloud_event, decode_edit):
        try:
            decoded = decode(element, RECEPTION)
        except InvalidEventError:
            continue
        for index in range(len(decoded.rows)):
            assert set(row(decoded, index)) <= {*records.PREDICTION_EVENT.names, *records.FEEDBACK_EVENT.names}


@pytest.mark.parametrize("escaped", [True, False])
def test_weird_texts_reach_parquet_verbatim(tmp_path: Path, escaped: bool) -> None:
    decoded = [
        decode_edit(json.dumps(edit(final_user_edit=text, prompt=text), ensure_ascii=escaped).encode(), RECEPTION)
        for text in WEIRD_TEXTS
    ]
    lines, parquet = tmp_path / "lines.jsonl", tmp_path / "rows.parquet"
    lines.write_bytes(b"".join(event.rows[1].line for event in decoded))
    columns = "{received_at: 'TIMESTAMPTZ', prompt: 'VARCHAR', final_text: 'VARCHAR'}"
    with duckdb.connect() as database:
        database.execute(
            f"COPY (SELECT * FROM read_json('{lines}', format='newline_delimited', columns={columns})) TO '{parquet}'"
        )
    rows = pq.read_table(parquet).to_pylist()
    assert [read["final_text"] for read in rows] == WEIRD_TEXTS
    assert [read["prompt"] for read in rows] == WEIRD_TEXTS
    assert {read["received_at"].astimezone(UTC) for read in rows} == {datetime(2026, 3, 2, 12, tzinfo=UTC)}
