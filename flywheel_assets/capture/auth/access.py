"""Decides who may do what, by keys, webhook signatures, page origins and rates.

Without any key the service is *open*: every sender that reaches it may use it. That is why `service` then listens on
loopback only. A page from another host is refused even then, when a browser on this machine shows it. The first key
closes a running service within a second; nothing opens it again.

A key comes as `Authorization: Bearer …`. A browser key, which is no secret, may also come as `?key=…`, because
`navigator.sendBeacon` cannot set headers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from flywheel_assets.capture.auth._signatures import SIGNATURE_HEADER, ReplayMemory, SignedHeaders
from flywheel_assets.capture.auth.keys import EVERY_APPLICATION, Key, KeyStore, Scope, WebhookSecret
from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.events.attestation import Sender
from flywheel_assets.capture.http.answers import Refusal, RefusedError
from flywheel_assets.capture.http.bodies import is_compressed

BURST_S = 10.0
"""A key that sent nothing for a while may send this many seconds' worth of events at once."""


@dataclass
class _Bucket:
    events_per_s: float
    left: float
    """Events that may still come now; below zero after a request that was larger than what was left."""
    counted_at: float


class Rates:
    """Limits the rate of each key by a token bucket. Each process counts alone: N processes allow N times the rate.

    The service knows how many events a request holds only after reading it. So a request passes while anything is
    left, and its events may leave the bucket in debt: the next request waits until that debt is paid off.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._buckets: dict[str, _Bucket] = {}

    def check(self, key_id: str, events_per_s: float) -> None:
        """Raise `RefusedError` (429, with the seconds to wait) when the key has used up its rate."""
        bucket = self._fill_bucket(key_id, events_per_s)
        if bucket.left <= 0:
            raise RefusedError(
                Refusal.RATE_LIMITED,
                f"this key may send {events_per_s:g} events/s and has sent more; see Retry-After",
                retry_after_s=(1 - bucket.left) / events_per_s,
            )

    def charge(self, key_id: str, events: int) -> None:
        """Count the events of a request."""
        bucket = self._buckets.get(key_id)
        if bucket is not None:
            bucket.left -= events

    def _fill_bucket(self, key_id: str, events_per_s: float) -> _Bucket:
        now = self._monotonic()
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.events_per_s != events_per_s:
            bucket = self._buckets[key_id] = _Bucket(events_per_s, events_per_s * BURST_S, now)
        grown = bucket.left + (now - bucket.counted_at) * events_per_s
        bucket.left, bucket.counted_at = min(grown, events_per_s * BURST_S), now
        return bucket


EVENTS_PER_S = 2_000.0
_PREFLIGHT_S = "600"


@dataclass(frozen=True)
class Caller:
    """Names the sender of a request. `signed` is set until the body is verified, and kept to remember its id."""

    application: str
    key_id: str | None = None
    signed: SignedHeaders | None = None
    holder: str | None = None
    """The user of the key, in words; None: no key is needed, or a signature came instead."""
    is_page: bool = False
    """Whether the key is one that a web page shows to everybody."""
    labels_as: frozenset[str] | None = None
    """The trusted labeling sources that it may claim; None, all of them, only where the service has no keys."""
    sender: Sender | None = None
    """Says what the key vouches for; None where the service has no keys."""


class Access:
    """Decides for one service; it is used from that service's event loop."""

    def __init__(
        self,
        keys: KeyStore | None = None,
        events_per_s: float = EVENTS_PER_S,
        clock: Clock = read_clock,
        rates: Rates | None = None,
    ) -> None:
        """Admit everybody where no `keys` are given, and while these hold no key."""
        self._store = keys
        self._was_closed = False
        self._events_per_s = events_per_s
        self._clock = clock
        self._rates = rates or Rates()
        self._replays = ReplayMemory()

    @property
    def _keys(self) -> KeyStore | None:
        """Return the keys; None until there is one. A service that has asked for keys never stops asking."""
        if not self._was_closed:
            self._was_closed = self._store is not None and self._store.content.was_ever_used
        return self._store if self._was_closed else None

    @property
    def is_open(self) -> bool:
        """Return whether no key is needed."""
        return self._keys is None

    def admit(self, request: Request, application: str, scope: Scope) -> Caller:
        """Return the sender of a request, before its body is read. `verify_body` then finds the sender of a signed one.

        Raises:
            RefusedError: 401 without a valid key, 403 where the key, its scope or the page's origin is the wrong
                one, 429 where its rate is used up.
        """
        origin = request.headers.get("origin")
        if self._keys is None:
            # Not "the same host as this service": a page can make its own name resolve to this machine.
            if origin is not None and not _is_loopback_origin(origin):
                raise RefusedError(
                    Refusal.FORBIDDEN,
                    f"a page of {origin[:200]!r} may not send to a service without keys; create a browser key for it "
                    "with `flywheel keys create --origin`",
                )
            return Caller(application)
        if SIGNATURE_HEADER in request.headers and scope is Scope.WRITE:
            return self._read_signed_caller(request, application)
        key = self._find_key(request)
        self._rates.check(key.key_id, key.events_per_s or self._events_per_s)
        try:
            self._check_key(key, application, scope)
            _check_origin(key, request, origin)
        except RefusedError:
            self._rates.charge(key.key_id, 1)
            raise
        return Caller(
            application,
            key.key_id,
            holder=key.holder,
            is_page=key.is_for_browsers,
            labels_as=frozenset(key.labels_as),
            sender=self._describe_sender(key, application),
        )

    def check_key(self, presented: str, application: str, scope: Scope) -> Caller:
        """Return the holder of a key that did not come as a header, for instance from a login form.

        Raises:
            RefusedError: 401 or 403.
        """
        if self._keys is None:
            return Caller(application)
        key = self._keys.find(presented)
        if key is None:
            raise _build_refusal()
        self._check_key(key, application, scope)
        return Caller(application, key.key_id, holder=key.holder, labels_as=frozenset(key.labels_as))

    def verify_body(self, caller: Caller, body: bytes) -> Caller:
        """Return the sender of a signed request, once its body is there; any other caller is returned unchanged.

        Raises:
            RefusedError: 401 where no known secret signed it, 429 where that secret's rate is used up.
        """
        if caller.signed is None or self._keys is None:
            return caller
        signer = caller.signed.find_signer(body, self._keys.list_webhook_secrets(caller.application))
        self._rates.check(signer.key_id, signer.events_per_s or self._events_per_s)
        sender = self._describe_sender(signer, caller.application)
        return replace(caller, key_id=signer.key_id, labels_as=frozenset(signer.labels_as), sender=sender)

    def is_repeat(self, caller: Caller) -> bool:
        """Return whether this signed request was acknowledged before."""
        signed = caller.signed
        return signed is not None and self._replays.has_seen(
            caller.application, signed.webhook_id, self._read_clock_s()
        )

    def remember(self, caller: Caller) -> None:
        """Remember a signed request whose events are durable."""
        if caller.signed is not None:
            self._replays.remember(caller.application, caller.signed.webhook_id, self._read_clock_s())

    def charge(self, caller: Caller, events: int) -> None:
        """Count a caller's events against its rate."""
        if caller.key_id is not None:
            self._rates.charge(caller.key_id, events)

    def build_cors_headers(self, request: Request, application: str) -> dict[str, str]:
        """Build the headers that let a page of an allowed origin read the answer; none for other pages."""
        origin = request.headers.get("origin")
        if origin is None or not self._may_read(origin, application):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            # `sendBeacon` always asks with credentials. There are none here: no cookie is set or read.
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
            "Vary": "Origin",
        }

    def build_preflight_headers(self, request: Request, application: str, method: str = "POST") -> dict[str, str]:
        """Build the answer to a browser that asks whether a page may send by this method.

        The browser sends no key yet, so the origin of any browser key will do.

        Raises:
            RefusedError: no page of this origin may send.
        """
        headers = self.build_cors_headers(request, application)
        if not headers:
            origin = request.headers.get("origin", "")
            raise RefusedError(Refusal.FORBIDDEN, f"no browser key allows pages of {origin[:200]!r}")
        return headers | {
            "Access-Control-Allow-Methods": method,
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Max-Age": _PREFLIGHT_S,
        }

    def _may_read(self, origin: str, application: str) -> bool:
        return _is_loopback_origin(origin) if self._keys is None else origin in self._keys.list_origins(application)

    def _read_signed_caller(self, request: Request, application: str) -> Caller:
        assert self._keys is not None
        if is_compressed(request):
            raise RefusedError(
                Refusal.CONTENT_TYPE, "a signed body must come uncompressed: the signature is over its bytes"
            )
        signed = SignedHeaders.read(request.headers, self._clock())
        if not self._keys.list_webhook_secrets(application):
            raise RefusedError(
                Refusal.UNAUTHORIZED,
                "signed webhooks need a secret: `flywheel keys create --webhook` makes one for an application",
            )
        return Caller(application, signed=signed, labels_as=frozenset())

    def _find_key(self, request: Request) -> Key:
        assert self._keys is not None
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            key = self._keys.find(presented.strip())
        else:
            # Proxies log addresses: so no secret is read from them.
            key = self._keys.find(request.query_params.get("key", ""))
            key = key if key is not None and key.is_for_browsers else None
        if key is None:
            raise _build_refusal()
        return key

    def _check_key(self, key: Key, application: str, scope: Scope) -> None:
        if not key.is_for(application):
            place = "the whole service" if application == EVERY_APPLICATION else repr(application[:80])
            raise RefusedError(Refusal.FORBIDDEN, f"key {key.key_id} is for {key.application!r}, not for {place}")
        if scope not in key.scopes:
            raise RefusedError(
                Refusal.FORBIDDEN, f"key {key.key_id} has the scopes {', '.join(key.scopes)}; needed: {scope}"
            )

    def _describe_sender(self, key: Key | WebhookSecret, application: str) -> Sender:
        assert self._keys is not None
        secrets = () if key.attests_users else self._keys.list_user_secrets(application)
        return Sender(key.holder, frozenset(key.sources), key.attests_users, secrets)

    def _read_clock_s(self) -> float:
        return self._clock().timestamp()


