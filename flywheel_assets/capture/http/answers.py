"""Defines the service's answers: one shape per outcome, and the reasons for a refusal."""

import math
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


class Answer(msgspec.Struct, frozen=True):
    """Holds the body of 202, and of 400 where every event was refused."""

    accepted: int
    results: list[EventResult]


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
