"""Finds prompt and answers among the fields of an annotation task, and turns what people entered into events.

| entered | becomes |
|---|---|
| a text, in a question named like a correction (`corrected`, `edit`, `rewrite`, `improved`, `better`, …) | an edit; where no answer was shown, a demonstration |
| a text, in a question named like an answer (`response`, …), where none was shown | a demonstration |
| another text | a thumb where it is a word of judgement, else a comment |
| a word of judgement (`good`, `bad`, `yes`, …), true or false | a thumb |
| a number | a rating on the scale 1 to 5, the default of both tools |
| the name or the side of an answer | a choice; `tie`, `both` and the like are none |
| a ranking of answers, also their names in order | a choice of the best over each answer of a lower rank |
| several labels, spans, boxes | nothing, or a comment that names the labels |
"""  # noqa: E501

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flywheel_assets.conversations import Message, Prompt, Role
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import add_system, is_messages, read_answer, read_prompt, read_turns
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.statements import choose, choose_best, predict, rate, read_number, read_verdict, state
from flywheel_assets.records import Signal

LOWEST_RATING, HIGHEST_RATING = 1, 5
_PROMPTS = ("prompt", "instruction", "question", "input", "query", "user", "request", "user_input", "context")
_OUTPUTS = (
    "response", "output", "completion", "answer", "generation", "model_output", "model_response", "reply", "assistant",
    "generated_text", "llm_output",
)  # fmt: skip
_SYSTEMS = ("system", "system_prompt")
_SIDE = re.compile(
    r"^(.*?)[\s_-]*([0-9]|(?<![A-Za-z])(?:[a-dA-D]|left|right|one|two)|(?<=[a-z])(?:[A-D]|Left|Right|One|Two))$"
)
"""A name with an end that counts: `response_a`, `answer2`, `textLeft`; no word that merely ends with a letter."""
_SIDES = {"left": "a", "right": "b", "one": "1", "two": "2"}
_CORRECTS = re.compile(
    r"correct|(?<![a-z])edit|rewrit|improv|revis|better|fixed|final|ideal|gold|(?<!p)reference|expected",
    re.IGNORECASE,
)
_REMARKS = re.compile(r"comment|reason|explan|rational|feedback|note|why|remark|justif|critique", re.I)
_TIES = frozenset(
    [
        "tie",
        "tied",
        "equal",
        "same",
        "both",
        "neither",
        "none",
        "draw",
        "both_good",
        "both_bad",
        "equally_good",
        "equally_bad",
    ]
)


@dataclass(frozen=True)
class Task:
    """Holds what was shown to people: a prompt, and one answer or several by name."""

    prompt: Prompt | None
    output: str | Message | None
    answers: Mapping[str, str | Message]


def read_task(fields: Mapping[str, Any]) -> Task:
    """Find prompt and answers among the fields that were shown.

    Raises:
        InvalidEventError: they are there and cannot be read.
    """
    names = {name.lower(): name for name in fields if isinstance(name, str)}
    prompt: Prompt | None = None
    output: str | Message | None = None
    asked = next((names[name] for name in _PROMPTS if names.get(name) and fields[names[name]]), None)
    shown = next((names[name] for name in _OUTPUTS if names.get(name) and fields[names[name]]), None)
    conversation = next((name for name, value in fields.items() if is_messages(value)), None)
    if asked is not None:
        prompt = read_prompt(fields[asked], asked)
    if shown is not None:
        output = read_answer(fields[shown], shown)
    if asked is None and conversation is not None:
        turns = read_turns(fields[conversation], conversation)
        if output is None and turns[-1].role is Role.ASSISTANT:
            prompt, output = turns[:-1], turns[-1]
        else:
            prompt = turns
    system = next((fields[names[name]] for name in _SYSTEMS if names.get(name)), None)
    if prompt is not None and isinstance(system, str):
        prompt = add_system(prompt, system)
    answers = _find_answers({name: value for name, value in fields.items() if name not in (asked, conversation)})
    return Task(prompt, output, answers)


