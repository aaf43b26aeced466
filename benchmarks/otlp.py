"""The CPU time of spans that come over OTLP, beside the same predictions as CloudEvents.

Claim: a span of a call costs at most 0.25 ms, another span at most 0.1 ms.
Data: requests of 500 spans, as a batch of the SDK; calls have 11 attributes, of which prompt and answer have 1 KB each;
other spans have 6 attributes.
Command: .venv/bin/python -m benchmarks.otlp [--repeats 20]

Peers in the same run: `/events` with the same texts, and protobuf's own `MessageToDict`, which only reads.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flywheel_assets.capture.events.texts import Reception, decode_cloud_event
from flywheel_assets.capture.events.traces import (
    decode_spans,
    frame_json,
    frame_protobuf,
    read_json_span,
    read_protobuf_span,
)
from flywheel_assets_tests.capture.test_otlp import CALL, as_protobuf, as_request, json_span

SPANS = 500
TEXT = "word " * 200
LIMIT = 10_000, 4 * 2**20


def message(role: str) -> str:
    """One message in the GenAI conventions' JSON."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": TEXT}]}])


def request_of(attributes: dict[str, Any]) -> tuple[bytes, bytes]:
    """A request of 500 spans, in protobuf and in JSON."""
    spans = [json_span(number, attributes) for number in range(1, SPANS + 1)]
    return as_protobuf(*spans), json.dumps(as_request(*spans)).encode()


def cost_us(work: Callable[[], object], repeats: int) -> float:
    """CPU time per span in microseconds: the median of the repeats."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return sorted(taken)[repeats // 2] / SPANS * 1e6


def main() -> None:
    """Time both encodings of calls and of other spans, and the peers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    now = datetime.now(UTC)
    asked = {"gen_ai.input.messages": message("user"), "gen_ai.output.messages": message("assistant")}
    usage = {"gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 12, "gen_ai.request.model": "m"}
    call = CALL | asked | usage | {"server.address": "api", "gen_ai.request.temperature": 0.7, "server.port": 443}
    other = {"http.route": "/", "http.method": "GET", "a": 1, "b": 2, "c": 3, "d": "x"}
    data = {"prompt": [{"role": "user", "content": TEXT}], "output": TEXT, "model_version": "m"}
    envelope = {"specversion": "1.0", "source": "app", "type": "flywheel.prediction", "data": data}
    events = [json.dumps(envelope | {"id": str(number)}).encode() for number in range(SPANS)]

    def take_protobuf(body: bytes) -> None:
        decode_spans(list(frame_protobuf(body, LIMIT[0])), read_protobuf_span, Reception("assistant", now), LIMIT[1])

    def take_json(body: bytes) -> None:
        decode_spans(list(frame_json(body, LIMIT[0])), read_json_span, Reception("assistant", now), LIMIT[1])

    calls, others = request_of(call), request_of(other)
    reception = Reception("assistant", now)
    for name, work in (
        ("calls, protobuf", lambda: take_protobuf(calls[0])),
        ("calls, JSON", lambda: take_json(calls[1])),
        ("other spans, protobuf", lambda: take_protobuf(others[0])),
        ("/events", lambda: [decode_cloud_event(event, reception) for event in events]),
        ("calls, only MessageToDict", lambda: MessageToDict(ExportTraceServiceRequest.FromString(calls[0]))),
        (
            "calls, only our reading",
            lambda: [read_protobuf_span(each.content) for each in frame_protobuf(calls[0], 10_000)],
        ),
    ):
        print(f"{name:28}{cost_us(work, repeats):8.1f} µs of CPU per span")


if __name__ == "__main__":
    main()
