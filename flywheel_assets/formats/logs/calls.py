"""Reads what went into a model and what came out, where each application may log its own shape.

A prompt is messages wherever some can be found: in `messages`, `input`, `contents` and the like, below `kwargs` where a
tracer wrapped a function. Otherwise it is the text; of an object with one field that field's text, of any other object
its JSON, so that nothing that the model may have seen is left out. An answer is found the same way: in `choices`,
`output`, `generations`, `content`, the last message of a list.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from flywheel_assets.conversations import Message, Prompt, Role, Tools
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.messages import is_message, read_message, read_messages

_DEEPEST = 8
"""Levels of wrapping that are opened."""
_SAID = ("messages", "chat_history", "contents", "input", "prompt", "prompts", "inputs", "request", "body")
_ANSWERED = ("choices", "generations", "output", "outputs", "message", "messages", "content", "candidates", "response")
_SETTINGS = frozenset({
    "model", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_output_tokens", "stream",
    "tools", "tool_choice", "n", "seed", "stop", "frequency_penalty", "presence_penalty", "response_format", "user",
    "metadata", "config", "stream_options", "store", "text", "parallel_tool_calls", "reasoning_effort", "logprobs",
    "functions", "extra_body", "options", "invocation_params", "self",
})  # fmt: skip
"""Fields next to a prompt which are no part of it."""
_USAGE = frozenset({
    "usage", "id", "object", "created", "model", "type", "llm_output", "run", "usage_metadata", "response_metadata",
})  # fmt: skip


def parse_json(value: Any) -> Any:
    """Return the value, decoded where it is a text of JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return value
    return value


def write_json(value: Any) -> str:
    """Return the text of a value: itself where it is one, else its JSON."""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidEventError("a value is no JSON or nested too deeply") from None


def read_prompt(value: Any) -> Prompt | None:
    """Return what a model was asked; None where nothing is there.

    Raises:
        InvalidEventError: it is messages, and one of them is none.
    """
    found = _find_prompt(value, 0)
    if isinstance(found, list):
        return found or None
    return found if found and found.strip() else None


def read_answer(value: Any) -> str | Message | None:
    """Return what a model answered; None where nothing is there.

    Raises:
        InvalidEventError: it is a message that cannot be read.
    """
    said = _list_answers(value, 0)
    return said[-1] if said else None


def read_call(inputs: Any, outputs: Any) -> tuple[Prompt | None, str | Message | None]:
    """Return prompt and answer of a call that may have logged several messages as its output.

    What came before the last answer, for instance calls of tools and their results, belongs to the prompt then. An
    output that repeats the conversation replaces the prompt.
    """
    prompt = read_prompt(inputs)
    said = _list_answers(outputs, 0)
    if not said:
        return prompt, None
    before = [each for each in said[:-1] if isinstance(each, Message)]
    if before and any(each.role is Role.USER for each in before):
        return before, said[-1]
    if before and isinstance(prompt, list):
        return [*prompt, *before], said[-1]
    return prompt, said[-1]


def read_tools(value: Any) -> Tools | None:
    """Return the tools of a request; None where there are none that a chat template could list."""
    value = parse_json(value)
    if isinstance(value, Mapping):
        value = value.get("tools", value.get("functions"))
    if not isinstance(value, list):
        return None
    tools = [_read_tool(parse_json(each)) for each in value]
    found = [each for each in tools if each is not None]
    return found or None


def _read_tool(tool: Any) -> dict[str, Any] | None:
    if not isinstance(tool, Mapping):
        return None
    function = tool.get("function")
    if isinstance(function, Mapping):
        return {"type": "function", **tool} if isinstance(function.get("name"), str) else None
    if isinstance(tool.get("name"), str):
        fields = {"name": tool["name"]}
        if isinstance(tool.get("description"), str):
            fields["description"] = tool["description"]
        schema = tool.get("parameters", tool.get("input_schema", tool.get("inputSchema")))
        return {"type": "function", "function": {**fields, **({"parameters": schema} if schema else {})}}
    return dict(tool) if isinstance(tool.get("type"), str) else None  # run by the model's server, e.g. a web search


def _find_prompt(value: Any, depth: int) -> Prompt | None:
    value = parse_json(value)
    if value is None or depth > _DEEPEST:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _find_in_list(value, depth)
    if not isinstance(value, Mapping):
        return write_json(value)
    if is_message(value):
        return [read_message(value)]
    if found := _find_in_object(value, depth):
        return found
    filled = {name: each for name, each in value.items() if each not in (None, "", [], {})}
    rest = {name: each for name, each in filled.items() if name not in _SETTINGS} or filled
    if len(rest) == 1:
        return _find_prompt(next(iter(rest.values())), depth + 1)
    return write_json(rest) if rest else None


def _find_in_list(value: list[Any], depth: int) -> Prompt | None:
    if value and is_message(value[0]):
        return read_messages(value)
    if len(value) == 1:  # batches of one, as LangChain logs them
        return _find_prompt(value[0], depth + 1)
    if value and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return write_json(value) if value else None


