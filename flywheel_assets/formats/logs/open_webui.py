"""Reads Open WebUI's exports: the feedback of its evaluations page, and its chats.

- Feedback, `{"type": "rating", "data": {"rating", "details": {"rating"}, "reason", "comment"}, "meta", "snapshot"}`:
  the rated message of the snapshot is the answer, the path of its parents the prompt. ±1 is a thumb, `details.rating`
  1 to 10 a rating. In an arena, an answer that won was chosen over each of its siblings.
- Chats, `{"chat": {"history": {"messages", "currentId"}}}`: every answer of the tree with its path; ratings from
  `annotation`; text that was edited in place (`originalContent`) or saved as a copy is an edit; a second answer of the
  same model to one message is a regeneration.

An answer's id is the message's, so that both exports meet.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from flywheel_assets.conversations import Message, Role
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.shapes import check_shape, list_objects, read_mapping, read_text
from flywheel_assets.formats.messages import read_message
from flywheel_assets.formats.record import Record, parse_time
from flywheel_assets.formats.statements import predict, rate, read_number, state
from flywheel_assets.records import Signal

NAME = "open-webui"
_REASONING = re.compile(
    r'\s*<details type="reasoning"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>\s*', re.DOTALL
)
_LONGEST_PATH = 10_000
Tree = Mapping[str, Mapping[str, Any]]


def matches(record: Record) -> bool:
    """Return whether it is one feedback or one chat."""
    values = record.values
    if "data" in values and "meta" in values and "type" in values:
        return "rating" in read_mapping(values["data"]) or bool(read_mapping(values["meta"]).get("message_id"))
    return bool(_find_tree(values.get("chat"))) or (
        isinstance(values.get("chat"), Mapping) and "history" in values["chat"]
    )


def convert(record: Record) -> Sequence[Event]:
    """Turn one feedback, or one chat, into predictions and what people said of them."""
    check_shape(matches(record), "one feedback or one chat", record)
    return _convert_feedback(record) if "data" in record.values else list(_convert_chat(record))


def _convert_feedback(record: Record) -> Sequence[Event]:
    message_id = record.get_id("meta", "message_id")
    if message_id is None:
        raise InvalidEventError("the feedback names no message; valid: `meta.message_id`")
    for name in ("type", "snapshot", "version"):
        record.get(name)
    user, chat_id = record.get_id("user_id"), record.get_id("meta", "chat_id")
    chat = read_mapping(record.values.get("snapshot")).get("chat")
    tree = _find_tree(chat)
    time = record.get_time("updated_at") or record.get_time("created_at")
    events: list[Event] = []
    rated = tree.get(message_id)
    siblings: list[Mapping[str, Any]] = []
    if rated is not None and _read_output(rated) is not None:
        system = _find_system(chat)
        asker = read_text(read_mapping(chat).get("user_id")) or user
        siblings = _list_siblings(tree, rated)
        for each in (rated, *siblings):
            if _read_output(each) is not None:
                events.append(_predict_message(tree, each, system, asker, chat_id))
    events.extend(
        _judge(record.get_id("id") or f"{message_id}/rating", message_id, Record(read_mapping(record.get("data"))),
               time, user, chat_id)
    )  # fmt: skip
    named = record.get("data", "sibling_model_ids")
    is_won = _read_rating(record.get("data", "rating")) == 1.0
    if rated is not None and named and is_won:
        for each in siblings:
            events.extend(_choose(tree, rated, each, _find_system(chat), time, user, chat_id))
    for name in ("rating", "reason", "comment", "details", "model_id"):
        record.get("data", name)
    if not events:
        raise InvalidEventError("the feedback has no rating and no comment, and its snapshot has no answer")
    return events


def _convert_chat(record: Record) -> Iterator[Event]:
    chat = record.get("chat")
    tree = _find_tree(chat)
    user, chat_id = record.get_id("user_id"), record.get_id("id")
    for name in ("title", "created_at", "updated_at"):
        record.get(name)
    system = _find_system(chat)
    problem: InvalidEventError | None = None
    is_useful = False
    for message in tree.values():
        if message.get("role") != "assistant" or _read_output(message) is None:
            continue
        try:
            found = list(_convert_answer(tree, message, system, user, chat_id))
        except InvalidEventError as error:  # a branch without a question, a rating that is none
            problem = error
        else:
            is_useful = is_useful or bool(found)
            yield from found
    if problem is not None and not is_useful:
        raise problem


def _convert_answer(
    tree: Tree, message: Mapping[str, Any], system: str | None, user: str | None, chat_id: str | None
) -> Iterator[Event]:
    """Yield an answer of a chat and what the person did with it."""
    message_id, time = str(message["id"]), _read_time(message)
    who: dict[str, Any] = {"time": time, "user_id": user, "thread_id": chat_id}
    content = message.get("content")
    source = _find_original(tree, message)
    if source is not None:
        if isinstance(content, str):
            text = _read_answer(content)
            yield state(NAME, f"{message_id}/edit", str(source["id"]), Signal.EDIT, final_text=text, **who)
        return
    yield _predict_message(tree, message, system, user, chat_id)
    original = message.get("originalContent")
    if isinstance(original, str) and original.strip() and isinstance(content, str) and content != original:
        yield state(NAME, f"{message_id}/edit", message_id, Signal.EDIT, final_text=_read_answer(content), **who)
    said = message.get("annotation")
    if not isinstance(said, Mapping) and message.get("rating") is not None:  # before there were annotations
        said = {"rating": message["rating"]}
    if isinstance(said, Mapping):
        event_id = read_text(message.get("feedbackId")) or f"{message_id}/rating"
        yield from _judge(event_id, message_id, Record(said), time, user, chat_id)
    yield from _regenerate(tree, message, system, user, chat_id)


def _find_original(tree: Tree, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the answer of which this one is a copy with another text; None: a model wrote it.

    "Save as copy" puts a sibling into the tree which keeps all other fields, so that both count the same tokens or
    name the same feedback.
    """
    for name in ("feedbackId", "usage", "info"):
        mark = message.get(name)
        if not mark:
            continue
        same = [each for each in _list_siblings(tree, message) if each.get(name) == mark]
        earlier = [each for each in same if _order(each) < _order(message) and _read_output(each) is not None]
        if earlier:
            return min(earlier, key=_order)
    return None


