"""Signs reviewers in by OpenID Connect, at any provider that publishes its configuration.

The authorization code flow with PKCE (RFC 7636), `state` and `nonce`. The ID token comes straight from the provider's
token endpoint over TLS, which proves who issued it: OpenID Connect Core 1.0, 3.1.3.7 (6) lets a client do without the
signature then. So no key of the provider is fetched, and no JWT library is needed. Issuer, audience, nonce and times
are checked; an issuer that is not on this machine must be https.

Who has an account at the provider is no reviewer yet: the settings list who is.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
from starlette.requests import Request

from flywheel_assets.capture.auth.access import is_loopback
from flywheel_assets.capture.clock import Clock
from flywheel_assets.capture.http.answers import Refusal, RefusedError
from flywheel_assets.errors import SettingsError

_T = TypeVar("_T")
STATE_COOKIE = "flywheel_review_state"
CALLBACK_PATH = "/review/sign-in/openid"
_LASTS = timedelta(minutes=10)
_CLOCK_TOLERANCE_S = 60
_MOST_BEGUN = 1_000
_TIMEOUT_S = 10.0
_MOST_BYTES = 256 * 2**10


@dataclass(frozen=True)
class OpenIdSettings:
    """Names a provider, this client of it, and who may review."""

    issuer: str
    client_id: str
    client_secret: str
    reviewers: tuple[str, ...]
    """Verified mail addresses, `@domain` for all of a domain, or `sub:…` for one account's id."""

    @classmethod
    def from_settings(cls, issuer: str, client_id: str, client_secret: str, reviewers: str) -> Self | None:
        """Read the four settings; None where there is no provider.

        Raises:
            SettingsError: some of them are missing, or the issuer is no https address.
        """
        named = tuple(each.strip() for each in reviewers.split(",") if each.strip())
        given = {"ISSUER": issuer, "CLIENT_ID": client_id, "CLIENT_SECRET": client_secret, "REVIEWERS": named}
        missing = [f"FLYWHEEL_REVIEW_OPENID_{name}" for name, value in given.items() if not value]
        if len(missing) == len(given):
            return None
        if missing:
            raise SettingsError(
                f"{', '.join(missing)} is not set; signing in by OpenID Connect needs all four, for instance "
                "FLYWHEEL_REVIEW_OPENID_REVIEWERS=ann@example.com,@reviews.example.com"
            )
        parts = urlsplit(issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise SettingsError(f"FLYWHEEL_REVIEW_OPENID_ISSUER is {issuer[:200]!r}; valid: an https address")
        return cls(issuer, client_id, client_secret, named)

    def name_reviewer(self, claims: "_Claims") -> str | None:
        """Return the name by which an account reviews; None where it may not."""
        email = claims.email.lower() if claims.email and claims.email_verified is True else ""
        allowed = {each.lower() for each in self.reviewers if not each.startswith("sub:")}
        if email and (email in allowed or f"@{email.rpartition('@')[2]}" in allowed):
            return email
        return claims.sub if f"sub:{claims.sub}" in self.reviewers else None


class _Configuration(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    nonce: str = ""
    azp: str | None = None
    email: str | None = None
    email_verified: bool | None = None


@dataclass(frozen=True)
class _Begun:
    nonce: str
    verifier: str
    redirect_uri: str
    ends_at: datetime


class OpenIdProvider:
    """Sends people to the provider and reads whom it sends back; used from one event loop."""

    def __init__(self, settings: OpenIdSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._configuration: _Configuration | None = None
        self._begun: OrderedDict[str, _Begun] = OrderedDict()

    async def begin(self, request: Request) -> tuple[str, str]:
        """Return the provider's address to go to, and the state for the browser's cookie.

        Raises:
            RefusedError: the provider cannot be reached, or is another one than the settings name.
        """
        configuration = await self._configure()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        redirect_uri = str(request.url.replace(path=CALLBACK_PATH, query="", fragment=""))
        self._begun[state] = _Begun(nonce, verifier, redirect_uri, self._clock() + _LASTS)
        while len(self._begun) > _MOST_BEGUN:
            self._begun.popitem(last=False)
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "scope": "openid email",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        join = "&" if urlsplit(configuration.authorization_endpoint).query else "?"
        return f"{configuration.authorization_endpoint}{join}{urlencode(query)}", state

    async def finish(self, request: Request) -> str:
        """Return the name of the reviewer whom the provider sends back.

        Raises:
            RefusedError: this browser did not ask for it, the provider refused or cannot be reached, its token is not
                for us, or the person is no reviewer.
        """
        state, code = (request.query_params.get(name, "") for name in ("state", "code"))
        begun = self._begun.pop(state, None)
        # The cookie binds the answer to the browser that asked: else a link could sign a victim in as its sender.
        is_own = hmac.compare_digest(request.cookies.get(STATE_COOKIE, "").encode(), state.encode())
        if begun is None or begun.ends_at <= self._clock() or not is_own:
            raise _refuse("This sign-in did not begin in this browser, or took longer than ten minutes. Begin again.")
        if not code:
            raise _refuse(f"The provider did not sign you in: {request.query_params.get('error', 'no code')[:100]}.")
        claims = _read_claims((await self._exchange(code, begun)).id_token)
        self._check(claims, begun)
        name = self._settings.name_reviewer(claims)
        if name is None:
            raise _refuse(
                "You are signed in, and no reviewer here. FLYWHEEL_REVIEW_OPENID_REVIEWERS lists verified mail "
                f"addresses, domains, and account ids; yours is sub:{claims.sub[:100]}"
            )
        return name

    def _check(self, claims: _Claims, begun: _Begun) -> None:
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        client = self._settings.client_id
        wrong = [
            name
            for name, is_right in (
                ("iss", claims.iss == self._settings.issuer),
                ("aud", client in audience and claims.azp in (None, client) and (len(audience) == 1 or claims.azp)),
                ("nonce", hmac.compare_digest(claims.nonce.encode(), begun.nonce.encode())),
                ("exp", claims.exp > self._clock().timestamp() - _CLOCK_TOLERANCE_S),
            )
            if not is_right
        ]
        if wrong:
            raise _refuse(f"The provider's token is not for this sign-in: {', '.join(wrong)}.")

    async def _configure(self) -> _Configuration:
        if self._configuration is None:
            url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            found = await _ask("GET", url, _Configuration)
            if found.issuer != self._settings.issuer:
                raise _refuse(f"{url} is of the issuer {found.issuer[:200]!r}, not {self._settings.issuer!r}.")
            secure = urlsplit(self._settings.issuer).scheme
            if {urlsplit(each).scheme for each in (found.authorization_endpoint, found.token_endpoint)} != {secure}:
                raise _refuse(f"{url} names endpoints that are not {secure}.")
            self._configuration = found
        return self._configuration

    async def _exchange(self, code: str, begun: _Begun) -> _Tokens:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.redirect_uri,
            "code_verifier": begun.verifier,
            "client_id": self._settings.client_id,
            "client_secret": self._settings.client_secret,
        }
        return await _ask("POST", (await self._configure()).token_endpoint, _Tokens, form)


async def _ask(method: str, url: str, kind: type[_T], form: dict[str, Any] | None = None) -> _T:
    """Ask the provider; no redirect is followed, and no answer is shown: it may hold a token."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = await client.request(method, url, data=form, headers={"accept": "application/json"})
        if answer.status_code != 200 or len(answer.content) > _MOST_BYTES:
            raise _refuse(f"The provider answered {answer.status_code} at {url}.")
        return msgspec.json.decode(answer.content, type=kind)
    except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refuse(f"The provider cannot be asked at {url}: {type(error).__name__}. Try again.") from None


def _read_claims(token: str) -> _Claims:
    parts = token.split(".")
    try:
        return msgspec.json.decode(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims)
    except (IndexError, ValueError):
        raise _refuse("The provider's ID token cannot be read.") from None


def _refuse(message: str) -> RefusedError:
    return RefusedError(Refusal.FORBIDDEN, message)
