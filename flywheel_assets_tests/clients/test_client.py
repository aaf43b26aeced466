"""The Python client against the real service: what each kind of interaction leaves in the landing zone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.capture.service import running_capture
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets_tests.capture.samples import NOON, landed
from flywheel_client import Answer, DeliveryLimits, FlywheelClient, Interaction, Output, is_sampled

IN_THE_SAMPLE = next(f"p-{number}" for number in range(10_000) if is_sampled(f"p-{number}", 0.01))
NOT_IN_THE_SAMPLE = next(f"p-{number}" for number in range(10_000) if not is_sampled(f"p-{number}", 0.01))


class Recording:
    """A transport that accepts everything and keeps it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def post(self, body: bytes) -> Answer:
        self.events += json.loads(body)
        return Answer(202)

    def close(self) -> None:
        pass


class Turn:
    """A message as the packages of model providers give it: an object with fields, many of them empty."""

    def __init__(self, **fields: Any) -> None:
        self.fields = {"refusal": None, "audio": None, "annotations": [], **fields}

    def model_dump(self) -> dict[str, Any]:
        return self.fields


class Broken:
    """A message that cannot be read."""

    def model_dump(self) -> dict[str, Any]:
        raise RuntimeError


def sent(use: Callable[[FlywheelClient], object], *, failures: int = 0) -> list[dict[str, Any]]:
    """The events that these calls send."""
    transport = Recording()
    with FlywheelClient("http://unused", "assistant", source="desk", transport=transport) as client:
        use(client)
        assert client.flush(20)
        assert client.counts().failures == failures
    return transport.events


def outcome(use: Callable[[Interaction], object], prediction_id: str = NOT_IN_THE_SAMPLE, **context: Any) -> list[Any]:
    """The events that an interaction is worth, as (kind or signal, data)."""
    transport = Recording()
    with FlywheelClient("http://unused", "assistant", transport=transport) as client:
        with client.interaction("How?", "Thus.", prediction_id=prediction_id, **context) as interaction:
            use(interaction)
            assert transport.events == [], "the interaction is not over"
        assert client.flush(20)
        assert client.counts().failures == 0
    return [(event["data"].get("signal", "prediction"), event["data"]) for event in transport.events]


def signals(events: list[Any]) -> list[str]:
    return [signal for signal, _ in events]


def test_an_edit_is_always_sent_and_carries_its_texts() -> None:
    [(signal, data)] = outcome(lambda held: [held.edited("Like"), held.edited("Like this.")], user_id="ada")
    assert signal == "edit"
    assert data == {
        "prediction_id": NOT_IN_THE_SAMPLE,
        "signal": "edit",
        "user_id": "ada",
        "prompt": "How?",
        "original_output": "Thus.",
        "final_text": "Like this.",
    }


@pytest.mark.parametrize(
    ("use", "sent"),
    [
        (lambda held: None, []),
        (lambda held: held.edited("Thus."), []),
        (lambda held: held.copied(), []),
        (lambda held: held.accepted(), []),
        (lambda held: held.thumbs_up(), []),
        (lambda held: held.rated(0.8), []),
        (lambda held: held.rated(0.79), ["prediction", "rating"]),
        (lambda held: held.thumbs_down(), ["prediction", "thumb"]),
        (lambda held: held.regenerated(), ["prediction", "regenerate"]),
        (lambda held: held.commented("wrong"), ["prediction", "comment"]),
        (lambda held: [held.copied(), held.regenerated()], ["prediction", "copy", "regenerate"]),
        (lambda held: [held.thumbs_down(), held.thumbs_up()], []),
        (lambda held: [held.copied(), held.edited("Else.")], ["edit"]),
        (lambda held: [held.edited("Else."), held.edited("Thus."), held.copied()], []),
        (lambda held: [held.edited("Else."), held.accepted(), held.rated(0.9)], ["prediction", "rating", "edit"]),
    ],
)
def test_what_is_sent_of_a_prediction_outside_the_sample(use: Callable[[Interaction], object], sent: list[str]) -> None:
    assert signals(outcome(use)) == sent


