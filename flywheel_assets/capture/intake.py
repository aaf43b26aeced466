"""Makes the events of a request durable, and answers for each of them.

| answer | when | what a client does |
|---|---|---|
| 202 | at least one event is on disk; `results` says what became of each | fixes the refused ones |
| 400 | every event was refused (same body), or the body is not what it says it is | never sends the same again |
| 401, 403 | no valid key or signature; a key for something else, or of another page's origin | gets another key |
| 404, 405, 413, 415 | unknown application (the known ones are listed), method, size, content type | the same |
| 408 | the body did not arrive in time | retries |
| 429, `Retry-After` | the key has used up its rate | waits, then retries |
| 503, `Retry-After` | queue, disk or memory is full: nothing was acknowledged | retries; ids make repeats harmless |

No answer and no log line holds a user's text beyond the field that was wrong.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from shlex import quote
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from flywheel_assets.capture.auth.access import Access, Caller
from flywheel_assets.capture.auth.keys import Scope
from flywheel_assets.capture.clock import Clock
from flywheel_assets.capture.counting import TooManyElementsError
from flywheel_assets.capture.endpoints import (
    BATCH_TYPE,
    LINES_TYPE,
    ONE_TYPE,
    PLAIN_TYPE,
    CaptureLimits,
    Endpoint,
    EventLog,
)
from flywheel_assets.capture.events.recent import RecentEvents
from flywheel_assets.capture.events.texts import (
    EDITS_SOURCE,
    DecodedEvent,
    LandedRow,
    Reception,
    land_retraction,
)
from flywheel_assets.capture.http.admission import Admission, Standing, read_address
from flywheel_assets.capture.http.answers import (
    Answer,
    EventResult,
    EventStatus,
    Refusal,
    RefusedError,
    build_json_response,
)
from flywheel_assets.capture.http.binary_mode import build_structured_event
from flywheel_assets.capture.http.bodies import Share
from flywheel_assets.capture.http.framing import (
    FramingError,
    check_array_start,
    check_lines_start,
    split_array,
    split_lines,
    starts_with_array,
)
from flywheel_assets.capture.operations.telemetry import Telemetry
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import EventLogError, InvalidEventError
from flywheel_assets.wire import LONGEST_IDENTIFIER

T = TypeVar("T")

_LINES_TYPES = dict.fromkeys(("application/jsonl", "application/x-jsonlines", "application/jsonlines"), LINES_TYPE)
_CHARGED = (Refusal.MALFORMED_BODY, Refusal.TOO_LARGE, Refusal.TIMEOUT, Refusal.DISCONNECTED)
_OURS = (Refusal.OVERLOADED, Refusal.NOT_DURABLE)
_BYTES_OF_ONE_EVENT = 2**10
_MEASURED_FROM_BYTES = 16 * 2**10  # what is smaller costs less CPU time than one event is charged for
DECODED_INLINE_BYTES = 256 * 2**10  # about 2 ms of decoding; a longer one would hold up every other request


@dataclass(frozen=True)
class Decoded:
    """Holds the content of a body, one entry per element, in order: an event, or the result that refuses it."""

    elements: list[DecodedEvent | EventResult]
    events: list[DecodedEvent]
    unmapped: list[str] = field(default_factory=list)
    """Fields of a classifier's own JSON that its application's mapping does not name."""


@dataclass(frozen=True)
class Intake:
    """Does the work of every endpoint, with what they share."""

    event_log: EventLog
    applications: Mapping[str, ScoreContract | None]
    """The applications that may send; a classifier comes with its declared fields."""
    limits: CaptureLimits
    clock: Clock
    access: Access
    telemetry: Telemetry
    admission: Admission
    decoder: Executor
    recent: RecentEvents = field(default_factory=RecentEvents)

    def build_receiver(self, endpoint: Endpoint) -> "Receiver":
        """Build the receiver of one endpoint's requests."""
        return Receiver(self, endpoint)

    async def answer_request(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer one request that brings events."""
        application: str = request.path_params["application"]

        async def take_events() -> Response:
            caller = self.admit(request, Scope.WRITE)
            standing, share = self.open_share(request, caller)
            with share:
                try:
                    self.check_application(application)
                    media_type = read_media_type(request, endpoint.content_types)
                    check = partial(self._check_start, media_type, share)
                    body = await self.admission.find_reader(standing).read(request, share, check)
                    caller = self.access.verify_body(caller, body)
                    if endpoint.is_binary_valid and "ce-specversion" in request.headers and media_type == PLAIN_TYPE:
                        body, media_type = build_structured_event(request.headers, body), ONE_TYPE
                    decoded = await self._decode(body, media_type, caller, endpoint, share)
                except RefusedError as refusal:
                    self.charge_refused(caller, refusal, share)
                    raise
                self.charge_cost(caller, share, len(decoded.elements))
                return _build_answer(await self.acknowledge(caller, decoded))

        return await self.answer(request, "POST", take_events, RefusedError.build_response)

    async def answer_retraction(self, request: Request) -> Response:
        """Answer one request that takes back what was sent under the id in its address."""
        application: str = request.path_params["application"]

        async def take_back() -> Response:
            caller = self.admit(request, Scope.WRITE)
            if caller.signed is not None:
                raise RefusedError(
                    Refusal.UNAUTHORIZED,
                    "a signature covers a body, and this request has none; send `Authorization: Bearer <key>`",
                )
            self.check_application(application)
            source = request.query_params.get("source", EDITS_SOURCE)
            return _build_answer(await self.acknowledge(caller, self._decode_retraction(request, source, caller)))

        return await self.answer(request, "DELETE", take_back, RefusedError.build_response)

    async def answer(
        self,
        request: Request,
        method: str,
        work: Callable[[], Awaitable[Response]],
        refuse: Callable[[RefusedError], Response],
    ) -> Response:
        """Answer by `work`, or by `refuse` where that raises `RefusedError`; browsers get the headers they need."""
        application: str = request.path_params["application"]
        try:
            if request.method == "OPTIONS":
                return Response(None, 204, self.access.build_preflight_headers(request, application, method))
            response = await work()
        except RefusedError as refusal:
            self.telemetry.note_refused_request(refusal.reason)
            response = refuse(refusal)
        cors_headers = self.access.build_cors_headers(request, application)
        if cors_headers:
            response.headers.update(cors_headers)
        return response

    def admit(self, request: Request, scope: Scope) -> Caller:
        """Return the sender of a request before its body is read; count strangers by their address.

        Raises:
            RefusedError: 401, 403 and 429 as `Access.admit` raises them, and 429 for an address with too many of 401.
        """
        try:
            return self.access.admit(request, request.path_params["application"], scope)
        except RefusedError as refusal:
            if refusal.reason is Refusal.UNAUTHORIZED:
                address = read_address(request)
                self.admission.check_address(Standing.STRANGER, address)
                self.admission.charge_address(Standing.STRANGER, address, 1)
            raise

    def open_share(self, request: Request, caller: Caller) -> tuple[Standing, Share]:
        """Return what is known of a sender, and the share of the memory that it may fill.

        Raises:
            RefusedError: 429 for a page or a stranger whose address has cost too much.
        """
        if caller.signed is not None:
            standing, holder = Standing.STRANGER, read_address(request)
        elif caller.is_page:
            standing, holder = Standing.PAGE, read_address(request)
        elif caller.key_id is not None:
            standing, holder = Standing.KEY, caller.key_id
        else:
            standing, holder = Standing.OPEN, ""
        return standing, self.admission.open_share(standing, holder)

    def charge_refused(self, caller: Caller, refusal: RefusedError, share: Share) -> None:
        """Charge its key, or the address of a stranger, for a request that was refused as a whole.

        A bad body costs one event for each KiB that was read or unpacked: such bodies cost memory and the decoder's
        time, and without a charge one key could send them without an end. For what is not the sender's fault it pays
        what was read.
        """
        if refusal.reason is Refusal.RATE_LIMITED:
            return  # its debt must not grow while it waits
        cost = max(share.cost, 0 if refusal.reason in _OURS else 1)
        if refusal.reason in _CHARGED:
            cost = max(cost, share.body_bytes // _BYTES_OF_ONE_EVENT)
        if caller.key_id is None and caller.signed is not None:
            self.admission.charge_address(Standing.STRANGER, share.holder, cost)
        self._charge(caller, share, cost)

    def charge_cost(self, caller: Caller, share: Share, charged: int) -> None:
        """Charge its key for what a taken body cost beyond its number of events."""
        if caller.is_page:
            self.admission.charge_address(Standing.PAGE, share.holder, charged)
        if share.cost > charged:
            self._charge(caller, share, share.cost - charged)

    def _charge(self, caller: Caller, share: Share, cost: int) -> None:
        self.access.charge(caller, cost)
        if caller.is_page:
            self.admission.charge_address(Standing.PAGE, share.holder, cost)

    def check_application(self, name: str) -> None:
        """Check that this service takes events of an application.

        Raises:
            RefusedError: it does not.
        """
        if name not in self.applications:
            known = ", ".join(sorted(self.applications))
            # A producer that is set up before capture was started again looks for its own mistake otherwise.
            raise RefusedError(
                Refusal.UNKNOWN_APPLICATION,
                f"unknown application {name[:80]!r}; known: {known}. Capture takes a new one after a restart",
            )

    async def _decode(self, body: bytes, media_type: str, caller: Caller, endpoint: Endpoint, share: Share) -> Decoded:
        contract = self.applications[caller.application]
        reception = Reception(caller.application, self.clock(), contract, caller.labels_as, caller.sender)
        decode = partial(self._decode_body, body, media_type, reception, endpoint)
        return self._count(caller, await self.decode_measured(decode, len(body), share), len(body))

    async def decode_measured(self, decode: Callable[[], T], body_bytes: int, share: Share) -> T:
        """Decode a body, a long one in the decoder's thread, and count the CPU time of all but the shortest."""
        if body_bytes <= _MEASURED_FROM_BYTES:
            return decode()
        if body_bytes <= DECODED_INLINE_BYTES:
            return share.measure(decode)
        return await asyncio.get_running_loop().run_in_executor(self.decoder, share.measure, decode)

    async def _check_start(self, media_type: str, share: Share, start: bytearray) -> None:
        """Refuse a body of too many elements, or too deep ones, before the rest of it is read or unpacked."""
        if media_type == LINES_TYPE:
            check = check_lines_start
        elif media_type == BATCH_TYPE or (media_type == PLAIN_TYPE and starts_with_array(start)):
            check = check_array_start
        else:
            longest = self.limits.event_bytes
            if len(start) > longest:
                raise RefusedError(Refusal.TOO_LARGE, f"the event has more bytes than {longest}")
            return
        try:
            work = partial(check, start, self.limits.batch_events)
            await asyncio.get_running_loop().run_in_executor(self.decoder, share.measure, work)
        except FramingError as error:
            raise RefusedError(Refusal.MALFORMED_BODY, str(error)) from None
        except TooManyElementsError:
            raise self._build_too_many() from None

    def _build_too_many(self) -> RefusedError:
        most = self.limits.batch_events
        return RefusedError(Refusal.TOO_LARGE, f"more than {most} events in one request; valid: at most {most}")

    def _decode_retraction(self, request: Request, source: str, caller: Caller) -> Decoded:
        client_id: str = request.path_params["feedback_id"]
        contract = self.applications[caller.application]
        reception = Reception(caller.application, self.clock(), contract, sender=caller.sender)
        try:
            for name, value in (("id", client_id), ("source", source)):
                if not 1 <= len(value) <= LONGEST_IDENTIFIER:
                    raise InvalidEventError(f"`{name}` has {len(value)} characters; valid: 1 to {LONGEST_IDENTIFIER}")
            event = land_retraction(client_id, source, reception)
        except InvalidEventError as error:
            return self._count(caller, Decoded([EventResult(client_id, EventStatus.REFUSED, str(error))], []), 0)
        return self._count(caller, Decoded([event], [event]), 0)

    def _count(self, caller: Caller, decoded: Decoded, body_bytes: int) -> Decoded:
        self.telemetry.note_received(caller.application, len(decoded.elements), body_bytes)
        self.telemetry.note_refused_events(len(decoded.elements) - len(decoded.events))
        self.access.charge(caller, len(decoded.elements))
        return decoded

    async def acknowledge(self, caller: Caller, decoded: Decoded) -> Answer:
        """Make events durable; return what became of each element.

        Raises:
            RefusedError: nothing could be made durable.
        """
        if self.access.is_repeat(caller):
            self.telemetry.note_repeated(caller.application, len(decoded.events))
            return Answer(0, [_mark_duplicate(element) for element in decoded.elements], decoded.unmapped)
        if not decoded.events:
            refused = [element for element in decoded.elements if isinstance(element, EventResult)]
            return Answer(0, refused, decoded.unmapped)
        await self.make_durable(caller, [row for event in decoded.events for row in event.rows])
        return Answer(len(decoded.events), self._note_durable(caller.application, decoded), decoded.unmapped)

    async def make_durable(self, caller: Caller, rows: Sequence[LandedRow]) -> None:
        """Append rows to the event log; return when they are durable.

        Raises:
            RefusedError: nothing may be acknowledged.
        """
        try:
            await self.event_log.append(caller.application, rows)
        except EventLogError as error:
            raise RefusedError(Refusal.NOT_DURABLE, str(error)) from None
        self.access.remember(caller)

    def _note_durable(self, application: str, decoded: Decoded) -> list[EventResult]:
        results: list[EventResult] = []
        repeated = superseded = 0
        for element in decoded.elements:
            if isinstance(element, EventResult):
                results.append(element)
                continue
            is_repeat, detail = self.recent.note(element)
            repeated += is_repeat
            if detail is None:
                results.append(EventResult(element.client_id, EventStatus.ACCEPTED))
            else:
                superseded += 1
                results.append(EventResult(element.client_id, EventStatus.SUPERSEDED, detail=detail))
        self.telemetry.note_accepted(application, len(decoded.events), repeated, superseded)
        return results

    def _decode_body(self, body: bytes, media_type: str, reception: Reception, endpoint: Endpoint) -> Decoded:
        return self._decode_all(self._split_elements(body, media_type), reception, endpoint)

    def _split_elements(self, body: bytes, media_type: str) -> list[bytes]:
        try:
            if media_type == LINES_TYPE:
                elements = split_lines(body, self.limits.batch_events)
            elif media_type == BATCH_TYPE or (media_type == PLAIN_TYPE and starts_with_array(body)):
                elements = split_array(body, self.limits.batch_events)
            else:
                elements = [body] if body.strip() else []
        except FramingError as error:
            raise RefusedError(Refusal.MALFORMED_BODY, str(error)) from None
        except TooManyElementsError:
            raise self._build_too_many() from None
        if not elements:
            raise RefusedError(Refusal.MALFORMED_BODY, "the request holds no event")
        return elements

    def _decode_all(self, elements: list[bytes], reception: Reception, endpoint: Endpoint) -> Decoded:
        found: list[DecodedEvent | EventResult] = []
        events: list[DecodedEvent] = []
        for element in elements:
            try:
                event = endpoint.decode(self._check_size(element), reception)
            except InvalidEventError as error:
                found.append(EventResult(endpoint.read_id(element, reception), EventStatus.REFUSED, str(error)))
            else:
                found.append(event)
                events.append(event)
            reception.advance()
        return Decoded(found, events, list(reception.unmapped))

    def _check_size(self, element: bytes) -> bytes:
        if len(element) > self.limits.event_bytes:
            raise InvalidEventError(f"the event has {len(element)} bytes; valid: at most {self.limits.event_bytes}")
        return element


@dataclass(frozen=True)
class Receiver:
    """Serves one endpoint as an ASGI application: one layer of Starlette's less than a function would have."""

    intake: Intake
    endpoint: Endpoint

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self.intake.answer_request(_Request(scope, receive), self.endpoint)
        await response(scope, receive, send)


class _Request(Request):
    """Looks headers up instead of searching for them, half a dozen times for each request."""

    def __init__(self, scope: ASGIScope, receive: Receive) -> None:
        super().__init__(scope, receive)
        # Where a header comes twice the first one counts, as in Starlette's own class.
        self._by_name = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}

    @property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        """Return every header by its name in lower case."""
        return self._by_name


