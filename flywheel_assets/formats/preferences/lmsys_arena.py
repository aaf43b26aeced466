"""Reads battles of LMSYS's Chatbot Arena: two conversations and the winner that a person named.

| winner | becomes |
|---|---|
| `model_a`, `model_b` | a choice at the first different answers |
| `tie (bothbad)`, `both_bad` | both first answers, and a thumb down for each |
| `tie` | nothing: both may be good or bad |
"""

from collections.abc import Sequence

from flywheel_assets.conversations import Message, Role
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.answers import part_different, read_json, read_turns
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import choose, identify, predict, read_verdict, state
from flywheel_assets.records import Signal

_BOTH_BAD = ("tie (bothbad)", "bothbad", "both_bad", "tie (both bad)")
_WINNERS = ("model_a", "model_b", "tie", *_BOTH_BAD)
_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")


def _matches(record: Record) -> bool:
    values = record.values
    if "winner" not in values and "winner_model_a" not in values:
        return False
    return {"conversation_a", "conversation_b"} <= values.keys() or {
        "prompt", "response_a", "response_b"
    } <= values.keys()  # fmt: skip


def _convert(record: Record) -> Sequence[Event]:
    winner = _read_winner(record)
    if winner == "tie":
        return []
    one, other = (_read_battle(record, side) for side in "ab")
    id = record.get_id("question_id") or record.get_id("id")
    user_id = record.get_id("judge")
    time = record.get_time("tstamp") or record.get_time("timestamp")
    if winner in _BOTH_BAD:
        shared, first, second = part_different(one, other)
        battle = id or identify(LMSYS_ARENA.name, record)
        events: list[Event] = []
        for side, answer in (("a", first), ("b", second)):
            model = record.get_id(f"model_{side}")
            name = f"{battle}/{side}"
            events.append(
                predict(LMSYS_ARENA.name, name, name, shared, answer, time=time, user_id=user_id, model_version=model)
            )
            events.append(
                state(LMSYS_ARENA.name, f"{name}/thumb", name, Signal.THUMB, time=time, user_id=user_id, value=-1.0)
            )
        return events
    chosen, rejected = (one, other) if winner == "model_a" else (other, one)
    return [choose(*part_different(chosen, rejected), id=id, user_id=user_id, occurred_at=time)]


def _read_winner(record: Record) -> str:
    given = record.get("winner")
    if given is None:
        verdicts = [read_verdict(record.get(name)) for name in _COLUMNS]
        if verdicts.count(True) != 1:
            raise InvalidEventError(f"none or several of {', '.join(_COLUMNS)} are 1; valid: one of them")
        return _WINNERS[verdicts.index(True)]
    winner = given.strip().lower() if isinstance(given, str) else ""
    if winner not in _WINNERS:
        raise InvalidEventError(f"`winner` is {str(given)[:40]!r}; valid: {', '.join(_WINNERS)}")
    return winner


def _read_battle(record: Record, side: str) -> list[Message]:
    if f"conversation_{side}" in record.values:
        return read_turns(record.get(f"conversation_{side}"), f"conversation_{side}")
    asked = _read_texts(record, "prompt")
    said = _read_texts(record, f"response_{side}")
    if len(asked) != len(said):
        raise InvalidEventError(f"`prompt` has {len(asked)} turns and `response_{side}` {len(said)}; valid: as many")
    turns: list[Message] = []
    for question, answer in zip(asked, said, strict=True):
        if question is None or answer is None:  # what was shown after a lost turn is not known
            break
        turns += [Message(Role.USER, question), Message(Role.ASSISTANT, answer)]
    if not turns:
        raise InvalidEventError(f"the first turn of `prompt` or `response_{side}` is null; valid: texts")
    return turns


def _read_texts(record: Record, name: str) -> list[str | None]:
    given = record.get(name)
    found = read_json(given, name) if isinstance(given, str) and given[:1] == "[" else given
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str | None) for text in texts):
        raise InvalidEventError(f"`{name}` is no text and no list of texts; an answer may be missing")
    return texts


LMSYS_ARENA = Format(
    name="lmsys-arena",
    title="LMSYS Chatbot Arena: battles of two models",
    matches=_matches,
    convert=_convert,
    has_global_ids=True,
    fields=("model_a", "model_b", "winner", "conversation_a", "conversation_b"),
)
