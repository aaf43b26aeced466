"""Reads Argilla's records, of both major versions, nested and flat.

| export | responses |
|---|---|
| 2.x `records.to_json()`, `to_list()` | `{"responses": {question: [{"value", "user_id"}]}}` |
| 1.x, and the API of both | `{"responses": [{"user_id", "status", "values": {question: {"value"}}}]}` |
| 2.x `to_datasets()`, `to_list(flatten=True)` | columns `question.responses`, `….users`, `….status`; fields too |
| 1.x on the Hugging Face Hub | a column per question: `[{"user_id", "value", "status"}]`, fields as columns |

Suggestions come from models and are left out; so are drafts and discarded responses.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.annotations.judgements import Judgements, read_task
from flywheel_assets.formats.answers import read_json
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import check_id, identify

_END = ".responses"
_UNUSED = ("draft", "discarded", "pending", "missing")


class _Response(NamedTuple):
    question: str
    value: Any
    user_id: Any
    status: Any


def _matches(record: Record) -> bool:
    values = record.values
    if isinstance(values.get("fields"), Mapping):
        return "responses" in values or "suggestions" in values
    return any(_is_flat(values, name) for name in values) or bool(_list_questions(values))


def _is_flat(values: Mapping[str, Any], name: Any) -> bool:
    return isinstance(name, str) and name.endswith(_END) and f"{name}.users" in values


def _list_questions(values: Mapping[str, Any]) -> list[str]:
    """List the columns of a 1.x data set on the Hub that hold responses.

    Each has a column of suggestions next to it.
    """
    return [
        name
        for name in values
        if isinstance(name, str) and f"{name}-suggestion" in values and isinstance(values[name], list | Mapping)
    ]


def _convert(record: Record) -> Sequence[Event]:
    metadata = read_json(record.get("metadata"), "metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    task_id = record.get_id("id") or record.get_id("external_id") or record.get_id("_server_id")
    task_id = task_id or identify(ARGILLA.name, record)
    check_id(task_id, "id")
    responses = list(_list_responses(record))
    model = next((metadata[name] for name in ("model", "model_version", "model_name") if metadata.get(name)), None)
    prediction_id = metadata.get("prediction_id")
    found = Judgements(
        ARGILLA.name,
        task_id,
        prediction_id if isinstance(prediction_id, str) and prediction_id else task_id,
        read_task(_read_fields(record)),
        model if isinstance(model, str) else None,
    )
    for each in responses:
        if each.status in _UNUSED:
            continue
        if each.user_id is not None and not isinstance(each.user_id, str | int):
            raise InvalidEventError(f"the user of a response is {str(each.user_id)[:40]!r}; valid: an id")
        found.add(each.question, each.value, None if each.user_id in (None, "") else str(each.user_id))
    return found.list_events()


def _read_fields(record: Record) -> Mapping[str, Any]:
    fields = record.get("fields")
    if isinstance(fields, Mapping):
        return fields
    questions = _list_questions(record.values)
    kept = {
        name: value
        for name, value in record.values.items()
        if isinstance(name, str)
        and name not in (*questions, "id", "external_id", "_server_id", "metadata", "status")
        and "-suggestion" not in name
        and ".suggestion" not in name
        and _END not in name
    }
    record.used.update((name,) for name in kept)
    return kept


def _list_responses(record: Record) -> Iterator[_Response]:
    given = record.get("responses")
    if isinstance(given, Mapping):
        for question, entries in given.items():
            yield from _read_entries(str(question), entries)
    elif isinstance(given, list):
        for answered in given:
            if not isinstance(answered, Mapping) or not isinstance(answered.get("values") or {}, Mapping):
                raise InvalidEventError("a response has no `values`; valid: {question: {value}} by user")
            for question, value in (answered.get("values") or {}).items():
                value = value.get("value") if isinstance(value, Mapping) else value
                yield _Response(str(question), value, answered.get("user_id"), answered.get("status"))
    else:
        yield from _list_flat(record)


def _list_flat(record: Record) -> Iterator[_Response]:
    for name in record.values:
        if _is_flat(record.values, name):
            answered = _read_list(record, name)
            users, statuses = _read_list(record, f"{name}.users"), _read_list(record, f"{name}.status")
            for place, value in enumerate(answered):
                user_id = users[place] if place < len(users) else None
                status = statuses[place] if place < len(statuses) else None
                yield _Response(name.removesuffix(_END), value, user_id, status)
    for question in _list_questions(record.values):
        yield from _read_entries(question, record.get(question))


def _read_list(record: Record, name: str) -> list[Any]:
    found = read_json(record.get(name), name)
    return found if isinstance(found, list) else []


def _read_entries(question: str, entries: Any) -> Iterator[_Response]:
    """Read the responses to a question: a list of objects, or as Parquet may have it, an object of lists."""
    if isinstance(entries, Mapping) and isinstance(entries.get("value"), list):
        users, statuses = entries.get("user_id"), entries.get("status")
        entries = [
            {"value": value, "user_id": _pick(users, place), "status": _pick(statuses, place)}
            for place, value in enumerate(entries["value"])
        ]
    entries = [entries] if isinstance(entries, Mapping) else entries
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping):
            raise InvalidEventError(f"a response to {question[:80]!r} is no object; valid: {{value, user_id}}")
        yield _Response(question, entry.get("value"), entry.get("user_id"), entry.get("status"))


def _pick(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list) and place < len(values) else None


ARGILLA = Format(
    name="argilla",
    title="Argilla records, 1.x and 2.x, nested and flat",
    matches=_matches,
    convert=_convert,
    fields=("id", "fields", "metadata", "responses", "suggestions", "vectors", "_server_id"),
)
