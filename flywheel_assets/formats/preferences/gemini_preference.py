"""Reads Gemini's preference tuning files: contents, and two or more completions with scores."""

from collections.abc import Mapping, Sequence

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import add_system, read_answer, read_turns
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.preferences.demonstrations import read_system
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose_best, read_number


def _matches(record: Record) -> bool:
    completions = record.values.get("completions")
    return "contents" in record.values and isinstance(completions, list) and "instruction" not in record.values


def _convert(record: Record) -> Sequence[Event]:
    prompt = add_system(read_turns(record.get("contents"), "contents"), read_system(record))
    answers = []
    completions = record.get("completions")
    for number, each in enumerate(completions if isinstance(completions, list) else ()):
        if not isinstance(each, Mapping) or (score := read_number(each.get("score"))) is None:
            raise InvalidEventError(f"completion {number} has no `score`; valid: 1 for the preferred one, 0 otherwise")
        answers.append((score, read_answer(each.get("completion"), "completion")))
    return choose_best(prompt, answers)


GEMINI_PREFERENCE = Format(
    name="gemini-preference",
    title="Gemini preference tuning (Vertex AI)",
    matches=_matches,
    convert=_convert,
    fields=("contents", "completions", "system_instruction"),
)
