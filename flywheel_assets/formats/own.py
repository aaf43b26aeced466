"""Reads this project's own records in files: edits, choices between two answers, and CloudEvents.

A file is read with more patience than a request: an id may be a whole number, a time may lack its zone (it is UTC) or
count from 1970, fields that are not known here are passed over (`Record.list_unread` names them), and the cells of a
table may hold messages as JSON. A line {"retracts": id} takes back what stands above it under that id.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from flywheel_assets import records
from flywheel_assets.conversations import Answer, FiledAnswer, Message, Tools, find_answer_problem
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import is_conversation
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.reading.entries import PYTHON_SENTENCE, normalize_object
from flywheel_assets.formats.record import Record, parse_time
from flywheel_assets.records import Signal
from flywheel_assets.wire import (
    Choice,
    CloudEvent,
    Edit,
    FeedbackCloudEvent,
    FeedbackData,
    Identifier,
    PredictionData,
    Prompt,
    Revision,
    decode_strictly,
    shorten_message,
)

NAME = "edits"
RETRACTING_SOURCE = f"{records.IMPORT_PREFIX}retracts"
"""Of the event that a line {"retracts": id} becomes; the id is that of an edit or a choice of the same file."""
EDIT_FIELDS = ("prompt", "original_llm_output", "final_user_edit")
CHOICE_FIELDS = ("prompt", "chosen", "rejected")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_Id = Identifier | int | float | None


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the fields of every record of ours; others are passed over."""

    prompt: Prompt | None = None
    original_llm_output: FiledAnswer | None = None
    final_user_edit: FiledAnswer | None = None
    chosen: FiledAnswer | None = None
    rejected: FiledAnswer | None = None
    id: _Id = None
    user_id: _Id = None
    thread_id: _Id = None
    model_version: _Id = None
    do_not_train: bool | int | None = None
    occurred_at: str | int | float | None = None
    tools: Tools | str | None = None
    revision: Revision | None = None
    retracts: _Id = None
    specversion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_FIELDS = tuple(field for field in _Line.__struct_fields__ if field != "specversion")
ENVELOPE = ("specversion", "type", "id", "source", "time", "subject", "datacontenttype", "data_base64")
"""Fields of a CloudEvent apart from its `data`."""
_IDS = ("id", "prediction_id", "user_id", "thread_id", "model_version", "subject", "sibling_id", "retracts")
_DATA = frozenset((*FeedbackData.__struct_fields__, *PredictionData.__struct_fields__))
_MESSAGES = ("prompt", "original_llm_output", "final_user_edit", "chosen", "rejected")
_line_decoder = msgspec.json.Decoder(_Line)
_tools_decoder: msgspec.json.Decoder[Tools | None] = msgspec.json.Decoder(Tools | None)
_event_decoder: msgspec.json.Decoder[CloudEvent] = msgspec.json.Decoder(CloudEvent)


def convert_entry(value: bytes | Mapping[str, Any]) -> Sequence[Event]:
    """Turn one undecoded JSON object, or the row of a table, into its event.

    Raises:
        InvalidEventError: it is no record of ours; the message says what is wrong.
    """
    if not isinstance(value, bytes):
        return [_convert_row(value)]
    try:
        line = _line_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = normalize_object(value)
        line = decode_strictly(value, _line_decoder)
    if line.specversion is not msgspec.UNSET:
        return [_decode_cloud_event(value)]
    return [_build_event(line)]


def _matches(record: Record) -> bool:
    values = record.values
    if "specversion" in values:
        return str(values.get("type")).startswith("flywheel.")
    if all(name in values for name in EDIT_FIELDS) or values.keys() == {"retracts"}:
        return True
    return all(name in values for name in CHOICE_FIELDS) and not any(
        is_conversation(values[name]) for name in ("chosen", "rejected")
    )


def is_nearly(values: Mapping[str, Any]) -> bool:
    """Return whether a record seems to be meant as one of ours, although it lacks something."""
    near = {*EDIT_FIELDS, *CHOICE_FIELDS, "specversion"} - {"prompt"}
    return bool(near & values.keys()) or values.keys() == {"prompt"}


def _convert_record(record: Record) -> Sequence[Event]:
    values = record.values
    if "specversion" in values:
        record.used.update((name,) for name in ENVELOPE)
        record.used.update(("data", name) for name in _DATA)
        return convert_entry(msgspec.json.encode(values))
    record.used.update((name,) for name in _FIELDS)
    return convert_entry(values)


OWN = Format(
    name=NAME,
    title="edits, choices and events in this project's own fields",
    matches=_matches,
    convert=_convert_record,
)


