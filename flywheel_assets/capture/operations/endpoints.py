"""What operators ask the service: does it live, can it take events, what did it count, what can it read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from flywheel_assets.capture.auth.access import Access, require_scope
from flywheel_assets.capture.auth.keys import EVERY_APPLICATION, Scope
from flywheel_assets.capture.endpoints import Endpoint, EventLog
from flywheel_assets.capture.http.answers import RETRY_AFTER_S, Problem, json_response
from flywheel_assets.capture.operations import _openapi as openapi
from flywheel_assets.capture.operations.telemetry import EXPOSITION_TYPE, Telemetry


class _Status(msgspec.Struct, frozen=True):
    status: str


@dataclass(frozen=True)
class Operations:
    """The handlers of `/healthz`, `/readyz`, `/metrics` and `/openapi.json`."""

    event_log: EventLog
    telemetry: Telemetry
    document: bytes

    @classmethod
    def of(
        cls,
        event_log: EventLog,
        telemetry: Telemetry,
        access: Access,
        endpoints: Sequence[Endpoint],
        applications: Sequence[str],
    ) -> "Operations":
        """With the document of these endpoints; it names the applications only where nobody needs a key."""
        described: dict[str, Any] = openapi.document(
            endpoints, applications if access.is_open else (), version("flywheel_assets")
        )
        return cls(event_log, telemetry, msgspec.json.encode(described))

    async def healthz(self, _: Request) -> Response:
        """The process lives and its event loop turns."""
        return json_response(200, _Status("ok"))

    async def readyz(self, _: Request) -> Response:
        """Events can be made durable; a load balancer sends them elsewhere while they cannot."""
        problem = self.event_log.not_ready()
        if problem is None:
            return json_response(200, _Status("ready"))
        return json_response(503, Problem(problem), {"Retry-After": str(RETRY_AFTER_S)})

    async def metrics(self, request: Request) -> Response:
        """Counters, which tell how much every application sends: for admins."""
        require_scope(request, EVERY_APPLICATION, Scope.ADMIN)
        return Response(self.telemetry.exposition(), headers={"content-type": EXPOSITION_TYPE})

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return Response(self.document, media_type="application/json")


_CACHED_S = 3600


@cache
def _script() -> tuple[bytes, str]:
    """The file and its entity tag."""
    content = files("flywheel_assets.capture").joinpath("browser", "flywheel.js").read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


async def browser_script(request: Request) -> Response:
    """Any page may load it: a page's right to send is decided where it sends."""
    content, tag = _script()
    headers = {
        "ETag": tag,
        "Cache-Control": f"public, max-age={_CACHED_S}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="text/javascript")
