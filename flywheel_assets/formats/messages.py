"""Reads messages in the spellings of other systems as `conversations.Message`.

| spelling | a message |
|---|---|
| OpenAI, TRL, Hugging Face | `{"role", "content", "tool_calls", …}` |
| ShareGPT | `{"from": "human", "value": …}` |
| LangChain | `{"type": "human", "data": {"content": …}}` or `{"lc": 1, "id": […, "HumanMessage"], "kwargs": {…}}` |
| OpenTelemetry's GenAI conventions | `{"role", "parts": [{"type": "text", "content": …}, {"type": "tool_call", …}]}` |
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from flywheel_assets.conversations import Message, Role
from flywheel_assets.errors import InvalidEventError

_ROLES = {
    **{role.value: role for role in Role},
    "human": Role.USER,
    "gpt": Role.ASSISTANT,
    "ai": Role.ASSISTANT,
    "model": Role.ASSISTANT,
    "bot": Role.ASSISTANT,
    "function": Role.TOOL,
    "observation": Role.TOOL,
    "function_call": Role.ASSISTANT,
    "chatbot": Role.ASSISTANT,
    "HumanMessage": Role.USER,
    "AIMessage": Role.ASSISTANT,
    "SystemMessage": Role.SYSTEM,
    "ToolMessage": Role.TOOL,
    "AIMessageChunk": Role.ASSISTANT,
    "FunctionMessage": Role.TOOL,
}


def read_messages(value: Any) -> list[Message]:
    """Read a list of messages.

    Raises:
        InvalidEventError: it is no list, or one of them is no message; the reason names its place.
    """
    if not isinstance(value, list):
        raise InvalidEventError(f"the messages are a {type(value).__name__}; valid: a list of messages")
    return [read_message(each, number) for number, each in enumerate(value)]


def read_message(value: Any, number: int = 0) -> Message:
    """Read one message; `number` names it in the error.

    Raises:
        InvalidEventError: it is no message.
    """
    if not isinstance(value, Mapping):
        raise InvalidEventError(f"message {number} is a {type(value).__name__}; valid: an object with a role")
    fields = _find_fields(value)
    name = fields.pop("role", None)
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidEventError(f"message {number} has the role {str(name)[:40]!r}; valid: {', '.join(Role)}")
    if isinstance(fields.get("parts"), list):
        fields |= _read_parts(fields.pop("parts"))
    try:
        return msgspec.convert({**fields, "role": role.value}, Message)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidEventError(f"message {number}: {error}") from None


def _find_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message under the names that `Message` has."""
    if "from" in value and "value" in value:
        return {"role": value["from"], "content": value["value"]}
    if isinstance(value.get("kwargs"), Mapping) and isinstance(value.get("id"), list):
        return _rename_langchain(str(value["id"][-1]), value["kwargs"])
    if isinstance(value.get("data"), Mapping) and "type" in value:
        return _rename_langchain(str(value["type"]), value["data"])
    if "role" not in value and value.get("type") in _ROLES:
        return _rename_langchain(str(value["type"]), value)
    return dict(value)


def _rename_langchain(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: data[name] for name in ("content", "name", "tool_call_id") if data.get(name) is not None}
    calls = [
        {"id": call.get("id"), "name": call.get("name"), "arguments": call.get("args", {})}
        for call in data.get("tool_calls") or ()
        if isinstance(call, Mapping)
    ]
    return {
        **fields,
        "role": str(data.get("role")) if kind == "chat" else kind,
        **({"tool_calls": calls} if calls else {}),
    }


def _read_parts(parts: list[Any]) -> dict[str, Any]:
    """Return content, tool calls and reasoning of the parts of a GenAI message."""
    content: list[Any] = []
    calls: list[Any] = []
    found: dict[str, Any] = {}
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            content.append({"type": "text", "text": str(part.get("content", part.get("text", "")))})
        elif kind == "tool_call":
            calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": part.get("arguments") or {}})
        elif kind == "tool_call_response":
            found["tool_call_id"] = part.get("id")
            content.append({"type": "text", "text": _write_text(part.get("response", part.get("result")))})
        elif kind in ("reasoning", "thinking"):
            found["reasoning_content"] = str(part.get("content", ""))
        elif isinstance(part, Mapping):
            content.append(dict(part))
    if calls:
        found["tool_calls"] = calls
    if content:
        found["content"] = content
    return found


def _write_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
