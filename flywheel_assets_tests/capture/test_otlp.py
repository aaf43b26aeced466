"""Spans over OTLP/HTTP: OpenTelemetry's own SDK, its own protobuf, and JSON as any client writes it."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from starlette.testclient import TestClient

from flywheel_assets.applications.fraud import APPLICATION
from flywheel_assets.capture.auth.access import Access, Rates
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.endpoints import CaptureLimits
from flywheel_assets.capture.events.traces import (
    MalformedTracesError,
    frame_json,
    frame_protobuf,
    read_json_span,
    read_protobuf_span,
)
from flywheel_assets.capture.service import create_app, running_capture
from flywheel_assets.errors import InvalidEventError, LogWriteError
from flywheel_assets_tests.capture.samples import JSON, NOON, MemoryLog, Seconds, landed

TRACES = "/v1/assistant/otlp/v1/traces"
PROTOBUF = {"content-type": "application/x-protobuf"}
BEGAN = int(NOON.timestamp()) * 10**9
QUESTION = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "How?"}]}])
ANSWER = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "Thus."}], "finish_reason": "stop"}])
CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.response.id": "chatcmpl-BkXw3pQ7TzY1",
    "gen_ai.response.model": "m-1",
    "gen_ai.input.messages": QUESTION,
    "gen_ai.output.messages": ANSWER,
}
LIKED = {
    "gen_ai.evaluation.name": "thumb",
    "gen_ai.evaluation.score.value": 1.0,
    "gen_ai.response.id": "chatcmpl-BkXw3pQ7TzY1",
}


def as_values(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    names = {str: "stringValue", float: "doubleValue", int: "intValue"}
    return [{"key": key, "value": {names[type(value)]: value}} for key, value in attributes.items()]


def json_span(number: int = 1, attributes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": f"{number:016x}",
        "name": "chat m",
        "startTimeUnixNano": str(BEGAN),
        "endTimeUnixNano": str(BEGAN + 10**9),
        "attributes": as_values(CALL if attributes is None else attributes),
    } | fields


def evaluation(**attributes: Any) -> dict[str, Any]:
    return {
        "name": "gen_ai.evaluation.result",
        "timeUnixNano": str(BEGAN + 2 * 10**9),
        "attributes": as_values(LIKED | attributes),
    }


def as_request(*spans: dict[str, Any]) -> dict[str, Any]:
    scope_spans = [{"scope": {"name": "x", "version": "1"}, "spans": list(spans)}]
    return {
        "resourceSpans": [{"resource": {"attributes": as_values({"service.name": "desk"})}, "scopeSpans": scope_spans}]
    }


def as_protobuf(*spans: dict[str, Any]) -> bytes:
    """The same request in protobuf, written by OpenTelemetry's own classes."""

    def attributes_of(values: list[dict[str, Any]]) -> list[KeyValue]:
        fields = {"stringValue": "string_value", "doubleValue": "double_value", "intValue": "int_value"}
        return [
            KeyValue(key=each["key"], value=AnyValue(**{fields[name]: value for name, value in each["value"].items()}))
            for each in values
        ]

    messages = [
        Span(
            trace_id=bytes.fromhex(span["traceId"]),
            span_id=bytes.fromhex(span["spanId"]),
            name=span["name"],
            status=SpanStatus(**span.get("status", {})),
            start_time_unix_nano=int(span["startTimeUnixNano"]),
            end_time_unix_nano=int(span["endTimeUnixNano"]),
            attributes=attributes_of(span["attributes"]),
            events=[
                Span.Event(
                    name=event["name"],
                    time_unix_nano=int(event["timeUnixNano"]),
                    attributes=attributes_of(event["attributes"]),
                )
                for event in span.get("events", ())
            ],
        )
        for span in spans
    ]
    resource = Resource(attributes=attributes_of(as_values({"service.name": "desk"})))
    of_resource = ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=messages)])
    return ExportTraceServiceRequest(resource_spans=[of_resource]).SerializeToString()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def client(log: MemoryLog) -> Iterator[TestClient]:
    app = create_app(log, ["assistant"], CaptureLimits(event_bytes=5_000, request_bytes=500_000, batch_events=20))
    with TestClient(app) as http:
        yield http


def rows_of(log: MemoryLog) -> list[tuple[str, dict[str, Any]]]:
    return [(row.kind.value, json.loads(row.line)) for row in log.rows]


# The real SDK --------------------------------------------------------------------------------------------------------

_APPLICATION = """
import json, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("desk")
for name, attributes, events in json.loads(sys.argv[1]):
    with tracer.start_as_current_span("request"), tracer.start_as_current_span(name, attributes=attributes) as span:
        for event, values in events:
            span.add_event(event, values)
assert provider.force_flush()
provider.shutdown()
"""


