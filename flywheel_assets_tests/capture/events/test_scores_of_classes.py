"""Predictions of several classes: the probabilities are checked at the door, and the score follows from them."""

import json
from typing import Any

import msgspec
import pytest

from flywheel_assets.capture.events.scores import decode_event, decode_label, decode_prediction, land_document
from flywheel_assets.capture.events.texts import DecodedEvent, Reception
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets_tests.builders import NOON

CONTRACT = ScoreContract(
    features={"amount": FeatureType.NUMBER},
    classes=("legit", "stolen", "friendly"),
    negative_label="legit",
    mapping=FieldMapping(scores="model.probabilities", score_scale=100),
)
PLAIN = ScoreContract(
    features={"amount": FeatureType.NUMBER}, classes=("legit", "stolen", "friendly"), negative_label="legit"
)
BINARY = ScoreContract(features={"amount": FeatureType.NUMBER})
SCORES = {"friendly": 0.1, "legit": 0.2, "stolen": 0.7}


def line(event: DecodedEvent) -> dict[str, Any]:
    [row] = event.rows
    found: dict[str, Any] = json.loads(row.line)
    return found


def cloud_event(contract: ScoreContract, **data: Any) -> dict[str, Any]:
    event = {"specversion": "1.0", "id": "e", "source": "scorer", "type": "flywheel.prediction"}
    sent = msgspec.json.encode({**event, "data": {"features": {"amount": 1}, **data}})
    return line(decode_event(sent, Reception("disputes", NOON, contract)))


def test_the_score_is_what_is_left_of_the_negative_label() -> None:
    found = cloud_event(PLAIN, scores=SCORES)
    assert found["score"] == pytest.approx(0.8)
    assert json.loads(found["scores"]) == SCORES


def test_a_teams_own_json_names_the_object_and_its_scale() -> None:
    document = {
        "prediction_id": "p",
        "features": {"amount": 1},
        "model": {"probabilities": {"legit": 20, "stolen": 70, "friendly": 10}},
        "label": "stolen",
    }
    sent = msgspec.json.encode(document)
    found = line(decode_prediction(sent, Reception("disputes", NOON, CONTRACT)))
    assert json.loads(found["scores"]) == pytest.approx(SCORES)
    assert line(decode_label(sent, Reception("disputes", NOON, CONTRACT)))["label"] == "stolen"
    # A file's record gives both, by the same checks.
    both = [line(event) for event in land_document(document, Reception("disputes", NOON, CONTRACT), "import:f")]
    assert (both[0]["score"], both[1]["label"]) == (pytest.approx(0.8), "stolen")
    assert CONTRACT.list_unmapped({**document, "score": 1}) == ["score"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({}, "`scores` is missing; valid: an object with the probability of every class"),
        ({"scores": SCORES, "score": 0.8}, "`scores` has a field `score` next to it, which follows from it"),
        ({"score": 0.8}, "`scores` is missing"),
        ({"scores": {"legit": 1.0}}, "`scores` lacks stolen, friendly; valid: a probability of every class"),
        ({"scores": {**SCORES, "other": 0.0}}, "`scores` names 'other'; valid: legit, stolen, friendly"),
        ({"scores": {**SCORES, "legit": 0.3}}, "`scores` sum to 1.100; valid: 1, within 0.01"),
        ({"scores": {**SCORES, "legit": -0.2}}, "`scores` of 'legit' is -0.2; valid: 0 to 1"),
    ],
)
def test_probabilities_that_are_none_are_refused(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        cloud_event(PLAIN, **data)
    assert complaint in str(refused.value)


def test_rounded_probabilities_are_taken() -> None:
    assert cloud_event(PLAIN, scores={"legit": 0.33, "stolen": 0.33, "friendly": 0.33})["score"] == pytest.approx(0.67)


@pytest.mark.parametrize(
    ("data", "complaint"), [({}, "`score` is missing"), ({"score": 0.8, "scores": SCORES}, "next")]
)
def test_two_classes_have_one_score(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidEventError, match=complaint):
        cloud_event(BINARY, **data)
    assert "scores" not in cloud_event(BINARY, score=0.8)


def test_a_word_that_is_no_class_is_no_label() -> None:
    sent = msgspec.json.encode({"prediction_id": "p", "label": True})
    with pytest.raises(InvalidEventError, match="valid: legit, stolen, friendly"):
        decode_label(sent, Reception("disputes", NOON, PLAIN))
