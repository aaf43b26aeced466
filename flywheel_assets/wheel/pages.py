"""Serves the page of the wheel at `/`, one page per application, and what became of an event.

The same people may look as may review: without keys everybody on this machine, under a loopback host name; else a
reviewer who signed in, or a program that sends a key of the scope `review`. Nothing here changes anything, so there
is no form that posts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from flywheel_assets import records
from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import Scope
from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.http.answers import RefusedError
from flywheel_assets.errors import FlywheelError
from flywheel_assets.lake.whatif.trace import Traced, trace_event
from flywheel_assets.review.pages import HEADERS, LONGEST_ID
from flywheel_assets.review.sessions import PageRefusal, Sessions, check_host
from flywheel_assets.review.static_files import answer_asset
from flywheel_assets.settings import Settings
from flywheel_assets.wheel._charts import draw_bars, draw_lines
from flywheel_assets.wheel.reading import Landed, Prices, Wheel, WheelReader

REFRESH_S = 30
"""Seconds after which a page that is seen asks whether a number has changed."""
VERSIONS_SHOWN = 8
"""The newest versions; the others are behind one more click."""
_ASSETS = {"wheel.css": "text/css", "wheel.js": "text/javascript"}
_HEADERS = {
    **HEADERS,
    # The script asks for the state of the numbers, nothing else.
    "Content-Security-Policy": HEADERS["Content-Security-Policy"] + "; connect-src 'self'",
}

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Links:
    """Addresses of the other pages; None: not known, so no link is shown."""

    dagster: str | None = None
    mlflow: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Links":
        """Take the addresses that the settings name."""
        dagster, mlflow = settings.dagster_url, settings.find_mlflow_url()
        return cls(dagster and dagster.rstrip("/"), mlflow and mlflow.rstrip("/"))

    def link_asset(self, application: str, asset: str) -> str | None:
        """Return the address of an asset in Dagster's UI."""
        return None if self.dagster is None else f"{self.dagster}/assets/{quote(application)}/{quote(asset)}"

    @property
    def automation(self) -> str | None:
        """Return the address of the sensors and schedules in Dagster's UI."""
        return None if self.dagster is None else f"{self.dagster}/automation"

    @property
    def runs(self) -> str | None:
        """Return the address of MLflow's experiments; it opens on pages that do not list runs otherwise."""
        return None if self.mlflow is None else f"{self.mlflow}/#/experiments?workflowType=machine_learning"


def build_wheel_pages(
    access: Access,
    sessions: Sessions,
    readers: Sequence[WheelReader],
    traced: Mapping[str, Traced],
    links: Links,
    prices: Prices,
    clock: Clock = read_clock,
) -> list[BaseRoute]:
    """Build the routes `/` and `/wheel/…`, which the capture service serves with its own.

    Args:
        access: knows the keys.
        sessions: those of the review pages: who signed in there has signed in here.
        readers: one per application.
        traced: by application the places in which an event leaves traces.
        links: addresses of the other pages.
        prices: of computing time and storage.
        clock: the present, UTC.
    """
    pages = _Pages(access, sessions, {each.name: each for each in readers}, traced, links, prices, clock)
    return [
        Route("/", pages.wrap(pages.serve_home), methods=["GET"]),
        Route("/wheel-assets/{name}", pages.wrap(pages.serve_asset), methods=["GET"]),
        Route("/wheel-state", pages.wrap(pages.serve_state), methods=["GET"]),
        Route("/wheel/{application}", pages.wrap(pages.serve_wheel), methods=["GET"]),
        Route("/wheel/{application}/trace", pages.wrap(pages.serve_trace), methods=["GET"]),
    ]


@dataclass(frozen=True)
class _Shown:
    """One application's wheel, ready for the templates."""

    wheel: Wheel
    landed: Landed