def run_application(environment: dict[str, str], *spans: tuple[str, dict[str, Any], list[Any]]) -> str:
    """Run an instrumented application to its end; return what its SDK complains about."""
    command = [sys.executable, "-c", _APPLICATION, json.dumps(spans)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_application_sends_with_one_environment_variable(tmp_path: Path, compression: str) -> None:
    """Its calls become predictions, other spans nothing; a verdict of a later trace meets the answer it is about."""
    with running_capture(tmp_path, ["assistant"]) as capture:
        environment = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": capture.url + TRACES,
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }
        complaints = run_application(environment, ("chat m-1", CALL, []))
        complaints += run_application(environment, ("evaluate", {}, [("gen_ai.evaluation.result", LIKED)]))
    assert complaints == ""
    (prediction,), (feedback,) = landed(tmp_path, "prediction"), landed(tmp_path, "feedback")
    assert prediction["source"] == feedback["source"] == "otlp"
    assert (prediction["prompt_format"], prediction["output"]) == ("messages", "Thus.")
    assert prediction["model_version"] == "m-1"
    assert (feedback["signal"], feedback["value"]) == ("thumb", 1.0)
    assert feedback["prediction_id"] == prediction["prediction_id"]


def test_a_key_comes_in_the_headers_variable(tmp_path: Path) -> None:
    secret = create_key(tmp_path / "keys.json", KeyRequest("assistant", "desk"), NOON).secret
    keys = KeyStore(tmp_path / "keys.json")
    with running_capture(tmp_path / "landing", ["assistant"], access=Access(keys)) as capture:
        endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": capture.url + TRACES}
        assert "401" in run_application(endpoint, ("chat", CALL, []))
        key = {"OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer%20{secret}"}
        assert run_application(endpoint | key, ("chat", CALL, [])) == ""
    assert len(landed(tmp_path / "landing", "prediction")) == 1


# What lands ----------------------------------------------------------------------------------------------------------