def _find_answers(fields: Mapping[str, Any]) -> dict[str, str | Message]:
    """Find the answers that were shown next to each other: `response_a` and `response_b`, `chosen` and `rejected`."""
    groups: dict[str, list[str]] = {}
    for name, value in fields.items():
        found = _SIDE.match(name)
        if found and value and (isinstance(value, str | Mapping) or is_messages(value)):
            groups.setdefault(found[1].lower(), []).append(name)
    best = max(groups.values(), key=len, default=[])
    if len(best) < 2:
        best = [name for name in ("chosen", "rejected") if isinstance(fields.get(name), str)]
    return {name: read_answer(fields[name], name) for name in best} if len(best) > 1 else {}


class Judgements:
    """Collects the events of one task: the answer once, where feedback speaks of it, and all feedback."""

    def __init__(self, source: str, task_id: str, prediction_id: str, task: Task, model_version: str | None) -> None:
        """Take what was shown; ids of events begin with `task_id`."""
        self._source, self._task_id, self._prediction_id = source, task_id, prediction_id
        self._task, self._model_version = task, model_version
        self._needs_answer = False
        self._events: list[Event] = []

    def add(
        self, question: str, value: Any, user_id: str | None, time: datetime | None = None, name: str | None = None
    ) -> None:
        """Take what one person entered for one question; `name` makes the event's id, where `question` does not.

        Raises:
            InvalidEventError: it cannot be used.
        """
        event_id = f"{self._task_id}/{name or question}/{user_id or ''}"
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            value = value[0]
        if _is_ranking(value):
            self._add_ranking(event_id, value, user_id, time)
        elif isinstance(value, list) and len(value) > 1 and all(map(self._names_answer, value)):
            ranked = [{"value": each, "rank": place} for place, each in enumerate(value)]
            self._add_ranking(event_id, ranked, user_id, time)
        elif isinstance(value, str) and value.strip():
            self._add_text(event_id, question, value, user_id, time)
        elif isinstance(value, bool):
            self._say(event_id, Signal.THUMB, user_id, time, value=1.0 if value else -1.0)
        elif isinstance(value, int | float):
            number = rate(value, LOWEST_RATING, HIGHEST_RATING, question)
            self._say(event_id, Signal.RATING, user_id, time, value=number)
        elif isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            self._say(event_id, Signal.COMMENT, user_id, time, comment=f"{question}: {', '.join(value)}")

    def choose_side(
        self, question: str, side: str, user_id: str | None, time: datetime | None, name: str | None = None
    ) -> None:
        """Take the side, `left` or `right`, of the answer that a person preferred.

        Raises:
            InvalidEventError: two answers are not among the fields.
        """
        answers = list(self._task.answers)
        if len(answers) != 2 or side not in ("left", "right"):
            raise InvalidEventError(
                f"{question!r} prefers {side[:40]!r}, and two answers are not among the fields; valid: fields whose "
                "names differ in their end, as response_a and response_b"
            )
        event_id = f"{self._task_id}/{name or question}/{user_id or ''}"
        self._add_choice(event_id, answers[side == "right"], user_id, time)

    def list_events(self) -> Sequence[Event]:
        """List the events, the answer first where feedback speaks of it.

        Raises:
            InvalidEventError: feedback speaks of an answer, and there is no prompt or no answer.
        """
        if not self._needs_answer:
            return self._events
        if self._task.output is None:
            raise InvalidEventError(
                f"no answer is among the fields; valid names: {', '.join(_OUTPUTS)}; or say it with --map output=FIELD"
            )
        answer = predict(
            self._source,
            f"{self._task_id}/answer",
            self._prediction_id,
            self._get_prompt(),
            self._task.output,
            model_version=self._model_version,
        )
        return [answer, *self._events]

    def _add_text(self, event_id: str, question: str, value: str, user_id: str | None, time: datetime | None) -> None:
        word = value.strip().lower().replace(" ", "_")
        chosen = self._find_answer(value)
        verdict = read_verdict(value)
        if chosen is not None:
            self._add_choice(event_id, chosen, user_id, time)
        elif self._task.answers and word in _TIES:
            return
        elif verdict is None and (_CORRECTS.search(question) or self._asks_for_answer(question)):
            self._add_correction(event_id, value, user_id, time)
        elif verdict is not None and not _REMARKS.search(question):
            self._say(event_id, Signal.THUMB, user_id, time, value=1.0 if verdict else -1.0)
        elif self._task.output is not None:
            comment = value if _REMARKS.search(question) else f"{question}: {value}"
            self._say(event_id, Signal.COMMENT, user_id, time, comment=comment)

    def _asks_for_answer(self, question: str) -> bool:
        """Return whether people wrote the answer themselves: a question `response`, and no answer was shown."""
        return self._task.output is None and not self._task.answers and question.lower() in _OUTPUTS

    def _add_correction(self, event_id: str, value: str, user_id: str | None, time: datetime | None) -> None:
        if self._task.output is not None:
            self._say(event_id, Signal.EDIT, user_id, time, final_text=value)
            return
        prompt, signal = self._get_prompt(), Signal.DEMONSTRATION
        self._events.append(
            state(self._source, event_id, None, signal, time=time, user_id=user_id, prompt=prompt, final_text=value)
        )

    def _add_ranking(
        self, event_id: str, value: Sequence[Mapping[str, Any]], user_id: str | None, time: datetime | None
    ) -> None:
        ranked = []
        for each in value:
            name, rank = self._find_answer(str(each["value"])), read_number(each.get("rank"))
            if name is not None and rank is not None:
                ranked.append((-rank, self._task.answers[name]))
        if len(ranked) < 2:
            raise InvalidEventError("the ranking names fewer than two of the answers among the fields")
        self._events.extend(choose_best(self._get_prompt(), ranked, event_id, user_id=user_id, occurred_at=time))

    def _add_choice(self, event_id: str, name: str, user_id: str | None, time: datetime | None) -> None:
        answers = self._task.answers
        for place, other in enumerate(each for each in answers if each != name):
            self._events.append(
                choose(
                    self._get_prompt(),
                    answers[name],
                    answers[other],
                    id=f"{event_id}/{place}" if place else event_id,
                    user_id=user_id,
                    occurred_at=time,
                )
            )

    def _names_answer(self, value: Any) -> bool:
        return isinstance(value, str) and self._find_answer(value) is not None

    def _find_answer(self, value: str) -> str | None:
        """Find the answer that a value names: by its field, by its end, or by its place."""
        answers = list(self._task.answers)
        plain = {_simplify(name): name for name in answers}
        said = _simplify(value)
        if said in plain:
            return plain[said]
        match = _SIDE.match(value.strip()) if len(value.split()) < 3 else None
        if match is None or not answers:
            return None
        ends = {found[2].lower(): name for name in answers if (found := _SIDE.match(name))}
        end = match[2].lower()
        return ends.get(end, ends.get(_SIDES.get(end, end), {"left": answers[0], "right": answers[-1]}.get(end)))

    def _say(self, event_id: str, signal: Signal, user_id: str | None, time: datetime | None, **data: Any) -> None:
        self._needs_answer = True
        self._events.append(
            state(self._source, event_id, self._prediction_id, signal, time=time, user_id=user_id, **data)
        )

    def _get_prompt(self) -> Prompt:
        if self._task.prompt is None:
            raise InvalidEventError(
                f"no prompt is among the fields; valid names: {', '.join(_PROMPTS)}; or say it with --map prompt=FIELD"
            )
        return self._task.prompt


def _is_ranking(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) and "rank" in each and "value" in each for each in value)
    )


def _simplify(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.strip().lower())
