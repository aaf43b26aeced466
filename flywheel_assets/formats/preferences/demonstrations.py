"""Reads sets of good answers only (supervised fine-tuning): each becomes a demonstration, since nothing is rejected."""

import re
from collections.abc import Mapping, Sequence

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import (
    add_system,
    is_messages,
    part_last,
    read_answer,
    read_prompt,
    read_tools,
    read_turns,
)
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.preferences.llama_factory import read_instruction
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import demonstrate

_OTHERS = frozenset(
    (
        *("chosen", "rejected", "label", "kto_tag", "winner", "completions", "generations", "choices", "responses"),
        *("response", "output", "outputs", "completion", "request", "observations", "annotations", "fields", "history"),
        *("chat", "event", "original_llm_output", "final_user_edit", "chosen_messages", "rejected_messages"),
        *("data", "properties", "inputs", "prefix", "suffix", "rejected_response", "rejected_messages"),
    )
)
"""Fields of records that hold more than a good answer: another format knows them."""
_OF_LOGS = re.compile(
    r"model|usage|token|latency|time|user|session|trace|span|run_|event|status|accept|suggestion|responses|feedback|rating|score|created"
)
"""Names in logs of what a model answered: such an answer is no good one just because it is there."""


_ANSWERS = ("output", "response")
_CONVERSATIONS = ("messages", "conversations", "contents")
_SYSTEMS = ("system", "systemInstruction", "system_instruction")


def _is_of_answers(record: Record, *known: str) -> bool:
    """Return whether nothing but good answers is in a record; what is empty does not count."""
    return not any(
        name in _OTHERS or _OF_LOGS.search(str(name).lower())
        for name, value in record.values.items()
        if name not in known and value not in (None, "", [], {})
    )


def _matches_messages(record: Record) -> bool:
    found = any(is_messages(record.values.get(name)) for name in _CONVERSATIONS)
    return found and _is_of_answers(record)


def _convert_messages(record: Record) -> Sequence[Event]:
    name = next((name for name in _CONVERSATIONS if is_messages(record.values.get(name))), "messages")
    given = record.get(name)
    turns, answer = part_last(read_turns(given, name), name)
    last = given[-1] if isinstance(given, list) else None
    if isinstance(last, Mapping) and last.get("weight") == 0:  # OpenAI: no answer to be learnt from
        return []
    prompt = add_system(turns, read_system(record))
    tools = read_tools(record, "tools")
    return demonstrate(SFT_MESSAGES.name, record, prompt, answer, tools=tools, id=record.get_id("id"))


def read_system(record: Record) -> str | None:
    """Read the system prompt: a text, Bedrock's list of blocks, or Gemini's message.

    Raises:
        InvalidEventError: it is something else.
    """
    given = next((value for name in _SYSTEMS if (value := record.get(name))), None)
    if isinstance(given, Mapping):
        given = given.get("parts")
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise InvalidEventError("`system` is no text and no list of texts")
    return "\n".join(str(each["text"]) for each in given if isinstance(each, Mapping) and each.get("text")) or None


def _matches_alpaca(record: Record) -> bool:
    values = record.values
    is_answered = any(isinstance(values.get(name), str) for name in _ANSWERS)
    return "instruction" in values and is_answered and _is_of_answers(record, *_ANSWERS, "history")


def _convert_alpaca(record: Record) -> Sequence[Event]:
    name = next((name for name in _ANSWERS if name in record.values), "output")
    answer = read_answer(record.get(name), name)
    return demonstrate(ALPACA.name, record, read_instruction(record), answer)


def _matches_completion(record: Record) -> bool:
    return {"prompt", "completion"} <= record.values.keys() and _is_of_answers(record, "completion")


def _convert_completion(record: Record) -> Sequence[Event]:
    prompt = read_prompt(record.get("prompt"))
    answer = read_answer(record.get("completion"), "completion")
    return demonstrate(PROMPT_COMPLETION.name, record, prompt, answer, tools=read_tools(record, "tools"))


SFT_MESSAGES = Format(
    name="sft-messages",
    title="Conversations to learn from: messages, ShareGPT's conversations, Gemini's contents",
    matches=_matches_messages,
    convert=_convert_messages,
    fields=("messages", "conversations", "tools", "system"),
)
ALPACA = Format(
    name="alpaca",
    title="Alpaca and Dolly: instruction, input and output",
    matches=_matches_alpaca,
    convert=_convert_alpaca,
    fields=("instruction", "input", "output", "system", "history"),
)
PROMPT_COMPLETION = Format(
    name="prompt-completion",
    title="Prompts with good completions",
    matches=_matches_completion,
    convert=_convert_completion,
    fields=("prompt", "completion"),
)
