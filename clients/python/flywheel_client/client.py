"""Sends a model's outputs, and people's reactions to them, from a product's own code to capture.

    client = FlywheelClient("http://127.0.0.1:8700", "assistant")
    with client.interaction(prompt, output, user_id="ada") as interaction:
        interaction.edited(final_text)

It never raises into the product (only the constructor does, for an unusable URL), never waits for the network, and
counts the events that it drops. The module `delivery` holds the work of the background thread.

**Stratified logging.** An interaction is held until it ends; only then is it known what it is worth.

| how it ended | what is sent |
|---|---|
| edited | always: one edit with prompt, original and final text, and thumbs, ratings and comments |
| not edited; regenerate, thumb down, low rating or comment | always: the prediction and the signals |
| not edited; only copied, accepted, thumb up, highly rated | the same at 1 %: a hash of the prediction id decides |
| only read | nothing |

A copy or accept of an edited text is not sent: it would say that the *model's* text was good.

Standard library only, and Python 3.9 or later.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Literal, TypeVar, Union, cast

from flywheel_client.delivery import Delivery, DeliveryCounts, DeliveryLimits, Event, HttpTransport, Transport
from flywheel_client.sampling import is_sampled

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger("flywheel")

HIGH_RATING = 0.8
"""A rating of at least this much, without an edit, approves the output; the gate's default as well."""

Prompt = Union[str, Sequence[Mapping[str, str]]]
"""Text, or chat messages `{"role": …, "content": …}`."""

SignalName = Literal["edit", "thumb", "rating", "copy", "accept", "regenerate", "label", "comment"]

# ParamSpec came with Python 3.10.
M = TypeVar("M", bound=Callable[..., None])


@dataclass(frozen=True)
class ClientCounts:
    """Counts interactions and events by their result so far."""

    delivery: DeliveryCounts
    interactions_sent: int = 0
    interactions_sampled_out: int = 0
    """Approved without a change, and not in the sample."""
    interactions_only_read: int = 0
    failures: int = 0
    """Calls that would have raised; see the log `flywheel`."""


@dataclass(frozen=True)
class _Context:
    """Holds the fields that every event of one interaction carries besides its signal."""

    model_version: str | None = None
    user_id: str | None = None
    thread_id: str | None = None
    do_not_train: bool = False

    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


