"""Reads OpenAI's preference fine-tuning files, which Azure, Together and Fireworks take as well."""

from collections.abc import Mapping, Sequence

from flywheel_assets.formats.answers import compare, read_prompt, read_tools, read_turns
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose

_NAMES = (("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion"))


def _matches(record: Record) -> bool:
    values = record.values
    return "input" in values and any(one in values and other in values for one, other in _NAMES)


def _convert(record: Record) -> Sequence[Event]:
    one, other = next((names for names in _NAMES if names[0] in record.values), _NAMES[0])
    given = record.get("input")
    tools = None
    if isinstance(given, Mapping):
        tools = read_tools(record, "input", "tools")
        given = record.get("input", "messages")
        record.used.add(("input", "parallel_tool_calls"))
    prompt = read_prompt(given, "input.messages")
    turns = (read_turns(_wrap(record.get(name)), name) for name in (one, other))
    return [choose(*compare(prompt, *turns), tools=tools)]


def _wrap(value: object) -> object:
    if isinstance(value, str) and not value.startswith("[{"):
        return [{"role": "assistant", "content": value}]
    return [value] if isinstance(value, Mapping) else value


OPENAI_PREFERENCE = Format(
    name="openai-preference",
    title="OpenAI preference fine-tuning (Azure, Together, Fireworks)",
    matches=_matches,
    convert=_convert,
    fields=("input", "preferred_output", "non_preferred_output"),
)
