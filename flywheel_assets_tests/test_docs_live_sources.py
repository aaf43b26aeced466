"""The page about live sources works as it is written."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flywheel_assets.capture.endpoints import TRACES_PATH
from flywheel_assets.capture.service import running_capture
from flywheel_assets_tests.capture.samples import landed

PAGE = (Path(__file__).parent.parent / "docs" / "live_sources.md").read_text()


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_variable_names_the_endpoint() -> None:
    (endpoint,) = re.findall(r"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127\.0\.0\.1:8700(\S+)", PAGE)
    assert endpoint == TRACES_PATH.format(application="assistant")


def test_the_examples_are_an_answer_and_the_feedback_about_it(tmp_path: Path, blocks: list[str]) -> None:
    ((path, body),) = re.findall(r"curl -s http://127\.0\.0\.1:8700(\S+) .*?-d '(\{.*?\})'", PAGE, flags=re.DOTALL)
    with running_capture(tmp_path, ["assistant"], clock=lambda: datetime(2026, 11, 28, tzinfo=UTC)) as capture:
        answer = httpx.post(capture.url + path, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()) == (200, {})
    (prediction,) = landed(tmp_path, "prediction")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exec(blocks[0], {"tracer": provider.get_tracer("test")})
    (span,) = exporter.get_finished_spans()
    assert span.events[0].attributes is not None
    assert span.events[0].attributes["gen_ai.response.id"] == prediction["prediction_id"]


def test_the_application_with_a_source_is_a_code_location(blocks: list[str]) -> None:
    names: dict[str, Any] = {}
    exec(blocks[1], names)
    assert names["defs"].resolve_job_def("assistant_mlflow_traces") is not None
