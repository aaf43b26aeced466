"""Schemathesis reads the service's own description and sends what it allows and what it forbids.

Whatever is sent, the status and the body of the answer are among those that the description names.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.generation import GenerationMode

from flywheel_assets.capture.endpoints import ENDPOINTS, RECORDS_PATH, TRACES_PATH, CaptureLimits
from flywheel_assets.capture.service import RunningCapture, running_capture

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
EXPECTED = {200, 202, 400, 413, 415}
"""What a client without keys can meet here; 404 would mean that the application of the path is wrong."""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCapture]:
    root: Path = tmp_path_factory.mktemp("landing")
    limits = CaptureLimits(event_bytes=20_000, request_bytes=100_000, batch_events=50)
    with running_capture(root, ["assistant", "fraud"], limits=limits) as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((f"POST /v1/{{application}}/{endpoint.name}", mode) for endpoint in ENDPOINTS for mode in GenerationMode),
        *((f"POST {path}", mode) for path in (TRACES_PATH, RECORDS_PATH) for mode in GenerationMode),
        *(("DELETE /v1/{application}/feedback/{feedback_id}", mode) for mode in GenerationMode),
        ("GET /healthz", GenerationMode.POSITIVE),
        ("GET /readyz", GenerationMode.POSITIVE),
        ("GET /metrics", GenerationMode.POSITIVE),
    ],
)
def test_no_unexpected_answer(capture: RunningCapture, label: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{capture.url}/openapi.json")
    operations = {operation.ok().label: operation.ok() for operation in schema.get_all_operations()}
    operation = operations[label]
    statuses = set()

    @given(st.data())
    @settings(
        max_examples=30, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def send(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if mode is GenerationMode.NEGATIVE:
            known = {"application": "assistant", "feedback_id": "f-1"}
            case.path_parameters = {name: known[name] for name in known if f"{{{name}}}" in operation.path}
        # Clients take `.` and `..` out of an address before they send it.
        assume(not {".", ".."} & set(str(case.path_parameters.get("feedback_id", "")).split("/")))
        answer = case.call()
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    send()
    assert statuses <= EXPECTED | {405}
    # What `predictions`, `labels` and `records` hold is an application's or another system's own: no schema has it.
    if mode is GenerationMode.POSITIVE and not label.endswith(("/predictions", "/labels", "/records")):
        assert statuses & {200, 202}, "nothing valid was sent"
