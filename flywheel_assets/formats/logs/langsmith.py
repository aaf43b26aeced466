"""Reads LangSmith's runs, feedback and dataset examples.

- A run of type `llm`, or a root run of another type, is a prediction under its own id, in LangChain's or OpenAI's
  spelling. `feedback_stats` are averages without a judge: they count where their name speaks of people.
- A feedback of a model (`feedback_source.type` `model` or `auto_eval`) is left out; a `correction` is an edit.
- An example's reference outputs are a demonstration.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_answer, read_call, read_prompt, read_tools
from flywheel_assets.formats.logs.shapes import check_shape, list_objects, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import identify, is_of_people, predict, score, state
from flywheel_assets.records import Signal

NAME = "langsmith"
_OF_EXAMPLES = frozenset({"id", "inputs", "outputs", "metadata", "created_at", "modified_at", "split", "attachments"})
"""Fields of an example in a data set that was exported as JSON lines."""
_MODELS_VERDICTS = ("model", "auto_eval", "evaluator", "llm")


def matches(record: Record) -> bool:
    """Return whether it is a run, a feedback or an example."""
    values = record.values
    if "run_type" in values:
        return "inputs" in values or "outputs" in values or "id" in values
    if "run_id" in values and "key" in values:
        return any(name in values for name in ("score", "value", "correction", "comment"))
    if "dataset_id" in values:
        return "inputs" in values and "outputs" in values
    return values.keys() <= _OF_EXAMPLES and all(
        isinstance(values.get(name), Mapping) for name in ("inputs", "outputs")
    )


def convert(record: Record) -> Sequence[Event]:
    """Turn a run into a prediction, and people's feedback into feedback."""
    check_shape(matches(record), "a run, a feedback or an example", record)
    if "run_type" in record.values:
        return _convert_run(record)
    if "run_id" in record.values:
        return _convert_feedback(record, record.get_id("run_id"), is_alone=True)
    return _convert_example(record)


def _convert_run(record: Record) -> Sequence[Event]:
    run_id = record.get_id("id")
    if run_id is None:
        raise InvalidEventError("the run has no `id`")
    kind, is_root = record.get("run_type"), record.get_id("parent_run_id") is None
    events: list[Event] = []
    problem: InvalidEventError | None = None
    if kind == "llm" or (is_root and kind in ("chain", "agent", "prompt", None)):
        try:
            events.append(_predict_run(record, run_id))
        except InvalidEventError as error:
            problem = error
    said = list_objects(parse_json(record.get("feedback"))) or list_objects(parse_json(record.get("feedbacks")))
    for each in said:
        events.extend(_convert_feedback(Record(each), run_id, is_alone=False))
    if not said:
        time = record.get_time("end_time") or record.get_time("start_time")
        events.extend(_convert_averages(run_id, parse_json(record.get("feedback_stats")), time))
    if problem is not None and not any(event for event in events):
        raise problem
    return events


def _predict_run(record: Record, run_id: str) -> Event:
    inputs, outputs = parse_json(record.get("inputs")), parse_json(record.get("outputs"))
    error = record.get("error")
    if error and not outputs:
        raise InvalidEventError(f"the run failed: {str(error)[:200]}")
    extra = read_mapping(parse_json(record.get("extra")))
    settings = read_mapping(extra.get("invocation_params"))
    metadata = read_mapping(extra.get("metadata"))
    prompt, answer = read_call(inputs, _open_generations(outputs))
    return predict(
        NAME, run_id, run_id, prompt, answer,
        time=record.get_time("end_time") or record.get_time("start_time"),
        model_version=next(
            (found for name in ("ls_model_name", "model", "model_name")
             if (found := read_text(metadata.get(name)) or read_text(settings.get(name)))), None,
        ),
        user_id=read_text(metadata.get("user_id")),
        thread_id=next(
            (found for name in ("session_id", "thread_id", "conversation_id")
             if (found := read_text(metadata.get(name)))), None,
        ),
        tools=read_tools(inputs) or read_tools(settings),
    )  # fmt: skip


def _open_generations(outputs: Any) -> Any:
    """Return the message of LangChain's first generation; its text where there is no message."""
    found = parse_json(read_mapping(outputs).get("generations"))
    while isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, Mapping):
        return outputs
    message = found.get("message")
    return message if isinstance(message, Mapping) and message else found.get("text")


def _convert_feedback(record: Record, run_id: str | None, *, is_alone: bool) -> list[Event]:
    if run_id is None:
        raise InvalidEventError("the feedback names no run; valid: `run_id`")
    source = read_mapping(parse_json(record.get("feedback_source")))
    if str(source.get("type") or "").lower() in _MODELS_VERDICTS or record.get("source_run_id"):
        return []
    key = read_text(record.get("key"))
    event_id = record.get_id("id") or f"{run_id}/{key}"
    fields: dict[str, Any] = {
        "time": record.get_time("modified_at") or record.get_time("created_at"),
        "user_id": read_text(source.get("user_id")) or read_text(read_mapping(source.get("metadata")).get("user_id")),
    }
    events: list[Event] = []
    correction = read_answer(record.get("correction"))
    comment = read_text(record.get("comment"))
    if correction is not None:
        events.append(
            state(NAME, f"{event_id}/correction", run_id, Signal.EDIT, final_text=correction, **fields)
        )  # fmt: skip
    value = record.get("score")
    if value is None:
        value = record.get("value")
    if isinstance(value, Mapping | list):
        value = None
    found = score(NAME, event_id, run_id, key, value, is_alone=is_alone, comment=comment, **fields)
    return [*events, *([] if found is None else [found])]


def _convert_averages(run_id: str, stats: Any, time: datetime | None) -> list[Event]:
    """Turn the averages of a run into feedback; of several judgements only their mean is known."""
    events: list[Event] = []
    for key, said in read_mapping(stats).items():
        average = read_mapping(said).get("avg")
        if not is_of_people(key) or not isinstance(average, int | float) or isinstance(average, bool):
            continue
        found = score(NAME, f"{run_id}/{key}", run_id, key, average, is_alone=False, time=time)
        events.extend([] if found is None else [found])
    return events


def _convert_example(record: Record) -> Sequence[Event]:
    final = read_answer(record.get("outputs"))
    if final is None:
        return []
    prompt, example_id = read_prompt(record.get("inputs")), record.get_id("id") or identify(NAME, record)
    if prompt is None:
        raise InvalidEventError("the example has no `inputs`")
    time = record.get_time("modified_at") or record.get_time("created_at")
    return [state(NAME, example_id, None, Signal.DEMONSTRATION, prompt=prompt, final_text=final, time=time)]


FORMAT = Format(
    name=NAME, title="LangSmith: runs, feedback, examples", matches=matches, convert=convert, has_global_ids=True
)
