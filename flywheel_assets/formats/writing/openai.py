"""Writes rows for OpenAI's fine-tuning: preference examples and chats, in the message format of its API.

A preference example is `{"input": {"messages", "tools", "parallel_tool_calls"}, "preferred_output",
"non_preferred_output"}`, a chat `{"messages", "tools", "parallel_tool_calls"}`. Azure and Together take the same.

| rule | what is written |
|---|---|
| a prompt is messages | a text becomes one message of the user |
| the last message of a prompt is a user's or a tool's | other rows are a gap |
| a call has an id, and a tool's result names it | missing ids are given in the order of the calls: `call_0` … |
| arguments are a text of JSON | objects are encoded |
| an answer holds text and calls, and no reasoning | `reasoning_content` is left out, and counted |
| a content part is a text, or in a user's message an image, audio or a file | other parts are a gap |
| a tool is a function | other tools are a gap |

Sources: <https://platform.openai.com/docs/guides/direct-preference-optimization> and the message types of the package
`openai`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flywheel_assets.conversations import Message, Role, ToolCall
from flywheel_assets.formats.writing.examples import Example, Gap

Row = dict[str, Any]
_PARTS = {Role.USER: ("text", "image_url", "input_audio", "file"), Role.ASSISTANT: ("text", "refusal")}


@dataclass(frozen=True)
class Written:
    """Holds a row and what was left out of it."""

    row: Row
    has_lost_reasoning: bool


def write_preference(example: Example) -> Written | Gap:
    """Write a preference example."""
    assert example.chosen is not None
    assert example.rejected is not None
    if gap := _find_gap(example):
        return gap
    writer = _Writer()
    prompt = writer.write(example.messages)
    chosen, rejected = (writer.fork().write([answer]) for answer in (example.chosen, example.rejected))
    if isinstance(prompt, Gap) or isinstance(chosen, Gap) or isinstance(rejected, Gap):
        return next(each for each in (prompt, chosen, rejected) if isinstance(each, Gap))
    if chosen == rejected:
        return Gap.SAME_ANSWERS
    row = {
        "input": {"messages": prompt, "tools": example.tools or [], "parallel_tool_calls": True},
        "preferred_output": chosen,
        "non_preferred_output": rejected,
    }
    return Written(row, _has_reasoning(example))


def write_chat(example: Example) -> Written | Gap:
    """Write a chat whose last message is the right answer."""
    assert example.chosen is not None
    if gap := _find_gap(example):
        return gap
    messages = _Writer().write([*example.messages, example.chosen])
    if isinstance(messages, Gap):
        return messages
    tools = {"tools": example.tools, "parallel_tool_calls": True} if example.tools else {}
    return Written({"messages": messages, **tools}, _has_reasoning(example))


def _find_gap(example: Example) -> Gap | None:
    if example.messages[-1].role not in (Role.USER, Role.TOOL):
        return Gap.LAST_MESSAGE_IS_AN_ANSWER
    if any(tool.get("type") != "function" for tool in example.tools or ()):
        return Gap.TOOL
    if any(not answer.content and not answer.tool_calls for answer in example.answers):
        return Gap.EMPTY_ANSWER
    return None


def _has_reasoning(example: Example) -> bool:
    return any(each.reasoning_content is not None for each in (*example.messages, *example.answers))


@dataclass
class _Writer:
    """Writes the messages of one conversation, with ids for calls that have none."""

    unanswered: list[str] = field(default_factory=list)
    calls: int = 0

    def fork(self) -> "_Writer":
        """Return a writer that goes on from here, for one of two answers."""
        return _Writer(list(self.unanswered), self.calls)

    def write(self, messages: Iterable[Message]) -> list[Row] | Gap:
        written = []
        for message in messages:
            row = self._write_message(message)
            if isinstance(row, Gap):
                return row
            written.append(row)
        return written

    def _write_message(self, message: Message) -> Row | Gap:
        row: Row = {"role": message.role.value}
        if isinstance(message.content, list):
            known = _PARTS.get(message.role, ("text",))
            if any(part.get("type") not in known for part in message.content):
                return Gap.CONTENT_PART
        if message.content is not None or not message.tool_calls:
            row["content"] = message.content or ""
        if message.name is not None and message.role is not Role.TOOL:
            row["name"] = message.name
        if message.tool_calls:
            row["tool_calls"] = [self._write_call(call) for call in message.tool_calls]
        if message.role is Role.TOOL:
            asked = message.tool_call_id or (self.unanswered[0] if self.unanswered else None)
            if asked not in self.unanswered:
                return Gap.TOOL_RESULT_WITHOUT_CALL
            self.unanswered.remove(asked)
            row["tool_call_id"] = asked
        return row

    def _write_call(self, call: ToolCall) -> Row:
        number, self.calls = self.calls, self.calls + 1
        name = call.id or f"call_{number}"
        self.unanswered.append(name)
        arguments = call.function.arguments
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        return {"id": name, "type": "function", "function": {"name": call.function.name, "arguments": text}}
