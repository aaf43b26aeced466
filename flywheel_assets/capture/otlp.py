"""Takes spans over OTLP/HTTP, the protocol by which OpenTelemetry's exporters and collectors send.

The answers are those of the protocol's specification (opentelemetry.io/docs/specs/otlp, section OTLP/HTTP):

| answer | when | what an exporter does |
|---|---|---|
| 200 | everything of use is on disk; `partial_success` counts the spans that were refused, with reasons | goes on |
| 400, 401, 403, 404, 413, 415 | the request as a whole is wrong | drops it |
| 429, 503, `Retry-After` | the key's rate is used up; queue, disk or memory is full | sends it again |

Bodies of answers have the encoding of the request; one of a refusal is a `google.rpc.Status`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from flywheel_assets.capture.auth.access import Caller
from flywheel_assets.capture.auth.keys import Scope
from flywheel_assets.capture.endpoints import PLAIN_TYPE, PROTOBUF_TYPE
from flywheel_assets.capture.events.texts import Reception
from flywheel_assets.capture.events.traces import (
    DecodedSpans,
    MalformedTracesError,
    TooManySpansError,
    decode_spans,
    frame_json,
    frame_protobuf,
    read_json_span,
    read_protobuf_span,
)
from flywheel_assets.capture.http.answers import EventResult, EventStatus, Refusal, RefusedError
from flywheel_assets.capture.http.bodies import Share
from flywheel_assets.capture.intake import Decoded, Intake, read_media_type

_LISTED_REASONS = 3


class _PartialSuccess(msgspec.Struct, frozen=True, rename="camel"):
    rejected_spans: str
    """A number: 64-bit ones are texts in protobuf's JSON."""
    error_message: str


class _Success(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    partial_success: _PartialSuccess | None = None


class _Status(msgspec.Struct, frozen=True):
    message: str


@dataclass(frozen=True)
class TraceReceiver:
    """Serves the endpoint of spans; everything but the encoding is done by the intake of events."""

    intake: Intake

    async def answer_request(self, request: Request) -> Response:
        """Answer one request that brings spans."""
        intake = self.intake
        application: str = request.path_params["application"]
        is_protobuf = request.headers.get("content-type", "").partition(";")[0].strip().lower() == PROTOBUF_TYPE

        async def take_spans() -> Response:
            caller = intake.admit(request, Scope.WRITE)
            standing, share = intake.open_share(request, caller)
            with share:
                try:
                    intake.check_application(application)
                    if intake.applications[application] is not None:
                        raise RefusedError(
                            Refusal.MALFORMED_BODY,
                            f"{application} is a classification application, and spans hold texts: send its "
                            f"predictions to /v1/{application}/predictions and labels to /v1/{application}/labels",
                        )
                    media_type = read_media_type(request, (PROTOBUF_TYPE, PLAIN_TYPE))
                    body = await intake.admission.find_reader(standing).read(request, share)
                    caller = intake.access.verify_body(caller, body)
                    taken = await self._take(caller, body, media_type, share)
                except RefusedError as refusal:
                    intake.charge_refused(caller, refusal, share)
                    raise
                intake.charge_cost(caller, share, taken.spans)
                return _build_success(taken, is_protobuf)

        return await intake.answer(request, "POST", take_spans, lambda refusal: _build_refusal(refusal, is_protobuf))

    async def _take(self, caller: Caller, body: bytes, media_type: str, share: Share) -> DecodedSpans:
        intake = self.intake
        reception = Reception(caller.application, intake.clock(), sender=caller.sender)
        decode = partial(self._decode, body, media_type, reception)
        decoded = await intake.decode_measured(decode, len(body), share)
        intake.telemetry.note_received(caller.application, len(decoded.events) + len(decoded.refused), len(body))
        intake.telemetry.note_refused_events(len(decoded.refused))
        intake.access.charge(caller, decoded.spans)
        refused = [EventResult(span_id, EventStatus.REFUSED, reason) for span_id, reason in decoded.refused]
        await intake.acknowledge(caller, Decoded([*decoded.events, *refused], decoded.events))
        return decoded

    def _decode(self, body: bytes, media_type: str, reception: Reception) -> DecodedSpans:
        limits = self.intake.limits
        is_protobuf = media_type == PROTOBUF_TYPE
        frame, read_span = (frame_protobuf, read_protobuf_span) if is_protobuf else (frame_json, read_json_span)
        try:
            framed = list(frame(body, limits.batch_events))
        except MalformedTracesError as error:
            raise RefusedError(Refusal.MALFORMED_BODY, str(error)) from None
        except TooManySpansError:
            raise RefusedError(
                Refusal.TOO_LARGE,
                f"more than {limits.batch_events} spans in one request; set OTEL_BSP_MAX_EXPORT_BATCH_SIZE=512",
            ) from None
        return decode_spans(framed, read_span, reception, limits.event_bytes)


def _build_success(decoded: DecodedSpans, is_protobuf: bool) -> Response:
    message = _group_reasons(decoded.refused)
    if is_protobuf:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        response = ExportTraceServiceResponse()
        if message:
            response.partial_success.rejected_spans = len(decoded.refused)
            response.partial_success.error_message = message
        return Response(response.SerializeToString(), media_type=PROTOBUF_TYPE)
    success = _Success(_PartialSuccess(str(len(decoded.refused)), message) if message else None)
    return Response(msgspec.json.encode(success), media_type=PLAIN_TYPE)


def _group_reasons(refused: Sequence[tuple[str, str]]) -> str:
    """Say the most frequent reasons, with their counts; empty where nothing was refused."""
    counts = Counter(reason for _, reason in refused)
    listed = [f"{count} × {reason}" for reason, count in counts.most_common(_LISTED_REASONS)]
    if len(counts) > _LISTED_REASONS:
        listed.append(f"{len(counts) - _LISTED_REASONS} more reasons")
    return "; ".join(listed)


def _build_refusal(refusal: RefusedError, is_protobuf: bool) -> Response:
    status, headers = refusal.build_head()
    if is_protobuf:
        return Response(_encode_status(refusal.error), status, headers, media_type=PROTOBUF_TYPE)
    return Response(msgspec.json.encode(_Status(refusal.error)), status, headers, media_type=PLAIN_TYPE)


def _encode_status(message: str) -> bytes:
    """Encode a `google.rpc.Status` that has only its `message`, field 2; a package for one field is too much."""
    text = message.encode()
    length = len(text)
    encoded = bytearray(b"\x12")
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + text
