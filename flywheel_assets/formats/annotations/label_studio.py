"""Reads Label Studio's exports: JSON, one task with its annotations, and JSON_MIN, one annotation with its task.

Cancelled annotations are left out, and so are `predictions`, which come from models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.annotations.judgements import Judgements, Task, read_task
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record, parse_time
from flywheel_assets.formats.statements import check_id, identify

_MIN_FIELDS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
_VALUES = ("selected", "choices", "rating", "text", "number")


def _matches_tasks(record: Record) -> bool:
    values = record.values
    annotations = values.get("annotations", values.get("completions"))
    return isinstance(values.get("data"), Mapping) and isinstance(annotations, list)


def _convert_tasks(record: Record) -> Sequence[Event]:
    data = record.get("data")
    fields = data if isinstance(data, Mapping) else {}
    task_id = record.get_id("id") or identify(LABEL_STUDIO.name, record)
    project = record.get_id("project")
    found = _begin(LABEL_STUDIO.name, f"{project}/{task_id}" if project else task_id, fields)
    annotations = record.get("annotations")
    annotations = record.get("completions") if annotations is None else annotations
    for number, annotation in enumerate(annotations if isinstance(annotations, list) else ()):
        if not isinstance(annotation, Mapping):
            raise InvalidEventError(f"annotation {number} is no object; valid: an object with `result`")
        if annotation.get("was_cancelled"):
            continue
        results = annotation.get("result")
        user_id, time = _read_user(annotation.get("completed_by")), _read_time(annotation)
        for place, result in enumerate(results if isinstance(results, list) else ()):
            if isinstance(result, Mapping) and isinstance(result.get("value"), Mapping):
                question = str(result.get("from_name") or result.get("type") or place)
                _add(found, question, result["value"], user_id, time, f"{annotation.get('id', number)}/{place}")
    return found.list_events()


def _matches_rows(record: Record) -> bool:
    values = record.values
    return "annotation_id" in values and ("annotator" in values or "lead_time" in values)


def _convert_rows(record: Record) -> Sequence[Event]:
    known: set[Any] = {name for name in _MIN_FIELDS if name in record.values}
    answered = {name: value for name, value in record.values.items() if name not in known and _is_answered(value)}
    shown = {name: value for name, value in record.values.items() if name not in known and name not in answered}
    record.used.update((name,) for name in record.values)
    task = read_task(shown)
    for name in list(shown):  # one choice or one text is written as a plain text, as the fields are
        if isinstance(name, str) and isinstance(shown[name], str) and _is_plain_answer(name, shown, task):
            answered[name] = shown.pop(name)
    task_id = record.get_id("id") or identify(LABEL_STUDIO_MIN.name, record)
    found = _begin(LABEL_STUDIO_MIN.name, task_id, shown)
    user_id = _read_user(record.get("annotator"))
    time = _read_time(record.values)
    annotation = record.get_id("annotation_id") or "0"
    for question, value in answered.items():
        entries = value if isinstance(value, list) else [value]
        for place, entry in enumerate(entries):
            name = f"{annotation}/{question}/{place}"
            if isinstance(entry, Mapping):
                _add(found, str(question), entry, user_id, time, name)
            else:
                found.add(str(question), entry, user_id, time, name)
    return found.list_events()


def _is_answered(value: Any) -> bool:
    """Return whether a column of JSON_MIN is a question: a list of what was entered."""
    if isinstance(value, Mapping):
        return any(name in value for name in _VALUES)
    return isinstance(value, list) and bool(value) and all(map(_is_answered, value))


def _is_plain_answer(name: str, shown: Mapping[str, Any], task: Any) -> bool:
    if name in task.answers:
        return False
    others = read_task({other: value for other, value in shown.items() if other != name})
    return bool(others.prompt == task.prompt and others.output == task.output)


def _begin(source: str, task_id: str, fields: Mapping[str, Any]) -> Judgements:
    check_id(task_id, "id")
    prediction_id = fields.get("prediction_id")
    model = fields.get("model_version") or fields.get("model")
    return Judgements(
        source,
        task_id,
        prediction_id if isinstance(prediction_id, str) and prediction_id else f"label-studio/{task_id}",
        _read_task(fields),
        model if isinstance(model, str) else None,
    )


def _add(
    found: Judgements, question: str, value: Mapping[str, Any], user_id: str | None, time: datetime | None, name: str
) -> None:
    """Take the value of one result, of which the key says the kind of control."""
    if isinstance(value.get("selected"), str):
        found.choose_side(question, value["selected"], user_id, time, name)
    elif "ranker" in value:
        found.add(question, _read_ranking(value["ranker"]), user_id, time, name)
    elif "rating" in value:
        found.add(question, value["rating"], user_id, time, name)
    elif "choices" in value:
        found.add(question, value["choices"], user_id, time, name)
    elif "text" in value and "labels" not in value and "start" not in value:
        texts = value["text"]
        is_lines = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        found.add(question, "\n".join(texts) if is_lines else texts, user_id, time, name)


def _read_task(fields: Mapping[str, Any]) -> Task:
    """Find prompt and answers; a ranker shows its answers as items, `[{"id", "body"}]`, which results name by id."""
    for name, value in fields.items():
        if isinstance(value, list) and len(value) > 1 and all(map(_is_item, value)):
            task = read_task({other: each for other, each in fields.items() if other != name})
            return replace(task, answers={str(each["id"]): each["body"] for each in value})
    return read_task(fields)


def _is_item(value: Any) -> bool:
    return isinstance(value, Mapping) and "id" in value and isinstance(value.get("body"), str)


def _read_ranking(ranker: Any) -> Any:
    """Return the ranked items, the best first: a list, or that of the first bucket that holds several."""
    lists = [ranker] if isinstance(ranker, list) else list(ranker.values()) if isinstance(ranker, Mapping) else []
    ids = next((each for each in lists if isinstance(each, list) and len(each) > 1), [])
    return [{"value": str(each), "rank": place} for place, each in enumerate(ids)]


def _read_user(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)


def _read_time(annotation: Mapping[str, Any]) -> datetime | None:
    given = annotation.get("updated_at") or annotation.get("created_at")
    if given is None:
        return None
    try:
        return parse_time(given)
    except ValueError:
        raise InvalidEventError(f"the time of an annotation is {str(given)[:40]!r}; valid: ISO 8601") from None


LABEL_STUDIO = Format(
    name="label-studio",
    title="Label Studio's export as JSON: tasks with annotations",
    matches=_matches_tasks,
    convert=_convert_tasks,
    fields=("id", "data", "annotations", "predictions", "project"),
)
LABEL_STUDIO_MIN = Format(
    name="label-studio-min",
    title="Label Studio's export as JSON_MIN or CSV: one annotation a row",
    matches=_matches_rows,
    convert=_convert_rows,
    fields=("id", "annotator", "annotation_id", "lead_time", "created_at"),
)
