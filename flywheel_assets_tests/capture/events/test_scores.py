"""A classifier's predictions and labels: the documented JSON as it stands, CloudEvents, and what is refused and how."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zstandard

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, create_key
from flywheel_assets.capture.events.scores import (
    decode_event,
    decode_label,
    decode_prediction,
    decode_text_edit,
    land_document,
)
from flywheel_assets.capture.events.texts import DecodedEvent, Reception
from flywheel_assets.capture.service import running_capture
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.errors import InvalidEventError, SettingsError
from flywheel_assets.lake.daily._landed_files import LandedFile, read_lines
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, RAW_SCORES
from flywheel_assets_tests.builders import NOON

CONTRACT = ScoreContract(
    features={"avg_transaction_amount_last_7d": FeatureType.NUMBER, "country": FeatureType.TEXT},
    mapping=FieldMapping(
        key="transaction_id",
        score="prediction.fraud_probability",
        label="ground_truth.is_fraud",
        labeling_source="ground_truth.labeling_source",
        label_time="ground_truth.timestamp",
        entity="card",
    ),
)
FRAUD = Reception("fraud", NOON, CONTRACT)
TEXT = Reception("assistant", NOON)
# As the issue and the README show them.
PREDICTION: dict[str, Any] = {
    "transaction_id": "txn_12345abc",
    "prediction": {"fraud_probability": 0.62},
    "features": {"avg_transaction_amount_last_7d": 75.20, "country": "NL"},
}
LABEL: dict[str, Any] = {
    "transaction_id": "txn_12345abc",
    "ground_truth": {
        "is_fraud": True,
        "labeling_source": "user_dispute_confirmed_by_analyst",
        "timestamp": "2023-10-28T09:00:00Z",
    },
}


def line(event: DecodedEvent) -> dict[str, Any]:
    [row] = event.rows
    found: dict[str, Any] = json.loads(row.line)
    return found


def prediction(document: dict[str, Any], reception: Reception = FRAUD) -> dict[str, Any]:
    return line(decode_prediction(msgspec.json.encode(document), reception))


def label(document: dict[str, Any], reception: Reception = FRAUD) -> dict[str, Any]:
    return line(decode_label(msgspec.json.encode(document), reception))


def cloud_event(kind: str, data: dict[str, Any], **more: Any) -> bytes:
    envelope = {"specversion": "1.0", "id": "e1", "source": "scorer", "type": f"flywheel.{kind}", "data": data}
    return msgspec.json.encode({**envelope, **more})


def test_the_documented_prediction_is_read_as_it_stands() -> None:
    found = prediction({**PREDICTION, "card": "card-9", "amount": 120, "extra": {"is": "not stored"}})
    assert (found["prediction_id"], found["score"], found["user_id"]) == ("txn_12345abc", 0.62, "card-9")
    assert json.loads(found["features"]) == PREDICTION["features"]
    assert (found["amount"], found["source"]) == (120.0, "predictions-api")
    assert "extra" not in json.dumps(found)


def test_the_documented_label_is_read_as_it_stands() -> None:
    found = label(LABEL)
    assert (found["prediction_id"], found["signal"], found["label"]) == ("txn_12345abc", "label", "true")
    assert found["labeling_source"] == "user_dispute_confirmed_by_analyst"
    assert found["occurred_at"] == "2023-10-28T09:00:00.000000Z"


def test_a_label_sent_again_is_the_same_event_and_another_one_is_not() -> None:
    other = {**LABEL, "ground_truth": {**LABEL["ground_truth"], "is_fraud": False}}
    assert label(LABEL)["event_id"] == label(LABEL)["event_id"] != label(other)["event_id"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"features": {"country": "NL"}}, "feature `avg_transaction_amount_last_7d` is missing; valid: a number"),
        (
            {"features": {"avg_transaction_amount_last_7d": "75", "country": "NL"}},
            "feature `avg_transaction_amount_last_7d` is a text; valid: a number or null",
        ),
        (
            {"features": {"avg_transaction_amount_last_7d": True, "country": "NL"}},
            "feature `avg_transaction_amount_last_7d` is a boolean; valid: a number or null",
        ),
        (
            {"features": {"avg_transaction_amount_last_7d": 1, "country": ["NL"]}},
            "feature `country` is a list; valid: a text or null",
        ),
        ({"features": None}, "`features` is missing"),
        ({"prediction": {"fraud_probability": 1.2}}, "`prediction.fraud_probability` is 1.2; valid: 0 to 1"),
        ({"prediction": {"fraud_probability": 62.5}}, r"is 62\.5; valid: 0 to 1; .* FieldMapping\(score_scale=100\)"),
        ({"features": None, "country": "NL"}, r"`features` is missing, but .* FieldMapping\(features=None\)"),
        ({"prediction": {}}, "`prediction.fraud_probability` is missing"),
        ({"prediction": 0.62}, "`prediction.fraud_probability` is missing"),
        ({"transaction_id": ""}, "`transaction_id` has 0 characters; valid: 1 to 1024"),
        ({"allow_propensity": 0}, "`allow_propensity` is 0; valid: more than 0 to 1"),
        ({"occurred_at": (NOON + timedelta(days=3)).isoformat()}, "occurred_at is 2026-03-05"),
    ],
)
def test_a_wrong_prediction_is_refused_with_the_field_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidEventError, match=complaint):
        prediction({**PREDICTION, **change})


@pytest.mark.parametrize(
    ("truth", "complaint"),
    [
        ({"is_fraud": "maybe"}, "`ground_truth.is_fraud` is 'maybe'; valid: true, false"),
        ({}, "`ground_truth.is_fraud` is missing"),
        ({"is_fraud": 1}, "`ground_truth.is_fraud` is '?1'?; valid: true, false; declare"),
        (
            {"is_fraud": True, "timestamp": "yesterday"},
            "`ground_truth.timestamp` is 'yesterday'; valid: a time",
        ),
    ],
)
def test_a_wrong_label_is_refused_with_the_field_named(truth: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidEventError, match=complaint):
        label({"transaction_id": "t", "ground_truth": truth})


def test_a_missing_value_is_null_and_allowed() -> None:
    nulls = dict.fromkeys(CONTRACT.features)
    assert json.loads(prediction({**PREDICTION, "features": nulls})["features"]) == nulls


def test_cloud_events_carry_features_and_labels() -> None:
    data = {"features": PREDICTION["features"], "score": 0.1, "segment": "web", "action": "block"}
    scored = line(decode_event(cloud_event("prediction", data, subject="card-1"), FRAUD))
    assert (scored["prediction_id"], scored["user_id"], scored["action"]) == ("e1", "card-1", "block")
    data = {"prediction_id": "e1", "signal": "label", "label": False, "labeling_source": "analyst"}
    labelled = line(decode_event(cloud_event("feedback", {**data, "known_at": NOON.isoformat()}), FRAUD))
    assert (labelled["label"], labelled["labeling_source"]) == ("false", "analyst")
    assert labelled["known_at"] == "2026-03-02T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("decode", "element", "reception", "complaint"),
    [
        (decode_text_edit, b"{}", FRAUD, "fraud is a classification application: send its predictions to"),
        (decode_prediction, b"{}", TEXT, "assistant is no classification application"),
        (decode_label, b"{}", TEXT, "assistant is no classification application"),
        (decode_event, cloud_event("prediction", {"prompt": "p", "output": "o"}), FRAUD, "unknown field `prompt`"),
        (
            decode_event,
            cloud_event("feedback", {"prediction_id": "p", "signal": "edit", "final_text": "t"}),
            FRAUD,
            "signal 'edit' is about a text",
        ),
        (
            decode_event,
            cloud_event("feedback", {"prediction_id": "p", "signal": "thumb", "value": 1, "labeling_source": "x"}),
            FRAUD,
            "signal 'thumb' cannot carry `labeling_source`",
        ),
        (decode_event, cloud_event("prediction", {}, source="reviewer"), TEXT, "data"),
        (
            decode_event,
            cloud_event("prediction", {"features": PREDICTION["features"], "score": 0.5}, source="reviewer"),
            FRAUD,
            "source 'reviewer' is reserved",
        ),
    ],
)
def test_what_belongs_to_the_other_kind_of_application_is_refused(
    decode: Any, element: bytes, reception: Reception, complaint: str
) -> None:
    with pytest.raises(InvalidEventError, match=complaint):
        decode(element, reception)


def test_both_examples_over_http_become_lines_that_the_lake_reads(tmp_path: Path) -> None:
    applications = {"fraud": CONTRACT, "assistant": None}
    with running_capture(tmp_path, applications, clock=lambda: NOON) as capture:
        for path, document in (("predictions", PREDICTION), ("labels", LABEL)):
            answer = httpx.post(f"{capture.url}/v1/fraud/{path}", json=[document])
            assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text
        refused = httpx.post(f"{capture.url}/v1/fraud/predictions", json={**PREDICTION, "features": {}})
        assert refused.status_code == 400
        assert "avg_transaction_amount_last_7d" in refused.json()["results"][0]["error"]
    for kind, spec in (("prediction", RAW_SCORES), ("feedback", GROUND_TRUTH)):
        segments = sorted((tmp_path / "fraud" / kind).rglob("received_date=*/*.jsonl"))
        with LandedFile(tmp_path / f"{kind}.parquet", spec, NOON.date()) as file:
            found = read_lines(segments, file)
        assert (found.events, found.refused) == (1, ())


TABLE = ScoreContract(
    features={"amount": FeatureType.NUMBER, "night": FeatureType.BOOLEAN, "country": FeatureType.TEXT},
    mapping=FieldMapping(
        key="tx",
        score="score_percent",
        features=None,
        label="outcome",
        prediction_time="decided",
        amount="value",
        positive_words=("1", "Y", "Fraud"),
        negative_words=("0", "N", "Legit"),
        time_zone="Europe/Berlin",
        numbers_as_text=True,
        booleans_as_numbers=True,
        score_scale=100,
    ),
)
ROW: dict[str, Any] = {
    "tx": 17,
    "score_percent": "62",
    "amount": "150.75",
    "night": 1,
    "country": "NL",
    "decided": "2026-03-01 12:30:00",
    "outcome": 1,
    "batch": "b-7",
}


def land(row: dict[str, Any], contract: ScoreContract = TABLE) -> list[dict[str, Any]]:
    return [line(event) for event in land_document(row, Reception("fraud", NOON, contract), "import:tx.csv")]


def test_a_wide_row_of_a_table_gives_its_prediction_and_its_label() -> None:
    scored, labelled = land(ROW)
    assert (scored["prediction_id"], scored["score"], scored["source"]) == ("17", 0.62, "import:tx.csv")
    assert json.loads(scored["features"]) == {"amount": 150.75, "night": True, "country": "NL"}
    assert scored["occurred_at"] == "2026-03-01T11:30:00.000000Z"
    assert (labelled["prediction_id"], labelled["label"]) == ("17", "true")
    assert TABLE.list_unmapped(ROW) == ["batch"]


@pytest.mark.parametrize("outcome", [None, ""])
def test_an_empty_label_is_not_given_yet(outcome: str | None) -> None:
    assert len(land({**ROW, "outcome": outcome})) == 1
    assert land({"tx": 17, "outcome": outcome}) == []


@pytest.mark.parametrize(
    ("outcome", "word"), [(0, "false"), (1.0, "true"), ("fraud", "true"), ("Legit", "false"), ("n", "false")]
)
def test_declared_words_are_labels(outcome: object, word: str) -> None:
    assert land({"tx": 17.0, "outcome": outcome})[0]["label"] == word


@pytest.mark.parametrize(
    ("decided", "stored"),
    [
        (1772366400, "2026-03-01T12:00:00.000000Z"),
        (1772366400500, "2026-03-01T12:00:00.500000Z"),
        ("2026-03-01T12:00:00+00:00", "2026-03-01T12:00:00.000000Z"),
        ("2025-10-26T02:30:00", "2025-10-26T00:30:00.000000Z"),
    ],
    ids=["seconds", "milliseconds", "zone", "the first of an hour that comes twice"],
)
def test_times_are_read_as_declared(decided: object, stored: str) -> None:
    assert land({**ROW, "decided": decided})[0]["occurred_at"] == stored


def test_an_hour_that_never_was_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="Europe/Berlin skipped"):
        land({**ROW, "decided": "2025-03-30T02:30:00"})


def with_mapping(**changes: Any) -> ScoreContract:
    return replace(TABLE, mapping=replace(TABLE.mapping, **changes))


def test_a_declared_pattern_decides_over_a_time_of_digits_only() -> None:
    """With numbers as text, "20260301" was read as seconds: August 1970, long before the earliest time."""
    days = with_mapping(time_format="%Y%m%d", time_zone="UTC")
    assert land({**ROW, "decided": "20260301"}, days)[0]["occurred_at"] == "2026-03-01T00:00:00.000000Z"
    [scored, _] = land({**ROW, "decided": "01.03.2026 12:30"}, with_mapping(time_format="%d.%m.%Y %H:%M"))
    assert scored["occurred_at"] == "2026-03-01T11:30:00.000000Z"
    with pytest.raises(InvalidEventError, match="valid: a time as '%Y%m%d'"):
        land({**ROW, "decided": "2026-03-01"}, days)
    assert land({**ROW, "decided": "1772366400"})[0]["occurred_at"] == "2026-03-01T12:00:00.000000Z"


@pytest.mark.parametrize(("written", "amount"), [("1.234,5", 1234.5), ("-0,25", -0.25), ("7", 7.0), (" 12,0 ", 12.0)])
def test_a_comma_is_a_decimal_point_where_it_is_declared(written: str, amount: float) -> None:
    row = {**ROW, "score_percent": "62,5", "amount": written, "value": written}
    [scored, _] = land(row, with_mapping(decimal_comma=True))
    assert (scored["score"], scored["amount"]) == (0.625, amount)
    assert json.loads(scored["features"])["amount"] == amount


@pytest.mark.parametrize("written", ["1,234.5", "1_000", "inf", "twelve"])
def test_a_text_that_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(InvalidEventError, match="feature `amount` is a text; valid: a number or null"):
        land({**ROW, "amount": written})


def test_wide_features_may_lie_deeper() -> None:
    contract = ScoreContract(
        features={"tx.amount": FeatureType.NUMBER, "tx.geo.country": FeatureType.TEXT, "flat.dot": FeatureType.NUMBER},
        mapping=FieldMapping(key="id", features=None),
    )
    row = {"id": 1, "score": 0.5, "tx": {"amount": 3, "geo": {"country": "NL", "city": "x"}, "more": 1}, "flat.dot": 2}
    [scored] = land(row, contract)
    assert json.loads(scored["features"]) == {"tx.amount": 3, "tx.geo.country": "NL", "flat.dot": 2}
    assert contract.list_unmapped(row) == ["tx.geo.city", "tx.more"]
    with pytest.raises(InvalidEventError, match=r"feature `tx\.geo\.country` is missing"):
        land({**row, "tx": {"amount": 3}}, contract)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_of_a_table_that_is_not_finite_is_a_missing_value(value: float) -> None:
    [scored, _] = land({**ROW, "amount": value})
    assert json.loads(scored["features"])["amount"] is None


def test_a_file_may_hold_cloud_events() -> None:
    data = {"features": {"amount": 1, "night": True, "country": None}, "score": 0.5}
    [scored] = land(json.loads(cloud_event("prediction", data)))
    assert (scored["prediction_id"], scored["source"], scored["score"]) == ("e1", "import:tx.csv", 0.5)
    [labelled] = land(json.loads(cloud_event("feedback", {"prediction_id": "e1", "signal": "label", "label": True})))
    assert (labelled["prediction_id"], labelled["label"]) == ("e1", "true")
    with pytest.raises(InvalidEventError, match="feature `night` is missing"):
        land(json.loads(cloud_event("prediction", {"features": {"amount": 1}, "score": 0.5})))
    with pytest.raises(InvalidEventError, match="score"):
        land(json.loads(cloud_event("prediction", {**data, "score": 2})))


def test_fields_that_no_mapping_names_are_listed_in_the_answer(tmp_path: Path) -> None:
    """The shipped mapping once ignored the prediction's own time, and no answer said so."""
    with running_capture(tmp_path, {"fraud": CONTRACT}, clock=lambda: NOON) as capture:
        url = f"{capture.url}/v1/fraud/predictions"
        extra = {"decided": "2026-03-01", "prediction": {"fraud_probability": 0.6, "model": "m"}}
        answer = httpx.post(url, json=[{**PREDICTION, **extra}, {**PREDICTION, "transaction_id": 2, "batch": 1}])
        assert answer.json()["unmapped"] == ["prediction.model", "decided", "batch"]
        assert "unmapped" not in httpx.post(url, json=PREDICTION).json()
        many = {f"field_{number}_{'x' * 200}": 1 for number in range(100)}
        listed = httpx.post(url, json={**PREDICTION, **many}).json()["unmapped"]
        assert (len(listed), {len(name) for name in listed}) == (50, {100})


