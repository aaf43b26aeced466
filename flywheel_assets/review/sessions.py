"""Signs reviewers in, keeps their sessions, and proves that a form was sent from a page of ours.

A browser cannot send a key as a header while a person follows links, so the key is given once, in a form. What the
browser keeps is a random cookie that is worth nothing elsewhere; the session lies in this process's memory, so a
restart signs all reviewers out. The key is asked again on every request: revoking it ends its sessions within a second.

Who reviews is never typed where anyone else could type it. A decision is signed by the holder of the key, so that each
reviewer has a key of their own; or by the person whom a reverse proxy (see `proxy`) or a provider of OpenID Connect
(see `openid`) has signed in.

Where the service has no keys only this machine reaches it, and a name is all that is asked. A web page can make its own
host name resolve to this machine, so then the request's host must be a loopback name.
"""

import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import Request

from flywheel_assets.capture.auth.access import Access, Caller, is_loopback
from flywheel_assets.capture.auth.keys import Scope
from flywheel_assets.capture.clock import Clock
from flywheel_assets.capture.http.answers import RefusedError
from flywheel_assets.errors import SettingsError
from flywheel_assets.review.openid import OpenIdProvider
from flywheel_assets.review.proxy import LONGEST_NAME, TrustedProxy

COOKIE = "flywheel_review"
_LASTS = timedelta(hours=12)
_MOST_SESSIONS = 1_000
_MOST_SKIPPED = 10_000


class PageRefusal(Exception):  # noqa: N818 - an answer to a person, not a failure
    """Answers a request with a page that shows the message; `status` is the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Session:
    """One reviewer in one browser."""

    cookie: str = field(repr=False)
    form_token: str = field(repr=False)
    name: str
    presented_key: str = field(repr=False)
    key_id: str | None
    ends_at: datetime
    skipped: set[str] = field(default_factory=set)
    """Row ids that this reviewer leaves to others; this reviewer sees them last."""
    notice: str = ""
    """The notice that the next page shows, once."""

    def skip(self, row_id: str) -> None:
        """Show this row last from now on."""
        if len(self.skipped) < _MOST_SKIPPED:
            self.skipped.add(row_id)

    def take_notice(self) -> str:
        """Return the notice and clear it."""
        notice, self.notice = self.notice, ""
        return notice


class Sessions:
    """All sessions of this process; used from one event loop."""

    def __init__(
        self,
        access: Access,
        applications: list[str],
        clock: Clock,
        proxy: TrustedProxy | None = None,
        provider: OpenIdProvider | None = None,
    ) -> None:
        if proxy is not None and provider is not None:
            raise SettingsError(
                "a proxy and a provider of OpenID Connect are set to sign reviewers in; unset FLYWHEEL_REVIEW_PROXY_… "
                "or FLYWHEEL_REVIEW_OPENID_…"
            )
        self._access = access
        self._proxy = proxy
        self.provider = provider
        self._applications = applications
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    @property
    def needs_key(self) -> bool:
        """True where signing in takes a key."""
        return not self._access.is_open

    def sign_in_by_proxy(self, request: Request) -> Session | None:
        """Begin the session of the person whom the proxy names; None where there is no proxy.

        Raises:
            RefusedError: see `TrustedProxy.name_reviewer`.
        """
        return None if self._proxy is None else self._begin(self._proxy.name_reviewer(request), "", None)

    def sign_in(self, name: str, presented_key: str) -> Session:
        """Begin a session: of the key's holder, or without keys of the name that was typed.

        Raises:
            PageRefusal: no name, or a key that opens no application for review; or a proxy signs people in.
        """
        if self._is_elsewhere:
            raise PageRefusal(403, "Reviewers sign in elsewhere: no name or key is asked here.")
        opened = self._find_applications(presented_key)
        if not opened:
            raise PageRefusal(
                403, "This key opens nothing here. `flywheel keys create --scope review` makes one that does."
            )
        caller = next(iter(opened.values()))
        name = " ".join((caller.holder or name).split())
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise PageRefusal(400, f"Give a name of 1 to {LONGEST_NAME} printable characters: it signs your decisions.")
        return self._begin(name, presented_key, caller.key_id)

    async def sign_in_by_provider(self, request: Request) -> Session:
        """Begin the session of the person whom the provider sends back.

        Raises:
            RefusedError: see `OpenIdProvider.finish`.
        """
        assert self.provider is not None
        return self._begin(await self.provider.finish(request), "", None)

    @property
    def _is_elsewhere(self) -> bool:
        """Return whether a proxy or a provider signs reviewers in."""
        return self._proxy is not None or self.provider is not None

    def _begin(self, name: str, presented_key: str, key_id: str | None) -> Session:
        session = Session(
            cookie=secrets.token_urlsafe(32),
            form_token=secrets.token_urlsafe(32),
            name=name,
            presented_key=presented_key,
            key_id=key_id,
            ends_at=self._clock() + _LASTS,
        )
        self._sessions[session.cookie] = session
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def sign_out(self, session: Session) -> None:
        """Delete a session."""
        self._sessions.pop(session.cookie, None)

    def find(self, request: Request) -> Session | None:
        """Find the session of a request; None where there is none, or not any more."""
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        if self._proxy is not None:
            # Asked again on every request: who signs in at the proxy as another person ends the session.
            name = self._proxy.name_reviewer(request)
            return session if session is not None and session.name == name and session.ends_at > self._clock() else None
        if session is None or session.ends_at <= self._clock() or not self._find_applications(session.presented_key):
            return None
        return session

    def list_applications(self, session: Session) -> list[str]:
        """List the applications that this reviewer may read and decide."""
        return list(self._find_applications(session.presented_key))

    def _find_applications(self, presented_key: str) -> dict[str, Caller]:
        """Find the applications that a key opens for review; without keys, or signed in elsewhere, all of them."""
        opened: dict[str, Caller] = {}
        for application in self._applications:
            if self._is_elsewhere:
                opened[application] = Caller(application)
                continue
            try:
                opened[application] = self._access.check_key(presented_key, application, Scope.REVIEW)
            except RefusedError:
                continue
        return opened

    def check_host(self, request: Request) -> None:
        """Refuse a request for another host name where nothing else protects the pages; see `check_host`."""
        if self._proxy is not None:
            self._proxy.name_reviewer(request)
        elif self.provider is None:
            check_host(self._access, request)


def check_host(access: Access, request: Request) -> None:
    """Refuse a request for another host name where no key protects the service.

    Raises:
        PageRefusal: there are no keys, and the request was for another host name.
    """
    if not access.is_open:
        return
    try:
        host = urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise PageRefusal(
            403, "Without keys these pages answer only to localhost. Create one with `flywheel keys create`."
        )


def check_sent_from_here(request: Request) -> None:
    """Refuse a form that was not sent by a page of this very service, as the browser says.

    Raises:
        PageRefusal: it was not, or the browser does not say.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    try:
        is_own = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        is_own = False
    if (site is not None and site != "same-origin") or (origin is not None and not is_own) or site is origin is None:
        raise PageRefusal(403, "This form was not sent from a page of this service. Open the page and try again.")


def check_form_token(session: Session, given: str) -> None:
    """Refuse a form without the token of this session's pages.

    Raises:
        PageRefusal: it does not.
    """
    if not hmac.compare_digest(session.form_token.encode(), given.encode("utf-8", "replace")):
        raise PageRefusal(403, "This page is older than your session. Open it again and decide there.")
