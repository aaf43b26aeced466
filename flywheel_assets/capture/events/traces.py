"""Decodes the spans of OTLP requests into landed rows, by the format `otlp`.

A request is taken apart before anything in it is decoded: a few megabytes of protobuf can stand for millions of empty
messages, so that spans are counted on the wire and decoded one by one. One bad span costs only itself.

Prediction and feedback of a span land under the source `otlp`, with the ids of trace and span: what an exporter sends
again is a duplicate.
"""

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import msgspec

from flywheel_assets.capture.counting import CountedObject, TooManyElementsError, count_objects
from flywheel_assets.capture.events.texts import DecodedEvent, Reception, land_events
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.logs.spans import convert_span, read_spans
from flywheel_assets.wire import decode_strictly

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue as AnyValueMessage
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue as KeyValueMessage
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

OTLP_SOURCE = "otlp"
_LONGEST_SHARED_BYTES = 256 * 2**10
_MOST_VALUES = 10_000
"""Attributes, events or links of one span; SDKs stop at 128. An empty one has 2 bytes in protobuf, 400 as objects."""
_MOST_PARTS = 4 * _MOST_VALUES
"""The same for a span in JSON, with what lies within its attributes."""
_NOTHING = msgspec.Raw(b"{}")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}\Z")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}\Z")


class AnyValue(TypedDict, total=False):
    """Describes a value of an attribute; one of the fields is there."""

    stringValue: str
    boolValue: bool
    intValue: int | str
    doubleValue: float | str
    bytesValue: str
    arrayValue: "ArrayValue"
    kvlistValue: "KeyValueList"


class ArrayValue(TypedDict, total=False):
    """Describes a list of values."""

    values: list[AnyValue]


class KeyValue(TypedDict, total=False):
    """Describes one attribute."""

    key: str
    value: AnyValue | None


class KeyValueList(TypedDict, total=False):
    """Describes a map."""

    values: list[KeyValue]


class SpanEvent(TypedDict, total=False):
    """Describes something that happened during a span, or was found about it."""

    name: str
    timeUnixNano: int | str
    attributes: list[KeyValue]


class SpanLink(TypedDict, total=False):
    """Names another span that a span refers to."""

    traceId: str
    spanId: str
    attributes: list[KeyValue]


class SpanStatus(TypedDict, total=False):
    """Says how a span ended; 2 is an error."""

    code: int | str
    message: str


class Span(TypedDict, total=False):
    """Describes one operation. Ids are hexadecimal; 64-bit numbers may be texts, as OTLP's JSON has them."""

    traceId: str
    spanId: str
    parentSpanId: str
    name: str
    startTimeUnixNano: int | str
    endTimeUnixNano: int | str
    attributes: list[KeyValue]
    events: list[SpanEvent]
    links: list[SpanLink]
    status: SpanStatus


class Attributed(TypedDict, total=False):
    """Describes the resource or the scope of spans."""

    name: str
    attributes: list[KeyValue]


class ScopeSpans(TypedDict, total=False):
    """Describes the spans of one library."""

    scope: Attributed
    spans: list[Span]


class ResourceSpans(TypedDict, total=False):
    """Describes the spans of one service."""

    resource: Attributed
    scopeSpans: list[ScopeSpans]


class TraceRequest(TypedDict, total=False):
    """Describes an `ExportTraceServiceRequest` in OTLP's JSON, as far as it is read here."""

    resourceSpans: list[ResourceSpans]


class MalformedTracesError(Exception):
    """Reports a body that is no OTLP request; the message is safe to send to the client."""


class TooManySpansError(Exception):
    """Reports a body with more spans than one request may have."""


@dataclass(frozen=True)
class FramedSpan:
    """Holds one span before it is decoded, with what it shares with others."""

    resource: Attributed
    scope: Attributed
    content: bytes


@dataclass(frozen=True)
class DecodedSpans:
    """Holds what became of the spans of a request."""

    spans: int
    events: list[DecodedEvent]
    refused: list[tuple[str, str]]
    """The id of each span that was refused, `<trace>/<span>`, and the reason."""