def _find_in_object(value: Mapping[str, Any], depth: int) -> Prompt | None:
    """Return the messages in an object that is known to carry some."""
    for name in ("kwargs", "args"):
        if isinstance(value.get(name), list | dict) and value[name] and set(value) <= {"args", "kwargs"}:
            return _find_prompt(value[name], depth + 1)
    for name in _SAID:
        inner = parse_json(value.get(name))
        if isinstance(inner, list | Mapping) and inner:
            found = _find_prompt(inner, depth + 1)
            if isinstance(found, list):
                return [*_read_system(value), *found]
        elif isinstance(inner, str) and name in ("input", "prompt") and (system := _read_system(value)):
            return [*system, Message(Role.USER, inner)]
    return None


def _read_system(value: Mapping[str, Any]) -> list[Message]:
    """Return the system prompt that some APIs take next to the messages."""
    config = value.get("config")
    for holder in (value, config if isinstance(config, Mapping) else {}):
        for name in ("system", "instructions", "system_prompt", "systemInstruction", "system_instruction"):
            said = parse_json(holder.get(name))
            if isinstance(said, Mapping) and isinstance(said.get("parts"), list):
                said = said["parts"]
            if isinstance(said, str | list) and said:
                return [read_message({"role": "system", "content": said})]
    return []


def _list_answers(value: Any, depth: int) -> list[str | Message]:
    """Return the messages that an output holds, the answer last."""
    decoded = parse_json(value)
    if decoded is None or depth > _DEEPEST:
        return []
    if isinstance(decoded, str):
        return [decoded] if decoded.strip() else []
    if isinstance(decoded, list):
        return _list_answers_of_list(decoded, depth)
    if not isinstance(decoded, Mapping):
        return [write_json(decoded)]
    if is_message(decoded):
        return [_give_role(read_message(decoded))] if _says_something(decoded) else []
    if isinstance(decoded.get("output_text"), str) and not isinstance(decoded.get("output"), list):
        return [decoded["output_text"]]
    for name in _ANSWERED:
        inner = parse_json(decoded.get(name))
        if name == "content" and isinstance(inner, list):
            return [_give_role(read_message({"role": "assistant", "content": inner}))] if inner else []
        if isinstance(inner, list | Mapping) and inner:
            return _list_answers(inner, depth + 1)
        if isinstance(inner, str) and inner:
            return [inner]
    if isinstance(decoded.get("text"), str):
        return [decoded["text"]]
    rest = {name: each for name, each in decoded.items() if name not in _USAGE and each not in (None, "", [], {})}
    if len(rest) == 1:
        return _list_answers(next(iter(rest.values())), depth + 1)
    return [write_json(rest)] if rest else []


def _list_answers_of_list(values: list[Any], depth: int) -> list[str | Message]:
    if not values:
        return []
    if all(is_message(each) for each in values):
        return [*_join_items([read_message(each, number) for number, each in enumerate(values)])]
    if all(isinstance(each, Mapping) and each.get("type") in ("text", "tool_use", "thinking") for each in values):
        return [_give_role(read_message({"role": "assistant", "content": values}))]
    if all(isinstance(each, str) for each in values):
        return ["\n".join(values)]
    if isinstance(values[0], list) or len(values) == 1 or _is_choice(values[0]):
        return _list_answers(values[0], depth + 1)
    if any(is_message(each) for each in values):
        return _list_answers([each for each in values if is_message(each)], depth + 1)
    return [write_json(values)]


def _is_choice(value: Any) -> bool:
    return isinstance(value, Mapping) and any(name in value for name in ("message", "text", "content", "delta"))


def _join_items(messages: list[Message]) -> list[Message]:
    """Return messages, in which items of one answer are one: its reasoning, its text, its calls."""
    joined: list[Message] = []
    for each in messages:
        last = joined[-1] if joined else None
        if last is None or last.role is not Role.ASSISTANT or each.role is not Role.ASSISTANT:
            joined.append(each)
        elif last.content is None or each.content is None:
            thoughts = [text for text in (last.reasoning_content, each.reasoning_content) if text]
            joined[-1] = msgspec.structs.replace(
                each,
                content=each.content if last.content is None else last.content,
                tool_calls=[*(last.tool_calls or ()), *(each.tool_calls or ())] or None,
                reasoning_content="\n".join(thoughts) or None,
            )
        else:
            joined.append(each)
    # What follows the last answer, results of tools for instance, answers nothing.
    while joined and not (joined[-1].role is Role.ASSISTANT and (joined[-1].content or joined[-1].tool_calls)):
        joined.pop()
    return joined


def _says_something(value: Mapping[str, Any]) -> bool:
    message = read_message(value)
    return bool(message.content or message.tool_calls)


def _give_role(message: Message) -> Message:
    return message if message.role is Role.ASSISTANT else msgspec.structs.replace(message, role=Role.ASSISTANT)