class _Pages:
    """The handlers; one instance per service, used from its event loop."""

    def __init__(
        self,
        access: Access,
        sessions: Sessions,
        readers: Mapping[str, WheelReader],
        traced: Mapping[str, Traced],
        links: Links,
        prices: Prices,
        clock: Clock,
    ) -> None:
        self._access = access
        self._sessions = sessions
        self._readers = readers
        self._traced = traced
        self._links = links
        self._prices = prices
        self._clock = clock

    def wrap(self, handler: Handler) -> Handler:
        """Wrap `handler`: its refusals become pages, and every answer gets its headers."""

        async def answer(request: Request) -> Response:
            try:
                check_host(self._access, request)
                response = await handler(request)
            except PageRefusal as refusal:
                response = self._render("message", refusal.status, message=refusal.message, names=[])
            except RefusedError as refusal:
                status = refusal.build_response().status_code
                response = self._render("message", status, message=refusal.error, names=[])
            except FlywheelError as error:
                response = self._render("message", 503, message=f"The numbers cannot be read: {error}", names=[])
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer

    async def serve_asset(self, request: Request) -> Response:
        """Serve the style sheet and the script."""
        return answer_asset(request, "flywheel_assets.wheel", _ASSETS)

    async def serve_home(self, request: Request) -> Response:
        """Show every application's wheel in short."""
        names = self._find_names(request)
        if names is None:
            return _redirect_to_sign_in("/")
        shown = [await asyncio.to_thread(self._read, name, self._clock()) for name in names]
        return self._render("home", names=names, shown=shown, state=_compute_state(shown), at=self._clock())

    async def serve_state(self, request: Request) -> Response:
        """Say in one word which numbers there are: the script compares it with that of its page."""
        names = self._find_names(request)
        if names is None:
            raise PageRefusal(401, "You are not signed in, or not any more.")
        wanted = request.query_params.get("application")
        if wanted is not None and wanted not in names:
            raise PageRefusal(404, "There is no such application here, or your key does not open it.")
        chosen = names if wanted is None else [wanted]
        shown = [await asyncio.to_thread(self._read, name, self._clock()) for name in chosen]
        return Response(msgspec.json.encode({"state": _compute_state(shown)}), media_type="application/json")

    async def serve_wheel(self, request: Request) -> Response:
        """Show one application's wheel in full."""
        names = self._find_names(request)
        name: str = request.path_params["application"]
        if names is None:
            return _redirect_to_sign_in(f"/wheel/{quote(name, safe='')}")
        if name not in names:
            raise PageRefusal(404, "There is no such application here, or your key does not open it.")
        shown = await asyncio.to_thread(self._read, name, self._clock())
        wheel = shown.wheel
        periods = wheel.accounts.periods
        return self._render(
            "wheel",
            names=names,
            application=name,
            shown=shown,
            state=_compute_state([shown]),
            at=self._clock(),
            bars=draw_bars(periods),
            lines=wheel.trend and draw_lines(wheel.trend, periods, wheel.models.serving.champion),
            versions_shown=VERSIONS_SHOWN,
            prices=self._prices,
            money=self._prices.describe,
            longest=LONGEST_ID,
        )

    async def serve_trace(self, request: Request) -> Response:
        """Show what became of the event whose id is in the address, without its texts."""
        names = self._find_names(request)
        name: str = request.path_params["application"]
        if names is None:
            return _redirect_to_sign_in(f"/wheel/{quote(name, safe='')}")
        if name not in names:
            raise PageRefusal(404, "There is no such application here, or your key does not open it.")
        wanted, source = (request.query_params.get(field, "").strip() for field in ("id", "source"))
        if max(len(wanted), len(source)) > LONGEST_ID:
            raise PageRefusal(400, f"An id has at most {LONGEST_ID} characters.")
        found = await asyncio.to_thread(trace_event, self._traced[name], wanted, source or None) if wanted else None
        return self._render(
            "trace", names=names, application=name, wanted=wanted, source=source, found=found, longest=LONGEST_ID
        )

    def _find_names(self, request: Request) -> list[str] | None:
        """Find the applications that the sender may see; None: a person has to sign in."""
        if self._access.is_open:
            return list(self._readers)
        session = self._sessions.find(request)
        if session is not None:
            return [name for name in self._sessions.list_applications(session) if name in self._readers]
        if "authorization" not in request.headers:
            return None
        opened, refused = [], None
        for name in self._readers:
            try:
                self._access.admit(request, name, Scope.REVIEW)
            except RefusedError as error:
                refused = error
            else:
                opened.append(name)
        if not opened and refused is not None:
            raise refused
        return opened

    def _read(self, name: str, now: datetime) -> _Shown:
        reader = self._readers[name]
        return _Shown(reader.read(now), reader.count_landed(now))

    def _render(self, template: str, status: int = 200, **values: Any) -> Response:
        given = {"links": self._links, "refresh_s": REFRESH_S, "needs_key": not self._access.is_open, **values}
        content = _load_templates().get_template(f"{template}.html").render(given)
        return Response(content.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8")


def _compute_state(shown: Sequence[_Shown]) -> str:
    return records.make_stable_id("wheels", [(each.wheel.fingerprint, vars(each.landed)) for each in shown])


def _redirect_to_sign_in(path: str) -> Response:
    return RedirectResponse(f"/review/sign-in?to={quote(path, safe='')}", status_code=303)


def _mark_commands(sentence: str) -> Markup:
    """Show what stands between backticks as code."""
    parts = sentence.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _format_bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"


def _format_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


@cache
def _load_templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flywheel_assets.wheel", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    environment.filters["commands"] = _mark_commands
    environment.filters["bytes"] = _format_bytes
    environment.filters["seconds"] = _format_seconds
    return environment
