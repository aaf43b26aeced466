"""What people meant, from their events to the rows of a version.

`SITUATIONS` is the rule book: the events of each situation, day by day, and the rows that a version holds of it. All of
them go over HTTP into one capture service, land, and are joined, curated and cut together, once with no one held out
and once with nearly all; each has its own people, predictions and texts. What people mean does not depend on the day on
which an event arrives: the same events on one day, or each on a day of its own, give the same rows.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from flywheel_assets.capture.service import running_capture
from flywheel_assets.conversations import Message, encode_prompt
from flywheel_assets.curation.texts.breaker import BreakerLimits
from flywheel_assets.curation.texts.resolution import ResolutionRules, hash_for_holdout
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.exports import ExportSet, read_rows
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets_tests.builders import APPLICATION, DAY, day
from flywheel_assets_tests.capture.samples import BATCH, JSON, NOON, Clock
from flywheel_assets_tests.e2e.talks import TALKS, Talk
from flywheel_assets_tests.lake.workbench import Workbench

HELD_OUT = 0.95
EVERYTHING = {"accepted_share": 1.0, "accepted_min_ratio": 0.0}
SIDES = {
    "no one held out": ResolutionRules(holdout_share=0.0, **EVERYTHING),
    "nearly all held out": ResolutionRules(holdout_share=HELD_OUT, **EVERYTHING),
}


@dataclass(frozen=True)
class Post:
    """One element of a request; ids and people are those of the situation, see `_localize`."""

    path: str
    body: dict[str, Any]
    refused: str = ""
    """What the answer says where capture refuses it."""


@dataclass(frozen=True)
class Delete:
    """Takes one statement back by its id."""

    feedback_id: str
    source: str = "app"


Step = Post | Delete
_talks = iter(TALKS)


@dataclass(frozen=True)
class Situation:
    """What happened, and what a version holds of it."""

    name: str
    days: Sequence[Sequence[Step]]
    """The events of each day, in the order of their arrival."""
    train: Sequence[tuple[str, str]] = ()
    """(chosen, rejected), from edits and comparisons; of held-out people they are in the holdout."""
    accepted: Sequence[str] = ()
    """Outputs that were good as they were; of held-out people they are the regression set."""
    demonstrations: Sequence[str] = ()
    """Right answers where no model wrote one; of held-out people they are in the holdout."""


def served(name: str, prompt: object, output: object, **data: Any) -> Post:
    """The model answered."""
    event = {"id": name, "type": "flywheel.prediction", "data": {"prompt": prompt, "output": output, **data}}
    return Post("events", _envelope(event))


def says(user: str | None, about: str | None, signal: str, event: str = "", **data: Any) -> Post:
    """A person states something about an answer; `event` is the id, where more than one event has it."""
    time = {"time": data.pop("time")} if "time" in data else {}
    about_it = {} if about is None else {"prediction_id": about}
    stated = {"signal": signal, **about_it, **({} if user is None else {"user_id": user}), **data}
    return Post("events", _envelope({"id": event, "type": "flywheel.feedback", "data": stated, **time}))


def thumb(user: str | None, about: str, value: int, event: str = "", **data: Any) -> Post:
    return says(user, about, "thumb", event, value=value, **data)


def edits(user: str | None, about: str, talk: Talk, final_text: object, event: str = "", **data: Any) -> Post:
    carried = {"prompt": talk.prompt, "original_output": talk.output, "final_text": final_text}
    return says(user, about, "edit", event, **carried, **data)


def regenerates(user: str, about: str, sibling: str, talk: Talk) -> Post:
    carried = {"prompt": talk.prompt, "original_output": talk.output, "final_text": talk.other}
    return says(user, about, "regenerate", sibling_id=sibling, **carried)


def chooses(
    user: str, preferred: tuple[str, object], other: tuple[str, object], prompt: object, event: str = ""
) -> Post:
    (name, text), (sibling, other_text) = preferred, other
    texts = {"prompt": prompt, "final_text": text, "original_output": other_text}
    return says(user, name, "choice", event, sibling_id=sibling, **texts)


def plain_edit(prompt: object, output: object, final: object, refused: str = "", **fields: Any) -> Post:
    """The smallest body: an edit as `/edits` takes it."""
    body = {"prompt": prompt, "original_llm_output": output, "final_user_edit": final, **fields}
    return Post("edits", body, refused)


def _envelope(event: dict[str, Any]) -> dict[str, Any]:
    return {"specversion": "1.0", "source": "app", **event}


def two_siblings(talk: Talk) -> list[Step]:
    """One answer, a regeneration, and the answer that came instead."""
    return [
        served("first", talk.prompt, talk.output, user_id="ann"),
        served("second", talk.prompt, talk.other, user_id="ann"),
        regenerates("ann", "first", "second", talk),
    ]


LEAKS = "My key is sk-proj-" + "aZ3dQ9xK2mP7vB4nL8cR5tW1yE6uI0oS" + ", use it."
CALL = {"type": "function", "function": {"name": "control_light", "arguments": {"room": "living room", "state": "on"}}}
LIGHTS = [
    {"role": "user", "content": "Turn on the living room lights."},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "name": "control_light", "content": "The lights in the living room are now on."},
]


def files() -> Iterator[Situation]:
    """The situations that went wrong in the product: what was reported of them, and what they mean."""
    yield Situation(
        "an approval, then a complaint",
        [
            [
                served("p-ae", "Name a red fruit for me", "A banana is a red fruit."),
                says("a", "p-ae", "accept", "c1"),
                says("a", "p-ae", "comment", "c2", comment="This is wrong"),
            ]
        ],
    )
    yield Situation(
        "an approval, then a regeneration",
        [
            [
                served("p-regen", "Write a haiku about rain", "Rain on the window, soft and slow.", user_id="r"),
                says("r", "p-regen", "accept", "a1"),
                says("r", "p-regen", "regenerate", "a2"),
            ]
        ],
    )
    hello = ("Say hello to the team", "Hello team, welcome to the weekly call.")
    yield Situation(
        "a half-written text saved under the id of the finished one",
        [
            [
                plain_edit(*hello, "Hello team, welcome to the half-finis", id="m-1", user_id="u"),
                plain_edit(*hello, "Hello all, welcome to our daily standup call.", id="m-1", user_id="u"),
            ]
        ],
        train=[("Hello all, welcome to our daily standup call.", hello[1])],
    )
    undone = {"prompt": "Say hello, please do", "original_output": hello[1]}
    yield Situation(
        "an edit that its person undoes",
        [
            [
                says("u", "und-1", "edit", "u0", **undone, final_text="Hello team, welcome to the daily call."),
                says("u", "und-1", "edit", "u1", **undone, final_text=hello[1]),
            ]
        ],
    )
    yield Situation(
        "a text that is none",
        [[plain_edit("What is big?", "hello big world", "hello big world \ud83d", refused="lone surrogate")]],
    )
    yield Situation(
        "a thumb down that brings the correction",
        [
            [
                served("p-tdf", "Translate dog to French", "The word for dog is chat."),
                thumb(None, "p-tdf", -1, "d1", final_text="The word for dog is chien."),
            ]
        ],
        train=[("The word for dog is chien.", "The word for dog is chat.")],
    )
    yield Situation(
        "a thumb up, then down",
        [
            [
                served("p-flip", "List three primes", "2, 3 and 5 are primes.", user_id="f"),
                thumb("f", "p-flip", 1, "t1"),
                thumb("f", "p-flip", -1, "t2", comment="wrong after all"),
            ]
        ],
    )


def conversations() -> Iterator[Situation]:
    """Prompts of agents and of several turns."""
    did, done = "I did something to the lights of the house.", "Done! The living room lights are on now."
    yield Situation("an edit after a call", [[plain_edit(LIGHTS, did, done, user_id="u")]], train=[(done, did)])
    cat, dog = "A cat is sitting on the mat.", "A dog is sitting on the mat."
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]
    for name, text, others in (
        ("a question about a picture", "What is in this picture?", picture),
        ("a question in one text part", "What is the sky?", []),
    ):
        prompt = [{"role": "user", "content": [{"type": "text", "text": text}, *others]}]
        yield Situation(name, [[plain_edit(prompt, cat, dog, user_id="u")]], train=[(dog, cat)])
    yield Situation("a prompt that is null", [[plain_edit(None, "The old answer.", "A new answer.", refused="prompt")]])
    weekly = "Hello team, welcome to the weekly call."
    for name, turns, refused in (
        ("a role that there is not", [{"role": "human", "content": "Hi"}], "user"),
        ("only the operator's text", [{"role": "system", "content": "Be kind."}], "user"),
        ("an empty role", [{"role": "", "content": ""}], "user"),
        ("two turns of the user", [{"role": "user", "content": "a one"}, {"role": "user", "content": "b two"}], ""),
        (
            "an answer that is begun",
            [{"role": "user", "content": "Start"}, {"role": "assistant", "content": "Sure, "}],
            "",
        ),
    ):
        daily = "Hello folks, welcome to the daily call."
        edit = plain_edit(turns, weekly, daily, refused, user_id="u")
        yield Situation(name, [[edit]], train=[] if refused else [(daily, weekly)])
    thought = "<think>The user asks a sum. 2+2=4, simple arithmetic.</think>"
    yield Situation(
        "reasoning that the person leaves out of the text",
        [
            [
                plain_edit(
                    "What is two and two, and why?",
                    f"{thought}The answer is four, by adding.",
                    "The answer is four, by adding two and two.",
                )
            ]
        ],
        train=[("The answer is four, by adding two and two.", "The answer is four, by adding.")],
    )
    yield Situation(
        "an edit that only leaves out the reasoning",
        [[plain_edit("What is one and two?", f"{thought}It is three, of course.", "It is three, of course.")]],
    )
    blinds = {"function": {"name": "close", "arguments": {"what": "blinds"}}}
    turns = [
        {"role": "user", "content": "Please close the kitchen blinds."},
        {"role": "assistant", "tool_calls": [blinds]},
        {"role": "tool", "name": "close", "content": "The blinds are closed."},
    ]
    good, bad = "Done, the blinds are closed.", "I moved some parts of a window."
    yield Situation(
        "a pair of another trainer's data set",
        [[chooses("u", ("good", good), ("bad", bad), turns)]],
        train=[(good, bad)],
    )
    ask, thread = [{"role": "user", "content": "Is the boiler on?"}], {"thread_id": "boiler"}
    look = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
    yield Situation(
        "a call that the person approves of, in a conversation",
        [[served("p", ask, look, **thread), thumb("u", "p", -1, **thread)], [thumb("u", "p", 1, **thread)]],
        accepted=['{"name": "look", "arguments": {}}'],
    )
    off = {"role": "assistant", "tool_calls": [{"function": {"name": "lights", "arguments": '{"room": "cellar"}'}}]}
    hall = {"role": "assistant", "tool_calls": [{"function": {"name": "lights", "arguments": {"room": "the hall"}}}]}
    asked = [{"role": "user", "content": "Switch off the lamp in the hall"}]
    tools = [{"type": "function", "function": {"name": "lights", "parameters": {"type": "object"}}}]
    called = {"prompt": asked, "original_output": off, "final_text": hall, "tools": tools}
    yield Situation(
        "a call that the person corrects",
        [[says("u", "call", "edit", **called)]],
        train=[
            (
                '{"name": "lights", "arguments": {"room": "the hall"}}',
                '{"name": "lights", "arguments": {"room": "cellar"}}',
            )
        ],
    )


def one_person() -> Iterator[Situation]:
    """The newest statement of a person counts."""
    talk = next(_talks)
    answer = served("p", talk.prompt, talk.output)
    yield Situation(
        "a thumb down, then up", [[answer, thumb("ann", "p", -1), thumb("ann", "p", 1)]], accepted=[talk.output]
    )
    talk, another = TALKS[-1], TALKS[-2]
    yield Situation(
        "a client gives the statements about two answers one id",
        [
            [
                served("p", talk.prompt, talk.output),
                served("q", another.prompt, another.output),
                says("ann", "p", "accept", "before"),
                thumb("ann", "p", -1, "1"),
            ],
            [thumb("ann", "q", 1, "1")],
        ],
        accepted=[another.output],
    )
    talk = next(_talks)
    yield Situation(
        "a regeneration, then the first answer after all",
        [[served("p", talk.prompt, talk.output), says("ann", "p", "regenerate"), says("ann", "p", "accept")]],
        accepted=[talk.output],
    )
    talk = next(_talks)
    yield Situation(
        "an edit, an undo and another edit",
        [
            [
                edits("ann", "p", talk, talk.other),
                edits("ann", "p", talk, talk.output),
                edits("ann", "p", talk, talk.better),
            ]
        ],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "an edit that its person then takes",
        [[served("p", talk.prompt, talk.output), edits("ann", "p", talk, talk.better), says("ann", "p", "accept")]],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "an approval that becomes an edit",
        [[served("p", talk.prompt, talk.output), says("ann", "p", "copy")], [edits("ann", "p", talk, talk.better)]],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "an edit, then a regeneration",
        [[served("p", talk.prompt, talk.output), edits("ann", "p", talk, talk.better), says("ann", "p", "regenerate")]],
    )
    talk = next(_talks)
    yield Situation(
        "a high rating, then a low one, a day later",
        [
            [served("p", talk.prompt, talk.output), says("ann", "p", "rating", value=0.9)],
            [says("ann", "p", "rating", value=0.2)],
        ],
    )
    talk = next(_talks)
    yield Situation(
        "a high rating of the person's own text",
        [[served("p", talk.prompt, talk.output), says("ann", "p", "rating", value=1.0, final_text=talk.better)]],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "revisions that arrive in the wrong order, over two days",
        [
            [
                edits("ann", "p", talk, talk.better, "draft", revision=3),
                edits("ann", "p", talk, "Half of", "draft", revision=1),
            ],
            [edits("ann", "p", talk, talk.other, "draft", revision=2)],
        ],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "an edit that is undone a day later",
        [[edits("ann", "p", talk, talk.better)], [], [edits("ann", "p", talk, talk.output)]],
    )
    talk = next(_talks)
    yield Situation(
        "a newest text that the gate refuses does not bring the older one back",
        [[edits("ann", "p", talk, talk.better), edits("ann", "p", talk, LEAKS)]],
    )
    talk = next(_talks)
    yield Situation(
        "a newest text without consent does not bring the older one back",
        [[edits("ann", "p", talk, talk.better)], [edits("ann", "p", talk, talk.other, do_not_train=True)]],
    )
    talk = next(_talks)
    answer, up = served("p", talk.prompt, talk.output), thumb("ann", "p", 1, "once")
    yield Situation(
        "an approval that is sent again after it was withdrawn",
        [[answer, up, thumb("ann", "p", -1)], [up]],
    )
    talk = next(_talks)
    early, late = (NOON - timedelta(hours=hours) for hours in (2, 1))
    yield Situation(
        "an approval that arrives after the objection, and happened before it",
        [
            [served("p", talk.prompt, talk.output), thumb("ann", "p", -1, time=late.isoformat())],
            [thumb("ann", "p", 1, time=early.isoformat())],
        ],
    )
    talk = next(_talks)
    yield Situation(
        "feedback that arrives before its answer",
        [[thumb("ann", "p", 1)], [served("p", talk.prompt, talk.output)], [thumb("ann", "p", -1)]],
    )
    talk = next(_talks)
    yield Situation(
        "a remark about a correction leaves it",
        [
            [
                served("p", talk.prompt, talk.output),
                edits("ann", "p", talk, talk.better),
                says("ann", "p", "comment", comment="better so"),
            ]
        ],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    thread = {"thread_id": "the conversation"}
    yield Situation(
        "feedback on a conversation of an unknown person",
        [
            [served("p", talk.prompt, talk.output, **thread), thumb(None, "p", 1, **thread)],
            [thumb(None, "p", -1, **thread)],
        ],
    )

    talk = next(_talks)
    yield Situation(
        "a thumb up with the text as it was, sent twice",
        [
            [
                served("p", talk.prompt, talk.output),
                thumb("ann", "p", 1, "once", final_text=talk.output),
                thumb("ann", "p", 1, "once", final_text=talk.output),
            ]
        ],
        accepted=[talk.output],
    )
    talk = next(_talks)
    named = {"id": "note", "user_id": "ann"}
    yield Situation(
        "the smallest edit, saved under one id over three days",
        [
            [plain_edit(talk.prompt, talk.output, f"{talk.better[:9]}…", **named, revision=1)],
            [plain_edit(talk.prompt, talk.output, talk.other, **named, revision=2)],
            [plain_edit(talk.prompt, talk.output, talk.better, **named, revision=3)],
        ],
        train=[(talk.better, talk.output)],
    )


def retractions() -> Iterator[Situation]:
    """What a person takes back, by answer or by statement."""
    talk = next(_talks)
    yield Situation(
        "all that a person said is taken back, a day later",
        [[served("p", talk.prompt, talk.output), says("ann", "p", "accept")], [says("ann", "p", "retract")]],
    )
    talk = next(_talks)
    yield Situation(
        "an edit that is taken back, and another one after it",
        [[edits("ann", "p", talk, talk.other)], [says("ann", "p", "retract")], [edits("ann", "p", talk, talk.better)]],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "one statement is taken back by its id",
        [[served("p", talk.prompt, talk.output), says("ann", "p", "accept", "yes")], [Delete("yes")]],
    )
    talk = next(_talks)
    yield Situation(
        "an objection that is taken back leaves the approval before it",
        [[served("p", talk.prompt, talk.output), thumb("ann", "p", 1), thumb("ann", "p", -1, "no")], [Delete("no")]],
        accepted=[talk.output],
    )
    talk = next(_talks)
    yield Situation(
        "what one person takes back is not what another one said",
        [
            [served("p", talk.prompt, talk.output), says("ann", "p", "accept"), says("bob", "p", "accept")],
            [says("ann", "p", "retract")],
        ],
        accepted=[talk.output],
    )

    for name, carried in (
        ("an unknown person takes back an edit", False),
        ("an unknown person takes back an edit, and says to which prompt", True),
    ):
        talk = next(_talks)
        prompt = {"prompt": talk.prompt} if carried else {}
        yield Situation(name, [[edits(None, "p", talk, talk.better)], [says(None, "p", "retract", **prompt)]])
    talk = next(_talks)
    yield Situation(
        "an unknown person takes back an approval",
        [[served("p", talk.prompt, talk.output), says(None, "p", "accept")], [says(None, "p", "retract")]],
    )
    talk = next(_talks)
    yield Situation(
        "a choice is taken back with all else about the answer",
        [
            [chooses("ann", ("left", talk.other), ("right", talk.output), talk.prompt)],
            [says("ann", "left", "retract")],
        ],
    )


def several_people() -> Iterator[Situation]:
    """A majority of those who state something decides."""
    approve, object_ = (lambda user: says(user, "p", "accept")), (lambda user: thumb(user, "p", -1))
    for name, statements, is_accepted in (
        ("two approve, one objects", [approve("ann"), object_("bob"), approve("cem")], True),
        ("one approves, two object", [approve("ann"), object_("bob"), object_("cem")], False),
        ("one approves, one objects", [approve("ann"), object_("bob")], False),
        (
            "two approve, and one of them regenerates",
            [approve("ann"), approve("bob"), says("bob", "p", "regenerate")],
            False,
        ),
    ):
        talk = next(_talks)
        yield Situation(
            name,
            [[served("p", talk.prompt, talk.output), *statements]],
            accepted=[talk.output] if is_accepted else [],
        )
    talk = next(_talks)
    yield Situation(
        "two approve what one corrects",
        [[served("p", talk.prompt, talk.output), edits("ann", "p", talk, talk.better), approve("bob"), approve("cem")]],
        accepted=[talk.output],
    )
    talk = next(_talks)
    yield Situation(
        "one approves what one corrects",
        [[served("p", talk.prompt, talk.output), edits("ann", "p", talk, talk.better), approve("bob")]],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "two corrections of one answer: the newest",
        [[edits("ann", "p", talk, talk.other)], [edits("bob", "p", talk, talk.better)]],
        train=[(talk.better, talk.output)],
    )

    talk = next(_talks)
    yield Situation(
        "one undoes, another corrects",
        [
            [edits("ann", "p", talk, talk.other), edits("bob", "p", talk, talk.better)],
            [edits("ann", "p", talk, talk.output)],
        ],
        train=[(talk.better, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "a text that the gate refuses does not silence another person",
        [[edits("ann", "p", talk, talk.better), edits("bob", "p", talk, LEAKS)]],
        train=[(talk.better, talk.output)],
    )


def comparisons() -> Iterator[Situation]:
    """Two answers of models, of which a person takes one; and answers that no model wrote."""
    talk = next(_talks)
    pair = (talk.other, talk.output)
    yield Situation(
        "the second answer is taken, a day later",
        [two_siblings(talk), [says("ann", "second", "accept")]],
        train=[pair],
        accepted=[talk.other],
    )
    talk = next(_talks)
    yield Situation("the second answer is not taken either", [two_siblings(talk)])
    talk = next(_talks)
    yield Situation(
        "the second answer is taken, and then found wrong",
        [[*two_siblings(talk), says("ann", "second", "accept")], [thumb("ann", "second", -1)]],
    )
    talk = TALKS[-3]
    yield Situation(
        "the second answer is taken, and then the first one after all",
        [[*two_siblings(talk), says("ann", "second", "accept")], [says("ann", "first", "accept")]],
        accepted=[talk.output, talk.other],
    )
    talk = next(_talks)
    left, right = ("left", talk.other), ("right", talk.output)
    yield Situation(
        "one of two answers is chosen", [[chooses("ann", left, right, talk.prompt)]], train=[(talk.other, talk.output)]
    )
    talk = next(_talks)
    left, right = ("left", talk.other), ("right", talk.output)
    yield Situation(
        "a person chooses the other one after all",
        [[chooses("ann", left, right, talk.prompt)], [chooses("ann", right, left, talk.prompt)]],
        train=[(talk.output, talk.other)],
    )
    talk = next(_talks)
    left, right = ("left", talk.other), ("right", talk.output)
    yield Situation(
        "two people choose each another one",
        [[chooses("ann", left, right, talk.prompt), chooses("bob", right, left, talk.prompt)]],
    )
    talk = next(_talks)
    left, right = ("left", talk.other), ("right", talk.output)
    yield Situation(
        "a choice is taken back", [[chooses("ann", left, right, talk.prompt, "chosen")], [Delete("chosen")]]
    )
    talk = next(_talks)
    plain, named = says("ann", "first", "regenerate", "asked", revision=1), regenerates("ann", "first", "second", talk)
    revised = Post("events", {**named.body, "id": "asked", "data": {**named.body["data"], "revision": 2}})
    answers = [served("first", talk.prompt, talk.output), served("second", talk.prompt, talk.other)]
    yield Situation(
        "a regeneration that names the second answer once it is there",
        [[*answers, plain, revised, says("ann", "second", "copy")]],
        train=[(talk.other, talk.output)],
        accepted=[talk.other],
    )
    talk = next(_talks)
    corrected = {"prompt": talk.prompt, "original_output": talk.other, "final_text": talk.better}
    yield Situation(
        "the second answer is corrected",
        [two_siblings(talk), [says("ann", "second", "edit", **corrected)]],
        train=[(talk.better, talk.other)],
    )
    talk = next(_talks)
    left, right = ("left", talk.other), ("right", talk.output)
    yield Situation(
        "two of three choose the same answer",
        [
            [chooses("ann", left, right, talk.prompt), chooses("bob", right, left, talk.prompt)],
            [chooses("cem", left, right, talk.prompt)],
        ],
        train=[(talk.other, talk.output)],
    )
    talk = next(_talks)
    yield Situation(
        "a right answer is shown, and written better a day later",
        [
            [says("ann", None, "demonstration", "shown", prompt=talk.prompt, final_text=talk.output)],
            [says("ann", None, "demonstration", "shown", prompt=talk.prompt, final_text=talk.better)],
        ],
        demonstrations=[talk.better],
    )


def seeds() -> Iterator[Situation]:
    """What the project was begun with: its example, and that thumbs alone never make pairs."""
    before, after = 'rows = ledger.get_table("orders").head(10)', 'rows = ledger.read("orders", limit=10)'
    edit = plain_edit("Read the first 10 rows of orders", before, after, user_id="ada")
    yield Situation("the first edit", [[edit]], train=[(after, before)])
    talk = next(_talks)
    people = ["ann", "bob", "cem", "dia", "eve"]
    yield Situation(
        "thumbs alone are no pairs, however many",
        [
            [served("up", talk.prompt, talk.output), *(thumb(user, "up", 1) for user in people)],
            [served("down", f"{talk.prompt}, please?", talk.other), *(thumb(user, "down", -1) for user in people)],
        ],
        accepted=[talk.output],
    )


SITUATIONS = [
    *files(),
    *conversations(),
    *one_person(),
    *retractions(),
    *several_people(),
    *comparisons(),
    *seeds(),
]


@functools.cache
def name_person(user: str, *, is_held_out: bool = True) -> str:
    """A name for a person whose side is known where nearly all are held out."""
    names = [f"{user}-{number}" for number in range(500)]
    sides = (hash_for_holdout(names) < HELD_OUT).tolist()
    return names[sides.index(is_held_out)]


ANCHOR = {
    "prompt": "Count to the end",
    "original_llm_output": "One, two, then four.",
    "final_user_edit": "One, two, then three, then four.",
    "user_id": name_person("trained", is_held_out=False),
}


def _localize(place: str, step: Post, number: int) -> Post:
    """Give a situation ids and people of its own."""
    body = json.loads(json.dumps(step.body))
    own = {name: f"{place}/{body[name]}" for name in ("id",) if body.get(name)}
    if "data" in body:
        own.setdefault("id", f"{place}/event {number}")
        fields = body["data"]
        for name in ("prediction_id", "sibling_id", "thread_id", "user_id"):
            if name in fields:
                fields[name] = f"{place}/{fields[name]}"
    else:
        fields = body
        own |= {"user_id": f"{place}/{body.get('user_id', 'someone')}"}
    body |= own
    if "user_id" in fields:
        fields["user_id"] = name_person(fields["user_id"])
    return Post(step.path, body, step.refused)


def _send(client: httpx.Client, name: str, steps: Sequence[Step], day_number: int, clock: Clock) -> None:
    """Send one situation's events of one day, each in a request of its own."""
    for number, step in enumerate(steps):
        clock.now += timedelta(seconds=1)
        if isinstance(step, Delete):
            feedback_id = quote(f"{name}/{step.feedback_id}", safe="")
            answer = client.delete(f"/feedback/{feedback_id}", params={"source": step.source})
            assert answer.status_code == httpx.codes.ACCEPTED, (name, answer.text)
            continue
        own = _localize(name, step, 100 * day_number + number)
        content = json.dumps([own.body]).encode("ascii")
        answer = client.post(f"/{step.path}", content=content, headers=BATCH if step.path == "events" else JSON)
        if step.refused:
            assert answer.status_code == httpx.codes.BAD_REQUEST, (name, answer.text)
            assert step.refused in answer.text, (name, answer.text)
        else:
            assert answer.status_code == httpx.codes.ACCEPTED, (name, answer.text)
            assert answer.json()["accepted"] == 1, (name, answer.text)


