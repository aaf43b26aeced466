"""Plays days of the assistant's life against the real capture service, over HTTP, on a simulated clock.

The assistant's own backend sends what it served and the buttons people pressed as batches of CloudEvents; each edit
comes by itself to `/edits`, as a browser would send it. The counts are of outputs that the deployed model really wrote.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flywheel_assets.demo.assistant.base_model import Assistant
from flywheel_assets.demo.assistant.people import People, Person, Reaction, Vandalism
from flywheel_assets.demo.assistant.world import Request, Workload, World
from flywheel_assets.demo.capture_client import CaptureDoor, Sender, build_cloud_event
from flywheel_assets.records import Signal

SOURCE = "assistant-backend"
_OPENS = time(9, tzinfo=UTC)
_HOURS = 8


@dataclass(frozen=True, kw_only=True)
class DayStats:
    """One simulated day, counted on what the model wrote and on what capture acknowledged."""

    day: date
    model_version: str
    requests: int
    internal: int
    lacking_right_call: int
    """Of the internal outputs."""
    internal_exact: int
    neutral: int
    neutral_exact: int
    edited: int
    """Outputs that a user changed, rightly or not."""
    approved: int
    """Outputs that a user accepted, copied or gave a thumb up."""
    predictions_acknowledged: int
    """Prediction lines: one for each output, and one more for each edit, which brings its own."""
    feedback_acknowledged: int
    vandalism: Mapping[str, Vandalism] = field(default_factory=dict)
    """Prediction id of every vandal's edit: what only the simulation knows."""


@dataclass(frozen=True)
class _Moment:
    """One output and its user's action."""

    prediction_id: str
    at: datetime
    person: Person
    request: Request
    output: str
    model_version: str
    reaction: Reaction | None


@dataclass(frozen=True)
class ArmCounts:
    """One model's answers on one day of a rollout."""

    answers: int
    edited: int
    """Answers that a user changed, rightly or not."""


def play_days(
    assistant: Assistant,
    world: World,
    workload: Workload,
    people: People,
    days: Sequence[date],
    requests_per_day: int,
    door: CaptureDoor,
    seed: int,
) -> Iterator[DayStats]:
    """Play one day after the other; after the last one the clock shows the next day, 00:30 UTC.

    Args:
        assistant: answers the requests.
        world: gives the requests.
        workload: the shares of the idioms.
        people: ask, and act on the answers.
        days: UTC days, ascending, none before the clock's present.
        requests_per_day: outputs a day.
        door: the capture service.
        seed: a day depends on it and on the day's date only.

    Raises:
        CaptureUnavailableError: capture refused or lost something.
    """
    members = people.list_members()
    with door.open_sender() as sender:
        for day in days:
            rng = random.Random(f"{seed} {day}")
            moments = _simulate_day(
                {assistant.model_version: assistant},
                lambda _: assistant.model_version,
                world,
                workload,
                people,
                members,
                day,
                requests_per_day,
                rng,
            )
            predictions, feedback = _send(sender, moments, door)
            door.end_day(day)
            yield _count_stats(day, assistant.model_version, moments, predictions, feedback)


def play_routed_day(
    arms: Mapping[str, Assistant],
    route: Callable[[str], str],
    world: World,
    workload: Workload,
    people: People,
    day: date,
    requests: int,
    door: CaptureDoor,
    seed: int,
) -> dict[str, ArmCounts]:
    """Play one day with several models, of which a router names one for each user; return counts by version.

    Args:
        arms: the models by the version that their predictions carry.
        route: maps a user id to one of those versions.
        world: gives the requests.
        workload: the shares of the idioms.
        people: ask, and act on the answers.
        day: UTC day, not before the clock's present.
        requests: outputs on that day.
        door: the capture service.
        seed: the day depends on it, its date and the models only.

    Raises:
        CaptureUnavailableError: capture refused or lost something.
    """
    rng = random.Random(f"{seed} {day}")
    moments = _simulate_day(arms, route, world, workload, people, people.list_members(), day, requests, rng)
    with door.open_sender() as sender:
        _send(sender, moments, door)
    door.end_day(day)
    served = {version: [moment for moment in moments if moment.model_version == version] for version in arms}
    return {version: ArmCounts(len(each), sum(map(_is_edit, each))) for version, each in served.items()}