def decode_spans(
    framed: Sequence[FramedSpan], read_span: Callable[[bytes], Span], reception: Reception, longest_bytes: int
) -> DecodedSpans:
    """Decode the spans of a request; those that are no calls of a model become nothing.

    Each is converted alone: which spans come in one request is chance, and an id must not depend on it.

    Args:
        framed: the spans as `frame_protobuf` or `frame_json` return them.
        read_span: reads a span's bytes: `read_protobuf_span` or `read_json_span`.
        reception: when and for which application they came.
        longest_bytes: a longer span is refused.
    """
    events: list[DecodedEvent] = []
    refused: list[tuple[str, str]] = []
    for each in framed:
        span_id = ""
        try:
            if len(each.content) > longest_bytes:
                raise InvalidEventError(f"the span has {len(each.content)} bytes; valid: at most {longest_bytes}")
            span = read_span(each.content)
            span_id = _check_ids(span)
            scope_spans: ScopeSpans = {"scope": each.scope, "spans": [span]}
            request: TraceRequest = {"resourceSpans": [{"resource": each.resource, "scopeSpans": [scope_spans]}]}
            converted = [event for alone in read_spans(request) for event in convert_span(OTLP_SOURCE, alone)]
            found = land_events(converted, reception, OTLP_SOURCE)
        except InvalidEventError as error:
            refused.append((span_id, str(error)))
        else:
            events.extend(found)
    return DecodedSpans(len(framed), events, refused)


def _check_ids(span: Span) -> str:
    trace_id, span_id = (span.get("traceId") or "").lower(), (span.get("spanId") or "").lower()
    if not (_TRACE_ID.match(trace_id) and _SPAN_ID.match(span_id)):
        raise InvalidEventError(
            f"`traceId` is {trace_id[:40]!r} and `spanId` {span_id[:40]!r}; valid: 32 and 16 hexadecimal digits, not "
            "all zero"
        )
    span["traceId"], span["spanId"] = trace_id, span_id
    for link in span.get("links", ()):
        link["traceId"], link["spanId"] = link.get("traceId", "").lower(), link.get("spanId", "").lower()
    return f"{trace_id}/{span_id}"


# JSON ----------------------------------------------------------------------------------------------------------------


class _FramedScope(TypedDict, total=False):
    scope: msgspec.Raw
    spans: list[msgspec.Raw]


class _FramedResource(TypedDict, total=False):
    resource: msgspec.Raw
    scopeSpans: list[_FramedScope]


class _FramedRequest(TypedDict, total=False):
    resourceSpans: list[_FramedResource]


class _CountedScope(CountedObject):
    spans: list[CountedObject] = msgspec.field(default_factory=list)


class _CountedResource(CountedObject, rename="camel"):
    scope_spans: list[_CountedScope] = msgspec.field(default_factory=list)


class _CountedRequest(CountedObject, rename="camel"):
    resource_spans: list[_CountedResource] = msgspec.field(default_factory=list)


class _CountedPart(CountedObject, rename="camel"):
    """Counts a span, and the events, links, attributes and values in it."""

    events: "list[_CountedPart]" = msgspec.field(default_factory=list)
    links: "list[_CountedPart]" = msgspec.field(default_factory=list)
    attributes: "list[_CountedPart]" = msgspec.field(default_factory=list)
    values: "list[_CountedPart]" = msgspec.field(default_factory=list)
    value: "_CountedPart | None" = None
    array_value: "_CountedPart | None" = None
    kvlist_value: "_CountedPart | None" = None


_count_in_request = msgspec.json.Decoder(_CountedRequest).decode
_count_in_span = msgspec.json.Decoder(_CountedPart).decode
_shared_decoder: msgspec.json.Decoder[Attributed] = msgspec.json.Decoder(Attributed)
_request_decoder: msgspec.json.Decoder[_FramedRequest] = msgspec.json.Decoder(_FramedRequest)
_span_decoder: msgspec.json.Decoder[Span] = msgspec.json.Decoder(Span)


