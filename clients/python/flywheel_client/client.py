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
| not edited; the second answer after a regenerate: copied, accepted, thumb up, highly rated | always: the same |
| not edited; only copied, accepted, thumb up, highly rated | the same at 1 %: a hash of the prediction id decides |
| only read | nothing |

A copy or accept of an edited text is not sent: it would say that the *model's* text was good.

Standard library only, and Python 3.9 or later.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable

from flywheel_client._threads import LastAnswers
from flywheel_client.delivery import Delivery, DeliveryCounts, DeliveryLimits, Event, HttpTransport, Transport
from flywheel_client.events import Context, build_cloud_event, build_feedback, build_prediction, make_id, read_clock
from flywheel_client.interactions import (
    EditSession,
    Interaction,
    Output,
    SignalName,
    UnknownThreadError,
    carry_texts,
    describe_regeneration,
    never_raises,
)
from flywheel_client.messages import Prompt, Text, Tools, count_characters, dump_prompt, dump_text, dump_tools

log = logging.getLogger("flywheel")


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
        self._last_answers = LastAnswers()
        self._delivery = Delivery(transport or HttpTransport(url, application, key, limits.timeout_s), limits)
        atexit.register(self.close)

    def interaction(
        self,
        prompt: Prompt,
        output: Text,
        *,
        prediction_id: str | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        tools: Tools | None = None,
        regenerates: Interaction | None = None,
    ) -> Interaction:
        """Hold the events of one output until the interaction ends. Use it in a `with`, or call its `end`.

        Args:
            prompt: text, or messages.
            output: the model's answer: text, or an assistant message (a mapping, or the OpenAI package's object).
            prediction_id: of the output; made up where absent.
            model_version: which model answered.
            user_id: who sees the output.
            thread_id: the conversation.
            do_not_train: consent withheld.
            tools: the functions that the model could call.
            regenerates: the interaction whose output this one replaces, because the person asked for another; it ends.
        """
        context = Context(model_version, user_id, thread_id, do_not_train)
        asked, answered, called = self._dump(prompt, output, tools)
        name = prediction_id or make_id()
        held = Interaction(name, asked, answered, called, context, self._end, self._failed)
        self._remember(thread_id, name, held.build_prediction(self._source))
        if regenerates is not None:
            regenerates.regenerated(held)
            regenerates.end()
        return held

    def edit_session(
        self,
        prompt: Prompt,
        output: Text,
        *,
        prediction_id: str | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        tools: Tools | None = None,
        edit_id: str | None = None,
        revision: int = 0,
    ) -> EditSession:
        """Begin to send what one person makes of one output, each time that they save it.

        Args:
            prompt: text, or messages.
            output: the model's answer: text, or an assistant message.
            prediction_id: of the output; made up where absent.
            model_version: which model answered.
            user_id: who writes.
            thread_id: the conversation.
            do_not_train: consent withheld.
            tools: the functions that the model could call.
            edit_id: of a session that goes on, perhaps in another process; made up where absent.
            revision: of the text that such a session saved last.
        """
        context = Context(model_version, user_id, thread_id, do_not_train)
        asked, answered, called = self._dump(prompt, output, tools)
        name, statement = prediction_id or make_id(), edit_id or make_id()

        def send(final_text: Any, number: int) -> None:
            fields = {**carry_texts(asked, answered, called), "final_text": final_text, "revision": number}
            self._send(build_feedback(self._source, statement, name, "edit", context, read_clock(), fields))

        return EditSession(name, statement, answered, revision, send, self._failed)

    @never_raises
    def prediction(
        self,
        prompt: Prompt,
        output: Text,
        *,
        prediction_id: str,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        tools: Tools | None = None,
    ) -> None:
        """Send one prediction now, for servers that log every output they serve."""
        context = Context(model_version, user_id, thread_id, do_not_train)
        event = build_prediction(
            self._source,
            prediction_id,
            dump_prompt(prompt),
            dump_text(output),
            dump_tools(tools),
            context,
            read_clock(),
        )
        self._remember(thread_id, prediction_id, event)
        self._send(event)
        self._mark_sent(thread_id, prediction_id)

    @never_raises
    def scored_prediction(
        self,
        features: Mapping[str, float | str | bool | None],
        score: float | None = None,
        *,
        prediction_id: str,
        scores: Mapping[str, float] | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        amount: float | None = None,
        segment: str | None = None,
        action: str | None = None,
        allow_propensity: float | None = None,
        label_propensity: float | None = None,
    ) -> None:
        """Send one decision of a classifier now.

        Args:
            features: as they were at the decision.
            score: the model's probability of the positive class, from 0 to 1; of several classes it is left out.
            prediction_id: what its label will name, however late.
            scores: of several classes, the model's probability of each; they sum to 1.
            model_version: which model decided.
            user_id: the person that it was about.
            thread_id: the session.
            do_not_train: consent withheld.
            amount: the amount at stake.
            segment: which of the application's segments it belongs to.
            action: the action that followed.
            allow_propensity: with which probability it was let through, where that was drawn.
            label_propensity: with which probability a case like it is labelled, where only some are.
        """
        context = Context(model_version, user_id, thread_id, do_not_train)
        stake = {"amount": amount, "segment": segment, "action": action, "allow_propensity": allow_propensity}
        stake["label_propensity"] = label_propensity
        said = {"score": score} if scores is None else {"scores": dict(scores)}
        data = {"features": dict(features), **said, "prediction_id": prediction_id, **context.fields()}
        data |= {name: value for name, value in stake.items() if value is not None}
        self._send(
            build_cloud_event("flywheel.prediction", self._source, f"{prediction_id}/prediction", read_clock(), data)
        )

    @never_raises
    def feedback(
        self,
        prediction_id: str | None,
        signal: SignalName,
        fields: Mapping[str, Any] | None = None,
        *,
        event_id: str | None = None,
        revision: int | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
    ) -> None:
        """Send one signal about an output now.

        Args:
            prediction_id: the output it is about; None: the last answer of the conversation `thread_id` that this
                client was given. The client remembers 1,000 conversations.
            signal: the kind of feedback.
            fields: what the signal carries: `final_text`, `value`, `label`, `comment`, `prompt`, `original_output`,
                `sibling_id`, `tools`. Texts may be messages.
            event_id: the same id is the same statement: repeated it is a duplicate, with other content a revision;
                made up where absent.
            revision: of the statement, counted by you; the newest counts.
            model_version: which model served it.
            user_id: who gave it.
            thread_id: the conversation.
            do_not_train: consent withheld.
        """
        about = self._find_last_answer(thread_id) if prediction_id is None else prediction_id
        carried = _dump_fields(fields or {}) | ({} if revision is None else {"revision": revision})
        context = Context(model_version, user_id, thread_id, do_not_train)
        self._state(about, signal, context, carried, event_id)

    @never_raises
    def regenerate(
        self,
        first: Interaction | Output,
        second: Interaction | Output,
        *,
        prompt: Prompt | None = None,
        event_id: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
    ) -> None:
        """Send that a person asked for another answer, with both texts, for servers that log every output they serve.

        Once the person takes the second answer the two make a comparison.

        Args:
            first: the answer that was not wanted; it has a prediction id.
            second: the answer that came instead.
            prompt: what both answer; that of an interaction where absent.
            event_id: the same id is the same statement; made up where absent.
            user_id: who asked.
            thread_id: the conversation.
            do_not_train: consent withheld.
        """
        fields = describe_regeneration(first, second) | _dump_fields({} if prompt is None else {"prompt": prompt})
        context = Context(None, user_id, thread_id, do_not_train)
        self._state(first.prediction_id, "regenerate", context, fields, event_id)

    @never_raises
    def choose(
        self,
        preferred: Interaction | Output,
        other: Interaction | Output,
        *,
        prompt: Prompt | None = None,
        event_id: str | None = None,
        model_version: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        tools: Tools | None = None,
    ) -> None:
        """Send that a person prefers one answer to another one, as two of a kind were shown.

        Args:
            preferred: the answer that the person chose.
            other: the answer that they did not choose.
            prompt: what both answer; that of an interaction where absent.
            event_id: the same id is the same statement; made up where absent.
            model_version: which model gave the preferred answer.
            user_id: who chose.
            thread_id: the conversation.
            do_not_train: consent withheld.
            tools: the functions that the models could call.
        """
        asked = prompt if prompt is not None else getattr(preferred, "prompt", None) or getattr(other, "prompt", None)
        fields = {
            "sibling_id": other.prediction_id,
            "prompt": asked,
            "final_text": preferred.output,
            "original_output": other.output,
            "tools": tools or None,
        }
        context = Context(model_version, user_id, thread_id, do_not_train)
        self._state(preferred.prediction_id or make_id(), "choice", context, _dump_fields(fields), event_id)

    @never_raises
    def demonstrate(
        self,
        prompt: Prompt,
        text: Text,
        *,
        event_id: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        do_not_train: bool = False,
        tools: Tools | None = None,
    ) -> None:
        """Send the right answer to a prompt, where no model wrote one.

        Args:
            prompt: text, or messages.
            text: the right answer: text, or an assistant message.
            event_id: the same id is the same statement; made up where absent.
            user_id: who wrote it.
            thread_id: the conversation.
            do_not_train: consent withheld.
            tools: the functions that a model could call.
        """
        fields = _dump_fields({"prompt": prompt, "final_text": text, "tools": tools or None})
        self._state(None, "demonstration", Context(None, user_id, thread_id, do_not_train), fields, event_id)

    @never_raises
    def retract(
        self,
        *,
        prediction_id: str | None = None,
        feedback_id: str | None = None,
        source: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
    ) -> None:
        """Take feedback back: all that one person said about an output, or one statement.

        Args:
            prediction_id: the output; what the person said about it so far is taken back.
            feedback_id: the id of one statement (`event_id` of a call, `edit_id` of a session), instead.
            source: of that statement; this client's own where absent.
            user_id: who takes it back; with `prediction_id` only what this person said is.
            thread_id: the conversation, where no user is known.
        """
        if (prediction_id is None) == (feedback_id is None):
            raise ValueError("retract takes either prediction_id or feedback_id")
        context = Context(None, user_id, thread_id)
        if feedback_id is not None:
            fields = {"retracts": feedback_id}
            # A statement is known by its id and its source.
            event = build_feedback(source or self._source, make_id(), None, "retract", context, read_clock(), fields)
            self._send(event)
        else:
            self._state(prediction_id, "retract", context, {}, None)

    @never_raises
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
            event_id: the same id is the same statement, for callers that may report it twice; made up where absent.
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
        self._delivery.offer(event, count_characters(event["data"]) + 300)

    def _state(
        self,
        prediction_id: str | None,
        signal: SignalName,
        context: Context,
        fields: Mapping[str, Any],
        event_id: str | None,
    ) -> None:
        name = event_id or make_id()
        self._send(build_feedback(self._source, name, prediction_id, signal, context, read_clock(), fields))

    def _dump(self, prompt: Prompt, output: Text, tools: Tools | None) -> tuple[Any, Any, Any]:
        try:
            return dump_prompt(prompt), dump_text(output), dump_tools(tools)
        except Exception as error:
            self._failed("interaction", error)
            return None, None, None  # capture refuses a prediction without a prompt

    @never_raises
    def _remember(self, thread_id: str | None, prediction_id: str, event: Event) -> None:
        if thread_id:
            with self._lock:
                self._last_answers.remember(thread_id, prediction_id, event)

    def _mark_sent(self, thread_id: str | None, prediction_id: str) -> None:
        if thread_id:
            with self._lock:
                self._last_answers.mark_sent(thread_id, prediction_id)

    def _find_last_answer(self, thread_id: str | None) -> str:
        with self._lock:
            last = self._last_answers.find(thread_id) if thread_id else None
        if last is None:
            raise UnknownThreadError(
                "feedback without prediction_id marks the last answer of thread_id, and this client was given no "
                "answer of that conversation; pass prediction_id, or report the answer first with the same thread_id"
            )
        if last.event is not None:
            self._send(last.event)  # feedback is joined with it
            self._mark_sent(thread_id, last.prediction_id)
        return last.prediction_id

    @never_raises
    def _end(self, interaction: Interaction) -> None:
        events, outcome = interaction.conclude(self._source, self._positive_share)
        with self._lock:
            self._tally[outcome] += 1
        for event in events:
            self._send(event)
            if event["type"] == "flywheel.prediction":
                self._mark_sent(interaction.context.thread_id, interaction.prediction_id)

    def _failed(self, call: str, error: Exception) -> None:
        with self._lock:
            self._failures += 1
        # Any other message could quote user text.
        reason = str(error) if isinstance(error, UnknownThreadError) else type(error).__name__
        log.warning("flywheel: %s was ignored (%s)", call.lstrip("_"), reason)


def _dump_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a signal's fields as JSON values; fields that are None are left out."""
    dumps: dict[str, Callable[[Any], Any]] = {
        "prompt": dump_prompt,
        "final_text": dump_text,
        "original_output": dump_text,
        "tools": dump_tools,
    }
    return {name: dumps[name](value) if name in dumps else value for name, value in fields.items() if value is not None}
