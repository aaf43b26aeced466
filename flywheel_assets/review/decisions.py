"""Turns a reviewer's decision into an ordinary feedback event, and keeps an index of decisions.

| decision | event | what it does |
|---|---|---|
| accept an edit | `edit` with the user's text | a pair of source `reviewer`, which supersedes every other row |
| accept an approval that a check stopped | `accept` | the model's own text passes as an accepted output |
| write the right answer | `edit` with the reviewer's text | the same |
| say the label | `label`, labeling source `reviewer` | outranks every other label, ends a dispute |
| confirm a thumbs down | `thumb`, value −1 | an objection in gold: the output is wrong |
| reject | `comment` | nothing is learnt from the row; never trainable |
| call a drawn row of gold right or wrong | `comment` | it counts for the error rate; gold stays as it is |
| undo | `retract`; of a label or a rejection `comment` | the decision is taken back, and its row waits again |

A thumb or rating with a text of its own is an edit here, too. The event's `comment` names the reviewer, the decision
and the row, so the audit lies with the data and lasts as long. A user stays the subject of an edit that a reviewer
accepted or corrected: it is the user's prompt, and consent, exclusions and the holdout follow the user.

An event needs minutes until it is in a segment and up to a day until `ground_truth` has it. Meanwhile the *index*, one
line per decision in a file, keeps decided rows out of the queue. It is written after the event is durable: where the
service dies between the two, the row comes back and is decided again, and the same decision makes the same event id.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets import records
from flywheel_assets.capture.events.texts import FeedbackLine, LandedRow, encode_row, format_time
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.storage.files import sync_folder
from flywheel_assets.records import REVIEWER_SOURCE, PromptFormat, Signal

CORRECTABLE = (Signal.THUMB, Signal.RATING)
"""Opinions that may carry a text: where it differs from the output, they are edits."""


SAMPLED = "sampled"
"""The reason of a row that is in gold and was drawn for review: see `samples`."""


class Verb(StrEnum):
    """A reviewer's possible decisions."""

    ACCEPT = "accept"
    WRITE = "write"
    LABEL = "label"
    CONFIRM = "confirm"
    REJECT = "reject"
    UNDO = "undo"
    """Takes an earlier decision back. Both stay in the index and among the events."""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reviewer's decision about one row, without user text. A line of the index, and an event's comment."""

    verb: Verb
    row_id: str
    prediction_id: str
    reason: str
    """The reason that the row was in the queue."""
    by: str
    """The name that the reviewer gave."""
    at: datetime
    key_id: str | None = None
    """The key that the reviewer signed in with; None: the service needs no keys."""
    event_id: str | None = None
    """Of its event, so that it can be undone; None: of an earlier release."""
    undoes: str | None = None
    """Of an undo: the event of the decision that it takes back."""
    earlier_undone: int = 0
    """Decisions about the row that were undone before this one: the same decision, made again, is another event."""


def identify_decision(application: str, decision: Decision, answer: str | None) -> str:
    """Return the id of a decision's event: made again after a crash it is the same event."""
    said: list[object] = [decision.row_id, decision.verb, answer, decision.by]
    if decision.verb is Verb.UNDO:
        said.append(decision.undoes)
    if decision.earlier_undone:
        said.append(decision.earlier_undone)
    return records.make_event_id(application, REVIEWER_SOURCE, records.make_stable_id("decision", *said))