def frame_json(body: bytes, most_spans: int) -> Iterator[FramedSpan]:
    """List the spans of a request in OTLP's JSON.

    Raises:
        MalformedTracesError: it is none.
        TooManySpansError: it has more spans.
    """
    try:
        _refuse_too_many(_count_in_request, body, _FIELDS_PER_SPAN * most_spans)
        request = decode_strictly(body, _request_decoder)
    except TooManyElementsError:
        raise TooManySpansError from None
    except InvalidEventError as error:
        raise MalformedTracesError(str(error)) from None
    left = most_spans
    for of_resource in request.get("resourceSpans", ()):
        resource = _read_shared(of_resource.get("resource", _NOTHING))
        for of_scope in of_resource.get("scopeSpans", ()):
            scope = _read_shared(of_scope.get("scope", _NOTHING))
            for span in of_scope.get("spans", ()):
                if (left := left - 1) < 0:
                    raise TooManySpansError
                yield FramedSpan(resource, scope, bytes(span))


def _refuse_too_many(decode: Callable[[bytes | bytearray], object], content: bytes, limit: int) -> None:
    """Count objects before they exist: two bytes of JSON become 64 and more.

    Raises:
        TooManyElementsError: there are more.
        InvalidEventError: something is not the object that it must be.
    """
    if content.count(b"{") <= limit and content.count(b",") <= limit:
        return
    try:
        count_objects(decode, content, limit)
    except msgspec.DecodeError as error:
        raise InvalidEventError(f"not spans in OTLP's JSON: {error}") from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidEventError("not spans in OTLP's JSON: bad UTF-8, or nested too deeply") from None


def _read_shared(content: msgspec.Raw) -> Attributed:
    given = bytes(content)
    if len(given) > _LONGEST_SHARED_BYTES:
        raise _build_shared_too_long(len(given))
    try:
        return decode_strictly(given, _shared_decoder)
    except InvalidEventError as error:
        raise MalformedTracesError(str(error)) from None


def read_json_span(content: bytes) -> Span:
    """Read one span in JSON.

    Raises:
        InvalidEventError: it is none, or has more parts than a span of an SDK.
    """
    try:
        _refuse_too_many(_count_in_span, content, _MOST_PARTS)
    except TooManyElementsError:
        raise InvalidEventError(f"the span has more than {_MOST_PARTS} attributes, events, links and values") from None
    return decode_strictly(content, _span_decoder)


# Protobuf ------------------------------------------------------------------------------------------------------------


def frame_protobuf(body: bytes, most_spans: int) -> Iterator[FramedSpan]:
    """List the spans of a request in protobuf, found by the wire format alone.

    The fields are `resource_spans = 1`; of these `resource = 1` and `scope_spans = 2`; of these `scope = 1` and
    `spans = 2` (opentelemetry-proto, `trace.proto`).

    Raises:
        MalformedTracesError: it is none.
        TooManySpansError: it has more fields than so many spans can need.
    """
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    wire, left = _Wire(_FIELDS_PER_SPAN * most_spans), most_spans
    try:
        for of_resource in wire.group(memoryview(body))[1]:
            fields = wire.group(of_resource)
            resource = _join_shared(fields[1])
            shared: Attributed = {"attributes": _read_attributes(Resource.FromString(resource).attributes)}
            for of_scope in fields[2]:
                fields_of_scope = wire.group(of_scope)
                scope = InstrumentationScope.FromString(_join_shared(fields_of_scope[1]))
                described: Attributed = {"name": scope.name, "attributes": _read_attributes(scope.attributes)}
                for span in fields_of_scope[2]:
                    if (left := left - 1) < 0:
                        raise TooManySpansError
                    yield FramedSpan(shared, described, bytes(span))
    except DecodeError:
        raise MalformedTracesError("not an ExportTraceServiceRequest in protobuf: a message cannot be read") from None


def _join_shared(contents: Sequence[memoryview]) -> bytes:
    """Join the contents of a field that came several times: protobuf merges them so."""
    joined = b"".join(contents)
    if len(joined) > _LONGEST_SHARED_BYTES:
        raise _build_shared_too_long(len(joined))
    return joined