def _never_raises(method: M) -> M:
    """Count an exception of the method instead of raising it: a product must not fail over its telemetry."""

    @functools.wraps(method)
    def guarded(self: Any, /, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._failed(method.__name__, error)

    return cast(M, guarded)


class FlywheelClient:
    """Sends the events of one process and application; safe to use from any thread, and in forked workers."""

    def __init__(
        self,
        url: str,
        application: str,
        *,
        key: str | None = None,
        source: str = "python-client",
        positive_share: float = 0.01,
        limits: DeliveryLimits | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Prepare the client; it connects only when there is something to send.

        Args:
            url: of the capture service.
            application: which flywheel the events belong to.
            key: a write key, where capture asks for one.
            source: the name of your service; with an event's id it makes the event unique.
            positive_share: of the interactions that ended in approval without a change, the share that is sent.
            limits: of buffer, batches and pauses.
            transport: takes the place of HTTP.

        Raises:
            ValueError: `url` or `positive_share` is unusable.
        """
        if not 0.0 < positive_share <= 1.0:
            raise ValueError(f"positive_share is {positive_share}; valid: more than 0, at most 1")
        limits = limits or DeliveryLimits()
        self._source = source
        self._positive_share = positive_share
        self._lock = threading.Lock()
        self._tally = dict.fromkeys(("interactions_sent", "interactions_sampled_out", "interactions_only_read"), 0)
        self._failures = 0
        self._delivery = Delivery(transport or HttpTransport(url, application, key, limits.timeout_s), limits)
        atexit.register(self.close)

    def interaction(
        self,
        prompt: Prompt,
        output: str,
        *,
        prediction_id: str | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
    ) -> Interaction:
        """Hold the events of one output until the interaction ends. Use it in a `with`, or call its `end`."""
        context = _Context(model_version, user_id, thread_id, do_not_train)
        return Interaction(self, prediction_id or _new_id(), prompt, output, context)

    @_never_raises
    def prediction(
        self,
        prompt: Prompt,
        output: str,
        *,
        prediction_id: str,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
    ) -> None:
        """Send one prediction now, for servers that log every output they serve."""
        context = _Context(model_version, user_id, thread_id, do_not_train)
        self._send(_prediction(self._source, prediction_id, prompt, output, context, _now()))

    @_never_raises
    def scored_prediction(
        self,
        features: Mapping[str, float | str | bool | None],
        score: float,
        *,
        prediction_id: str,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        amount: float | None = None,
        segment: str | None = None,
        action: str | None = None,
        allow_propensity: float | None = None,
    ) -> None:
        """Send one decision of a classifier now.

        Args:
            features: as they were at the decision.
            score: the model's probability of the positive class, from 0 to 1.
            prediction_id: what its label will name, however late.
            model_version: which model decided.
            user_id: the person that it was about.
            thread_id: the session.
            do_not_train: consent withheld.
            amount: the amount at stake.
            segment: which of the application's segments it belongs to.
            action: the action that followed.
            allow_propensity: with which probability it was let through, where that was drawn.
        """
        context = _Context(model_version, user_id, thread_id, do_not_train)
        stake = {"amount": amount, "segment": segment, "action": action, "allow_propensity": allow_propensity}
        data = {"features": dict(features), "score": score, "prediction_id": prediction_id, **context.fields()}
        data |= {name: value for name, value in stake.items() if value is not None}
        self._send(_cloud_event("flywheel.prediction", self._source, f"{prediction_id}/prediction", _now(), data))

    @_never_raises
    def feedback(
        self,
        prediction_id: str,
        signal: SignalName,
        fields: Mapping[str, Any] | None = None,
        *,
        event_id: str | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
    ) -> None:
        """Send one signal about a logged prediction now.

        Args:
            prediction_id: the prediction it is about.
            signal: the kind of feedback.
            fields: what the signal carries: `final_text`, `value`, `label`, `comment`, `prompt`, `original_output`.
            event_id: the same id is the same event, for callers that may report it twice; made up where absent.
            model_version: which model served it.
            user_id: who gave it.
            thread_id: the conversation.
            do_not_train: consent withheld.
        """
        context = _Context(model_version, user_id, thread_id, do_not_train)
        name = event_id or _new_id()
        self._send(_feedback(self._source, name, prediction_id, signal, context, _now(), fields or {}))

    @_never_raises
    def label(
        self,
        prediction_id: str,
        label: str | bool,
        *,
        labeling_source: str | None = None,
        known_at: datetime | None = None,
        event_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Send the true class of a logged prediction, however late it became known.

        Args:
            prediction_id: the prediction it is about.
            label: one of the application's classes.
            labeling_source: names who labelled it; the application ranks its sources.
            known_at: since when it is known, with a time zone; now where absent.
            event_id: the same id is the same event, for callers that may report it twice; made up where absent.
            user_id: who labelled it.
        """
        given = {"label": label, "labeling_source": labeling_source, "known_at": known_at and known_at.isoformat()}
        fields = {name: value for name, value in given.items() if value is not None}
        self.feedback(prediction_id, "label", fields, event_id=event_id, user_id=user_id)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything sent so far was answered; False when that takes longer. For tests and scripts."""
        return self._delivery.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver the waiting events for at most this long; this is called at exit as well."""
        self._delivery.close(timeout_s)
        atexit.unregister(self.close)

    def counts(self) -> ClientCounts:
        """Return the counts of delivered, waiting and dropped events, the dropped ones by reason."""
        with self._lock:
            return ClientCounts(self._delivery.counts(), **self._tally, failures=self._failures)

    def __enter__(self) -> FlywheelClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, event: Event) -> None:
        self._delivery.offer(event, _characters(event["data"]))

    @_never_raises
    def _end(self, interaction: Interaction) -> None:
        events, outcome = interaction._outcome(self._source, self._positive_share)
        with self._lock:
            self._tally[outcome] += 1
        for event in events:
            self._send(event)

    def _failed(self, call: str, error: Exception) -> None:
        with self._lock:
            self._failures += 1
        # The message could quote user text.
        log.warning("flywheel: %s was ignored (%s)", call.lstrip("_"), type(error).__name__)


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
        self, client: FlywheelClient, prediction_id: str, prompt: Prompt, output: str, context: _Context
    ) -> None:
        self.prediction_id = prediction_id
        self._client = client
        # A conversation goes on while its interaction is held. Capture refuses a value that is no prompt.
        self._prompt = list(prompt) if isinstance(prompt, list) else prompt
        self._output = output
        self._context = context
        self._predicted_at = _now()
        self._final_text = output
        self._edited_at = self._predicted_at
        self._signals: dict[str, _Signalled] = {}
        self._lock = threading.Lock()
        self._is_over = False

    def edited(self, final_text: str) -> None:
        """Report the present text. Call it as often as the text changes; the last call counts."""
        self._final_text = final_text
        self._edited_at = _now()

    def copied(self) -> None:
        """Report that the person copied the text."""
        self._signal("copy")

    def accepted(self) -> None:
        """Report that the person took the text: sent, inserted or merged it."""
        self._signal("accept")

    def regenerated(self) -> None:
        """Report that the person asked for another output, which is an interaction of its own."""
        self._signal("regenerate")

    def thumbs_up(self) -> None:
        """Report that the person liked the output."""
        self._signal("thumb", value=1.0)

    def thumbs_down(self) -> None:
        """Report that the person did not like the output."""
        self._signal("thumb", value=-1.0)

    @_never_raises
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
        self._client._end(self)

    def __enter__(self) -> Interaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _signal(self, signal: SignalName, **fields: Any) -> None:
        with self._lock:
            if not self._is_over:
                self._signals[signal] = _Signalled(signal, _now(), fields)

    def _failed(self, call: str, error: Exception) -> None:
        self._client._failed(call, error)

    def _outcome(self, source: str, positive_share: float) -> tuple[list[Event], str]:
        """Return the events that the interaction is worth, and the name of its counter."""
        signals = list(self._signals.values())
        is_edited = self._final_text != self._output
        probability = 1.0
        if is_edited:
            signals = [given for given in signals if given.signal not in ("copy", "accept")]
        elif not signals:
            return [], "interactions_only_read"
        elif not any(given.objects for given in signals):
            if not is_sampled(self.prediction_id, positive_share):
                return [], "interactions_sampled_out"
            probability = positive_share
        events = [self._feedback(source, given, is_edited, probability) for given in signals]
        if events:
            # An edit carries its texts; every other signal needs the prediction to be joined with.
            events.insert(
                0,
                _prediction(source, self.prediction_id, self._prompt, self._output, self._context, self._predicted_at),
            )
        if is_edited:
            carried = {"prompt": self._prompt, "original_output": self._output}
            events.append(self._feedback(source, _Signalled("edit", self._edited_at, carried), is_edited, probability))
        return events, "interactions_sent"

    def _feedback(self, source: str, given: _Signalled, is_edited: bool, probability: float) -> Event:
        fields = dict(given.fields)
        if probability < 1.0:
            fields["sampling_probability"] = probability
        if is_edited and given.signal in ("edit", "thumb", "rating"):
            # A thumb or rating of an edited text must not pass for one of the model's text.
            fields["final_text"] = self._final_text
        event_id = f"{self.prediction_id}/{given.signal}"
        return _feedback(source, event_id, self.prediction_id, given.signal, self._context, given.occurred_at, fields)