def _prompts(situation: Situation) -> set[str]:
    """The prompts of a situation as a version holds them."""
    found = set()
    for step in (step for steps in situation.days for step in steps if isinstance(step, Post) and not step.refused):
        prompt = step.body.get("prompt") or step.body.get("data", {}).get("prompt")
        if prompt is not None:
            found.add(encode_prompt(prompt if isinstance(prompt, str) else msgspec.convert(prompt, list[Message]))[0])
    return found


Rows = Mapping[str, Sequence[tuple[str, str, str | None]]]
"""By set of the export: prompt, chosen, rejected."""


Spread = Callable[[Sequence[Sequence[Step]]], Sequence[Sequence[Step]]]
SPREADS: Mapping[str, Spread] = {
    "days as written": lambda days: days,
    "all on one day": lambda days: [[step for steps in days for step in steps]],
    "each on its own day": lambda days: [[step] for steps in days for step in steps],
}


@pytest.fixture(scope="module", params=SPREADS)
def versions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Rows]:
    """All situations in one capture service and one lake; two versions of the same gold."""
    return _cut_versions(tmp_path_factory.mktemp("meant"), SPREADS[request.param])


def _cut_versions(root: Path, spread: Spread) -> Mapping[str, Rows]:
    bench = Workbench(root, limits=BreakerLimits(min_rows=1_000_000))
    clock = Clock(NOON)
    spread_steps = {situation.name: spread(situation.days) for situation in SITUATIONS}
    length = max(map(len, spread_steps.values()))
    with (
        running_capture(bench.landing, [APPLICATION], clock) as capture,
        httpx.Client(base_url=f"{capture.url}/v1/{APPLICATION}", timeout=60) as client,
    ):
        # Of a person on the training side: a version without training rows is not cut.
        client.post("/edits", json=ANCHOR).raise_for_status()
        for number in range(length):
            clock.now = NOON + timedelta(days=number)
            for name, steps in spread_steps.items():
                if number < len(steps):
                    _send(client, name, steps[number], number, clock)
            capture.seal()
    days = [day(number) for number in range(length)]
    assert days[0] == DAY
    bench.ingest_both(days)
    bench.join(days)
    bench.curate(days)
    cut = Versions(bench.root / "versions", APPLICATION)
    found = {}
    for number, (side, rules) in enumerate(SIDES.items(), 1):
        version = f"dpo_gold_v{number}"
        manifest = cut_pair_version(bench.lake, cut, version, rules, "1")
        export = cut.folder(version).export
        found[side] = {
            which.value: [(row.prompt, row.chosen, row.rejected) for row in read_rows(export, manifest, which)]
            for which in map(ExportSet, manifest.files)
        }
        in_gold = bench.lake.read(CURATED_DPO_PAIRS, columns=["pair_id"]).num_rows
        assert sum(map(len, found[side].values())) + sum(manifest.dropped.values()) == in_gold
    return found


def test_the_situations_do_not_share_prompts_or_names() -> None:
    prompts = [prompt for situation in SITUATIONS for prompt in _prompts(situation)]
    assert len(prompts) == len(set(prompts))
    assert len({situation.name for situation in SITUATIONS}) == len(SITUATIONS)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_a_version_holds_what_people_meant(versions: Mapping[str, Rows], situation: Situation) -> None:
    pairs, demonstrations = list(situation.train), [(text, None) for text in situation.demonstrations]
    accepted = [(text, None) for text in situation.accepted]
    expected = {
        "no one held out": {"train": pairs, "accepted": accepted, "demonstrations": demonstrations},
        "nearly all held out": {"holdout": pairs + demonstrations, "regression": accepted},
    }
    prompts = _prompts(situation)
    for side, sets in expected.items():
        found = {
            which: [(chosen, rejected) for prompt, chosen, rejected in rows if prompt in prompts]
            for which, rows in versions[side].items()
        }
        assert {which: sorted(rows, key=str) for which, rows in found.items() if rows} == {
            which: sorted(rows, key=str) for which, rows in sets.items() if rows
        }, side
