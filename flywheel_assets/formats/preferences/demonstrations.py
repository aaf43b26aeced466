"""Reads sets of good answers only (supervised fine-tuning): each becomes a demonstration, since nothing is rejected."""

from collections.abc import Mapping, Sequence

from flywheel_assets.formats.answers import (
    add_system,
    demonstrate,
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

_OTHERS = frozenset(
    [
        "chosen",
        "rejected",
        "label",
        "kto_tag",
        "winner",
        "completions",
        "generations",
        "choices",
        "response",
        "responses",
        "output",
        "outputs",
        "completion",
        "usage",
        "model",
        "request",
        "run_type",
        "traceId",
        "trace_id",
        "observations",
        "annotations",
        "fields",
        "history",
        "chat",
        "feedback",
        "rating",
        "score",
        "scores",
        "event",
        "interactionId",
        "original_llm_output",
        "final_user_edit",
        "chosen_messages",
        "rejected_messages",
    ]
)
"""Fields of records that hold more than a good answer: another format knows them."""


def _matches_messages(record: Record) -> bool:
    values = record.values
    return not _OTHERS & values.keys() and any(is_messages(values.get(name)) for name in ("messages", "conversations"))


def _convert_messages(record: Record) -> Sequence[Event]:
    name = "messages" if is_messages(record.values.get("messages")) else "conversations"
    given = record.get(name)
    turns, answer = part_last(read_turns(given, name), name)
    last = given[-1] if isinstance(given, list) else None
    if isinstance(last, Mapping) and last.get("weight") == 0:  # OpenAI: no answer to be learnt from
        return []
    prompt = add_system(turns, record.get_text("system"))
    tools = read_tools(record, "tools")
    return demonstrate(SFT_MESSAGES.name, record, prompt, answer, tools=tools, id=record.get_id("id"))


def _matches_alpaca(record: Record) -> bool:
    values = record.values
    others = _OTHERS - {"output", "history"}
    return "instruction" in values and isinstance(values.get("output"), str) and not others & values.keys()


def _convert_alpaca(record: Record) -> Sequence[Event]:
    answer = read_answer(record.get("output"), "output")
    return demonstrate(ALPACA.name, record, read_instruction(record), answer)


def _matches_completion(record: Record) -> bool:
    values = record.values
    return {"prompt", "completion"} <= values.keys() and not (_OTHERS - {"completion"}) & values.keys()


def _convert_completion(record: Record) -> Sequence[Event]:
    prompt = read_prompt(record.get("prompt"))
    answer = read_answer(record.get("completion"), "completion")
    return demonstrate(PROMPT_COMPLETION.name, record, prompt, answer, tools=read_tools(record, "tools"))


SFT_MESSAGES = Format(
    name="sft-messages",
    title="Conversations to learn from: messages, or ShareGPT's conversations",
    matches=_matches_messages,
    convert=_convert_messages,
    fields=("messages", "conversations", "tools", "system"),
)
ALPACA = Format(
    name="alpaca",
    title="Alpaca: instruction, input and output",
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