def find_standing(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Find the newest decision about each row that was not undone since; a row that is not there waits again."""
    standing: dict[str, Decision] = {}
    # An undo follows on what it undoes, also within one tick of a clock.
    for decision in sorted(decisions, key=lambda each: (each.at, each.earlier_undone, each.verb is Verb.UNDO)):
        if decision.verb is not Verb.UNDO:
            standing[decision.row_id] = decision
        elif decision.row_id in standing and standing[decision.row_id].event_id == decision.undoes:
            del standing[decision.row_id]
    return standing


def build_undo(application: str, decision: Decision, undone: Decision, *, is_text: bool) -> LandedRow:
    """Build the landed event that takes an earlier decision back.

    A statement about a text is retracted by its id. A rejection said nothing, nor did a verdict on a drawn row, and a
    label is replaced by the next one: of these the event is a comment.

    Args:
        application: its event log gets the event.
        decision: the undo.
        undone: the decision that it takes back.
        is_text: whether the application's predictions are texts.
    """
    is_verdict = undone.reason == SAMPLED and undone.verb is Verb.ACCEPT
    retracts = undone.event_id if is_text and undone.verb is not Verb.REJECT and not is_verdict else None
    event_id = identify_decision(application, decision, None)
    line = FeedbackLine(
        event_id=event_id,
        received_at=format_time(decision.at),
        occurred_at=format_time(decision.at),
        source=REVIEWER_SOURCE,
        # With it an erasure finds the event by its prediction: it names no person.
        prediction_id=decision.prediction_id,
        signal=Signal.RETRACT if retracts else Signal.COMMENT,
        do_not_train=False,
        sampling_probability=1.0,
        comment=msgspec.json.encode(decision).decode(),
        statement_id=event_id,
        retracts=retracts,
    )
    return encode_row(EventKind.FEEDBACK, line)


def build_event(application: str, decision: Decision, row: dict[str, Any], answer: str | None) -> LandedRow:
    """Build the landed feedback event of one decision.

    Args:
        application: its event log gets the event.
        decision: the reviewer's.
        row: of the joined table, the one that was decided about.
        answer: the text for WRITE and for ACCEPT of an edit, the label for LABEL, else None.
    """
    # The id says all that the decision does, and the event is its own only statement.
    event_id = identify_decision(application, decision, answer)
    common = FeedbackLine(
        event_id=event_id,
        received_at=format_time(decision.at),
        occurred_at=format_time(decision.at),
        source=REVIEWER_SOURCE,
        prediction_id=decision.prediction_id,
        signal=Signal.COMMENT,
        do_not_train=bool(row["do_not_train"]),
        sampling_probability=row["sampling_probability"],
        model_version=row["model_version"],
        user_id=row["user_id"],
        thread_id=row["thread_id"],
        comment=msgspec.json.encode(decision).decode(),
        statement_id=event_id,
    )
    if decision.verb is Verb.LABEL:
        line = msgspec.structs.replace(common, signal=Signal.LABEL, label=answer, labeling_source=REVIEWER_SOURCE)
    elif decision.verb is Verb.REJECT or (decision.reason == SAMPLED and decision.verb is Verb.ACCEPT):
        line = common
    elif decision.verb is Verb.CONFIRM:
        line = msgspec.structs.replace(common, signal=Signal.THUMB, value=-1.0)
    elif answer is None:
        line = msgspec.structs.replace(common, signal=Signal.ACCEPT)
    else:
        is_shown = decision.verb is Verb.ACCEPT and answer == row["final_text"]
        line = msgspec.structs.replace(
            common,
            signal=Signal.EDIT,
            prompt=row["prompt"],
            prompt_format=PromptFormat(row["prompt_format"]),
            original_output=row["output"],
            final_text=answer,
            tools=row["tools"],
            original_message=row["output_message"],
            # A text of the reviewer's own has no message: what the person's message holds besides it is not theirs.
            final_message=row["final_message"] if is_shown else None,
        )
    return encode_row(EventKind.FEEDBACK, line)


def is_correction(row: Mapping[str, Any]) -> bool:
    """Return whether a row of `joined_feedback` holds a person's own text: an edit, or a thumb or rating with one."""
    text: str | None = row["final_text"]
    if row["signal"] == Signal.EDIT:
        return True
    return row["signal"] in CORRECTABLE and text is not None and bool(text.strip()) and text != row["output"]


def read_decision(comment: str | None) -> Decision | None:
    """Read the decision in a landed comment; None where it is anything else."""
    try:
        return msgspec.json.decode(comment or "", type=Decision)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


@dataclass
class DecisionIndex:
    """The decisions that went through this machine, one JSON line each, read on as the file grows.

    Processes that share the file see each other's decisions: a line is appended by one write.
    """

    path: Path

    def __post_init__(self) -> None:
        self._read_bytes = 0
        self._decisions: list[Decision] = []

    def record(self, decisions: Iterable[Decision]) -> None:
        """Append decisions whose events are durable; they are on disk when it returns."""
        lines = b"".join(msgspec.json.encode(decision) + b"\n" for decision in decisions)
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, lines)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self.path.parent)

    def forget(self, is_gone: Callable[[Decision], bool]) -> int:
        """Overwrite the lines of some decisions, and lines that are no decision, by blanks; return how many.

        In place: other processes append to the file, and read it from where they had come. They remember a decision
        until they end, which is no more than that its row is out of the queue.
        """
        blanked = 0
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return 0
        try:
            start = 0
            for line in os.pread(descriptor, os.fstat(descriptor).st_size, 0).splitlines(keepends=True):
                decision = read_decision(line.decode("utf-8", "replace"))
                # A line that a run was killed over reads as nothing, and may still show an id.
                if line.endswith(b"\n") and line.strip() and (decision is None or is_gone(decision)):
                    os.pwrite(descriptor, b" " * (len(line) - 1), start)
                    blanked += 1
                start += len(line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return blanked

    def read_decisions(self) -> list[Decision]:
        """Read all recorded decisions, the oldest first; a torn last line of a dying process is not read."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read_bytes)
                grown = file.read()
        except FileNotFoundError:
            return []
        complete = grown[: grown.rfind(b"\n") + 1]
        self._read_bytes += len(complete)
        found = (read_decision(line.decode("utf-8", "replace")) for line in complete.splitlines())
        self._decisions.extend(decision for decision in found if decision is not None)
        return list(self._decisions)


def read_labels(evidence: str | None) -> list[dict[str, Any]]:
    """Read the labels from the JSON list in quarantine's `evidence`; empty where there is none."""
    return [] if evidence is None else list(json.loads(evidence))
