"""Finds the pairs in the events of one record: two answers to one prompt, of which a person prefers one."""

from collections.abc import Sequence
from dataclasses import dataclass

from flywheel_assets.conversations import (
    FiledAnswer,
    Prompt,
    Tools,
    find_answer_problem,
    find_role_problem,
    find_tools_problem,
)
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.own import RETRACTING_SOURCE
from flywheel_assets.records import Signal
from flywheel_assets.wire import Choice, Edit, FeedbackCloudEvent, PredictionCloudEvent

_CORRECTING = (Signal.EDIT, Signal.THUMB, Signal.RATING)


@dataclass(frozen=True)
class Pair:
    """Holds a prompt with the answer that a person prefers and the other one."""

    signal: Signal
    prompt: Prompt
    chosen: FiledAnswer
    rejected: FiledAnswer
    tools: Tools | None
    do_not_train: bool
    key: tuple[str, str] | None
    """The source and the id under which it was said; None: it has none."""
    revision: int


@dataclass(frozen=True)
class Retraction:
    """Takes back what was said under a key."""

    key: tuple[str, str]


def find_statements(events: Sequence[Event]) -> list[Pair | Retraction]:
    """Find the pairs and retractions in the events of one record.

    A correction takes its prompt and the other answer from the prediction of the same record where it has none itself.

    Raises:
        InvalidEventError: a pair holds what no chat model could have said or been asked.
    """
    predictions = {
        event.data.prediction_id or event.id: event for event in events if isinstance(event, PredictionCloudEvent)
    }
    found: list[Pair | Retraction] = []
    for event in events:
        if isinstance(event, Edit):
            found.append(_build_pair(event, Signal.EDIT, event.final_user_edit, event.original_llm_output))
        elif isinstance(event, Choice):
            found.append(_build_pair(event, Signal.CHOICE, event.chosen, event.rejected))
        elif isinstance(event, FeedbackCloudEvent):
            statement = _read_feedback(event, predictions.get(event.data.prediction_id or ""))
            if statement is not None:
                found.append(statement)
    for each in found:
        if isinstance(each, Pair):
            _check_pair(each)
    return found


def _build_pair(given: Edit | Choice, signal: Signal, chosen: FiledAnswer, rejected: FiledAnswer) -> Pair:
    key = None if given.id is None else ("", given.id)
    return Pair(signal, given.prompt, chosen, rejected, given.tools, given.do_not_train, key, given.revision or 0)


def _read_feedback(event: FeedbackCloudEvent, prediction: PredictionCloudEvent | None) -> Pair | Retraction | None:
    data = event.data
    if data.signal is Signal.RETRACT and data.retracts is not None:
        return Retraction(("" if event.source == RETRACTING_SOURCE else event.source, data.retracts))
    served = None if prediction is None else prediction.data
    prompt, rejected = data.prompt, data.original_output
    if served is not None:
        prompt = served.prompt if prompt is None else prompt
        rejected = served.output if rejected is None else rejected
    if data.final_text is None or prompt is None or rejected is None:
        return None
    if data.signal is not Signal.CHOICE and data.signal not in _CORRECTING:
        return None
    return Pair(
        Signal.CHOICE if data.signal is Signal.CHOICE else Signal.EDIT,
        prompt,
        data.final_text,
        rejected,
        data.tools if served is None else data.tools or served.tools,
        data.do_not_train or (served is not None and served.do_not_train),
        (event.source, event.id),
        data.revision or 0,
    )


def _check_pair(pair: Pair) -> None:
    problems = {
        "prompt": find_role_problem(pair.prompt) if isinstance(pair.prompt, list) else None,
        "the chosen text": find_answer_problem(pair.chosen),
        "the rejected text": find_answer_problem(pair.rejected),
        "tools": find_tools_problem(pair.tools or []),
    }
    for name, problem in problems.items():
        if problem is not None:
            raise InvalidEventError(f"{name}: {problem}")
