"""Writes rows with typed columns, for Parquet and for `datasets`.

Messages are `list<struct>` of the fields that the file's messages have. Values of any form (arguments of calls, tools,
content in parts) are JSON columns: pyarrow's `arrow.json`, which `datasets` decodes and others read as
text.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from flywheel_assets.conversations import Message
from flywheel_assets.formats.writing.examples import Example, Kind, Shape

_FACTS: list[tuple[str, pa.DataType]] = [
    ("pair_id", pa.string()),
    ("admitted_as", pa.string()),
    ("completed_date", pa.date32()),
    ("model_version", pa.string()),
    ("similarity", pa.float64()),
    ("support_users", pa.int64()),
    ("nearest_training", pa.float64()),
]
FACTS = pa.schema(_FACTS)
"""Columns of gold beyond the texts, without the subject: a copy for others does not say whose rows they are."""
_ANSWERS: dict[Kind | None, tuple[str, ...]] = {
    None: ("chosen", "rejected"),
    Kind.PREFERENCE: ("chosen", "rejected"),
    Kind.SFT: ("completion",),
    Kind.OBJECTION: ("completion", "label"),
}
_CALL_STRINGS = ("id", "type")


def build_schema(kind: Kind | None, shape: Shape) -> pa.Schema:
    """Build the columns of a file of one kind.

    None: of any rows, with null for an answer that a row lacks.
    """
    text = pa.list_(_build_message_type(shape)) if shape.is_conversational else pa.string()
    texts = [(name, pa.bool_() if name == "label" else text) for name in _ANSWERS[kind]]
    tools = [("tools", pa.json_())] if shape.has_tools else []
    return pa.schema([("prompt", text), *texts, *tools, *FACTS])


def build_table(examples: Sequence[Example], kind: Kind | None, shape: Shape) -> pa.Table:
    """Build the rows of a file with the columns of `build_schema`, in their order."""
    schema = build_schema(kind, shape)
    storage = pa.schema([field.with_type(_to_storage(field.type)) for field in schema])
    rows = pa.Table.from_pylist([_write_row(each, kind, shape) for each in examples], schema=storage)
    return rows.cast(schema)


def _write_row(example: Example, kind: Kind | None, shape: Shape) -> dict[str, Any]:
    answers: dict[str, Message | None]
    if kind in (Kind.SFT, Kind.OBJECTION):
        answers = {"completion": example.answers[0]}
    else:
        answers = {"chosen": example.chosen, "rejected": example.rejected}
    texts = {name: shape.write_answer(answer) for name, answer in answers.items() if answer is not None}
    conversations = {"prompt": shape.write_prompt(example), **texts}
    row = {**example.facts, **{name: _write_conversation(value, shape) for name, value in conversations.items()}}
    if kind is Kind.OBJECTION:
        row["label"] = False
    if example.tools:
        row["tools"] = _to_json(example.tools)
    return row


def _write_conversation(value: str | list[dict[str, Any]], shape: Shape) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    for message in value:
        if shape.has_parts:
            message["content"] = _to_json(message["content"])
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = _to_json(call["function"]["arguments"])
    return value


def _build_message_type(shape: Shape) -> pa.StructType:
    function = pa.struct([("name", pa.string()), ("arguments", pa.json_())])
    call = pa.struct([*((name, pa.string()) for name in _CALL_STRINGS), ("function", function)])
    return pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.json_() if shape.has_parts else pa.string()),
            *((name, pa.list_(call) if name == "tool_calls" else pa.string()) for name in sorted(shape.fields)),
        ]
    )


def _to_storage(kind: pa.DataType) -> pa.DataType:
    """Return a type with texts in the place of JSON: pyarrow builds no extension column from Python values."""
    if pa.types.is_list(kind):
        return pa.list_(_to_storage(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _to_storage(field.type)) for field in kind])
    return pa.string() if kind == pa.json_() else kind


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