@pytest.mark.parametrize(
    "use", [Interaction.copied, Interaction.accepted, Interaction.thumbs_up, lambda held: held.rated(0.9)]
)
def test_approval_in_the_sample_is_sent_with_its_probability(use: Callable[[Interaction], object]) -> None:
    (first, prediction), (_, approval) = outcome(use, IN_THE_SAMPLE)
    assert (first, prediction["output"]) == ("prediction", "Thus.")
    assert approval["sampling_probability"] == 0.01
    assert "final_text" not in approval


def test_a_rating_of_an_edited_text_says_so() -> None:
    """Without the final text the gate took a five-star rating of the user's text for one of the model's."""
    events = dict(outcome(lambda held: [held.edited("Else."), held.rated(1.0)]))
    assert events["rating"]["final_text"] == "Else."
    assert "sampling_probability" not in events["rating"]


def test_only_the_first_end_counts_and_nothing_after_it() -> None:
    def use(held: Interaction) -> None:
        held.regenerated()
        held.end()
        held.end()
        held.commented("late")

    transport = Recording()
    with FlywheelClient("http://unused", "assistant", transport=transport) as client:
        use(client.interaction("How?", "Thus."))
    assert [event["data"].get("signal") for event in transport.events] == [None, "regenerate"]


def test_an_exception_in_the_block_ends_the_interaction_and_goes_on() -> None:
    def product_code(client: FlywheelClient) -> None:
        with client.interaction("How?", "Thus.") as held:
            held.edited("Else.")
            raise KeyError

    transport = Recording()
    client = FlywheelClient("http://unused", "assistant", transport=transport)
    with pytest.raises(KeyError):
        product_code(client)
    client.close()
    assert len(transport.events) == 1


def test_interactions_are_counted_by_how_they_ended() -> None:
    with FlywheelClient("http://unused", "assistant", transport=Recording()) as client:
        for use in (Interaction.copied, Interaction.regenerated, lambda held: None):
            with client.interaction("How?", "Thus.", prediction_id=NOT_IN_THE_SAMPLE) as held:
                use(held)
    counts = client.counts()
    assert (counts.interactions_sent, counts.interactions_sampled_out, counts.interactions_only_read) == (1, 1, 1)
    assert counts.delivery.accepted == 2


@pytest.mark.parametrize(
    "misuse",
    [
        lambda client: client.interaction(None, None).end(),
        lambda client: client.interaction("a", "b", prediction_id=7).copied(),
        lambda client: client.interaction("a", "b").rated("five stars"),
        lambda client: client.interaction("a", "b").rated(5),
        lambda client: client.prediction(object(), object(), prediction_id=object()),
        lambda client: client.feedback("p", "edit", object()),
        lambda client: client.label(None, None),
        lambda client: client.label("p", "fraud", known_at="yesterday"),
        lambda client: client.scored_prediction(7, None, prediction_id=None),
        lambda client: client.interaction([object()], object(), thread_id=["t"], tools=[object()]).end(),
        lambda client: client.interaction([Broken()], Broken()).edited(Broken()),
        lambda client: client.edit_session("a", Broken(), revision="one").save(object()),
        lambda client: client.regenerate(None, None),
        lambda client: client.choose("a", "b"),
        lambda client: client.demonstrate(Broken(), Broken()),
        lambda client: client.retract(),
        lambda client: client.retract(feedback_id=7),
        lambda client: client.feedback(None, "thumb", {"value": 1.0}),
    ],
)
def test_no_misuse_raises_into_the_product(misuse: Callable[[Any], object]) -> None:
    with FlywheelClient("http://127.0.0.1:1", "assistant", limits=DeliveryLimits(linger_s=0.0)) as client:
        misuse(client)
        client.close(0.0)


