"""Reads messages in the spellings of other systems as `conversations.Message`.

| spelling | a message |
|---|---|
| OpenAI, TRL, Hugging Face | `{"role", "content", "tool_calls", …}`, and `reasoning_content` or `reasoning` |
| OpenAI Responses | `{"type": "message", …}`, and items of type `function_call`, `function_call_output`, `reasoning` |
| Anthropic | `content` as blocks of type `text`, `thinking`, `tool_use`, `tool_result` |
| Gemini | `{"role": "model", "parts": [{"text": …}]}` |
| ShareGPT | `{"from": "human", "value": …}` |
| Axolotl's older sets | `{"sender": "user", "text": …}` |
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
    "human": Role.USER, "gpt": Role.ASSISTANT, "ai": Role.ASSISTANT, "model": Role.ASSISTANT, "bot": Role.ASSISTANT,
    "function": Role.TOOL, "observation": Role.TOOL, "function_call": Role.ASSISTANT, "chatbot": Role.ASSISTANT,
    "HumanMessage": Role.USER, "AIMessage": Role.ASSISTANT, "SystemMessage": Role.SYSTEM, "ToolMessage": Role.TOOL,
    "AIMessageChunk": Role.ASSISTANT, "FunctionMessage": Role.TOOL, "HumanMessageChunk": Role.USER,
}  # fmt: skip
_ITEM_ROLES = {"function_call": "assistant", "function_call_output": "tool", "reasoning": "assistant"}
"""The authors of those items of OpenAI's Responses that name none."""


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
    elif isinstance(fields.get("content"), list):
        fields |= _read_parts(fields.pop("content"))
    elif isinstance(fields.get("content"), Mapping):  # a structured answer
        fields["content"] = _write_text(fields["content"])
    if fields.get("tool_call_id") and role is Role.USER:  # Anthropic: results of tools come from the user
        role = Role.TOOL
    reasoning = next(filter(None, (fields.get(key) for key in ("reasoning_content", "reasoning", "thinking"))), None)
    fields["reasoning_content"] = reasoning if isinstance(reasoning, str) else None
    try:
        return msgspec.convert({**fields, "role": role.value}, Message)
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
        raise InvalidEventError(f"message {number}: {error}") from None


def is_message(value: Any) -> bool:
    """Return whether a value looks like one message, in any of the spellings."""
    if not isinstance(value, Mapping):
        return False
    fields = _find_fields(value)
    return isinstance(fields.get("role"), str) and fields["role"] in _ROLES


def _find_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message under the names that `Message` has."""
    if "from" in value and "value" in value:
        return {"role": value["from"], "content": value["value"]}
    if "sender" in value and "text" in value and "role" not in value:
        return {"role": value["sender"], "content": value["text"]}
    if isinstance(value.get("kwargs"), Mapping) and isinstance(value.get("id"), list):
        return _rename_langchain(str(value["id"][-1]) if value["id"] else "", value["kwargs"])
    kind = value.get("type")
    if isinstance(value.get("data"), Mapping) and "type" in value:
        return _rename_langchain(str(kind), value["data"])
    if isinstance(kind, str) and "role" not in value:
        if kind in _ITEM_ROLES and not (kind == "function_call" and "content" in value):
            return _rename_item(kind, value)
        if kind in _ROLES:
            return _rename_langchain(kind, value)
    return {name: each for name, each in value.items() if isinstance(name, str)}


def _rename_item(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an item of OpenAI's Responses."""
    if kind == "function_call":
        call = {"id": item.get("call_id"), "name": item.get("name"), "arguments": item.get("arguments") or {}}
        return {"role": "assistant", "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _write_text(item.get("output"))}
    texts = [
        str(part["text"])
        for name in ("summary", "content")
        for part in (item[name] if isinstance(item.get(name), list) else ())
        if isinstance(part, Mapping) and part.get("text")
    ]
    return {"role": "assistant", "reasoning_content": "\n".join(texts) or None}


def _rename_langchain(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: data[name] for name in ("content", "name", "tool_call_id") if data.get(name) is not None}
    more = data.get("additional_kwargs")
    more = more if isinstance(more, Mapping) else {}
    listed = data.get("tool_calls")
    calls = [
        {"id": call.get("id"), "name": call.get("name"), "arguments": call.get("args", {})}
        if "function" not in call
        else call
        for call in (listed if isinstance(listed, list) else ())
        if isinstance(call, Mapping)
    ]
    if not calls and isinstance(more.get("tool_calls"), list):
        calls = more["tool_calls"]
    if more.get("reasoning_content"):
        fields["reasoning_content"] = more["reasoning_content"]
    return {
        **fields,
        "role": str(data.get("role")) if kind == "chat" else kind,
        **({"tool_calls": calls} if calls else {}),
    }


def _read_parts(parts: list[Any]) -> dict[str, Any]:
    """Return content, tool calls and reasoning of a message's parts, in the spellings of several vendors."""
    content: list[Any] = []
    calls: list[Any] = []
    thoughts: list[str] = []
    found: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
            continue
        if not isinstance(part, Mapping):
            continue
        match part.get("type"):
            case "text" | "input_text" | "output_text":
                content.append({"type": "text", "text": _write_text(part.get("text", part.get("content", "")))})
            case "refusal":
                content.append({"type": "text", "text": _write_text(part.get("refusal", part.get("content", "")))})
            case None if isinstance(part.get("text"), str):  # Gemini
                content.append({"type": "text", "text": part["text"]})
            case "tool_call" | "tool_use":
                arguments = part.get("arguments", part.get("input"))
                calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": arguments or {}})
            case "tool_call_response" | "tool_result":
                found["tool_call_id"] = part.get("id", part.get("tool_use_id"))
                answer = part.get("response", part.get("result", part.get("content")))
                content.append({"type": "text", "text": _read_result(answer)})
            case "reasoning" | "thinking":
                thoughts.append(_write_text(part.get("content", part.get("thinking", part.get("text", "")))))
            case _:
                content.append(dict(part))
    if calls:
        found["tool_calls"] = calls
    if content:
        found["content"] = content
    if thoughts:
        found["reasoning_content"] = "\n".join(thoughts)
    return found


def _read_result(value: Any) -> str:
    """Return the result of a tool as text; blocks of text are joined."""
    if isinstance(value, list) and all(isinstance(each, Mapping) and "text" in each for each in value):
        return "\n".join(_write_text(each["text"]) for each in value)
    return _write_text(value)


def _write_text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidEventError("a content is no JSON or nested too deeply") from None
