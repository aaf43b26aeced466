"""Runs Dagster's webserver behind a guard against the pages of other origins.

Dagster's webserver asks for no login and executes what it is sent: a mutation in the address of a picture, shown by any
page on the web in a browser of this machine, launched runs. Bound to loopback it is open to every such page, because a
browser is on this machine as well.

The guard reads what a browser says about a request and no page can change: `Host`, `Origin` and `Sec-Fetch-*`.

| request | answer |
|---|---|
| for another host name than this machine's, while the server listens on loopback | 403: any name may resolve to it |
| with an `Origin` other than the server's own; every WebSocket and POST of a page has one | 403 |
| of a page of another origin, by `Sec-Fetch-Site` | 403, unless a person follows a link to a page of the UI |
| GET to `/graphql` with a query | 403: the UI never sends one, and an old browser says nothing about it |
| POST to `/graphql` of a type that a foreign form can send | 415 |
| anything else, of programs too | passed on |

`python -m flywheel_assets.webserver …` takes the arguments of `dagster-webserver`, with `dev` first those of
`dagster dev`.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flywheel_assets.capture.auth.access import is_loopback

_MODULE = "flywheel_assets.webserver"
_GRAPHQL = "/graphql"
_QUERY_TYPES = ("application/json", "application/graphql")
"""A page of another origin can send neither without asking first, and Dagster's webserver never allows it."""
_OWN_SITES = ("same-origin", "none")
"""`none`: a person typed the address, or chose a bookmark."""
_REFUSED_SOCKET = 1008


class PageGuard:
    """Refuses what pages of other origins send, before it reaches the application."""

    def __init__(self, application: ASGIApp, *, only_this_machine: bool) -> None:
        """Guard `application`; `only_this_machine` says that it listens on loopback."""
        self._application = application
        self._only_this_machine = only_this_machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused; pass on any other."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        refusal = self._find_refusal(scope)
        if refusal is None:
            await self._application(scope, receive, _forbid_foreign_frames(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _REFUSED_SOCKET, "reason": refusal[1][:100]})
        else:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)

    def _find_refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self._only_this_machine and not is_loopback(_read_host(host)):
            return 403, f"this server is {host[:200]!r} to you; it answers only as localhost or 127.0.0.1"
        origin = headers.get("origin")
        if origin is not None and _read_netloc(origin) != host:
            return 403, f"a page of {origin[:200]!r} may not send to this server"
        site = headers.get("sec-fetch-site", "none")
        is_query = scope["path"].rstrip("/").endswith(_GRAPHQL)
        if site not in _OWN_SITES and (is_query or not _is_followed_link(scope, headers)):
            return 403, "a page of another origin may not send to this server; it may link to it"
        if not is_query or scope["type"] == "websocket":
            return None
        if scope["method"] == "GET" and "query" in parse_qs(scope["query_string"].decode("latin-1")):
            return 403, "GET executes nothing here: POST the query as application/json"
        if scope["method"] == "POST" and _read_media_type(headers) not in _QUERY_TYPES:
            return 415, f"POST the query as one of {', '.join(_QUERY_TYPES)}"
        return None


def _is_followed_link(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Return whether a person goes to a page of the UI in a tab.

    A frame in a page is no such visit.
    """
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _forbid_foreign_frames(send: Send) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"x-frame-options", b"SAMEORIGIN")]
        await send(message)

    return forward


def _read_media_type(headers: Mapping[str, str]) -> str:
    # Dagster looks for the name anywhere in the header: `text/plain; application/json` would pass there.
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _read_host(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _read_netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def main(arguments: Sequence[str]) -> None:
    """Run the guarded webserver, or `dagster dev` with it, until interrupted."""
    if arguments[:1] == ["dev"]:
        _run_dev(arguments[1:])
    else:
        _run_webserver(arguments)


def _run_webserver(arguments: Sequence[str]) -> None:
    from dagster_webserver import cli

    host = _read_option(arguments, "--host", "-h") or cli.DEFAULT_WEBSERVER_HOST
    build = cli.create_app_from_workspace_process_context  # type: ignore[attr-defined]

    def build_guarded(*given: Any, **named: Any) -> PageGuard:
        return PageGuard(build(*given, **named), only_this_machine=is_loopback(host))

    cli.create_app_from_workspace_process_context = build_guarded  # type: ignore[attr-defined, assignment]
    cli.cli(list(arguments), auto_envvar_prefix="DAGSTER_WEBSERVER")


def _run_dev(arguments: Sequence[str]) -> None:
    from dagster._cli import dev

    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]

    def start_guarded(parts: Sequence[str], **named: Any) -> Any:
        return start([_MODULE if part == "dagster_webserver" else part for part in parts], **named)

    dev.open_ipc_subprocess = start_guarded  # type: ignore[attr-defined]
    dev.dev_command(list(arguments))


def _read_option(arguments: Sequence[str], *names: str) -> str | None:
    for name, value in pairwise(arguments):
        if name in names:
            return value
    return next((each.partition("=")[2] for each in arguments if each.startswith(f"{names[0]}=")), None)


if __name__ == "__main__":
    main(sys.argv[1:])
