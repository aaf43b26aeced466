"""Reads UltraFeedback: its four scored completions, and the binarized set that most people train on."""

from collections.abc import Mapping, Sequence

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import compare, is_conversation, is_messages, read_prompt, read_turns
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose, choose_best, read_number


def _matches_original(record: Record) -> bool:
    completions = record.values.get("completions")
    return "instruction" in record.values and isinstance(completions, list) and "chosen" not in record.values


def _convert_original(record: Record) -> Sequence[Event]:
    prompt = read_prompt(record.get_text("instruction"), "instruction")
    answers = []
    completions = record.get("completions")
    if not isinstance(completions, list):
        raise InvalidEventError("`completions` is no list; valid: a list of objects with `response`")
    for number, each in enumerate(completions):
        if not isinstance(each, Mapping):
            raise InvalidEventError(f"completion {number} is no object; valid: an object with `response`")
        score = read_number(each.get("overall_score"))
        score = read_number(each.get("fine-grained_score")) if score is None else score
        if score is not None and isinstance(each.get("response"), str):
            answers.append((score, each["response"]))
    return choose_best(prompt, answers)


def _matches_binarized(record: Record) -> bool:
    values = record.values
    return (
        isinstance(values.get("prompt"), str)
        and ("score_chosen" in values or "messages" in values)
        and is_messages(values.get("chosen"))
        and is_messages(values.get("rejected"))
        and (is_conversation(values["chosen"]) or is_conversation(values["rejected"]))
    )


def _convert_binarized(record: Record) -> Sequence[Event]:
    chosen, rejected = (read_turns(record.get(name), name) for name in ("chosen", "rejected"))
    scores = read_number(record.get("score_chosen")), read_number(record.get("score_rejected"))
    if scores[0] is not None and scores[0] == scores[1]:
        return []
    return [choose(*compare(record.get_text("prompt") or None, chosen, rejected))]


ULTRAFEEDBACK = Format(
    name="ultrafeedback",
    title="UltraFeedback: an instruction and scored completions",
    matches=_matches_original,
    convert=_convert_original,
    fields=("instruction", "completions"),
)
ULTRAFEEDBACK_BINARIZED = Format(
    name="ultrafeedback-binarized",
    title="UltraFeedback binarized: two conversations with scores",
    matches=_matches_binarized,
    convert=_convert_binarized,
    fields=("prompt", "chosen", "rejected", "score_chosen", "score_rejected"),
)
