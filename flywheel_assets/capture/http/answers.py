"""Defines the service's answers: one shape per outcome, and the reasons for a refusal."""

import math
from datetime import date
from enum import StrEnum

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

RETRY_AFTER_S = 2


class EventStatus(StrEnum):
    """Names the outcome for one element of a request."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DUPLICATE = "duplicate"
    """Acknowledged before, under the same webhook id: a success, and nothing was written again."""
    SUPERSEDED = "superseded"
    """Durable, and one of several contents under its id: a success, and `detail` says which of them counts."""


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Holds the outcome for one element: its id where it could be read, and the reason of a refusal.

    `detail` says of a superseded one which content of its id counts.
    """

    id: str | None
    status: EventStatus
    error: str | None = None
    detail: str | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds the body of 202, and of 400 where every event was refused.

    `unmapped` names fields of a classifier's own JSON that its application's field mapping does not name: they are not
    stored.
    """

    accepted: int
    results: list[EventResult]
    unmapped: list[str] = []


class RefusedRecords(msgspec.Struct, frozen=True):
    """Counts records that were refused for one cause; `first` is the number of the first of them."""

    error: str
    records: int
    first: int


class LandedHistory(msgspec.Struct, frozen=True):
    """Says which days have received history."""

    decision: str | None
    """Id of the audited decision; null: everything had landed before."""
    days: list[date]
    reopened: list[date]
    """Those that had been closed."""
    known_rows: int
    """Rows that were left out because their day holds them already."""
    next: str | None
    """The command that makes every table right; null: nothing has changed."""


class RecordsAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds the body of 202, and of 400 where every record was refused: records = accepted + refused + unused."""

    format: str
    shape: str
    records: int
    accepted: int
    refused: int
    unused: int
    """Records that say nothing of use."""
    events: dict[str, int]
    """Accepted events by kind."""
    causes: list[RefusedRecords] = []
    """The most frequent first."""
    unmapped: list[str] = []
    """Fields of the first records that become no part of an event."""
    history: LandedHistory | None = None


class Problem(msgspec.Struct, frozen=True):
    """Holds the body of every other answer."""

    error: str


class Refusal(StrEnum):
    """Names the reason of a refusal, of a request or one event: the `reason` label of the metrics."""

    INVALID_EVENT = "invalid_event"
    MALFORMED_BODY = "malformed_body"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNKNOWN_APPLICATION = "unknown_application"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    TOO_LARGE = "too_large"
    CONTENT_TYPE = "content_type"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    NOT_DURABLE = "not_durable"


_STATUS = {
    Refusal.MALFORMED_BODY: 400,
    Refusal.DISCONNECTED: 400,
    Refusal.UNAUTHORIZED: 401,
    Refusal.FORBIDDEN: 403,
    Refusal.UNKNOWN_APPLICATION: 404,
    Refusal.TIMEOUT: 408,
    Refusal.TOO_LARGE: 413,
    Refusal.CONTENT_TYPE: 415,
    Refusal.RATE_LIMITED: 429,
    Refusal.OVERLOADED: 503,
    Refusal.NOT_DURABLE: 503,
}


class RefusedError(Exception):
    """Refuses a request as a whole with the reason's status; the client receives the message."""

    def __init__(self, reason: Refusal, error: str, retry_after_s: float = RETRY_AFTER_S) -> None:
        super().__init__(error)
        self.reason = reason
        self.error = error
        self.retry_after_s = retry_after_s

    def build_response(self) -> Response:
        """Build the answer in the shape that most endpoints have."""
        status, headers = self.build_head()
        return build_json_response(status, Problem(self.error), headers)

    def build_head(self) -> tuple[int, dict[str, str]]:
        """Build the answer's status and headers.

        401 says how to authenticate; 429 and 503 say when to come back, in whole seconds, at least one.
        """
        status = _STATUS[self.reason]
        headers = {}
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="flywheel capture"'
        if status in (429, 503):
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return status, headers


def build_json_response(status: int, body: msgspec.Struct, headers: dict[str, str] | None = None) -> Response:
    """Build an answer whose body is a struct."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def answer_http_error(_: Request, error: Exception) -> Response:
    """Answer Starlette's own refusals (404, 405) in the shape of ours."""
    assert isinstance(error, HTTPException)
    return build_json_response(error.status_code, Problem(error.detail), dict(error.headers or {}))


async def answer_refusal(_: Request, error: Exception) -> Response:
    """Answer the refusal that a route raised."""
    assert isinstance(error, RefusedError)
    return error.build_response()