def test_everything_lands(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "How?"}]
    with running_capture(tmp_path, ["assistant"]) as capture:
        with FlywheelClient(capture.url, "assistant", source="desk") as client:
            with client.interaction(messages, "Thus.", user_id="ada", thread_id="t-1", model_version="m-1") as held:
                held.edited("Like this.")
                held.thumbs_down()
            client.prediction("What?", "That.", prediction_id="logged", do_not_train=True)
            client.label("logged", "fraud", event_id="label-1")
            client.label("logged", "fraud", event_id="label-1")
            assert client.flush(20)
        assert client.counts().delivery.dropped == 0
        assert client.counts().delivery.accepted == 6
    predictions, feedback = landed(tmp_path, "prediction"), landed(tmp_path, "feedback")
    assert [(row["output"], row["do_not_train"]) for row in predictions] == [("Thus.", False), ("That.", True)]
    assert [row["signal"] for row in feedback] == ["thumb", "edit", "label", "label"]
    # Reported twice, at two times: one statement.
    assert feedback[2]["statement_id"] == feedback[3]["statement_id"]
    edited = feedback[1]
    assert json.loads(edited["prompt"]) == messages
    assert (edited["final_text"], edited["user_id"], edited["thread_id"]) == ("Like this.", "ada", "t-1")
    assert edited["source"] == "desk"


def test_what_people_mean_lands(tmp_path: Path) -> None:
    """Every call that revises, compares, shows or takes back, against the real service."""
    answer = Turn(role="assistant", content="On.", tool_calls=[CALL], reasoning_content="They ask.")
    with running_capture(tmp_path, ["assistant"]) as capture:
        with FlywheelClient(capture.url, "assistant", source="desk") as client:
            client.prediction(TURNS, answer, prediction_id="p", tools=TOOLS, thread_id="t")
            session = client.edit_session(
                TURNS, answer, prediction_id="p", tools=TOOLS, user_id="ada", edit_id="p/draft"
            )
            session.save("It is")
            session.save("It is on.")
            first, second = Output("p", answer), Output("q", "All on.")
            client.regenerate(first, second, prompt=TURNS, user_id="ada")
            client.choose(second, first, prompt=TURNS, user_id="ada")
            client.demonstrate("How?", "Just so.", user_id="ada")
            client.feedback(None, "thumb", {"value": -1.0, "final_text": "Off."}, thread_id="t")
            client.retract(prediction_id="p", user_id="ada")
            client.retract(feedback_id="p/draft")
            assert client.flush(20)
        counts = client.counts()
    assert (counts.delivery.accepted, counts.delivery.dropped, counts.failures) == (9, 0, 0), counts
    [prediction], rows = landed(tmp_path, "prediction"), landed(tmp_path, "feedback")
    assert json.loads(prediction["tools"]) == TOOLS
    assert json.loads(prediction["output_message"])["reasoning_content"] == "They ask."
    first_save, second_save, regenerate, choice, demonstration, thumb, all_of_p, one = rows
    assert first_save["statement_id"] == second_save["statement_id"] == one["retracts"]
    assert first_save["event_id"] != second_save["event_id"]
    assert [row["revision"] for row in (first_save, second_save)] == [1, 2]
    assert json.loads(second_save["final_message"])["content"] == "It is on."
    assert (regenerate["prediction_id"], regenerate["sibling_id"], regenerate["final_text"]) == ("p", "q", "All on.")
    assert (choice["prediction_id"], choice["sibling_id"], choice["final_text"]) == ("q", "p", "All on.")
    assert (demonstration["signal"], demonstration["final_text"]) == ("demonstration", "Just so.")
    assert (thumb["prediction_id"], thumb["thread_id"], thumb["final_text"]) == ("p", "t", "Off.")
    assert (all_of_p["signal"], all_of_p["prediction_id"], all_of_p["user_id"]) == ("retract", "p", "ada")


def test_decisions_of_a_classifier_and_their_late_labels_land(tmp_path: Path) -> None:
    contract = ScoreContract(features={"distance": FeatureType.NUMBER, "country": FeatureType.TEXT})
    with running_capture(tmp_path, {"fraud": contract}) as capture:
        with FlywheelClient(capture.url, "fraud") as client:
            features = {"distance": 4.2, "country": None}
            client.scored_prediction(features, 0.7, prediction_id="t-1", user_id="card-1", amount=12.5, action="allow")
            client.label("t-1", True, labeling_source="analyst", known_at=NOON)
            assert client.flush(20)
        assert client.counts().delivery.accepted == 2
    [decision], [label] = landed(tmp_path, "prediction", "fraud"), landed(tmp_path, "feedback", "fraud")
    assert (decision["prediction_id"], decision["score"], decision["amount"]) == ("t-1", 0.7, 12.5)
    assert json.loads(decision["features"]) == features
    assert (label["prediction_id"], label["label"], label["labeling_source"]) == ("t-1", "true", "analyst")
    assert label["known_at"].startswith("2026-03-02T12:00:00")


