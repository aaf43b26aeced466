"""Reads LLaMA-Factory's data sets with verdicts: ShareGPT and Alpaca pairs, and single answers with `kto_tag`."""

from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.conversations import Message, Prompt, Role
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import (
    add_system,
    as_messages,
    is_messages,
    part_last,
    read_answer,
    read_json,
    read_prompt,
    read_tools,
    read_turns,
)
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.preferences.distilabel import DISTILABEL
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose, judge, read_verdict

_BEFORE = ("conversations", "messages", "conversation")
"""Names of what came before two answers; the first is LLaMA-Factory's, the others are Axolotl's."""
_ANSWERS = ("chosen", "rejected")


def _matches_sharegpt(record: Record) -> bool:
    values = record.values
    if "chosen" not in values or "rejected" not in values or "prompt" in values:
        return False
    if "conversations" in values:
        return True
    is_behind = any(is_messages(values.get(name)) for name in _BEFORE[1:])
    return is_behind and not any(isinstance(values[name], list) and len(values[name]) > 1 for name in _ANSWERS)


def _convert_sharegpt(record: Record) -> Sequence[Event]:
    name = next((name for name in _BEFORE if name in record.values), _BEFORE[0])
    turns = read_turns(record.get(name), name)
    prompt = add_system(turns, record.get_text("system"))
    answers = (read_answer(record.get(name), name) for name in ("chosen", "rejected"))
    return [choose(prompt, *answers, tools=read_tools(record, "tools"))]


def _matches_alpaca(record: Record) -> bool:
    values = record.values
    if "prompt" in values or "conversations" in values or DISTILABEL.matches(record):
        return False
    if "instruction" in values and isinstance(values.get("output"), list) and len(values["output"]) == 2:
        return True
    asked = any(isinstance(values.get(name), str) for name in ("instruction", "question", "input"))
    return asked and all(name in values and not is_messages(values[name]) for name in ("chosen", "rejected"))


def _convert_alpaca(record: Record) -> Sequence[Event]:
    prompt = read_instruction(record)
    pair = record.get("output")
    if record.get("chosen") is None and isinstance(pair, list):
        answers = [read_answer(each, "output") for each in pair]
        if len(answers) != 2:
            raise InvalidEventError(f"`output` has {len(answers)} answers; valid: the chosen and the rejected one")
    else:
        answers = [read_answer(record.get(name), name) for name in ("chosen", "rejected")]
    return [choose(prompt, answers[0], answers[1], tools=read_tools(record, "tools"))]


def read_instruction(record: Record) -> Prompt:
    r"""Read the prompt of an Alpaca record: `instruction\ninput`, behind `system` and `history`.

    Raises:
        InvalidEventError: there is none, or `history` is no list of pairs.
    """
    parts = [record.get_text(name) for name in ("instruction", "question", "input", "context")]
    prompt: Prompt = read_prompt("\n".join(filter(None, parts)), "instruction")
    history = read_json(record.get("history"), "history") or []
    if history:
        prompt = [*_read_history(history), *as_messages(prompt)]
    return add_system(prompt, record.get_text("system"))


def _read_history(history: Any) -> list[Message]:
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(said, str) for said in pair) for pair in history
    ):
        raise InvalidEventError("`history` is no list of pairs; valid: [[what was asked, what was answered], …]")
    return [
        Message(role, said) for pair in history for role, said in zip((Role.USER, Role.ASSISTANT), pair, strict=True)
    ]


def _matches_kto(record: Record) -> bool:
    values: Mapping[str, Any] = record.values
    if "kto_tag" in values:
        return any(name in values for name in ("conversations", "messages", "instruction"))
    return "label" in values and "chosen" not in values and is_messages(values.get("messages"))


def _convert_kto(record: Record) -> Sequence[Event]:
    tools = read_tools(record, "tools")
    tag = "kto_tag" if "kto_tag" in record.values else "label"
    verdict = read_verdict(record.get(tag))
    if verdict is None:
        raise InvalidEventError(f"`{tag}` is {str(record.get(tag))[:40]!r}; valid: true or false")
    name = next((name for name in ("conversations", "messages") if name in record.values), None)
    if name is None:
        prompt, output = read_instruction(record), read_answer(record.get("output"), "output")
    else:
        turns, output = part_last(read_turns(record.get(name), name), name)
        prompt = add_system(turns, record.get_text("system"))
    return judge(LLAMA_FACTORY_KTO.name, record, prompt, output, verdict, tools=tools)


SHAREGPT_DPO = Format(
    name="sharegpt-dpo",
    title="Pairs of LLaMA-Factory and Axolotl: a conversation, chosen, rejected",
    matches=_matches_sharegpt,
    convert=_convert_sharegpt,
    fields=("conversations", "chosen", "rejected"),
)
ALPACA_PREFERENCE = Format(
    name="alpaca-preference",
    title="Alpaca pairs: instruction and input, or system and question, with chosen and rejected",
    matches=_matches_alpaca,
    convert=_convert_alpaca,
    fields=("instruction", "input", "question", "system", "chosen", "rejected"),
)
LLAMA_FACTORY_KTO = Format(
    name="llama-factory-kto",
    title="LLaMA-Factory and ms-swift KTO: one answer and kto_tag or label, as messages, ShareGPT or Alpaca",
    matches=_matches_kto,
    convert=_convert_kto,
    fields=("conversations", "instruction", "output", "kto_tag"),
)
