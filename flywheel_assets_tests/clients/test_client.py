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
from flywheel_client import Answer, DeliveryLimits, FlywheelClient, Interaction, is_sampled

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
    assert feedback[2]["event_id"] == feedback[3]["event_id"]
    edited = feedback[1]
    assert json.loads(edited["prompt"]) == messages
    assert (edited["final_text"], edited["user_id"], edited["thread_id"]) == ("Like this.", "ada", "t-1")
    assert edited["source"] == "desk"


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


def test_what_waits_at_exit_is_delivered(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"]) as capture:
        code = (
            "from flywheel_client import FlywheelClient\n"
            f"client = FlywheelClient({capture.url!r}, 'assistant')\n"
            "with client.interaction('How?', 'Thus.') as held: held.edited('So.')\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [row["final_text"] for row in landed(tmp_path, "feedback")] == ["So."]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_an_unusable_share_is_refused_when_the_client_is_made(share: float) -> None:
    with pytest.raises(ValueError, match="more than 0, at most 1"):
        FlywheelClient("http://127.0.0.1:8700", "assistant", positive_share=share)