def test_decisions_between_several_classes_land_with_their_probabilities(tmp_path: Path) -> None:
    classes = ("legit", "stolen", "friendly")
    contract = ScoreContract(features={"distance": FeatureType.NUMBER}, classes=classes, negative_label="legit")
    scores = {"legit": 0.2, "stolen": 0.7, "friendly": 0.1}
    with running_capture(tmp_path, {"disputes": contract}) as capture:
        with FlywheelClient(capture.url, "disputes") as client:
            client.scored_prediction({"distance": 4.2}, prediction_id="t-1", scores=scores)
            client.label("t-1", "friendly", labeling_source="analyst")
            assert client.flush(20)
        assert client.counts().delivery.accepted == 2
    [decision], [label] = landed(tmp_path, "prediction", "disputes"), landed(tmp_path, "feedback", "disputes")
    assert (json.loads(decision["scores"]), decision["score"]) == (scores, pytest.approx(0.8))
    assert label["label"] == "friendly"


def test_what_waits_at_exit_is_delivered(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"]) as capture:
        code = (
            "from flywheel_client import FlywheelClient\n"
            f"client = FlywheelClient({capture.url!r}, 'assistant')\n"
            "with client.interaction('How?', 'Thus.') as held: held.edited('So.')\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [row["final_text"] for row in landed(tmp_path, "feedback")] == ["So."]


CALL = {"id": "call-1", "type": "function", "function": {"name": "lights", "arguments": '{"room": "hall"}'}}
TOOLS = [{"type": "function", "function": {"name": "lights", "parameters": {"type": "object"}}}]
TURNS = [
    {"role": "system", "content": "Be brief.", "name": "desk"},
    {"role": "user", "content": [{"type": "text", "text": "On?"}, {"type": "image_url", "image_url": {"url": "x"}}]},
    Turn(role="assistant", content=None, reasoning_content="They ask.", tool_calls=[Turn(**CALL)]),
    {"role": "tool", "tool_call_id": "call-1", "name": "lights", "content": "All on."},
]
DUMPED_CALL = {"refusal": None, "audio": None, "annotations": [], **CALL}
SENT_TURNS = [
    *TURNS[:2],
    {"role": "assistant", "reasoning_content": "They ask.", "tool_calls": [DUMPED_CALL]},
    TURNS[3],
]


def test_a_conversation_is_sent_with_its_parts_calls_names_and_reasoning() -> None:
    """Tool calls, parts and null content were refused, although they are what the model was shown."""
    answer = Turn(role="assistant", content="They are on.")
    [event] = sent(lambda client: client.prediction(TURNS, answer, prediction_id="p", tools=TOOLS))
    assert event["data"] == {"prompt": SENT_TURNS, "output": "They are on.", "prediction_id": "p", "tools": TOOLS}


@pytest.mark.parametrize(
    ("output", "on_the_wire"),
    [
        ("text", "text"),
        ({"role": "assistant", "content": "text"}, "text"),
        ({"content": "text", "refusal": None}, "text"),
        (Turn(role="assistant", content="text"), "text"),
        (Turn(role="assistant", content=None, tool_calls=[CALL]), {"role": "assistant", "tool_calls": [CALL]}),
        (
            {"role": "assistant", "content": "text", "reasoning_content": "why"},
            {"role": "assistant", "content": "text", "reasoning_content": "why"},
        ),
        (
            {"content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        ),
    ],
)
def test_an_output_is_text_or_a_message_where_its_text_does_not_say_everything(output: Any, on_the_wire: Any) -> None:
    [event] = sent(lambda client: client.prediction("How?", output, prediction_id="p"))
    assert event["data"]["output"] == on_the_wire


def test_a_conversation_that_goes_on_does_not_change_what_was_asked() -> None:
    turns = [{"role": "user", "content": "How?"}]

    def use(client: FlywheelClient) -> None:
        with client.interaction(turns, "Thus.") as held:
            turns[0]["content"] = "else"
            turns.append({"role": "assistant", "content": "Thus."})
            held.edited("So.")

    [event] = sent(use)
    assert event["data"]["prompt"] == [{"role": "user", "content": "How?"}]


def test_a_person_who_edits_a_message_leaves_its_tool_calls() -> None:
    output = {"role": "assistant", "content": "Lights on.", "tool_calls": [CALL], "reasoning_content": "why"}

    def use(client: FlywheelClient) -> None:
        with client.interaction("On?", output, tools=TOOLS) as held:
            held.edited("The lights are on.")
        with client.interaction("On?", output) as read:
            read.edited("Lights on.")
        with client.interaction("On?", output) as called:
            called.edited({"content": "Lights on.", "tool_calls": []})

    edit, without_call = sent(use)
    assert edit["data"]["final_text"] == {**output, "content": "The lights are on."}
    assert (edit["data"]["original_output"], edit["data"]["tools"]) == (output, TOOLS)
    assert without_call["data"]["final_text"]["tool_calls"] == []


def test_saved_texts_are_revisions_of_one_edit_and_an_undo_is_the_last_of_them() -> None:
    """The same id with newer text was a duplicate: the half-written text was trained on, the final one was lost."""

    def use(client: FlywheelClient) -> None:
        session = client.edit_session("Say hello", "Hello.", prediction_id="p", user_id="ada")
        session.save("Hello.")
        session.save("Hello, ev")
        session.save("Hello, ev")
        session.save("Hello, everybody.")
        session.undo()
        assert session.revision == 3
        client.edit_session("Say hello", "Hello.", prediction_id="p", edit_id=session.edit_id, revision=3).save("Hi.")

    events = sent(use)
    assert [(event["data"]["final_text"], event["data"]["revision"]) for event in events] == [
        ("Hello, ev", 1),
        ("Hello, everybody.", 2),
        ("Hello.", 3),
        ("Hi.", 4),
    ]
    assert len({event["id"] for event in events}) == 1
    assert {event["data"]["original_output"] for event in events} == {"Hello."}


def test_two_people_with_one_output_make_two_statements() -> None:
    """Their events shared an id: what the second person said was taken for a repetition of the first."""

    def use(client: FlywheelClient) -> None:
        for user in ("ada", "bob"):
            with client.interaction("How?", "Thus.", prediction_id="p", user_id=user) as held:
                held.edited(f"So says {user}.")

    assert len({event["id"] for event in sent(use)}) == 2


def test_a_second_answer_is_sent_with_its_sibling_and_its_approval_always() -> None:
    """The regeneration named one answer only, and the approval of the other was sampled out: never a comparison."""

    def use(client: FlywheelClient) -> None:
        first = client.interaction("How?", "Thus.", prediction_id="first", user_id="ada")
        second = {"prediction_id": NOT_IN_THE_SAMPLE, "user_id": "ada", "regenerates": first}
        with client.interaction("How?", "So.", **second) as held:
            held.accepted()
        first.end()

    prediction, regenerate, second, accept = (event["data"] for event in sent(use))
    assert (prediction["prediction_id"], second["prediction_id"]) == ("first", NOT_IN_THE_SAMPLE)
    assert regenerate == {
        "prediction_id": "first",
        "signal": "regenerate",
        "user_id": "ada",
        "sibling_id": NOT_IN_THE_SAMPLE,
        "prompt": "How?",
        "original_output": "Thus.",
        "final_text": "So.",
    }
    assert accept == {"prediction_id": NOT_IN_THE_SAMPLE, "signal": "accept", "user_id": "ada"}


def test_servers_that_log_everything_send_regenerations_choices_and_demonstrations() -> None:
    def use(client: FlywheelClient) -> None:
        first, second = Output("one", "Thus."), Output("two", {"content": None, "tool_calls": [CALL]})
        client.regenerate(first, second, prompt="How?", user_id="ada")
        client.choose(second, Output(None, "Thus."), prompt="How?", tools=TOOLS, user_id="ada")
        client.choose(client.interaction("How?", "A."), client.interaction("How?", "B."), thread_id="t")
        client.demonstrate(TURNS, "Just so.", user_id="ada", event_id="d-1")

    events = sent(use)
    regenerate, choice, of_interactions, demonstration = (event["data"] for event in events)
    message = {"role": "assistant", "tool_calls": [CALL]}
    texts = {"prompt": "How?", "original_output": "Thus.", "final_text": message}
    assert regenerate == {
        "prediction_id": "one",
        "signal": "regenerate",
        "user_id": "ada",
        "sibling_id": "two",
        **texts,
    }
    assert choice == {"prediction_id": "two", "signal": "choice", "user_id": "ada", "tools": TOOLS, **texts}
    assert (of_interactions["prompt"], of_interactions["final_text"], of_interactions["original_output"]) == (
        "How?",
        "A.",
        "B.",
    )
    assert {"prediction_id", "sibling_id"} <= set(of_interactions)
    assert demonstration == {
        "signal": "demonstration",
        "user_id": "ada",
        "prompt": SENT_TURNS,
        "final_text": "Just so.",
    }
    assert events[3]["id"] == "d-1"


def test_a_retraction_names_an_output_or_one_statement_and_keeps_its_place() -> None:
    def use(client: FlywheelClient) -> None:
        client.feedback("p", "thumb", {"value": 1.0}, event_id="f-1", revision=2, user_id="ada")
        client.retract(feedback_id="f-1")
        client.retract(feedback_id="f-2", source="crm")
        client.retract(prediction_id="p", user_id="ada")

    thumb, own, other, output = sent(use)
    assert thumb["data"]["revision"] == 2
    assert (own["source"], own["data"]) == ("desk", {"signal": "retract", "retracts": "f-1"})
    assert (other["source"], other["data"]) == ("crm", {"signal": "retract", "retracts": "f-2"})
    assert output["data"] == {"prediction_id": "p", "signal": "retract", "user_id": "ada"}


def test_feedback_on_a_conversation_marks_its_last_answer_and_keeps_the_thread() -> None:
    def use(client: FlywheelClient) -> None:
        client.prediction("One?", "1", prediction_id="one", thread_id="t")
        client.interaction("Two?", "2", prediction_id="two", thread_id="t").end()
        client.interaction("Else?", "3", prediction_id="else", thread_id="u").end()
        for value in (-1.0, 1.0):
            client.feedback(None, "thumb", {"value": value}, thread_id="t", user_id="ada")

    events = sent(use)
    assert [(event["data"]["prediction_id"], event["data"].get("signal")) for event in events] == [
        ("one", None),
        ("two", None),  # only read until now, and needed now
        ("two", "thumb"),
        ("two", "thumb"),
    ]
    assert {event["data"]["thread_id"] for event in events} == {"t"}


def test_feedback_on_an_unknown_conversation_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    assert sent(lambda client: client.feedback(None, "thumb", {"value": 1.0}, thread_id="t"), failures=1) == []
    assert "pass prediction_id, or report the answer first with the same thread_id" in caplog.text


def test_the_memory_of_conversations_is_bounded() -> None:
    def use(client: FlywheelClient) -> None:
        for number in range(1_001):
            client.interaction("?", "!", prediction_id=f"p-{number}", thread_id=f"t-{number}").end()
        for name in ("long", "longer", "longest"):
            client.interaction("?", "long" * 700_000, prediction_id=name, thread_id=name).end()
        for thread in ("t-0", "t-1000", "long", "longest"):
            client.feedback(None, "copy", thread_id=thread)

    events = sent(use, failures=3)
    assert [event["data"]["prediction_id"] for event in events] == ["longest", "longest"]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_an_unusable_share_is_refused_when_the_client_is_made(share: float) -> None:
    with pytest.raises(ValueError, match="more than 0, at most 1"):
        FlywheelClient("http://127.0.0.1:8700", "assistant", positive_share=share)