def test_both_encodings_land_the_same(client: TestClient, log: MemoryLog) -> None:
    spans = [
        json_span(1, events=[evaluation()]),
        json_span(2, {"http.route": "/"}),
        json_span(3, {}, events=[evaluation()]),
    ]
    answer = client.post(TRACES, json=as_request(*spans))
    assert (answer.status_code, answer.json()) == (200, {})
    of_json = rows_of(log)
    log.rows.clear()
    answer = client.post(
        TRACES, content=gzip.compress(as_protobuf(*spans)), headers=PROTOBUF | {"content-encoding": "gzip"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    assert [kind for kind, _ in of_json] == ["prediction", "feedback", "feedback"]
    for (_, ours), (_, theirs) in zip(of_json, rows_of(log), strict=True):
        assert ours | {"received_at": ""} == theirs | {"received_at": ""}


def test_what_an_exporter_sends_again_is_a_duplicate(client: TestClient, log: MemoryLog) -> None:
    body = as_protobuf(json_span(1, events=[evaluation()]))
    for _ in range(2):
        assert client.post(TRACES, content=body, headers=PROTOBUF).status_code == 200
    assert len(log.rows) == 4
    assert len({line["event_id"] for _, line in rows_of(log)}) == 2


def test_ids_of_the_request_may_be_upper_case(client: TestClient, log: MemoryLog) -> None:
    span = json_span()
    client.post(TRACES, json=as_request(span))
    client.post(TRACES, json=as_request(span | {"traceId": span["traceId"].upper()}))
    (_, first), (_, second) = rows_of(log)
    assert first["event_id"] == second["event_id"]


@pytest.mark.parametrize("headers", [JSON, PROTOBUF])
def test_a_bad_span_costs_only_itself(client: TestClient, log: MemoryLog, headers: dict[str, str]) -> None:
    spans = [
        json_span(0),
        json_span(1),
        json_span(2, CALL | {"gen_ai.output.messages": json.dumps([{"role": "assistant", "content": "x" * 6_000}])}),
        json_span(3, startTimeUnixNano=str(4 * 10**18), endTimeUnixNano=str(4 * 10**18 + 1)),
        json_span(4, {"gen_ai.operation.name": "chat"}, status={"code": 2, "message": "rate limit"}),
    ]
    body = json.dumps(as_request(*spans)).encode() if headers is JSON else as_protobuf(*spans)
    answer = client.post(TRACES, content=body, headers=headers)
    assert answer.status_code == 200
    if headers is JSON:
        partial = answer.json()["partialSuccess"]
        rejected, message = int(partial["rejectedSpans"]), partial["errorMessage"]
    else:
        success = ExportTraceServiceResponse.FromString(answer.content).partial_success
        rejected, message = success.rejected_spans, success.error_message
    assert rejected == 4
    assert "`spanId` '0000000000000000'; valid: 32 and 16 hexadecimal digits" in message
    assert "valid: at most 5000" in message
    assert "from 2000-01-01" in message
    assert "1 more reasons" in message
    assert [line["prediction_id"] for _, line in rows_of(log)] == ["chatcmpl-BkXw3pQ7TzY1"]


def test_calls_without_messages_are_said(client: TestClient, log: MemoryLog) -> None:
    """Instrumentations record no messages unless they are asked to: a team would wait for its data for ever."""
    answer = client.post(TRACES, json=as_request(json_span(1, {"gen_ai.operation.name": "chat"})))
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in partial["errorMessage"]
    assert log.rows == []


@pytest.mark.parametrize(("body", "headers"), [(b"", PROTOBUF), (b"{}", JSON), (b'{"resourceSpans":[]}', JSON)])
def test_a_request_without_spans_is_a_success(client: TestClient, body: bytes, headers: dict[str, str]) -> None:
    assert client.post(TRACES, content=body, headers=headers).status_code == 200


def test_a_verdict_of_a_later_span_meets_its_answer(client: TestClient, log: MemoryLog) -> None:
    """By the provider's id, or by a link. Ollama numbers its answers 0 to 998: such an id names nothing."""
    unnamed = {name: value for name, value in CALL.items() if name != "gen_ai.response.id"}
    call = json_span(1, unnamed | {"gen_ai.response.id": "chatcmpl-7"})
    link = [{"traceId": call["traceId"].upper(), "spanId": call["spanId"]}]
    nameless = {"gen_ai.evaluation.name": "thumb", "gen_ai.evaluation.score.value": 0.0}
    said = evaluation() | {"attributes": as_values(nameless | {"gen_ai.response.id": "chatcmpl-7"})}
    verdict = json_span(2, {}, traceId="0" * 31 + "1", events=[said], links=link)
    for span in (call, verdict):
        assert client.post(TRACES, json=as_request(span)).json() == {}
    (_, prediction), (_, feedback) = rows_of(log)
    assert feedback["prediction_id"] == prediction["prediction_id"] == f"{call['traceId']}/{call['spanId']}"
    assert feedback["value"] == -1.0


def test_a_span_of_countless_values_is_refused() -> None:
    """Two bytes of protobuf would become hundreds in memory."""
    with pytest.raises(InvalidEventError, match="the span has 10001 events; valid: at most 10000"):
        read_protobuf_span(Span(events=[Span.Event()] * 10_001).SerializeToString())


# What is refused -----------------------------------------------------------------------------------------------------


def with_fields(resource: bytes) -> bytes:
    """A request whose resource has this content."""
    inner = b"\x0a" + write_varint(len(resource)) + resource
    return b"\x0a" + write_varint(len(inner)) + inner


def write_varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + write_varint(value >> 7) if value > 0x7F else bytes([value])


def read_status(answer: httpx.Response) -> str:
    if answer.headers["content-type"] == "application/x-protobuf":
        return Status.FromString(answer.content).message
    message: str = answer.json()["message"]
    return message


@pytest.mark.parametrize(
    ("body", "headers", "status", "problem"),
    [
        (b"{", JSON, 400, "not JSON"),
        (b'{"resourceSpans":7}', JSON, 400, "Expected `array`, got `int`"),
        (b"\x0a\x05\x0a", PROTOBUF, 400, "ends in a field"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", PROTOBUF, 400, "never ends"),
        (b"\x0b", PROTOBUF, 400, "wire type 3"),
        (b"\x0a\x02\x0a\x00\x00", PROTOBUF, 400, "ends"),
        (b"\x0a\x04\x0a\x02\x0a\x07", PROTOBUF, 400, "cannot be read"),
        (with_fields(resource=b"\x0a\x00" * 200_000), PROTOBUF, 400, "a resource or a scope has 400000 bytes"),
        (b"\x12\x00" * 200_000, PROTOBUF, 413, "more than 20 spans"),
        (as_protobuf(*[json_span(number, {}) for number in range(1, 22)]), PROTOBUF, 413, "more than 20 spans"),
        (b" " * 500_001, JSON, 413, "larger than 500000 bytes"),
        (b"x", {"content-type": "text/plain"}, 415, "valid: application/x-protobuf, application/json"),
        (b"x", PROTOBUF | {"content-encoding": "gzip"}, 400, "gzip"),
    ],
)
def test_a_malformed_request_gets_a_status(
    client: TestClient, log: MemoryLog, body: bytes, headers: dict[str, str], status: int, problem: str
) -> None:
    answer = client.post(TRACES, content=body, headers=headers)
    assert answer.status_code == status
    assert problem in read_status(answer)
    assert log.rows == []


def test_pages_of_this_machine_may_send(client: TestClient) -> None:
    """The browser's SDK sends JSON; it asks first."""
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    assert client.options(TRACES, headers=asked).headers["access-control-allow-methods"] == "POST"
    answer = client.post(TRACES, json=as_request(json_span()), headers={"origin": "http://localhost:3000"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert client.post(TRACES, json={}, headers={"origin": "https://evil.example.org"}).status_code == 403


def test_an_unknown_application_is_named(client: TestClient) -> None:
    answer = client.post("/v1/nobody/otlp/v1/traces", content=b"", headers=PROTOBUF)
    assert answer.status_code == 404
    assert "known: assistant" in read_status(answer)


@pytest.mark.parametrize("headers", [JSON, PROTOBUF])
def test_what_cannot_be_durable_is_sent_again(client: TestClient, log: MemoryLog, headers: dict[str, str]) -> None:
    log.refusal = LogWriteError("the disk is full")
    span = json_span()
    body = json.dumps(as_request(span)).encode() if headers is JSON else as_protobuf(span)
    answer = client.post(TRACES, content=body, headers=headers)
    assert (answer.status_code, read_status(answer)) == (503, "the disk is full")
    assert int(answer.headers["retry-after"]) >= 1


def test_spans_count_against_the_rate_of_a_key(tmp_path: Path, log: MemoryLog) -> None:
    path = tmp_path / "keys.json"
    writer = create_key(path, KeyRequest("assistant", "desk", events_per_s=0.2), NOON)
    reviewer = create_key(path, KeyRequest("assistant", "reviewers", (Scope.REVIEW,)), NOON)
    headers = PROTOBUF | {"authorization": f"Bearer {writer.secret}"}
    access = Access(KeyStore(path), rates=Rates(Seconds()))
    with TestClient(create_app(log, ["assistant"], access=access)) as http:
        body = as_protobuf(*[json_span(number, {}) for number in range(1, 4)])
        assert http.post(TRACES, content=body, headers=headers).status_code == 200
        answer = http.post(TRACES, content=body, headers=headers)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        other = {"authorization": f"Bearer {reviewer.secret}"}
        assert http.post(TRACES, content=body, headers=PROTOBUF | other).status_code == 403


def test_a_classifier_takes_no_spans(log: MemoryLog) -> None:
    with TestClient(create_app(log, {"fraud": APPLICATION.score_contract})) as http:
        answer = http.post("/v1/fraud/otlp/v1/traces", json=as_request(json_span()))
    assert answer.status_code == 400
    assert "/v1/fraud/predictions" in read_status(answer)


# Anything ------------------------------------------------------------------------------------------------------------

_GOOD = as_protobuf(json_span())
_CUT = st.builds(lambda end, at: _GOOD[:at] + end, st.binary(max_size=9), st.integers(0, len(_GOOD)))


@given(st.binary(max_size=200) | _CUT)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_spans_or_refused(body: bytes) -> None:
    for frame, read in ((frame_protobuf, read_protobuf_span), (frame_json, read_json_span)):
        with suppress(MalformedTracesError, InvalidEventError):
            for each in frame(body, 100):
                read(each.content)


_KEYS = st.sampled_from(
    [*CALL, *LIKED, "gen_ai.system_instructions", "gen_ai.tool.definitions", "user.id", "enduser.id"]
)
_TEXTS = st.sampled_from(
    [QUESTION, ANSWER, "[]", "{}", "[1]", '[{"role":"user"}]', '[{"role":"assistant","parts":[1]}]']
)
_SCALARS = st.one_of(
    st.builds(lambda text: {"stringValue": text}, st.text(max_size=9) | _TEXTS),
    st.builds(lambda value: {"intValue": value}, st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3)),
    st.builds(lambda value: {"doubleValue": value}, st.floats(allow_nan=False, allow_infinity=False) | st.just("NaN")),
    st.just({}),
)
_VALUES = (
    _SCALARS | st.none() | st.builds(lambda inner: {"arrayValue": {"values": inner}}, st.lists(_SCALARS, max_size=2))
)
_ATTRIBUTES = st.lists(st.builds(lambda key, value: {"key": key, "value": value}, _KEYS, _VALUES), max_size=8)


@given(_ATTRIBUTES, _ATTRIBUTES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_attribute_breaks_the_service(client: TestClient, of_span: Any, of_event: Any) -> None:
    event = evaluation() | {"attributes": of_event}
    answer = client.post(TRACES, json=as_request(json_span() | {"attributes": of_span, "events": [event]}))
    assert answer.status_code == 200