def test_the_same_prediction_by_file_and_http_is_one_event() -> None:
    row = {key: value for key, value in ROW.items() if key != "outcome"}
    reception = Reception("fraud", NOON, TABLE)
    assert land(row)[0]["event_id"] == line(decode_prediction(msgspec.json.encode(row), reception))["event_id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key": ""}, "FieldMapping.key"),
        ({"score": "a..b"}, "FieldMapping.score"),
        ({"label": "score"}, "FieldMapping.score"),
        ({"time_zone": "Mars/Olympus"}, "FieldMapping.time_zone"),
        ({"positive_words": ("Y",), "negative_words": ("y",)}, "FieldMapping.negative_words"),
        ({"decimal_comma": True}, "FieldMapping.decimal_comma"),
        ({"score_scale": 0}, "FieldMapping.score_scale"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsError, match=field):
        FieldMapping(**change)


def test_http_takes_what_real_senders_send(tmp_path: Path) -> None:
    with running_capture(tmp_path, {"fraud": CONTRACT, "assistant": None}, clock=lambda: NOON) as capture:
        url = f"{capture.url}/v1/fraud"
        body = b'[{"transaction_id": 7, "prediction": {"fraud_probability": NaN}}, 3]'
        results = httpx.post(f"{url}/predictions", content=body, headers={"content-type": "application/json"}).json()
        assert results["results"][0]["id"] == "7"
        assert "NaN (byte" in results["results"][0]["error"]
        lines = {"content-type": "application/jsonl; charset=UTF8", "content-encoding": "zstd"}
        packed = zstandard.compress(msgspec.json.encode({**PREDICTION, "transaction_id": 8}))
        answer = httpx.post(f"{url}/predictions", content=packed, headers=lines)
        assert (answer.status_code, answer.json()["results"][0]["id"]) == (202, "8"), answer.text
        for bad, says in ((packed[:-3], "ends in the middle"), (packed + b"x", "after the end"), (b"x", "is not")):
            broken = httpx.post(f"{url}/predictions", content=bad, headers=lines)
            assert (broken.status_code, says in broken.text) == (400, True), broken.text
        refused = httpx.post(f"{url}/labels", data={"x": "y"})
        assert refused.status_code == 415
        assert f"curl {url}/labels -H 'content-type: application/json'" in refused.json()["error"]
        attributes = {"ce-specversion": "1.0", "ce-id": "caf%C3%A9", "ce-source": "s", "ce-type": "flywheel.prediction"}
        data = {"features": PREDICTION["features"], "score": 0.5}
        binary = httpx.post(f"{url}/events", json=data, headers=attributes)
        assert (binary.status_code, binary.json()["results"][0]["id"]) == (202, "café"), binary.text
        edit = {"prompt": "p", "original_llm_output": "a", "final_user_edit": "b", "id": 5, "user_id": 6}
        edited = httpx.post(f"{capture.url}/v1/assistant/edits", json=[edit])
        assert (edited.status_code, edited.json()["results"][0]["id"]) == (202, "5"), edited.text


