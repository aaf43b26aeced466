"""Turns the columns of any table into events by a mapping that a person gives.

A mapping, `--map prompt=question` or a TOML file, pairs our fields with columns. A dot goes into an object
(`user_id=agent.email`), unless a column has that very name; a value that begins with `=` is a constant
(`model_version==v7`). What is mapped, and filled in the record, decides the event:

| filled | becomes |
|---|---|
| `prompt`, `chosen`, `rejected` | a choice |
| `prompt`, `output`, `final_text` | an edit |
| `prompt`, `output` and a `thumb`, `rating`, `label` or `comment` | the answer, and one statement each (and an edit) |
| `prompt`, `output` | the answer alone |
| `prompt`, `final_text`, where `output` is not mapped | a demonstration |
| `prompt` with messages that end with an answer, where `output` is not mapped | that answer is the `output` |
| `prediction_id` and a statement | statements about an answer that another file or request brings |
"""

import re
import tomllib
from collections import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flywheel_assets.conversations import Message, Prompt, Role
from flywheel_assets.errors import InvalidEventError, InvalidRuleError, UnknownNameError
from flywheel_assets.formats.answers import (
    add_system,
    is_conversation,
    part_last,
    read_answer,
    read_prompt,
    read_tools,
    read_turns,
)
from flywheel_assets.formats.format import Event
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import (
    choose,
    demonstrate,
    identify,
    predict,
    rate,
    read_number,
    read_verdict,
    state,
)
from flywheel_assets.records import Signal
from flywheel_assets.wire import LONGEST_IDENTIFIER, Edit

SOURCE = "map"
_COLUMNS = (
    "prompt", "system", "output", "final_text", "chosen", "rejected", "thumb", "rating", "label", "comment",
    "prediction_id", "id", "user_id", "thread_id", "model_version", "labeling_source", "occurred_at", "known_at",
    "do_not_train", "tools",
)  # fmt: skip
_SETTINGS = ("rating_scale", "thumb_up", "thumb_down")
_STATEMENTS = ("thumb", "rating", "label", "comment")
_ENOUGH = (
    ("prompt", "chosen", "rejected"), ("prompt", "output"), ("prompt", "final_text"),
    *(("prediction_id", name) for name in ("final_text", *_STATEMENTS)),
)  # fmt: skip
_TRUTH = {"true": True, "1": True, "yes": True, "y": True, "false": False, "0": False, "no": False, "n": False}
_SCALE = re.compile(r"\s*(-?[\d.]+)\s*(?:-|–|\.\.|to|:)\s*(-?[\d.]+)\s*")
_Path = tuple[str, ...]


