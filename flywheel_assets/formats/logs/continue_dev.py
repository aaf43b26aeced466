"""Reads Continue's development data: `chatFeedback`, `chatInteraction`, `editOutcome`, `autocomplete`.

- A thumb below a chat is a thumb. An edit that was kept is an acceptance, one that was rejected a thumb of -1: the
  person clicked. A completion that was taken is an acceptance; one that was not may never have been read.
- The prompt of an edit is the instruction with the code before it.
- Chats have no id: session, prompt and answer make one, so that the interaction and its feedback meet.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.conversations import Prompt
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.shapes import check_shape, read_text
from flywheel_assets.formats.messages import read_message
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import predict, state
from flywheel_assets.records import Signal, make_stable_id

NAME = "continue"
_TURN = re.compile(r"^<(system|user|assistant|tool|thinking)>\n", re.MULTILINE)
_EVENTS = ("chatFeedback", "chatInteraction", "editOutcome", "autocomplete")
_OTHERS = ("tokensGenerated", "toolUsage", "quickEdit", "editInteraction", "nextEditOutcome", "nextEditWithHistory")


def matches(record: Record) -> bool:
    """Return whether it is an event of Continue, of this or of the older schema without event names."""
    return _find_event(record.values) is not None


def convert(record: Record) -> Sequence[Event]:
    """Turn an event into a prediction and what the person did with it."""
    if _is_posted(record.values):
        for name in ("name", "schema", "data", "level", "profileId"):
            record.get(name)
        record = Record(
            {"eventName": record.values["name"], "schema": record.values["schema"], **record.values["data"]}
        )
    check_shape(matches(record), "an event of Continue, of this or of the older schema without event names", record)
    event = _find_event(record.values)
    for name in ("eventName", "schema", "modelName"):
        record.get(name)
    if event not in _EVENTS:
        return []
    prompt, answer = record.get_text("prompt"), record.get_text("completion")
    if event == "editOutcome":
        answer = answer if answer and answer.strip() else record.get_text("newCode")
    if not prompt or not answer or not answer.strip():
        raise InvalidEventError(
            "`prompt` or `completion` are empty or left out; set `level: all` at the data destination in "
            "Continue's config"
        )
    session = record.get_id("sessionId")
    if event == "autocomplete":
        own = record.get_id("completionId")
    elif event == "editOutcome":
        own = record.get_id("streamId") or make_stable_id(event, str(record.get("timestamp")), prompt, answer)
    else:
        own = make_stable_id("chat", session, prompt, answer)
    answer_id = own or make_stable_id(str(event), str(record.get("timestamp")), prompt, answer)
    user, time = record.get_id("userId"), record.get_time("timestamp")
    asked: Prompt = prompt if event == "autocomplete" else _read_turns(prompt)
    code = record.get_text("previousCode") if event == "editOutcome" else None
    if isinstance(asked, str) and code and code.strip() not in asked:
        asked = f"{asked}\n\n{code}"
    model = read_text(record.get("modelTitle")) or read_text(record.values.get("modelName"))
    events: list[Event] = [
        predict(
            NAME, f"{answer_id}/{event}", answer_id, asked, answer, time=time, model_version=model, user_id=user,
            thread_id=session,
        )
    ]  # fmt: skip
    said = _read_signal(str(event), record)
    if said is not None:
        signal, value = said
        fields = {} if value is None else {"value": value}
        events.append(state(NAME, f"{answer_id}/feedback", answer_id, signal, time=time, user_id=user, **fields))
    return events


def _read_signal(event: str, record: Record) -> tuple[Signal, float | None] | None:
    """Return what the person did; None where nothing is known of it."""
    if event == "chatFeedback":
        liked = record.get("feedback")
        return (Signal.THUMB, 1.0 if liked else -1.0) if isinstance(liked, bool) else None
    accepted = record.get("accepted")
    if accepted is True:
        return Signal.ACCEPT, None
    return (Signal.THUMB, -1.0) if accepted is False and event == "editOutcome" else None


def _read_turns(text: str) -> Prompt:
    """Return the messages of a prompt that was logged as text with a line `<role>` before each turn."""
    places = list(_TURN.finditer(text))
    if not places or places[0].start() != 0:
        return text
    ends = [*(place.start() for place in places[1:]), len(text)]
    return [
        read_message({"role": place[1], "content": text[place.end() : end].strip("\n")})
        for place, end in zip(places, ends, strict=True)
        if place[1] != "thinking" and text[place.end() : end].strip()
    ]


def _is_posted(values: Mapping[str, Any]) -> bool:
    """Return whether it is what a data destination on the web receives: an event below `data`."""
    name = values.get("name")
    is_known = isinstance(name, str) and (name in _EVENTS or name in _OTHERS)
    return is_known and "schema" in values and isinstance(values.get("data"), Mapping)


def _find_event(values: Mapping[str, Any]) -> str | None:
    if _is_posted(values):
        return str(values["name"])
    name = values.get("eventName")
    if isinstance(name, str):
        is_known = name in _EVENTS or name in _OTHERS
        return name if is_known and ("schema" in values or "completion" in values or "modelName" in values) else None
    if "completion" not in values or "prompt" not in values:
        return None
    if "previousCode" in values and "newCode" in values:
        return "editOutcome"
    if "completionId" in values and "prefix" in values:
        return "autocomplete"
    if "sessionId" in values and ("feedback" in values or "modelTitle" in values):
        return "chatFeedback" if "feedback" in values else "chatInteraction"
    return None


FORMAT = Format(name=NAME, title="Continue: development data", matches=matches, convert=convert, has_global_ids=True)