def _judge(
    event_id: str, message_id: str, said: Record, time: datetime | None, user: str | None, chat_id: str | None
) -> Iterator[Event]:
    """Yield thumb, rating and comment of one judgement."""
    reason, comment = read_text(said.values.get("reason")), read_text(said.values.get("comment"))
    text = ": ".join(filter(None, (reason if reason != "other" or not comment else None, comment)))
    thumb = _read_rating(said.values.get("rating"))
    fields: dict[str, Any] = {"time": time, "user_id": user, "thread_id": chat_id}
    if thumb is not None:
        yield state(NAME, event_id, message_id, Signal.THUMB, value=thumb, comment=text, **fields)
    elif text:
        yield state(NAME, event_id, message_id, Signal.COMMENT, comment=text, **fields)
    score = read_number(read_mapping(said.values.get("details")).get("rating"))
    if score is not None:
        value = rate(score, 1, 10, "details.rating")
        yield state(NAME, f"{event_id}/details", message_id, Signal.RATING, value=value, **fields)


def _read_rating(value: Any) -> float | None:
    """Return 1 or -1; None where nothing was clicked, for instance where a thumb was taken back."""
    if value in (None, "", 0, "0"):
        return None
    if str(value) in ("1", "-1", "1.0", "-1.0"):
        return float(value)
    raise InvalidEventError(f"`data.rating` is {str(value)[:40]!r}; valid: 1 or -1")


def _choose(
    tree: Tree, won: Mapping[str, Any], lost: Mapping[str, Any], system: str | None, time: datetime | None,
    user: str | None, chat_id: str | None,
) -> Iterator[Event]:  # fmt: skip
    """Yield the choice of an arena's winner."""
    better, worse = _read_output(won), _read_output(lost)
    if better is None or worse is None or better == worse:
        return
    yield state(
        NAME, f"{won['id']}/over/{lost['id']}", str(won["id"]), Signal.CHOICE, prompt=_find_path(tree, won, system),
        final_text=better, original_output=worse, sibling_id=str(lost["id"]), time=time, user_id=user,
        thread_id=chat_id,
    )  # fmt: skip