@dataclass(frozen=True)
class Mapping:
    """Pairs our fields with the columns of a table or the paths of an object."""

    columns: dict[str, str]
    """By our field's name: a column, a dotted path, or a constant behind `=`."""
    rating_scale: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest rating: a rating is stored as (x − lowest) / (highest − lowest)."""
    thumb_up: tuple[str, ...] = ()
    """Words for good, in addition to the usual ones."""
    thumb_down: tuple[str, ...] = ()
    """Words for bad, in addition to the usual ones."""

    def check_columns(self, sample: Iterable[Record]) -> None:
        """Check that every mapped column is in one of the first records of a file.

        Raises:
            InvalidRuleError: one is in none; the message lists the columns that are there.
        """
        records = list(sample)
        for field, column in self.columns.items():
            if records and not column.startswith("=") and not any(_find_path(each, column) for each in records):
                there = sorted({str(name) for each in records for name in each.values})
                raise InvalidRuleError(
                    f"--map {field}={column}: no column {column!r} is in the file; there are: {', '.join(there[:40])}"
                )

    def convert(self, record: Record) -> Sequence[Event]:
        """Turn one record into events.

        Raises:
            InvalidEventError: a field is missing or cannot be read.
        """
        row = _Row(self, record)
        if self._is_mapped("chosen", "rejected") and row.has("chosen") and row.has("rejected"):
            answers = (read_answer(row.get(name), name) for name in ("chosen", "rejected"))
            return [choose(row.read_prompt(), *answers, id=row.read_id("id"), occurred_at=row.read_time(), **row.who())]
        if row.has_answer() and row.has("prompt"):
            return self._convert_answer(row)
        if "output" not in self.columns and row.has("prompt") and row.has("final_text"):
            return demonstrate(
                SOURCE,
                record,
                row.read_prompt(),
                read_answer(row.get("final_text"), "final_text"),
                id=row.read_id("id"),
                time=row.read_time(),
                **row.who(),
            )
        prediction_id = row.read_id("prediction_id")
        if prediction_id is not None:
            return row.say(prediction_id)
        lacking = [f"`{name}` ({column})" for name, column in self.columns.items() if not row.has(name)]
        raise InvalidEventError(f"nothing can be made of the record; empty are {', '.join(lacking) or 'no fields'}")

    def _convert_answer(self, row: "_Row") -> Sequence[Event]:
        output = row.read_output()
        is_alone = not any(row.has(name) for name in (*_STATEMENTS, "prediction_id"))
        if row.has("final_text") and is_alone:
            return [
                Edit(
                    prompt=row.read_prompt(),
                    original_llm_output=output,
                    final_user_edit=read_answer(row.get("final_text"), "final_text"),
                    id=row.read_id("id"),
                    occurred_at=row.read_time(),
                    **row.who(),
                )
            ]
        prediction_id = row.read_id("prediction_id") or row.identify()
        who = row.who()
        answer = predict(
            SOURCE, f"{row.identify()}/answer", prediction_id, row.read_prompt(), output, time=row.read_time(), **who
        )
        return [answer, *row.say(prediction_id)]

    def _is_mapped(self, *fields: str) -> bool:
        return all(field in self.columns for field in fields)


class _Row:
    """Reads one record through a mapping."""

    def __init__(self, mapping: Mapping, record: Record) -> None:
        self._mapping, self._record = mapping, record
        self._parted = self._part_conversation()

    def get(self, field: str) -> Any:
        """Return the value for one of our fields; None where it is not mapped, empty, or not in this record."""
        column = self._mapping.columns.get(field)
        if column is None:
            return None
        if column.startswith("="):
            return column[1:]
        value = self._record.get(*(_find_path(self._record, column) or (column,)))
        return None if value == "" and not self._may_be_empty(field) else value

    def _may_be_empty(self, field: str) -> bool:
        """Return whether an empty text is an answer: next to a thumb it says that nothing was rewritten."""
        if field == "final_text":
            return not any(name in self._mapping.columns for name in _STATEMENTS)
        return field in ("output", "chosen", "rejected")

    def has(self, field: str) -> bool:
        return self.get(field) is not None

    def has_answer(self) -> bool:
        return self._parted is not None or self.has("output")

    def identify(self) -> str:
        return self.read_id("id") or identify(SOURCE, self._record)

    def read_id(self, field: str) -> str | None:
        found = Record({field: self.get(field)}).get_id(field)
        if found is not None and len(found) > LONGEST_IDENTIFIER:
            raise InvalidEventError(f"`{field}` has {len(found)} characters; valid: 1 to {LONGEST_IDENTIFIER}")
        return found

    def read_time(self, field: str = "occurred_at") -> datetime | None:
        return Record({field: self.get(field)}).get_time(field)

    def read_prompt(self) -> Prompt:
        system = Record({"system": self.get("system")}).get_text("system")
        return add_system(self._parted[0] if self._parted else read_prompt(self.get("prompt")), system)

    def read_output(self) -> str | Message:
        return self._parted[1] if self._parted else read_answer(self.get("output"), "output")

    def _part_conversation(self) -> tuple[list[Message], Message] | None:
        """Part a mapped conversation that ends with the model's answer, as logs of requests keep it.

        Left in the prompt, the answer that a person replaced would be trained on as if the next turn followed it.
        """
        columns, value = self._mapping.columns, self.get("prompt")
        if any(name in columns for name in ("output", "chosen", "rejected")) or not is_conversation(value):
            return None
        turns = read_turns(value, "prompt")
        return part_last(turns, "prompt") if turns[-1].role is Role.ASSISTANT else None

    def who(self) -> dict[str, Any]:
        tools = read_tools(Record({"tools": self.get("tools")}), "tools")
        return {
            **{name: self.read_id(name) for name in ("user_id", "thread_id", "model_version")},
            "do_not_train": self._read_truth("do_not_train"),
            "tools": tools,
        }

    def say(self, prediction_id: str) -> list[Event]:
        """Build the statements about an answer.

        Raises:
            InvalidEventError: a value cannot be read.
        """
        event_id = self.identify()
        time = self.read_time("known_at") or self.read_time()
        who = {name: value for name, value in self.who().items() if name != "tools"}
        events: list[Event] = []
        for signal, data in self._list_statements():
            if data.get("comment") is None and signal is not Signal.COMMENT and self.has("comment"):
                data["comment"] = self._read_text("comment")
            events.append(state(SOURCE, f"{event_id}/{signal}", prediction_id, signal, time=time, **data, **who))
        if not events and self.has("comment"):
            said = self._read_text("comment")
            events.append(
                state(SOURCE, f"{event_id}/comment", prediction_id, Signal.COMMENT, time=time, comment=said, **who)
            )
        return events

    def _list_statements(self) -> Iterable[tuple[Signal, dict[str, Any]]]:
        if self.has("final_text"):
            yield Signal.EDIT, {"final_text": read_answer(self.get("final_text"), "final_text")}
        if self.has("thumb"):
            yield Signal.THUMB, {"value": 1.0 if self._read_thumb() else -1.0}
        if self.has("rating"):
            number = read_number(self.get("rating"))
            if number is None:
                raise InvalidEventError(f"`rating` is {str(self.get('rating'))[:40]!r}; valid: a number")
            yield Signal.RATING, {"value": rate(number, *self._mapping.rating_scale, "rating")}
        if self.has("label"):
            label = self.get("label")
            label = label if isinstance(label, bool) else self.read_id("label")
            source = self.read_id("labeling_source")
            yield Signal.LABEL, {"label": label, "labeling_source": source, "known_at": self.read_time("known_at")}

    def _read_thumb(self) -> bool:
        given = self.get("thumb")
        word = str(given).strip().lower()
        if word in self._mapping.thumb_up or word in self._mapping.thumb_down:
            return word in self._mapping.thumb_up
        verdict = read_verdict(given)
        if verdict is None:
            raise InvalidEventError(
                f"`thumb` is {str(given)[:40]!r}; valid: true, false, 1, -1, up, down, good, bad and the like; say "
                "your own words with --map 'thumb_up=WORD|WORD' --map 'thumb_down=WORD'"
            )
        return verdict

    def _read_text(self, field: str) -> str:
        given = self.get(field)
        return given if isinstance(given, str) else str(given)

    def _read_truth(self, field: str) -> bool:
        given = self.get(field)
        if given is None:
            return False
        try:
            return _TRUTH[str(given).strip().lower()]
        except KeyError:
            raise InvalidEventError(f"`{field}` is {str(given)[:20]!r}; valid: {', '.join(_TRUTH)}") from None


def read_mapping(given: Sequence[str]) -> Mapping:
    """Read a mapping: `field=column` parts (also several in one text, joined by commas), and names of TOML files.

    A TOML file has the same names, at the top: `prompt = "question"`, `rating_scale = [1, 5]`, `thumb_up = ["👍"]`.
    Later parts count.

    Raises:
        UnknownNameError: a field is not one of ours; the message lists ours.
        InvalidRuleError: a part is no pair, a file cannot be read, or the fields make no event.
    """
    pairs: dict[str, Any] = {}
    for text in given:
        if text.endswith(".toml") and "=" not in text:
            pairs |= _read_file(Path(text))
            continue
        for part in _split_parts(text):
            field, mark, column = part.partition("=")
            if not mark or not column.strip():
                raise InvalidRuleError(
                    f"--map {part!r} is no pair; valid: FIELD=COLUMN, FIELD==CONSTANT, or a file that ends in .toml"
                )
            pairs[field.strip()] = column.strip()
    return _build_mapping(pairs)


def _split_parts(text: str) -> list[str]:
    """Part a text at the commas in front of a field and `=`, so that constants may hold other commas."""
    parts: list[str] = []
    for piece in text.split(","):
        if parts and "=" not in piece:
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return parts


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidRuleError(f"--map {path}: {error.strerror}; valid: a TOML file, or FIELD=COLUMN") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRuleError(f'--map {path} is no TOML: {error}; valid: lines as prompt = "question"') from None


def _build_mapping(pairs: dict[str, Any]) -> Mapping:
    columns: dict[str, str] = {}
    for field, column in pairs.items():
        if field not in _COLUMNS and field not in _SETTINGS:
            raise UnknownNameError(
                "field in --map", field, (*_COLUMNS, *_SETTINGS), "Write our field first: --map prompt=question"
            )
        if field in _COLUMNS:
            if not isinstance(column, str) or not column:
                raise InvalidRuleError(f'--map {field}: {column!r} is no column; valid: a text, as {field} = "name"')
            columns[field] = column
    if not any(all(name in columns for name in names) for names in _ENOUGH):
        ways = "; ".join(" + ".join(names) for names in (*_ENOUGH[:3], ("prediction_id", "thumb, rating or label")))
        raise InvalidRuleError(
            f"--map names {', '.join(columns) or 'no field'}, of which no event is made; valid: {ways}"
        )
    scale = pairs.get("rating_scale")
    return Mapping(
        columns,
        (0.0, 1.0) if scale is None else _read_scale(scale),
        _read_words(pairs.get("thumb_up", ()), "thumb_up"),
        _read_words(pairs.get("thumb_down", ()), "thumb_down"),
    )


def _read_scale(given: Any) -> tuple[float, float]:
    found = _SCALE.fullmatch(given) if isinstance(given, str) else None
    ends = list(found.groups()) if found else given if isinstance(given, list) else []
    numbers = [number for end in ends if (number := read_number(end)) is not None]
    if len(numbers) != 2 or len(ends) != 2 or numbers[0] >= numbers[1]:
        raise InvalidRuleError(f"rating_scale is {given!r}; valid: the lowest and the highest rating, as 1-5 or [1, 5]")
    return numbers[0], numbers[1]


def _read_words(given: Any, name: str) -> tuple[str, ...]:
    words = given.split("|") if isinstance(given, str) else given
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word.strip() for word in words):
        raise InvalidRuleError(f'{name} is {given!r}; valid: words, as \'yes|👍\' or ["yes", "👍"]')
    return tuple(word.strip().lower() for word in words)


def _find_path(record: Record, column: str) -> _Path | None:
    """Return the path of a column in a record; None where it is not there.

    It is the very name, or its parts at dots.
    """
    if column in record.values:
        return (column,)
    path = tuple(column.split("."))
    value: Any = record.values
    for name in path:
        if not isinstance(value, abc.Mapping) or name not in value:
            return None
        value = value[name]
    return path
