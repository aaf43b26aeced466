"""Defines one type for a conversation, from the door to the chat template.

A prompt is text, or messages. A message has a role, content (text, or parts of which at least the texts are read), and
what agents need: tool calls, the id of the call that a tool answers, a name, reasoning. An answer is text, or one
assistant message. Prompts are stored as canonical JSON; an answer is stored as its *text* (see `read_answer_text`), and
its message as well only where the text does not say everything.

Older and flatter spellings are read and never stored: a call's arguments as a text of JSON, a call without `function`
around its name, `function_call`, the role `function`, one text part where a text would do. So a chat template always
finds `type`, `function.name` and `function.arguments` in a call, and the arguments as an object.

Three parts of a prompt are kept apart everywhere: *operator text* (the team's own system prompt), *context* (earlier
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

    @classmethod
    def _missing_(cls, value: object) -> "Role | None":
        # The older name of the same author, which still stands in logs.
        return cls.TOOL if value == "function" else None


OPERATOR_ROLES = (Role.SYSTEM, Role.DEVELOPER)


_DEEPEST = 64
"""Levels of objects and lists in arguments, parts and tools: a deeper value would end some later step by recursion."""


def _parse_object(text: str) -> dict[str, Any] | None:
    """Parse a text as one JSON object; None: it is none, or too deep to be handed on."""
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return None if is_too_deep(found) else found


def is_too_deep(value: object, levels: int = _DEEPEST) -> bool:
    """Return whether objects and lists are nested more than `levels` deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(is_too_deep(each, levels - 1) for each in value)


class Function(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names a function and holds its arguments: an object, or text that could not be read as one."""

    name: str
    # The default is no valid end: `{}` differs from it, so that arguments are always stored.
    arguments: dict[str, Any] | str = ""

    def __post_init__(self) -> None:
        """Read the arguments as an object, where they are one in a text, as OpenAI sends them."""
        if isinstance(self.arguments, str):
            arguments = _parse_object(self.arguments or "{}")
            if arguments is not None:
                msgspec.structs.force_setattr(self, "arguments", arguments)
        elif is_too_deep(self.arguments):
            raise ValueError(f"`arguments` of {self.name[:80]!r} are nested too deeply; valid: {_DEEPEST} levels")


_NO_FUNCTION = Function("")


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one call that the assistant asks for.

    `name` and `arguments` are how a call comes without a `function` around them; once decoded they are None.
    """

    function: Function = _NO_FUNCTION
    id: str | None = None
    # Empty means `function`: a default of that name would not be stored, and templates read it.
    type: str = ""
    name: str | None = None
    arguments: dict[str, Any] | str | None = None

    def __post_init__(self) -> None:
        """Give the call its function and its type."""
        if self.name is not None and not self.function.name:
            msgspec.structs.force_setattr(self, "function", Function(self.name, self.arguments or ""))
        if not self.function.name:
            raise ValueError("a tool call has no `function` with a `name`")
        msgspec.structs.force_setattr(self, "name", None)
        msgspec.structs.force_setattr(self, "arguments", None)
        if not self.type:
            msgspec.structs.force_setattr(self, "type", "function")


Part = dict[str, Any]
"""One part of a content, `{"type": "text", "text": …}` or of another type; other parts are kept as they came."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds one turn of a conversation, with the field names that chat templates know.

    Fields that are not listed here are accepted and not stored. `function_call` is the older form of `tool_calls`; once
    decoded it is None.
    """

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    function_call: Function | None = None

    def __post_init__(self) -> None:
        """Give the message its one form."""
        if self.function_call is not None:
            calls = [*(self.tool_calls or ()), ToolCall(self.function_call)]
            msgspec.structs.force_setattr(self, "tool_calls", calls)
            msgspec.structs.force_setattr(self, "function_call", None)
        elif self.tool_calls is not None and not self.tool_calls:
            msgspec.structs.force_setattr(self, "tool_calls", None)
        if isinstance(self.content, list):
            if is_too_deep(self.content):
                raise ValueError(f"a part of `content` is nested too deeply; valid: {_DEEPEST} levels")
            if len(self.content) == 1 and self.content[0].get("type") == "text":
                text = self.content[0].get("text")
                if isinstance(text, str):
                    msgspec.structs.force_setattr(self, "content", text)


Prompt = str | list[Message]
Answer = str | Message
"""Of a model or a person: text, or one assistant message."""
FiledAnswer = Answer | list[Message]
"""As files hold answers: also as a list of one message."""
Tools = list[dict[str, Any]]
"""The functions that the model could call, as JSON schemas, in the form that the chat template takes."""

_encoder = msgspec.json.Encoder()
_messages_decoder: msgspec.json.Decoder[list[Message]] = msgspec.json.Decoder(list[Message])
_message_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)

