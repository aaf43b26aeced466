"""Reads pairs of conversations in `chosen_messages` and `rejected_messages`.

ms-swift names the chosen one `messages`, and may give of the rejected one only its last answer, `rejected_response`.
"""

from collections.abc import Sequence

from flywheel_assets.conversations import Message, Role
from flywheel_assets.formats.answers import (
    add_system,
    compare,
    is_messages,
    part_last,
    read_answer,
    read_prompt,
    read_tools,
    read_turns,
)
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose


def _matches(record: Record) -> bool:
    values = record.values
    if "rejected_messages" in values and "chosen_messages" in values:
        return True
    is_rejected = any(values.get(name) for name in ("rejected_messages", "rejected_response"))
    return is_rejected and "chosen" not in values and is_messages(values.get("messages"))


def _convert(record: Record) -> Sequence[Event]:
    given = record.get("prompt")
    prompt = None if given is None else read_prompt(given)
    name = "chosen_messages" if "chosen_messages" in record.values else "messages"
    chosen = read_turns(record.get(name), name)
    if record.get("rejected_messages"):
        rejected = read_turns(record.get("rejected_messages"), "rejected_messages")
    else:
        before, _ = part_last(chosen, name)
        answer = read_answer(record.get("rejected_response"), "rejected_response")
        rejected = [*before, answer if isinstance(answer, Message) else Message(Role.ASSISTANT, answer)]
    shared, one, other = compare(prompt, chosen, rejected)
    return [choose(add_system(shared, record.get_text("system")), one, other, tools=read_tools(record, "tools"))]


CHOSEN_MESSAGES = Format(
    name="chosen-messages",
    title="Pairs of conversations: chosen_messages, rejected_messages; ms-swift",
    matches=_matches,
    convert=_convert,
    fields=("chosen_messages", "rejected_messages"),
)