def _regenerate(
    tree: Tree, message: Mapping[str, Any], system: str | None, user: str | None, chat_id: str | None
) -> Iterator[Event]:
    """Yield the regeneration that replaced a message by this one: the one before it, of the same model."""
    parent = tree.get(str(message.get("parentId")), {})
    models = parent.get("models")
    if isinstance(models, list) and len(models) > 1:  # their answers came at once
        return
    earlier = [
        each
        for each in _list_siblings(tree, message)
        if each.get("model") == message.get("model")
        and _order(each) < _order(message)
        and _find_original(tree, each) is None
    ]
    if not earlier:
        return
    before = max(earlier, key=_order)
    old, new = _read_output(before), _read_output(message)
    if old is None or new is None or old == new:
        return
    yield state(
        NAME, f"{message['id']}/regenerated", str(before["id"]), Signal.REGENERATE, sibling_id=str(message["id"]),
        prompt=_find_path(tree, message, system), original_output=old, final_text=new, time=_read_time(message),
        user_id=user, thread_id=chat_id,
    )  # fmt: skip


def _predict_message(
    tree: Tree, message: Mapping[str, Any], system: str | None, user: str | None, chat_id: str | None
) -> Event:
    return predict(
        NAME, str(message["id"]), str(message["id"]), _find_path(tree, message, system), _read_output(message),
        time=_read_time(message), model_version=read_text(message.get("model")), user_id=user, thread_id=chat_id,
    )  # fmt: skip


def _find_tree(chat: Any) -> Tree:
    """Return the messages of a chat by their ids, from the history or from the older list."""
    for holder in (read_mapping(read_mapping(chat).get("chat")), read_mapping(chat)):
        found = read_mapping(read_mapping(holder.get("history")).get("messages"))
        if found:
            return {key: {**each, "id": key} for key, each in found.items() if isinstance(each, Mapping) and key}
    for holder in (read_mapping(read_mapping(chat).get("chat")), read_mapping(chat)):
        listed = list_objects(holder.get("messages"))
        if listed and all(isinstance(each.get("id"), str) and each["id"] for each in listed):
            return {each["id"]: each for each in listed}
    return {}


def _find_system(chat: Any) -> str | None:
    for holder in (read_mapping(read_mapping(chat).get("chat")), read_mapping(chat)):
        for said in (read_mapping(holder.get("params")).get("system"), holder.get("system")):
            if isinstance(said, str) and said.strip():
                return said
    return None


def _find_path(tree: Tree, message: Mapping[str, Any], system: str | None) -> list[Message]:
    """Return the prompt of a message: its ancestors, the oldest first."""
    path: list[Message] = []
    seen: set[str] = set()
    parent = message.get("parentId")
    while isinstance(parent, str) and parent in tree and parent not in seen and len(seen) < _LONGEST_PATH:
        seen.add(parent)
        each = tree[parent]
        content = each.get("content")
        if isinstance(content, str | list) and content:
            fields = {"role": each.get("role"), "content": content}
            if each.get("role") == "assistant" and isinstance(content, str):
                path.append(_read_answer(content))
            else:
                path.append(read_message(fields))
        parent = each.get("parentId")
    path.reverse()
    return [Message(Role.SYSTEM, system), *path] if system else path


def _list_siblings(tree: Tree, message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parent = message.get("parentId")
    return [
        each
        for key, each in tree.items()
        if parent and each.get("parentId") == parent and key != message["id"] and each.get("role") == "assistant"
    ]


def _read_output(message: Mapping[str, Any]) -> Message | None:
    """Return what the model wrote: the text before a person edited it; None where the call failed."""
    original, content = message.get("originalContent"), message.get("content")
    text = original if isinstance(original, str) and original.strip() else content
    if message.get("role") != "assistant" or not isinstance(text, str) or not text.strip() or message.get("error"):
        return None
    return _read_answer(text)


def _read_answer(text: str) -> Message:
    """Return an answer; the block in which reasoning is folded away becomes the message's reasoning."""
    found = _REASONING.match(text)
    if found is None or not text[found.end() :].strip():
        return Message(Role.ASSISTANT, text)
    lines = [line.removeprefix(">").removeprefix(" ") for line in html.unescape(found[1]).strip().split("\n")]
    return Message(Role.ASSISTANT, text[found.end() :], reasoning_content="\n".join(lines) or None)


def _read_time(message: Mapping[str, Any]) -> datetime | None:
    try:
        return parse_time(message["timestamp"]) if message.get("timestamp") else None
    except (ValueError, OverflowError):
        return None


def _order(message: Mapping[str, Any]) -> tuple[float, str]:
    time = _read_time(message)
    return (time.timestamp() if time is not None else 0.0, str(message["id"]))


FORMAT = Format(
    name=NAME, title="Open WebUI: feedback and chats", matches=matches, convert=convert, has_global_ids=True
)
