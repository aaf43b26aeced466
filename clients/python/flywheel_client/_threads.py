"""Remembers the last answer of each conversation, so that feedback on a conversation marks it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from flywheel_client.delivery import Event
from flywheel_client.messages import count_characters

_MOST_THREADS = 1_000
_MOST_CHARACTERS = 8 * 2**20


@dataclass
class LastAnswer:
    """Holds the last answer of one thread; its event is kept until it was sent."""

    prediction_id: str
    event: Event | None
    characters: int


class LastAnswers:
    """Holds the last answer of the newest threads, at most 1,000 and 8 M characters; for one thread at a time."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, LastAnswer] = OrderedDict()
        self._characters = 0

    def remember(self, thread_id: str, prediction_id: str, event: Event) -> None:
        """Make this the thread's last answer; the threads that were silent for longest are forgotten."""
        self._forget(thread_id)
        answer = LastAnswer(prediction_id, event, count_characters(event["data"]))
        self._answers[thread_id] = answer
        self._characters += answer.characters
        while len(self._answers) > _MOST_THREADS or (len(self._answers) > 1 and self._characters > _MOST_CHARACTERS):
            self._forget(next(iter(self._answers)))

    def find(self, thread_id: str) -> LastAnswer | None:
        """Return the thread's last answer, if it is still remembered."""
        return self._answers.get(thread_id)

    def mark_sent(self, thread_id: str, prediction_id: str) -> None:
        """Let go of the texts of an answer that capture was sent."""
        answer = self._answers.get(thread_id)
        if answer is not None and answer.prediction_id == prediction_id:
            self._characters -= answer.characters
            answer.event, answer.characters = None, 0

    def _forget(self, thread_id: str) -> None:
        answer = self._answers.pop(thread_id, None)
        if answer is not None:
            self._characters -= answer.characters
