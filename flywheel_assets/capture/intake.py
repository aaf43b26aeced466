"""The two endpoints: a request's body becomes durable events and an answer per event.

| answer | when | what a client does |
|---|---|---|
| 202 | at least one event is on disk; `results` says which were refused | fixes the refused ones |
| 400 | every event was refused (same body), or the body is not what it says it is | never sends the same again |
| 404, 405, 413, 415 | unknown application (the known ones are listed), method, size, content type | the same |
| 408 | the body did not arrive in time | retries |
| 503, `Retry-After` | the queue or the disk is full: nothing was acknowledged | retries; ids make repeats harmless |

No answer and no log line holds a user's text beyond the field that was wrong.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from flywheel_assets.capture import framing
from flywheel_assets.capture.events import DecodedEvent, LandedRow, Reception, decode_cloud_event, decode_edit
from flywheel_assets.capture.refusals import claimed_id
from flywheel_assets.capture.segments import Clock
from flywheel_assets.errors import EventLogError, InvalidEventError

RETRY_AFTER_S = 2
BODY_TIMEOUT_S = 60.0

_ONE = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_LINES = "application/x-ndjson"
_PLAIN = "application/json"
_EVENT_TYPES = (_ONE, _BATCH, _LINES, _PLAIN)
_EDIT_TYPES = (_PLAIN, _LINES)


class EventLog(Protocol):
    """Whatever makes events durable."""

    def start(self) -> None:
        """Get ready to append; may block."""

    def stop(self) -> None:
        """Hand over everything that was acknowledged; may block."""

    async def append(self, application: str, rows: Sequence[LandedRow]) -> None:
        """Return when the rows are durable; raise `EventLogError` when nothing may be acknowledged."""


@dataclass(frozen=True)
class CaptureLimits:
    """How much one request may bring."""

    event_bytes: int = 4 * 2**20
    request_bytes: int = 32 * 2**20
    batch_events: int = 10_000


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one element: its id where it could be read, accepted or refused, and why."""

    id: str | None
    status: str
    error: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The body of 202, and of 400 where every event was refused."""

    accepted: int
    results: list[EventResult]


class Problem(msgspec.Struct, frozen=True):
    """The body of every other answer."""

    error: str


class _RefusedError(Exception):
    """The request as a whole is answered with this status."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


_Decode = Callable[[bytes, Reception], DecodedEvent]


@dataclass(frozen=True)
class Intake:
    """The two endpoints and what they share."""

    event_log: EventLog
    applications: frozenset[str]
    limits: CaptureLimits
    clock: Clock

    async def events(self, request: Request) -> Response:
        """`POST /v1/{application}/events`: CloudEvents, single, batch or NDJSON."""
        return await self._take(request, _EVENT_TYPES, decode_cloud_event)

    async def edits(self, request: Request) -> Response:
        """`POST /v1/{application}/edits`: one edit, an array of them, or NDJSON."""
        return await self._take(request, _EDIT_TYPES, decode_edit)

    async def _take(self, request: Request, content_types: Sequence[str], decode: _Decode) -> Response:
        try:
            application = self._application(request)
            media_type = _media_type(request, content_types)
            elements = self._elements(await self._receive(request), media_type)
        except _RefusedError as refusal:
            return _json(refusal.status, Problem(refusal.error))
        results, rows = self._decode_all(elements, Reception(application, self.clock()), decode)
        if rows:
            try:
                await self.event_log.append(application, rows)
            except EventLogError as error:
                return _json(503, Problem(str(error)), {"Retry-After": str(RETRY_AFTER_S)})
        accepted = sum(result.status == "accepted" for result in results)
        return _json(202 if accepted else 400, Answer(accepted, results))

    def _application(self, request: Request) -> str:
        name: str = request.path_params["application"]
        if name not in self.applications:
            known = ", ".join(sorted(self.applications))
            raise _RefusedError(404, f"unknown application {name[:80]!r}; known: {known}")
        return name

    async def _receive(self, request: Request) -> bytes:
        # Counted while it streams: Content-Length may lie or be absent.
        cap = self.limits.request_bytes
        too_large = _RefusedError(413, f"the request is larger than {cap} bytes; send fewer events at a time")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > cap:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > cap:
                        raise too_large
        except TimeoutError:
            raise _RefusedError(408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None
        except ClientDisconnect:
            raise _RefusedError(400, "the client went away before the body was complete") from None
        return bytes(body)

    def _elements(self, body: bytes, media_type: str) -> list[bytes]:
        try:
            if media_type == _LINES:
                elements = framing.split_lines(body)
            elif media_type == _BATCH or (media_type == _PLAIN and framing.starts_with_array(body)):
                elements = framing.split_array(body)
            else:
                elements = [body] if body.strip() else []
        except framing.FramingError as error:
            raise _RefusedError(400, str(error)) from None
        if not elements:
            raise _RefusedError(400, "the request holds no event")
        if len(elements) > self.limits.batch_events:
            raise _RefusedError(
                413, f"{len(elements)} events in one request; valid: at most {self.limits.batch_events}"
            )
        return elements

    def _decode_all(
        self, elements: list[bytes], reception: Reception, decode: _Decode
    ) -> tuple[list[EventResult], list[LandedRow]]:
        results: list[EventResult] = []
        rows: list[LandedRow] = []
        for element in elements:
            try:
                event = decode(self._sized(element), reception)
            except InvalidEventError as error:
                results.append(EventResult(claimed_id(element), "refused", str(error)))
            else:
                results.append(EventResult(event.client_id, "accepted"))
                rows.extend(event.rows)
        return results, rows

    def _sized(self, element: bytes) -> bytes:
        if len(element) > self.limits.event_bytes:
            raise InvalidEventError(f"the event has {len(element)} bytes; valid: at most {self.limits.event_bytes}")
        return element


def _media_type(request: Request, valid: Sequence[str]) -> str:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise _RefusedError(415, f"content-encoding is {encoding[:80]!r}; valid: identity (send the body uncompressed)")
    given = request.headers.get("content-type", "")
    media_type, _, parameters = given.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if media_type.strip().lower() not in valid or ("charset=" in charset and "charset=utf-8" not in charset):
        raise _RefusedError(415, f"content-type is {given[:80]!r}; valid: {', '.join(valid)} (in UTF-8)")
    return media_type.strip().lower()


def _json(status: int, body: Answer | Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def http_problem(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405) in the shape of ours."""
    assert isinstance(error, HTTPException)
    return _json(error.status_code, Problem(error.detail), dict(error.headers or {}))
