"""Remembers what was acknowledged lately under which id, so that other content under a known id is said so.

It is a memory of one process and changes no row: what counts is decided at resolution, from the landed rows alone. A
statement that another process took, or that was forgotten here, is answered like a new one.
"""

from flywheel_assets.capture.events.texts import DecodedEvent

_REMEMBERED_IDS = 32_768
_REMEMBERED_REVISIONS = 16
_HOW_TO_REVISE = "the highest `revision` counts, of equal ones the latest time"

_Known = tuple[str | int, tuple[int, str] | None, tuple[str | int, ...]]
"""The content that counts, its rank, and the other contents under the same id."""


class RecentEvents:
    """Remembers at least the last 32,768 ids; it belongs to one event loop."""

    def __init__(self) -> None:
        # Two tables that take turns: forgetting one by one, oldest first, would cost more than remembering.
        self._recent: dict[str, _Known] = {}
        self._earlier: dict[str, _Known] = {}

    def note(self, event: DecodedEvent) -> tuple[bool, str | None]:
        """Remember an event that is durable.

        Returns:
            Whether the same content was acknowledged before; and, where it is not simply the first or the same content
            of its id, a sentence that says what counts.
        """
        rank = event.rank
        if rank is None:
            return self._note_prediction(event)
        key, content = event.keys[0], event.content
        known = self._recent.get(key) or self._earlier.get(key)
        if known is None:
            self._remember(key, (content, rank, ()))
            return False, _say_revision(rank) if rank[0] else None
        counted, counted_rank, others = known
        if content == counted:
            return True, _say_revision(rank) if rank[0] else None
        if content in others:
            return True, (
                "the same was acknowledged before, and what came under this id since then counts; to return to it, "
                f"send it with a new `revision` or time: {_HOW_TO_REVISE}"
            )
        if counted_rank is None or rank >= counted_rank:
            self._remember(key, (content, rank, (*others, counted)[-_REMEMBERED_REVISIONS:]))
            return False, f"it counts in the place of what was acknowledged under this id before: {_HOW_TO_REVISE}"
        self._remember(key, (counted, counted_rank, (*others, content)[-_REMEMBERED_REVISIONS:]))
        return False, f"it does not count: a newer revision of this id was acknowledged before; {_HOW_TO_REVISE}"

    def _note_prediction(self, event: DecodedEvent) -> tuple[bool, str | None]:
        is_repeat, sentence = False, None
        for key in event.keys:
            known = self._recent.get(key) or self._earlier.get(key)
            if known is None:
                self._remember(key, (event.content, None, ()))
            elif known[0] == event.content:
                is_repeat = True
            else:
                sentence = (
                    "it does not count: a prediction with this id was acknowledged with other content, and the first "
                    "one counts; send what is another answer under an id of its own"
                )
        return is_repeat or sentence is not None, sentence

    def _remember(self, key: str, known: _Known) -> None:
        self._recent[key] = known
        if len(self._recent) > _REMEMBERED_IDS:
            self._recent, self._earlier = {}, self._recent


def _say_revision(rank: tuple[int, str]) -> str:
    return f"it is revision {rank[0]} of its id: {_HOW_TO_REVISE}"