# Reasoning stands before the answer. Some templates open the block themselves, so that only its end is in the text:
# such an end is a closing tag on a line of its own or before an empty line, because answers may speak of the tag.
_REASONING_OPENS = re.compile(r"<(?:think|thinking|reasoning)>")
_REASONING_ENDS = re.compile(r"</(?:think|thinking|reasoning)>")
_UNOPENED_ENDS = re.compile(
    r"^[ \t]*</(?:think|thinking|reasoning)>[ \t]*\r?$|</(?:think|thinking|reasoning)>[ \t]*\r?\n[ \t]*\r?$",
    re.MULTILINE,
)


def find_role_problem(messages: list[Message]) -> str | None:
    """Describe why no chat model could answer these messages; None: one could.

    Only what every template refuses is found here. What one template refuses (two user messages in a row, a system
    message in the middle) is decided by the application's own tokenizer before a version is cut.
    """
    is_asked = False
    for number, message in enumerate(messages):
        role, content = message.role, message.content
        is_asked = is_asked or role is Role.USER
        if message.tool_calls and role is not Role.ASSISTANT:
            return f"message {number} has `tool_calls` and role {role.value!r}; only 'assistant' calls tools"
        if type(content) is str:
            continue
        if not content and not message.tool_calls:
            return f"message {number} ({role.value}) has neither `content` nor `tool_calls`"
        if isinstance(content, list) and (problem := _find_part_problem(content)):
            return f"message {number}: {problem}"
    return None if is_asked else f"no message of role 'user'; a prompt needs one (valid roles: {', '.join(Role)})"


def find_answer_problem(answer: FiledAnswer) -> str | None:
    """Describe why this is no answer of an assistant; None: it is one."""
    if isinstance(answer, str):
        return None
    if isinstance(answer, list):
        if len(answer) != 1:
            return f"{len(answer)} messages; an answer is one, and what comes before it belongs in `prompt`"
        answer = answer[0]
    if answer.role is not Role.ASSISTANT:
        return f"role {answer.role.value!r}; an answer has role 'assistant'"
    if answer.content in (None, []) and not answer.tool_calls:
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
    return _encoder.encode(prompt).decode(), PromptFormat.MESSAGES


def decode_messages(prompt: str) -> list[Message]:
    """Decode a stored prompt of format `messages`.

    Raises:
        msgspec.DecodeError: it is none; rows that were stored before roles were checked may be.
    """
    return _messages_decoder.decode(prompt)


def encode_answer(answer: FiledAnswer) -> tuple[str, str | None]:
    """Return an answer as it is stored: its text, and its message as JSON or None.

    There is a message only where the text does not say everything.
    """
    if isinstance(answer, str):
        return answer, None
    if isinstance(answer, list):
        [answer] = answer
    text = read_answer_text(answer)
    says_all = isinstance(answer.content, str) and not answer.tool_calls and answer.reasoning_content is None
    return text, None if says_all and answer.name is None else _encoder.encode(answer).decode()