UNDATED: dict[str, Any] = {"transaction_id": "t1", "ground_truth": {"is_fraud": True, "labeling_source": "analyst"}}


def test_a_label_restated_without_a_time_is_a_statement_of_its_own() -> None:
    """True, false and true again, the same JSON: the third was dropped as a duplicate of the first, and false held."""
    later = Reception("fraud", NOON + timedelta(minutes=5), CONTRACT)
    assert label(UNDATED)["event_id"] != label(UNDATED, later)["event_id"]
    assert label(LABEL)["event_id"] == label(LABEL, later)["event_id"]  # a time of its own: sent again it is a retry


TIERED = replace(CONTRACT, trusted_sources=frozenset({"reviewer", "analyst"}))


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("labels", msgspec.json.encode(UNDATED), "application/json"),
        (
            "events",
            cloud_event(
                "feedback", {"prediction_id": "t1", "signal": "label", "label": True, "labeling_source": "analyst"}
            ),
            "application/cloudevents+json",
        ),
        (
            "events",
            cloud_event("feedback", {"prediction_id": "t1", "signal": "label", "label": True}, source="analyst"),
            "application/cloudevents+json",
        ),
    ],
)
def test_only_a_key_with_the_right_may_label_as_a_trusted_source(
    tmp_path: Path, path: str, body: bytes, content_type: str
) -> None:
    """The attack `role by free text`: any write key wrote "analyst" and overruled the analysts."""
    keys = tmp_path / "keys.json"
    writer = create_key(keys, KeyRequest("fraud", "scorer"), NOON).secret
    analysts = create_key(keys, KeyRequest("fraud", "desk", labels_as=["analyst"]), NOON).secret
    with running_capture(tmp_path / "landing", {"fraud": TIERED}, access=Access(KeyStore(keys))) as capture:

        def post(secret: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {secret}", "content-type": content_type}
            return httpx.post(f"{capture.url}/v1/fraud/{path}", content=body, headers=headers)

        refused = post(writer)
        assert refused.status_code == 400
        assert "this key may not label as it" in refused.json()["results"][0]["error"]
        assert post(analysts).status_code == 202
    with running_capture(tmp_path / "open", {"fraud": TIERED}) as capture:
        assert post(writer).status_code == 202  # without keys every sender of this machine is trusted


@pytest.mark.parametrize(
    ("changed", "features", "labels"),
    [
        ({"night": "0.0", "outcome": "1.0"}, {"amount": 150.75, "night": False, "country": "NL"}, ["true"]),
        (
            {"amount": "NaN", "night": "NULL", "country": "NA"},
            {"amount": None, "night": None, "country": "NA"},
            ["true"],
        ),
        ({"outcome": "nan", "value": "nan"}, {"amount": 150.75, "night": True, "country": "NL"}, []),
    ],
)
def test_gaps_of_tables_are_missing_values(
    changed: dict[str, Any], features: dict[str, Any], labels: list[str]
) -> None:
    """pandas writes integers with gaps as 1.0, R and SQL clients gaps as words: all such rows had been refused."""
    scored, *labelled = land({**ROW, **changed})
    assert json.loads(scored["features"]) == features, "a text may be NA: it is Namibia"
    assert [each["label"] for each in labelled] == labels


def test_a_score_that_is_a_gap_gives_its_label_only() -> None:
    assert [each["signal"] for each in land({**ROW, "score_percent": "nan"})] == ["label"]
    with pytest.raises(InvalidEventError, match="finite number"):
        decode_prediction(json.dumps({**ROW, "score_percent": "nan"}).encode(), Reception("fraud", NOON, TABLE))


def test_a_label_with_times_of_parquet_is_taken() -> None:
    """The whole import had ended with a traceback: the label's id is a hash of values that JSON does not know."""
    moment = datetime(2026, 3, 1, 12, 30)
    assert land({**ROW, "decided": moment})[1]["label"] == "true"


@pytest.mark.parametrize(
    ("since", "features", "complaint"),
    [
        (date(2026, 3, 2), {"amount": 1}, "feature `risk` is missing"),
        (date(2026, 3, 3), {"amount": 1}, None),
        (date(2026, 3, 3), {"amount": 1, "risk": "high"}, None),  # a trial before its first day, with another type
        (date(2026, 3, 2), {"amount": 1, "risk": "high"}, "feature `risk` is a text"),
        (date(2026, 3, 3), {"risk": 1}, "feature `amount` is missing"),
    ],
)
def test_a_later_feature_is_required_from_its_first_day(
    since: date, features: dict[str, Any], complaint: str | None
) -> None:
    contract = ScoreContract(
        features={"amount": FeatureType.NUMBER, "risk": FeatureType.NUMBER}, features_since={"risk": since}
    )
    reception = Reception("fraud", NOON, contract)
    assert NOON.date() == date(2026, 3, 2)
    element = json.dumps({"prediction_id": "p", "score": 0.5, "features": features}).encode()
    if complaint is None:
        assert json.loads(line(decode_prediction(element, reception))["features"]) == features
    else:
        with pytest.raises(InvalidEventError, match=complaint):
            decode_prediction(element, reception)


@pytest.mark.parametrize(("first", "is_taken"), [(date(2026, 2, 20), True), (date(2026, 2, 10), False)])
def test_history_is_asked_for_what_was_required_on_its_own_day(first: date, is_taken: bool) -> None:
    """A table of ten weeks was refused: its rows lacked a feature that came later, and were received today."""
    contract = ScoreContract(
        features={"amount": FeatureType.NUMBER, "risk": FeatureType.NUMBER},
        features_since={"risk": first},
        mapping=FieldMapping(prediction_time="at"),
    )
    row = {"prediction_id": "p", "score": 0.5, "features": {"amount": 1}, "at": "2026-02-15T12:00:00Z"}
    with nullcontext() if is_taken else pytest.raises(InvalidEventError, match="feature `risk` is missing"):
        assert land_document(row, Reception("fraud", NOON, contract, as_history=True), "import:scored.csv")
    with pytest.raises(InvalidEventError, match="feature `risk` is missing"):
        land_document(row, Reception("fraud", NOON, contract), "import:scored.csv")


def test_a_retired_feature_of_a_table_is_stored_and_not_required() -> None:
    contract = ScoreContract(
        features={"amount": FeatureType.NUMBER},
        retired_features={"risk": FeatureType.NUMBER},
        mapping=FieldMapping(features=None, numbers_as_text=True),
    )
    row = {"prediction_id": "p", "score": "0.5", "amount": "3"}
    assert [json.loads(each["features"]) for each in land(row, contract)] == [{"amount": 3}]
    assert [json.loads(each["features"]) for each in land({**row, "risk": "7"}, contract)] == [{"amount": 3, "risk": 7}]
    assert contract.list_unmapped({**row, "risk": "7"}) == []


def test_the_chance_to_be_labelled_is_stored_with_the_prediction() -> None:
    data = {"features": {"amount": 1, "night": True, "country": None}, "score": 0.5, "label_propensity": 0.1}
    assert land(json.loads(cloud_event("prediction", data)))[0]["label_propensity"] == 0.1
    contract = ScoreContract(
        features={"amount": FeatureType.NUMBER}, mapping=FieldMapping(label_propensity="review.chance")
    )
    row = {"prediction_id": "p", "score": 0.5, "features": {"amount": 3}, "review": {"chance": 0.25}}
    assert land(row, contract)[0]["label_propensity"] == 0.25
    assert contract.list_unmapped(row) == []
    with pytest.raises(InvalidEventError, match=r"`review\.chance` is 0; valid: more than 0 to 1"):
        land({**row, "review": {"chance": 0}}, contract)
