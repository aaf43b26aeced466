"""Reads TRL's data sets: preferences with the prompt inside or before the answers, and single answers with a label."""

from collections.abc import Sequence

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import (
    compare,
    is_conversation,
    is_messages,
    read_answer,
    read_prompt,
    read_tools,
    read_turns,
)
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.preferences.distilabel import DISTILABEL
from flywheel_assets.formats.preferences.hh_rlhf import HH_RLHF
from flywheel_assets.formats.preferences.llama_factory import ALPACA_PREFERENCE, SHAREGPT_DPO
from flywheel_assets.formats.preferences.ultrafeedback import ULTRAFEEDBACK_BINARIZED
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose, judge, read_verdict

_NEARER = (HH_RLHF, ULTRAFEEDBACK_BINARIZED, DISTILABEL, SHAREGPT_DPO, ALPACA_PREFERENCE)
"""What else has `chosen` and `rejected`: it knows more of the record."""


def _matches_preference(record: Record) -> bool:
    values = record.values
    chosen, rejected = values.get("chosen"), values.get("rejected")
    if any(each.matches(record) for each in _NEARER):
        return False
    if is_messages(chosen) and is_messages(rejected):
        return "prompt" not in values or is_conversation(chosen) or is_conversation(rejected)
    return "prompt" not in values and isinstance(chosen, str) and isinstance(rejected, str)


def _convert_preference(record: Record) -> Sequence[Event]:
    tools = read_tools(record, "tools")
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str) and not is_messages(chosen):
        return [choose(*_part_texts(chosen, rejected), tools=tools)]
    given = record.get("prompt")
    prompt = None if given is None else read_prompt(given)
    turns = read_turns(chosen, "chosen"), read_turns(rejected, "rejected")
    return [choose(*compare(prompt, *turns), tools=tools)]


def _part_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Part two texts where they begin to differ, in front of a space, as TRL's `extract_prompt` does."""
    place = next(
        (place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    if place and chosen[place - 1] == " ":
        place -= 1
    if not place or chosen == rejected:
        raise InvalidEventError(
            "chosen and rejected share no beginning that could be the prompt; valid: a field `prompt`, or two texts "
            "that begin with it"
        )
    return chosen[:place], chosen[place:], rejected[place:]


def _matches_unpaired(record: Record) -> bool:
    return {"prompt", "completion", "label"} <= record.values.keys()


def _convert_unpaired(record: Record) -> Sequence[Event]:
    prompt = read_prompt(record.get("prompt"))
    output = read_answer(record.get("completion"), "completion")
    verdict = read_verdict(record.get("label"))
    if verdict is None:
        raise InvalidEventError(f"`label` is {str(record.get('label'))[:40]!r}; valid: true or false")
    return judge(TRL_UNPAIRED.name, record, prompt, output, verdict, tools=read_tools(record, "tools"))


TRL_PREFERENCE = Format(
    name="trl-preference",
    title="TRL preference sets: the prompt inside both answers, or conversations",
    matches=_matches_preference,
    convert=_convert_preference,
    fields=("prompt", "chosen", "rejected", "tools"),
)
TRL_UNPAIRED = Format(
    name="trl-unpaired",
    title="TRL unpaired preference sets (KTO): one answer and a label",
    matches=_matches_unpaired,
    convert=_convert_unpaired,
    fields=("prompt", "completion", "label"),
)
