"""Reads what distilabel's pipelines write: pairs with ratings and models, and generations with ratings."""

from collections.abc import Sequence

from flywheel_assets.conversations import Prompt
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import (
    add_system,
    compare,
    is_conversation,
    is_messages,
    read_answer,
    read_json,
    read_prompt,
    read_turns,
)
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.preferences.ultrafeedback import ULTRAFEEDBACK_BINARIZED
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose, choose_best, read_number

_MARKS = (
    "rating_chosen", "chosen_rating", "chosen_model", "new_generations", "raw_generation_responses", "generations",
    "distilabel_metadata", "labelling_model", "chosen_score",
)  # fmt: skip
_PROMPTS = ("prompt", "instruction", "input", "question")
_RATINGS = (("rating_chosen", "rating_rejected"), ("chosen_rating", "rejected_rating"))


def _matches(record: Record) -> bool:
    values = record.values
    if not any(name in values for name in _PROMPTS) or "completions" in values:
        return False
    if "chosen" not in values or "rejected" not in values:
        return isinstance(values.get("generations"), list) and ("ratings" in values or "rating" in values)
    is_ours = "prompt" in values and not any(is_conversation(values[name]) for name in ("chosen", "rejected"))
    if is_ours or ULTRAFEEDBACK_BINARIZED.matches(record):
        return False
    return any(name in values for name in _MARKS)


def _convert(record: Record) -> Sequence[Event]:
    prompt = add_system(_read_prompt(record), record.get_text("system") or record.get_text("system_prompt"))
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if chosen is None or rejected is None:
        return _choose_generations(record, prompt)
    if record.get("status") == "tie" or any(_is_tie(record, *names) for names in _RATINGS):
        return []
    if is_messages(chosen) and is_messages(rejected):
        return [choose(*compare(prompt, read_turns(chosen, "chosen"), read_turns(rejected, "rejected")))]
    return [choose(prompt, read_answer(chosen, "chosen"), read_answer(rejected, "rejected"))]


def _choose_generations(record: Record, prompt: Prompt) -> Sequence[Event]:
    generations = read_json(record.get("generations"), "generations")
    ratings = read_json(record.get("ratings") or record.get("rating"), "ratings")
    if ratings is None:
        return []
    if not isinstance(generations, list) or not isinstance(ratings, list) or len(generations) != len(ratings):
        raise InvalidEventError("`generations` and `ratings` are no two lists of one length; valid: one rating each")
    numbers = [read_number(each) for each in ratings]
    answers = [
        (number, text)
        for number, text in zip(numbers, generations, strict=True)
        if number is not None and isinstance(text, str)
    ]
    return choose_best(prompt, answers)


def _read_prompt(record: Record) -> Prompt:
    name = next((name for name in _PROMPTS if record.values.get(name)), "prompt")
    return read_prompt(record.get(name), name)


def _is_tie(record: Record, chosen: str, rejected: str) -> bool:
    score = read_number(record.get(chosen))
    return score is not None and score == read_number(record.get(rejected))


DISTILABEL = Format(
    name="distilabel",
    title="distilabel: pairs with ratings and models, or generations with ratings",
    matches=_matches,
    convert=_convert,
    fields=("prompt", "instruction", "input", "generations", "ratings", "chosen", "rejected", "chosen_model"),
)
