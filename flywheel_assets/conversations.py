"""Defines one type for a conversation, from the door to the chat template.

A prompt is text, or messages. A message has a role, content (text, or parts of which at least the texts are read), and
what agents need: tool calls, the id of the call that a tool answers, a name, reasoning. An answer is text, or one
assistant message. Prompts are stored as canonical JSON; an answer is stored as its *text* (see `read_answer_text`), and
its message beside it only where the text does not say everything.

Three parts of a prompt are told apart everywhere: *operator text* (the team's own system prompt), *context* (earlier
turns, documents, results of tools) and the *request*, the last thing that the user asked.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from flywheel_assets.records import PromptFormat


class Role(StrEnum):
    """Names the author of a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


OPERATOR_ROLES = (Role.SYSTEM, Role.DEVELOPER)


class Function(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names a function and holds its arguments: an object, or text that could not be read as one."""

    name: str
    arguments: dict[str, Any] | str = msgspec.field(default_factory=dict)


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one call that the assistant asks for."""

    function: Function
    id: str | None = None
    type: str = "function"


Part = dict[str, Any]
"""One part of a content, `{"type": "text", "text": …}` or of another type; other parts are kept as they came."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds one turn of a conversation, with the field names that chat templates know.

    Fields that are not listed here are accepted and not stored.
    """

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


Prompt = str | list[Message]
Answer = str | Message
"""Of a model or a person: text, or one assistant message."""
Tools = list[dict[str, Any]]
"""The functions that the model could call, as JSON schemas, in the form that the chat template takes."""

_encoder = msgspec.json.Encoder()
_messages_decoder: msgspec.json.Decoder[list[Message]] = msgspec.json.Decoder(list[Message])
_message_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)

# Reasoning stands before the answer. Some templates open the block themselves, so that only its end is in the text.
_REASONING = re.compile(r"\A\s*(?:<(think|thinking|reasoning)>)?(.*?)</(think|thinking|reasoning)>\s*", re.DOTALL)
_REASONING_OPENS = re.compile(r"\A\s*<(?:think|thinking|reasoning)>", re.DOTALL)


def find_role_problem(messages: list[Message]) -> str | None:
    """Describe why no chat model could answer these messages; None: one could.

    Only what every template refuses is found here. What one template refuses (two user messages in a row, a system
    message in the middle) is decided by the application's own tokenizer before a version is cut.
    """
    if not any(message.role is Role.USER for message in messages):
        return f"no message of role 'user'; a prompt needs one (valid roles: {', '.join(Role)})"
    for number, message in enumerate(messages):
        if message.content is None and not message.tool_calls:
            return f"message {number} ({message.role.value}) has neither `content` nor `tool_calls`"
        if message.tool_calls and message.role is not Role.ASSISTANT:
            return f"message {number} has `tool_calls` and role {message.role.value!r}; only 'assistant' calls tools"
        if isinstance(message.content, list) and (problem := _find_part_problem(message.content)):
            return f"message {number}: {problem}"
    return None


def find_answer_problem(answer: Message) -> str | None:
    """Describe why a message is no answer of an assistant; None: it is one."""
    if answer.role is not Role.ASSISTANT:
        return f"role {answer.role.value!r}; an answer has role 'assistant'"
    if answer.content is None and not answer.tool_calls:
        return "neither `content` nor `tool_calls`"
    return _find_part_problem(answer.content) if isinstance(answer.content, list) else None


def _find_part_problem(parts: list[Part]) -> str | None:
    for number, part in enumerate(parts):
        if not isinstance(part.get("type"), str):
            return f"part {number} of `content` has no `type`"
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            return f"part {number} of `content` has type 'text' and no `text`"
    return None


def encode_prompt(prompt: Prompt) -> tuple[str, PromptFormat]:
    """Return a prompt as it is stored: its text, or its messages as one canonical JSON array."""
    if isinstance(prompt, str):
        return prompt, PromptFormat.TEXT
    return _encoder.encode([_normalize(message) for message in prompt]).decode(), PromptFormat.MESSAGES


