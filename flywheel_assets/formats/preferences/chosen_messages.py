"""Reads pairs of conversations in `chosen_messages` and `rejected_messages`."""

from collections.abc import Sequence

from flywheel_assets.formats.answers import add_system, compare, read_prompt, read_tools, read_turns
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose


def _matches(record: Record) -> bool:
    return {"chosen_messages", "rejected_messages"} <= record.values.keys()


def _convert(record: Record) -> Sequence[Event]:
    given = record.get("prompt")
    prompt = None if given is None else read_prompt(given)
    chosen = read_turns(record.get("chosen_messages"), "chosen_messages")
    rejected = read_turns(record.get("rejected_messages"), "rejected_messages")
    shared, one, other = compare(prompt, chosen, rejected)
    return [choose(add_system(shared, record.get_text("system")), one, other, tools=read_tools(record, "tools"))]


CHOSEN_MESSAGES = Format(
    name="chosen-messages",
    title="Pairs of conversations: chosen_messages, rejected_messages",
    matches=_matches,
    convert=_convert,
    fields=("chosen_messages", "rejected_messages"),
)