def _build_event(line: _Line) -> Event:
    if line.retracts is not None:
        return _build_retraction(line)
    if line.prompt is None:
        raise InvalidEventError(f"lacks `prompt`; valid: {', '.join(EDIT_FIELDS)}, or {', '.join(CHOICE_FIELDS)}")
    # By position: names would cost a tenth of importing a line.
    optional = (
        _read_id(line.id),
        _read_id(line.user_id),
        _read_id(line.thread_id),
        _read_id(line.model_version),
        bool(line.do_not_train),
        _read_time(line.occurred_at),
        _read_tools(line.tools) if isinstance(line.tools, str) else line.tools,
        line.revision,
    )
    original, final = line.original_llm_output, line.final_user_edit
    if original is not None and final is not None:
        original = _read_answer(original, "original_llm_output") if isinstance(original, list) else original
        final = _read_answer(final, "final_user_edit") if isinstance(final, list) else final
        return Edit(line.prompt, original, final, *optional)
    if line.chosen is not None and line.rejected is not None:
        return Choice(line.prompt, line.chosen, line.rejected, *optional)
    wanted = EDIT_FIELDS if line.chosen is None and line.rejected is None else CHOICE_FIELDS
    lacking = [name for name in wanted if getattr(line, name) is None]
    raise InvalidEventError(
        f"lacks `{'`, `'.join(lacking)}`; valid: {', '.join(EDIT_FIELDS)}, or {', '.join(CHOICE_FIELDS)}"
    )


def _build_retraction(line: _Line) -> FeedbackCloudEvent:
    retracted = _read_id(line.retracts)
    return FeedbackCloudEvent(
        specversion="1.0",
        id=records.make_stable_id("retract", retracted),
        source=RETRACTING_SOURCE,
        data=FeedbackData(signal=Signal.RETRACT, retracts=retracted),
    )


def _read_id(given: str | int | float | None) -> str | None:
    if given is None or type(given) is str:
        return given
    if isinstance(given, float) and not given.is_integer():
        raise InvalidEventError(f"an id is {given}; valid: a text or a whole number")
    return str(int(given))


def _read_time(given: str | float | None) -> datetime | None:
    if given is None:
        return None
    try:
        if type(given) is str and given[-1:] == "Z":
            return datetime.fromisoformat(given)
        return parse_time(given)
    except ValueError:
        raise InvalidEventError(
            f"`occurred_at` is {str(given)[:40]!r}; valid: a time in ISO 8601, or seconds since 1970"
        ) from None


def _read_tools(text: str) -> Tools | None:
    """Read tools from a text of JSON, as TRL and our own exports write them."""
    if not text:
        return None
    try:
        return _tools_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(
            f"`tools` is no list of tools: {shorten_message(str(error))}; valid: a list of descriptions of functions, "
            "or such a list as JSON text"
        ) from None


def _read_answer(answer: list[Message], field: str) -> Answer:
    if problem := find_answer_problem(answer):
        raise InvalidEventError(f"`{field}`: {problem}")
    return answer[0]


def _decode_cloud_event(value: bytes) -> CloudEvent:
    try:
        return _event_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode_strictly(_mend_cloud_event(value), _event_decoder)


def _mend_cloud_event(value: bytes) -> bytes:
    """Return an event without the fields of `data` that are not known here, and with texts as ids."""
    values = msgspec.json.decode(value)
    data = values.get("data")
    if isinstance(data, dict):
        known = PredictionData if values.get("type") == "flywheel.prediction" else FeedbackData
        values["data"] = {name: each for name, each in data.items() if name in known.__struct_fields__}
    for fields in (values, values.get("data")):
        for name in _IDS:
            if isinstance(fields, dict) and isinstance(fields.get(name), int | float):
                fields[name] = _read_id(fields[name])
    return msgspec.json.encode(values)


def _convert_row(row: Mapping[str, Any]) -> Event:
    """Turn the row of a table into an event: an empty optional cell is absent, an empty text is kept."""
    values = {
        name: row[name]
        for name in _FIELDS
        if name in row and row[name] is not None and (row[name] != "" or name in _MESSAGES)
    }
    if isinstance(values.get("do_not_train"), str):
        values["do_not_train"] = _read_truth(values["do_not_train"])
    if isinstance(values.get("occurred_at"), datetime):
        values["occurred_at"] = values["occurred_at"].isoformat()
    if isinstance(values.get("revision"), str | float):
        values["revision"] = _read_number(values["revision"])
    for name in _MESSAGES:
        if isinstance(values.get(name), str):
            values[name] = _read_messages(values[name], name)
    try:
        line = msgspec.convert(values, _Line)
    except msgspec.ValidationError as error:
        raise InvalidEventError(shorten_message(str(error))) from None
    return _build_event(line)


def _read_truth(cell: str) -> bool:
    try:
        return _TRUTH[cell.strip().lower()]
    except KeyError:
        raise InvalidEventError(f"do_not_train is {cell[:20]!r}; valid: {', '.join(_TRUTH)}") from None


def _read_number(cell: str | float) -> int | str | float:
    try:
        return int(float(cell))
    except ValueError:
        return cell


def _read_messages(cell: str, name: str) -> Any:
    """Return a cell's messages, where it holds some as JSON; otherwise its text."""
    if cell[:2] not in ("[{", '{"') or '"role"' not in cell:
        if cell.startswith("[{'") and "'role'" in cell:
            raise InvalidEventError(f"`{name}`: {PYTHON_SENTENCE}")
        return cell
    try:
        found = json.loads(cell)
    except ValueError:
        return cell
    items = found if isinstance(found, list) else [found]
    return found if all(isinstance(each, dict) and "role" in each for each in items) else cell