def require_scope(request: Request, application: str, scope: Scope) -> Caller:
    """Return the sender of this request if it may do this; any route may call it.

    The service answers the `RefusedError`. `application` is a name, or `keys.EVERY_APPLICATION` for what belongs to no
    application.
    """
    access = request.app.state.access
    assert isinstance(access, Access)
    return access.admit(request, application, scope)


def _check_origin(key: Key, request: Request, origin: str | None) -> None:
    if key.is_for_browsers:
        if origin not in key.origins:
            raise RefusedError(
                Refusal.FORBIDDEN,
                f"browser key {key.key_id} works from pages of {', '.join(key.origins)}; this came from "
                f"{(origin or 'no page')[:200]!r}. Servers use a key without origins",
            )
    elif origin is not None and not _is_same_origin(request, origin):
        raise RefusedError(
            Refusal.FORBIDDEN,
            f"key {key.key_id} is a secret, and a page of {origin[:200]!r} shows it to everybody: revoke it and create "
            "a browser key with `flywheel keys create --origin`",
        )


def _build_refusal() -> RefusedError:
    # Missing, mistyped and revoked keys get the same sentence: a guesser must not learn which of them it was.
    return RefusedError(
        Refusal.UNAUTHORIZED, "no valid key: send `Authorization: Bearer <key>`; `flywheel keys create` makes one"
    )


def _is_loopback_origin(origin: str) -> bool:
    return is_loopback(urlsplit(origin).hostname or "") if _is_sane(origin) else False


def is_loopback(host: str) -> bool:
    """Return whether this name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_same_origin(request: Request, origin: str) -> bool:
    return _is_sane(origin) and urlsplit(origin).netloc == request.headers.get("host")


def _is_sane(origin: str) -> bool:
    try:
        return bool(urlsplit(origin).netloc)
    except ValueError:
        return False