def _build_shared_too_long(size_bytes: int) -> MalformedTracesError:
    return MalformedTracesError(f"a resource or a scope has {size_bytes} bytes; valid: at most {_LONGEST_SHARED_BYTES}")


def read_protobuf_span(content: bytes) -> Span:
    """Read one span in protobuf.

    Raises:
        InvalidEventError: it is none.
    """
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

    try:
        message = SpanMessage.FromString(content)
    except DecodeError:
        raise InvalidEventError("not a Span in protobuf: it cannot be read") from None
    for name, values in (("attributes", message.attributes), ("events", message.events), ("links", message.links)):
        if len(values) > _MOST_VALUES:
            raise InvalidEventError(f"the span has {len(values)} {name}; valid: at most {_MOST_VALUES}")
    return _read_message(message)


def _read_message(message: "SpanMessage") -> Span:
    """Return a span in the shape of OTLP's JSON; `MessageToDict` takes more than twice as long."""
    span: Span = {
        "traceId": message.trace_id.hex(),
        "spanId": message.span_id.hex(),
        "name": message.name,
        "startTimeUnixNano": str(message.start_time_unix_nano),
        "endTimeUnixNano": str(message.end_time_unix_nano),
        "attributes": _read_attributes(message.attributes),
    }
    if message.parent_span_id:
        span["parentSpanId"] = message.parent_span_id.hex()
    if message.status.code:
        span["status"] = {"code": message.status.code, "message": message.status.message}
    if message.events:
        span["events"] = [
            {
                "name": each.name,
                "timeUnixNano": str(each.time_unix_nano),
                "attributes": _read_attributes(each.attributes),
            }
            for each in message.events
        ]
    if message.links:
        span["links"] = [
            {
                "traceId": each.trace_id.hex(),
                "spanId": each.span_id.hex(),
                "attributes": _read_attributes(each.attributes),
            }
            for each in message.links
        ]
    return span


def _read_attributes(attributes: "Sequence[KeyValueMessage]") -> list[KeyValue]:
    return [{"key": each.key, "value": _read_value(each.value)} for each in attributes]


def _read_value(value: "AnyValueMessage") -> AnyValue:
    match value.WhichOneof("value"):
        case "string_value":
            return {"stringValue": value.string_value}
        case "int_value":
            return {"intValue": value.int_value}
        case "double_value":
            return {"doubleValue": value.double_value}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case "array_value":
            return {"arrayValue": {"values": [_read_value(each) for each in value.array_value.values]}}
        case "kvlist_value":
            return {"kvlistValue": {"values": _read_attributes(value.kvlist_value.values)}}
        case "bytes_value":
            return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
        case _:
            return {}


_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIELDS_PER_SPAN = 4
"""One of the span, and three of its scope or resource where each span has one of its own."""


class _Wire:
    """Reads protobuf's wire format, up to a number of fields.

    A body of 32 MB may hold 16 million empty ones. Groups, wire types 3 and 4, occur nowhere in OTLP.
    Source: protobuf.dev/programming-guides/encoding.
    """

    def __init__(self, most_fields: int) -> None:
        self._left = most_fields

    def group(self, content: memoryview) -> "defaultdict[int, list[memoryview]]":
        """Return the contents of a message's fields that have a length, by their numbers."""
        found: defaultdict[int, list[memoryview]] = defaultdict(list)
        position, end = 0, len(content)
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise TooManySpansError
            tag, position = _read_varint(content, position)
            wire_type = tag & 7
            if wire_type == _VARINT:
                _, position = _read_varint(content, position)
            elif wire_type == _LENGTH:
                length, position = _read_varint(content, position)
                found[tag >> 3].append(content[position : position + length])
                position += length
            elif wire_type in (_FIXED64, _FIXED32):
                position += 8 if wire_type == _FIXED64 else 4
            else:
                raise MalformedTracesError(f"not an ExportTraceServiceRequest in protobuf: wire type {wire_type}")
        if position != end:
            raise MalformedTracesError("not an ExportTraceServiceRequest in protobuf: it ends in a field")
        return found


def _read_varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise MalformedTracesError("not an ExportTraceServiceRequest in protobuf: a number never ends")