def _build_answer(answer: Answer) -> Response:
    # The status is 202 as well where nothing was new: a repeat is a success.
    is_success = any(result.status is not EventStatus.REFUSED for result in answer.results)
    return build_json_response(202 if is_success else 400, answer)


def _mark_duplicate(element: DecodedEvent | EventResult) -> EventResult:
    return element if isinstance(element, EventResult) else EventResult(element.client_id, EventStatus.DUPLICATE)


def read_media_type(request: Request, valid: Sequence[str]) -> str:
    """Return the media type of a body.

    Raises:
        RefusedError: it is none of the valid ones.
    """
    given = request.headers.get("content-type", "")
    media_type, _, parameters = given.partition(";")
    media_type = media_type.strip().lower()
    media_type = _LINES_TYPES.get(media_type, media_type)
    if parameters:
        charset = parameters.replace(" ", "").replace('"', "").lower()
        is_utf8 = "charset=" not in charset or "charset=utf-8" in charset or "charset=utf8" in charset
    else:
        is_utf8 = True
    if media_type in valid and is_utf8:
        return media_type
    error = f"content-type is {given[:80]!r}; valid: {', '.join(valid)} (in UTF-8)"
    if media_type == "application/x-www-form-urlencoded":
        url = quote(str(request.url.replace(query=""))[:500])
        error += (
            f". `curl -d` sends this type unless it is given another; paste: curl {url} "
            f"-H 'content-type: {PLAIN_TYPE}' --data-binary @events.json"
        )
    raise RefusedError(Refusal.CONTENT_TYPE, error)