def _prediction(source: str, prediction_id: str, prompt: Prompt, output: str, context: _Context, at: datetime) -> Event:
    data = {"prompt": prompt, "output": output, "prediction_id": prediction_id, **context.fields()}
    return _cloud_event("flywheel.prediction", source, f"{prediction_id}/prediction", at, data)


def _feedback(
    source: str,
    event_id: str,
    prediction_id: str,
    signal: str,
    context: _Context,
    at: datetime,
    fields: Mapping[str, Any],
) -> Event:
    data = {"prediction_id": prediction_id, "signal": signal, **context.fields(), **fields}
    return _cloud_event("flywheel.feedback", source, event_id, at, data)


def _cloud_event(kind: str, source: str, event_id: str, at: datetime, data: dict[str, Any]) -> Event:
    return {
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "id": event_id,
        "time": at.isoformat(),
        "data": data,
    }


def _characters(data: Mapping[str, Any]) -> int:
    texts = [value for value in data.values() if isinstance(value, str)]
    prompt = data.get("prompt")
    if isinstance(prompt, Sequence) and not isinstance(prompt, str):
        texts += [str(message.get("content", "")) for message in prompt]
    return sum(map(len, texts)) + 300


def _new_id() -> str:
    # 128 random bits, as in flywheel.js; importing uuid takes a third of the time that all of this package takes.
    return os.urandom(16).hex()


def _now() -> datetime:
    return datetime.now(timezone.utc)
