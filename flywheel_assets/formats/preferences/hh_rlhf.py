r"""Reads HH-RLHF: two transcripts of "\n\nHuman: … \n\nAssistant: …" that share their beginning.

The prompt is what both share, the answers are their first different turns; later turns are left out. A transcript whose
human turns differ first is refused.
"""

import re
from collections.abc import Sequence
from typing import Any

from flywheel_assets.conversations import Message, Role
from flywheel_assets.formats.answers import part_different
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose

_TURN = re.compile(r"\n\n[ \t]*(Human|Assistant):")
"""Without `^`: an alternative to a fixed beginning is tried at every character, at seven times the cost."""
_BEGIN = re.compile(r"\s*(?:Human|Assistant):")
_ROLES = {"Human": Role.USER, "Assistant": Role.ASSISTANT}


def _is_transcript(value: Any) -> bool:
    return isinstance(value, str) and _BEGIN.match(value) is not None


def _matches(record: Record) -> bool:
    values = record.values
    return "prompt" not in values and _is_transcript(values.get("chosen")) and _is_transcript(values.get("rejected"))


def _convert(record: Record) -> Sequence[Event]:
    chosen = read_transcript(record.get_text("chosen") or "")
    rejected = read_transcript(record.get_text("rejected") or "")
    return [choose(*part_different(chosen, rejected))]


def read_transcript(text: str) -> list[Message]:
    """Part a transcript into its turns."""
    parts = _TURN.split("\n\n" + text.lstrip())
    return [Message(_ROLES[name], said.strip()) for name, said in zip(parts[1::2], parts[2::2], strict=True)]


HH_RLHF = Format(
    name="hh-rlhf",
    title="Anthropic HH-RLHF: two transcripts of Human and Assistant",
    matches=_matches,
    convert=_convert,
    fields=("chosen", "rejected"),
)
