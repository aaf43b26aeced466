"""Gold rows of every kind that the formats must write: texts, conversations, calls of tools, reasoning, parts."""

from typing import Any

from flywheel_assets.conversations import Function, Message, Role, ToolCall, encode_answer, encode_prompt, encode_tools
from flywheel_assets.formats.writing.examples import Example
from flywheel_assets.lake.versions.exports import ExportedRow

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}}
]
OTHER_TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {"type": "number"}}}}}
]


def says(content: Any = None, **more: Any) -> Message:
    return Message(Role.ASSISTANT, content, **more)


def call(name: str, arguments: dict[str, Any], **more: Any) -> ToolCall:
    return ToolCall(Function(name, arguments), **more)


def asks(*contents: str) -> list[Message]:
    return [Message(Role.SYSTEM, "Be brief."), *(Message(Role.USER, content) for content in contents)]


AFTER_A_TOOL = [
    *asks("Is it warm in Rome?"),
    says(tool_calls=[call("weather", {"city": "Rome"})]),
    Message(Role.TOOL, "31 degrees"),
]
TEXT_PAIR = Example("Why?", says("Because of the rain."), says("I do not know."))
CHAT_PAIR = Example(asks("Why?"), says("Because of the rain."), says("I do not know."))
CALL_PAIR = Example(
    asks("Is it warm in Rome?"),
    says(tool_calls=[call("weather", {"city": "Rome"}, id="c1")]),
    says("Yes."),
    TOOLS,
)
RESULT_PAIR = Example(AFTER_A_TOOL, says("Yes, 31 degrees."), says("No."), TOOLS)
ADDED = Example(asks("2+2?"), says(tool_calls=[call("add", {"a": 2})]), None, OTHER_TOOLS)
REASONED = Example(asks("Why?"), says("Rain.", reasoning_content="The street is wet."), says("Sun."))
ONLY_REASONED = Example(asks("Why?"), says("Rain.", reasoning_content="The street is wet."), says("Rain."))
SHOWN = Example(
    [Message(Role.USER, [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "u"}}])],
    says("A cat."),
    says("A dog."),
)
ACCEPTED = Example(asks("Hello"), says("Hello!"), None)
OBJECTION = Example(asks("Hello"), None, says("Go away."))


def exported_row(number: int, example: Example) -> ExportedRow:
    """The example as a row of a version's export."""
    prompt, prompt_format = encode_prompt(example.prompt)
    chosen, chosen_message = ("", None) if example.chosen is None else encode_answer(example.chosen)
    rejected, rejected_message = (None, None) if example.rejected is None else encode_answer(example.rejected)
    return ExportedRow(
        pair_id=f"pair-{number}",
        prompt=prompt,
        prompt_format=prompt_format.value,
        chosen=chosen,
        chosen_message=chosen_message,
        rejected=rejected,
        rejected_message=rejected_message,
        tools=encode_tools(example.tools),
        subject=f"ada-{number}",
        similarity=0.5,
        prompt_hash=f"hash-{number}",
        completed_date="2026-03-02",
        model_version="base",
    )