def _simulate_day(
    arms: Mapping[str, Assistant],
    route: Callable[[str], str],
    world: World,
    workload: Workload,
    people: People,
    members: Sequence[Person],
    day: date,
    count: int,
    rng: random.Random,
) -> list[_Moment]:
    """Simulate one day's outputs and reactions, in their order."""
    asked = [world.ask(rng, workload) for _ in range(count)]
    times = sorted(rng.randrange(_HOURS * 3600) for _ in range(count))
    prompts = [request.prompt for request in asked]
    outputs = {version: assistant.answer(prompts) for version, assistant in arms.items()}
    opens = datetime.combine(day, _OPENS)
    moments = []
    for number, (request, seconds) in enumerate(zip(asked, times, strict=True)):
        person = rng.choice(members)
        version = route(person.user_id)
        output = outputs[version][number]
        reaction = people.react(rng, person, request, output)
        at = opens + timedelta(seconds=seconds)
        moments.append(_Moment(f"{day:%Y%m%d}-{number:05d}", at, person, request, output, version, reaction))
    return moments


def _send(sender: Sender, moments: Sequence[_Moment], door: CaptureDoor) -> tuple[int, int]:
    """Send a day hour by hour; return the acknowledged prediction and feedback lines."""
    predictions = feedback = 0
    for hour in range(_HOURS):
        present = [moment for moment in moments if moment.at.hour == _OPENS.hour + hour]
        if not present:
            continue
        edited = [moment for moment in present if _is_edit(moment)]
        pressed = [moment for moment in present if moment.reaction is not None and not _is_edit(moment)]
        # People need a moment to react: what happened in an hour arrives at its end.
        door.clock.advance(datetime.combine(present[0].at.date(), _OPENS) + timedelta(hours=hour + 1))
        events = [_build_prediction_event(moment) for moment in present]
        events += [_build_feedback_event(moment) for moment in pressed]
        sender.send_events(events)
        for moment in edited:
            sender.send_plain("/edits", _build_edit(moment))
        predictions += len(present) + len(edited)
        feedback += len(pressed) + len(edited)
    return predictions, feedback


def _is_edit(moment: _Moment) -> bool:
    return moment.reaction is not None and moment.reaction.signal is Signal.EDIT


def _build_prediction_event(moment: _Moment) -> dict[str, Any]:
    data = {
        "prediction_id": moment.prediction_id,
        "prompt": moment.request.prompt,
        "output": moment.output,
        "model_version": moment.model_version,
        "user_id": moment.person.user_id,
    }
    return build_cloud_event(SOURCE, "flywheel.prediction", moment.prediction_id, moment.at, data)


def _build_feedback_event(moment: _Moment) -> dict[str, Any]:
    assert moment.reaction is not None
    data: dict[str, Any] = {
        "prediction_id": moment.prediction_id,
        "signal": moment.reaction.signal,
        "model_version": moment.model_version,
        "user_id": moment.person.user_id,
    }
    if moment.reaction.value is not None:
        data["value"] = moment.reaction.value
    return build_cloud_event(SOURCE, "flywheel.feedback", f"{moment.prediction_id}/reaction", moment.at, data)


def _build_edit(moment: _Moment) -> dict[str, Any]:
    assert moment.reaction is not None
    return {
        "id": moment.prediction_id,
        "prompt": moment.request.prompt,
        "original_llm_output": moment.output,
        "final_user_edit": moment.reaction.final_text,
        "user_id": moment.person.user_id,
        "model_version": moment.model_version,
        "occurred_at": moment.at.isoformat(),
    }


def _count_stats(
    day: date, model_version: str, moments: Sequence[_Moment], predictions: int, feedback: int
) -> DayStats:
    internal = [moment for moment in moments if moment.request.idiom.is_internal]
    neutral = [moment for moment in moments if not moment.request.idiom.is_internal]
    edits = [moment for moment in moments if _is_edit(moment)]
    approvals = [
        moment
        for moment in moments
        if moment.reaction is not None
        and (moment.reaction.signal in (Signal.ACCEPT, Signal.COPY) or moment.reaction.value == 1.0)
    ]
    return DayStats(
        day=day,
        model_version=model_version,
        requests=len(moments),
        internal=len(internal),
        lacking_right_call=sum(moment.request.lacks_right_call(moment.output) for moment in internal),
        internal_exact=sum(moment.request.is_exact(moment.output) for moment in internal),
        neutral=len(neutral),
        neutral_exact=sum(moment.request.is_exact(moment.output) for moment in neutral),
        edited=len(edits),
        approved=len(approvals),
        predictions_acknowledged=predictions,
        feedback_acknowledged=feedback,
        vandalism={
            moment.prediction_id: moment.reaction.vandalism
            for moment in edits
            if moment.reaction is not None and moment.reaction.vandalism is not None
        },
    )
