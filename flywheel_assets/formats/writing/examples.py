"""Defines one gold row as the formats of training tools see it, and the shape that a file's rows share.

A file has one shape, because readers give a column one type: its rows are all texts, or all conversations. Texts do
where every prompt is a text and every answer is said by its text. Otherwise a prompt that is text becomes one user
message, as it does in our own training.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from flywheel_assets.conversations import Message, Role, Tools


class Kind(StrEnum):
    """Names the rows of one file: what they hold, whatever set they are of."""

    PREFERENCE = "preference"
    """Two answers, of which one is right."""
    SFT = "sft"
    """A right answer alone: an accepted output or a demonstration."""
    OBJECTION = "objection"
    """A wrong answer alone."""


class Gap(StrEnum):
    """Says why a row cannot be expressed in a format; the words are those of manifests and cards."""

    WRONG_ANSWER_ALONE = "wrong_answer_alone"
    LAST_MESSAGE_IS_AN_ANSWER = "last_message_is_an_answer"
    SAME_ANSWERS = "same_answers"
    CONTENT_PART = "content_part"
    TOOL = "tool"
    TOOL_RESULT_WITHOUT_CALL = "tool_result_without_call"
    EMPTY_ANSWER = "empty_answer"


GAPS: Mapping[Gap, str] = {
    Gap.WRONG_ANSWER_ALONE: "it is a wrong answer without a right one; `--format kto` holds it",
    Gap.LAST_MESSAGE_IS_AN_ANSWER: "its prompt ends with neither a user's message nor a tool's result",
    Gap.SAME_ANSWERS: "its two answers are equal once what the format has no field for is left out",
    Gap.CONTENT_PART: "a message holds a part of a type that the format does not know",
    Gap.TOOL: "it lists a tool that is no function",
    Gap.TOOL_RESULT_WITHOUT_CALL: "a tool's result answers no call before it",
    Gap.EMPTY_ANSWER: "an answer is empty",
}


@dataclass(frozen=True)
class Example:
    """Holds one gold row."""

    prompt: str | list[Message]
    chosen: Message | None
    """The right answer; None in an objection."""
    rejected: Message | None
    tools: Tools | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Columns beyond the texts, for formats with typed columns."""

    @property
    def kind(self) -> Kind:
        """Name the files that the row belongs in."""
        if self.chosen is None:
            return Kind.OBJECTION
        return Kind.SFT if self.rejected is None else Kind.PREFERENCE

    @property
    def answers(self) -> list[Message]:
        """List the row's answers, the right one first."""
        return [each for each in (self.chosen, self.rejected) if each is not None]

    @property
    def messages(self) -> list[Message]:
        """Return the prompt as messages; a text is one message of the user."""
        return [Message(Role.USER, self.prompt)] if isinstance(self.prompt, str) else self.prompt


@dataclass
class Shape:
    """Describes what the rows of a file have in common; it grows while they are read."""

    is_conversational: bool = False
    has_tools: bool = False
    has_parts: bool = False
    """Some content is a list of parts."""
    fields: set[str] = field(default_factory=set)
    """Fields of messages beyond `role` and `content`."""

    @classmethod
    def find(cls, examples: Iterable[Example]) -> "Shape":
        """Return the shape that all examples fit in."""
        shape = cls()
        for each in examples:
            shape.widen(each)
        return shape

    def widen(self, example: Example) -> None:
        """Make room for one example more."""
        self.has_tools = self.has_tools or bool(example.tools)
        if isinstance(example.prompt, str) and not example.tools and all(map(_is_text, example.answers)):
            return
        self.is_conversational = True
        for message in (*example.messages, *example.answers):
            self.has_parts = self.has_parts or isinstance(message.content, list)
            self.fields |= {name for name in _MORE_FIELDS if getattr(message, name) is not None}

    def write_prompt(self, example: Example) -> str | list[dict[str, Any]]:
        """Return the prompt in this shape."""
        if self.is_conversational:
            return [write_message(each) for each in example.messages]
        assert isinstance(example.prompt, str)
        return example.prompt

    def write_answer(self, answer: Message) -> str | list[dict[str, Any]]:
        """Return an answer in this shape: its text, or a list of one message."""
        if self.is_conversational:
            return [write_message(answer)]
        assert isinstance(answer.content, str)
        return answer.content


_MORE_FIELDS = ("name", "tool_calls", "tool_call_id", "reasoning_content")


def _is_text(answer: Message) -> bool:
    return isinstance(answer.content, str) and all(getattr(answer, name) is None for name in _MORE_FIELDS)


def write_message(message: Message) -> dict[str, Any]:
    """Return a message with the fields that it has, calls with their arguments as objects.

    `content` is always there, as our own training hands it to chat templates: many read it unasked.
    """
    return {"role": message.role.value, "content": "", **msgspec.to_builtins(message)}