def decode_messages(prompt: str) -> list[Message]:
    """Decode a stored prompt of format `messages`.

    Raises:
        msgspec.DecodeError: it is none; rows that were stored before roles were checked may be.
    """
    return _messages_decoder.decode(prompt)


def encode_answer(answer: Answer) -> tuple[str, str | None]:
    """Return an answer as it is stored: its text, and its message as JSON where the text does not say everything."""
    if isinstance(answer, str):
        return answer, None
    answer = _normalize(answer)
    text = read_answer_text(answer)
    says_all = isinstance(answer.content, str) and not answer.tool_calls and answer.reasoning_content is None
    return text, None if says_all and answer.name is None else _encoder.encode(answer).decode()


def decode_answer(text: str, message: str | None) -> Message:
    """Build the assistant message of a stored answer."""
    return Message(Role.ASSISTANT, text) if message is None else _message_decoder.decode(message)


def encode_tools(tools: Tools | None) -> str | None:
    """Return tools as they are stored: one JSON array, None where there are none."""
    return _encoder.encode(tools).decode() if tools else None


def read_content(message: Message) -> str:
    """Read the text of a message's content; parts of other types are marked by their type in brackets."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(
        part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in message.content
    )


def read_answer_text(message: Message) -> str:
    """Read what people see of an answer: its content, then each tool call as one line of JSON; no reasoning."""
    calls = [
        json.dumps({"name": call.function.name, "arguments": call.function.arguments}, ensure_ascii=False)
        for call in message.tool_calls or ()
    ]
    return "\n".join(filter(None, (read_content(message), *calls)))


def split_reasoning(text: str) -> tuple[str, str]:
    """Part an answer into (reasoning, answer); the reasoning is empty where there is none.

    Text that opens a block of reasoning and never closes it is all reasoning: the model was cut off.
    """
    if found := _REASONING.match(text):
        return found[2].strip(), text[found.end() :]
    if _REASONING_OPENS.match(text):
        return text, ""
    return "", text


@dataclass(frozen=True)
class PromptParts:
    """Holds what a prompt says, by who says it."""

    operator: str
    """The team's system and developer messages."""
    context: str
    """Earlier turns, documents and results of tools."""
    request: str
    """The last message of the user; of a prompt that is text, all of it."""

    @property
    def said(self) -> str:
        """Return everything but the operator's text: what people and documents said."""
        return f"{self.context}\n{self.request}" if self.context else self.request


def split_prompt(prompt: str, prompt_format: str) -> PromptParts:
    """Part a stored prompt into operator text, context and request.

    A prompt that says it holds messages and does not is a request as a whole.
    """
    if prompt_format != PromptFormat.MESSAGES:
        return PromptParts("", "", prompt)
    try:
        messages = decode_messages(prompt)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return PromptParts("", "", prompt)
    operator: list[str] = []
    context: list[str] = []
    request = max((place for place, each in enumerate(messages) if each.role is Role.USER), default=-1)
    for place, message in enumerate(messages):
        if place != request:
            (operator if message.role in OPERATOR_ROLES else context).append(read_answer_text(message))
    said = read_content(messages[request]) if request >= 0 else ""
    return PromptParts("\n".join(operator), "\n".join(context), said)


def _normalize(message: Message) -> Message:
    """Return a message whose arguments are objects where they are JSON objects in a text, as OpenAI sends them."""
    if not message.tool_calls:
        return message
    calls = [msgspec.structs.replace(call, function=_normalize_function(call.function)) for call in message.tool_calls]
    return msgspec.structs.replace(message, tool_calls=calls)


def _normalize_function(function: Function) -> Function:
    if isinstance(function.arguments, str):
        try:
            return Function(function.name, msgspec.json.decode(function.arguments, type=dict[str, Any]))
        except (msgspec.DecodeError, RecursionError):
            return function
    return function