def decode_answer(text: str, message: str | None) -> Message:
    """Build the assistant message of a stored answer."""
    return Message(Role.ASSISTANT, text) if message is None else _message_decoder.decode(message)


def find_tools_problem(tools: Tools) -> str | None:
    """Describe why these are no tools that a chat template can list; None: they are."""
    for number, tool in enumerate(tools):
        if not isinstance(_wrap_tool(tool).get("type"), str):
            return f'tool {number} has no `function` with a `name`; valid: {{"type": "function", "function": {{…}}}}'
        function = tool.get("function")
        if function is not None and not (isinstance(function, dict) and isinstance(function.get("name"), str)):
            return f"`function` of tool {number} is no object with a `name`"
    return f"`tools` are nested too deeply; valid: {_DEEPEST} levels" if is_too_deep(tools) else None


def encode_tools(tools: Tools | None) -> str | None:
    """Return tools as they are stored: one JSON array, None where there are none.

    A function that comes without `{"type": "function", "function": …}` around it is given them: templates read them.
    """
    return _encoder.encode([_wrap_tool(tool) for tool in tools]).decode() if tools else None


def _wrap_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if "function" in tool:
        return {"type": "function", **tool}
    if not isinstance(tool.get("name"), str) or tool.get("type", "function") != "function":
        return tool  # a tool that the model's server runs itself, for instance a web search
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def read_content(message: Message) -> str:
    """Read the text of a message's content; parts of other types are marked by their type in brackets."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(map(_read_part, message.content))


def _read_part(part: Part) -> str:
    text = part.get("text") if part.get("type") == "text" else None
    return text if isinstance(text, str) else f"[{part.get('type')}]"


def read_answer_text(message: Message) -> str:
    """Read what people see of an answer: its content, then each tool call as one line of JSON; no reasoning."""
    calls = [
        json.dumps({"name": call.function.name, "arguments": call.function.arguments}, ensure_ascii=False)
        for call in message.tool_calls or ()
    ]
    return "\n".join(filter(None, (read_content(message), *calls)))


def split_reasoning(text: str) -> tuple[str, str]:
    """Part an answer into (reasoning, answer); the reasoning is empty where there is none.

    A block begins with its opening tag at the very start of the text, or was opened by the chat template: then no
    opening tag comes before its closing one, which stands on a line of its own or before an empty line. Text that opens
    a block and never closes it is all reasoning: the model was cut off.
    """
    opens = _REASONING_OPENS.match(text, len(text) - len(text.lstrip()))
    if opens is None and "</" not in text:
        return "", text
    ends = _UNOPENED_ENDS.search(text) if opens is None else _REASONING_ENDS.search(text, opens.end())
    if ends is None:
        return ("", text) if opens is None else (text, "")
    if opens is None and _REASONING_OPENS.search(text, 0, ends.start()):
        return "", text
    return text[opens.end() if opens else 0 : ends.start()].strip(), text[ends.end() :].lstrip()


@dataclass(frozen=True)
class PromptParts:
    """Holds what a prompt says, by who says it."""

    operator: str
    """The team's system and developer messages."""
    context: str
    """Earlier turns, documents and results of tools."""
    request: str
    """The last message of the user; of a prompt that is text, all of it."""
    documents: str = ""
    """The results of tools, which are part of the context."""

    @property
    def conversation(self) -> str:
        """Return everything but the operator's text: the words of people, documents and models."""
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
    documents: list[str] = []
    request = max((place for place, each in enumerate(messages) if each.role is Role.USER), default=-1)
    for place, message in enumerate(messages):
        if place != request:
            text = read_answer_text(message)
            (operator if message.role in OPERATOR_ROLES else context).append(text)
            if message.role is Role.TOOL:
                documents.append(text)
    said = read_content(messages[request]) if request >= 0 else ""
    return PromptParts("\n".join(operator), "\n".join(context), said, "\n".join(documents))
