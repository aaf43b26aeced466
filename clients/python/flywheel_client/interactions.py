"""Holds what a person does with one output: until the interaction ends, or saved again and again while they write.

An `Interaction` sends once, at its end, what the interaction was worth. An `EditSession` sends each saved text at once,
under one id: the newest text counts, and the texts before it are superseded.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Literal, TypeVar, cast

from flywheel_client.delivery import Event
from flywheel_client.events import Context, build_feedback, build_prediction, make_id, read_clock
from flywheel_client.messages import Text, dump_text, is_same, rewrite
from flywheel_client.sampling import is_sampled

if TYPE_CHECKING:
    from types import TracebackType

HIGH_RATING = 0.8
"""A rating of at least this much, without an edit, approves the output; the gate's default as well."""

SignalName = Literal[
    "edit",
    "thumb",
    "rating",
    "copy",
    "accept",
    "regenerate",
    "label",
    "comment",
    "choice",
    "demonstration",
    "retract",
]

# ParamSpec came with Python 3.10.
M = TypeVar("M", bound=Callable[..., None])


def never_raises(method: M) -> M:
    """Count an exception of the method instead of raising it: a product must not fail over its telemetry."""

    @functools.wraps(method)
    def guarded(self: Any, /, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._failed(method.__name__, error)

    return cast(M, guarded)


@dataclass(frozen=True)
class Output:
    """Holds one answer of a model, for comparisons: its prediction id, where it was logged, and its text."""

    prediction_id: str | None
    output: Text


class UnknownThreadError(ValueError):
    """Says that feedback names a conversation of which this client knows no answer."""


@dataclass
class _Signalled:
    signal: SignalName
    occurred_at: datetime
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def objects(self) -> bool:
        """Return whether the signals say that something is wrong with the output."""
        value = self.fields.get("value")
        return (
            self.signal in ("regenerate", "comment")
            or (self.signal == "thumb" and value == -1.0)
            or (self.signal == "rating" and value is not None and value < HIGH_RATING)
        )


class Interaction:
    """Holds one output and a person's reactions to it until it ends; `prediction_id` may be passed on.

    Every method may be called from any thread, and none raises. Reports after the end are ignored.
    """

    def __init__(
        self,
        prediction_id: str,
        prompt: Any,
        output: Any,
        tools: Any,
        context: Context,
        on_end: Callable[[Interaction], None],
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self.prediction_id = prediction_id
        self.prompt = prompt
        self.output = output
        self.context = context
        self._tools = tools
        self._on_end = on_end
        self._on_failure = on_failure
        self._predicted_at = read_clock()
        # Two people may each hold an interaction with one output: their statements are not revisions of each other.
        self._name = make_id()
        self._final_text = output
        self._edited_at = self._predicted_at
        self._signals: dict[str, _Signalled] = {}
        self._lock = threading.Lock()
        self._is_over = False
        self._is_second = False

    @never_raises
    def edited(self, final_text: Text) -> None:
        """Report the present text, or message. Call it as often as the text changes; the last call counts."""
        self._final_text = rewrite(self.output, dump_text(final_text))
        self._edited_at = read_clock()

    def copied(self) -> None:
        """Report that the person copied the text."""
        self._signal("copy")

    def accepted(self) -> None:
        """Report that the person took the text: sent, inserted or merged it."""
        self._signal("accept")

    @never_raises
    def regenerated(self, second: Interaction | Output | None = None) -> None:
        """Report that the person asked for another output, which is an interaction of its own.

        Args:
            second: the other output, where it is known. Both texts are sent, so that the second one, once the person
                takes it, makes a comparison of the two; its approval is then never sampled out.
        """
        self._signal("regenerate", **({} if second is None else describe_regeneration(self, second)))
        if isinstance(second, Interaction):
            second._is_second = True

    def thumbs_up(self) -> None:
        """Report that the person liked the output."""
        self._signal("thumb", value=1.0)

    def thumbs_down(self) -> None:
        """Report that the person did not like the output."""
        self._signal("thumb", value=-1.0)

    @never_raises
    def rated(self, rating: float) -> None:
        """Report a rating from 0 to 1; anything else is ignored and counted as a failure."""
        if not 0.0 <= rating <= 1.0:
            raise ValueError(f"a rating of {rating}; valid: 0 to 1")
        self._signal("rating", value=float(rating))

    def commented(self, comment: str) -> None:
        """Report a comment of the person. It is stored, and never trained on."""
        self._signal("comment", comment=comment)

    def end(self) -> None:
        """Send the interaction's events; only the first call does anything."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        self._on_end(self)

    def __enter__(self) -> Interaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _signal(self, signal: SignalName, **fields: Any) -> None:
        with self._lock:
            if not self._is_over:
                self._signals[signal] = _Signalled(signal, read_clock(), fields)

    def _failed(self, call: str, error: Exception) -> None:
        self._on_failure(call, error)

    def build_prediction(self, source: str) -> Event:
        """Build the event of the output."""
        return build_prediction(
            source, self.prediction_id, self.prompt, self.output, self._tools, self.context, self._predicted_at
        )

    def conclude(self, source: str, positive_share: float) -> tuple[list[Event], str]:
        """Return the events that the interaction is worth, and the name of its counter."""
        signals = list(self._signals.values())
        is_edited = not is_same(self._final_text, self.output)
        probability = 1.0
        if is_edited:
            signals = [given for given in signals if given.signal not in ("copy", "accept")]
        elif not signals:
            return [], "interactions_only_read"
        elif not self._is_second and not any(given.objects for given in signals):
            if not is_sampled(self.prediction_id, positive_share):
                return [], "interactions_sampled_out"
            probability = positive_share
        events = [self._feedback(source, given, is_edited, probability) for given in signals]
        if events:
            # An edit carries its texts; every other signal needs the prediction to be joined with.
            events.insert(0, self.build_prediction(source))
        if is_edited:
            carried = carry_texts(self.prompt, self.output, self._tools)
            events.append(self._feedback(source, _Signalled("edit", self._edited_at, carried), is_edited, probability))
        return events, "interactions_sent"

    def _feedback(self, source: str, given: _Signalled, is_edited: bool, probability: float) -> Event:
        fields = dict(given.fields)
        if probability < 1.0:
            fields["sampling_probability"] = probability
        if is_edited and given.signal in ("edit", "thumb", "rating"):
            # A thumb or rating of an edited text must not pass for one of the model's text.
            fields["final_text"] = self._final_text
        event_id = f"{self.prediction_id}/{given.signal}/{self._name}"
        return build_feedback(
            source, event_id, self.prediction_id, given.signal, self.context, given.occurred_at, fields
        )


class EditSession:
    """Sends what one person makes of one output each time that it is saved; `prediction_id` may be passed on.

    All saved texts are revisions of one statement: the newest counts. Each save sends an event, so a product that saves
    on every key waits for a pause of its person first. Every method may be called from any thread, and none raises.
    """

    def __init__(
        self,
        prediction_id: str,
        edit_id: str,
        output: Any,
        revision: int,
        send: Callable[[Any, int], None],
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self.prediction_id = prediction_id
        self.edit_id = edit_id
        self.revision = revision
        """Of the newest saved text; 0: nothing was saved."""
        self._output = output
        self._saved = output if revision == 0 else None
        self._send = send
        self._on_failure = on_failure
        self._lock = threading.Lock()

    @never_raises
    def save(self, final_text: Text) -> None:
        """Send the present text, or message, where it differs from the text that was saved last."""
        final = rewrite(self._output, dump_text(final_text))
        with self._lock:
            if self._saved is not None and is_same(final, self._saved):
                return
            self._saved = final
            self.revision += 1
            # Under the lock, so that revisions leave in their order.
            self._send(final, self.revision)

    @never_raises
    def undo(self) -> None:
        """Report that the person went back to the model's text: it withdraws what was saved."""
        self.save(self._output)

    def _failed(self, call: str, error: Exception) -> None:
        self._on_failure(call, error)


def carry_texts(prompt: Any, output: Any, tools: Any) -> dict[str, Any]:
    """Return the fields that let an edit do without its prediction."""
    carried = {"prompt": prompt, "original_output": output}
    return {**carried, "tools": tools} if tools else carried


def describe_regeneration(first: Interaction | Output, second: Interaction | Output) -> dict[str, Any]:
    """Return the fields of a regeneration that make it half of a comparison."""
    fields = {
        "sibling_id": second.prediction_id,
        "prompt": getattr(first, "prompt", None) or getattr(second, "prompt", None),
        "original_output": dump_text(first.output),
        "final_text": dump_text(second.output),
    }
    return {name: value for name, value in fields.items() if value is not None}
