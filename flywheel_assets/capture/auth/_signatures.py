"""Verifies signed webhooks (Standard Webhooks 1.0): the sender signs id, time and raw body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

The signature is checked over the bytes as they came, before anything parses them. A recorded request can be sent
again only within `TOLERANCE_S`, and for that long its id is remembered: a repeat gets the same success, and nothing is
written twice. (The memory is one process's. Where another process takes the repeat, the events come twice
and the assets drop the second: event ids are made by the client or from the content.)
"""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flywheel_assets.capture.auth.keys import WebhookSecret, decode_secret
from flywheel_assets.capture.http.answers import Refusal, RefusedError

ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE_S = 300
REMEMBERED_S = 2 * TOLERANCE_S

_ID = re.compile(r"[!-\-/-~]{1,256}")
_MOST_SIGNATURES = 8  # one for each secret of a rotation, and room for other signature versions


@dataclass(frozen=True)
class SignedHeaders:
    """Holds the three headers of a signed request, whose time was inside the tolerance."""

    webhook_id: str
    timestamp: str
    signatures: tuple[bytes, ...]

    @classmethod
    def read(cls, headers: Mapping[str, str], now: datetime) -> "SignedHeaders":
        """Check everything that can be checked before the body is there.

        Raises:
            RefusedError: a header is missing or malformed, or the time is too far from ours.
        """
        webhook_id = headers.get(ID_HEADER, "")
        # A dot separates the signed fields: with one in the id, a recorded request could be cut differently.
        if not _ID.fullmatch(webhook_id):
            raise _build_refusal(f"{ID_HEADER} must have 1 to 256 visible ASCII characters and no dot")
        timestamp = headers.get(TIME_HEADER, "")
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
            raise _build_refusal(f"{TIME_HEADER} must be the time of sending in whole seconds since 1970")
        off_s = abs(now.timestamp() - int(timestamp))
        if off_s > TOLERANCE_S:
            raise _build_refusal(
                f"{TIME_HEADER} is {off_s:.0f} s away from this server's clock; valid: up to {TOLERANCE_S} s. Sign "
                "every attempt again"
            )
        signatures = tuple(_decode_signatures(headers.get(SIGNATURE_HEADER, "")))
        if not signatures:
            raise _build_refusal(f"{SIGNATURE_HEADER} holds no `v1,<base64>`")
        return cls(webhook_id, timestamp, signatures)

    def find_signer(self, body: bytes, secrets: Iterable[WebhookSecret]) -> WebhookSecret:
        """Return the secret that signed this body.

        Raises:
            RefusedError: none of them did.
        """
        signed = b".".join((self.webhook_id.encode(), self.timestamp.encode(), body))
        for secret in secrets:
            expected = hmac.digest(decode_secret(secret.secret), signed, hashlib.sha256)
            if any(hmac.compare_digest(expected, signature) for signature in self.signatures):
                return secret
        raise _build_refusal(
            f"no secret of this application gives the {SIGNATURE_HEADER}; sign the bytes that you send"
        )


class ReplayMemory:
    """Remembers acknowledged ids, each for `REMEMBERED_S`, and of them the newest `capacity`."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._expires: OrderedDict[tuple[str, str], float] = OrderedDict()

    def remember(self, application: str, webhook_id: str, now_s: float) -> None:
        """Keep an id. Call it only after the request was acknowledged: a failed attempt must be possible again."""
        self._expires.pop((application, webhook_id), None)
        self._expires[application, webhook_id] = now_s + REMEMBERED_S
        while len(self._expires) > self._capacity or self._oldest_expires() <= now_s:
            self._expires.popitem(last=False)

    def has_seen(self, application: str, webhook_id: str, now_s: float) -> bool:
        """Return whether the id was acknowledged a short time ago."""
        return self._expires.get((application, webhook_id), now_s) > now_s

    def __len__(self) -> int:
        return len(self._expires)

    def _oldest_expires(self) -> float:
        return next(iter(self._expires.values()))


def sign_request(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Compute the `webhook-signature` of a request, as its sender does."""
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    return f"v1,{b64encode(hmac.digest(decode_secret(secret), signed, hashlib.sha256)).decode()}"


def _decode_signatures(header: str) -> Iterable[bytes]:
    for part in header.split(" ")[:_MOST_SIGNATURES]:
        version, _, text = part.partition(",")
        if version == "v1":
            try:
                yield b64decode(text, validate=True)
            except (Base64Error, ValueError):
                continue


def _build_refusal(error: str) -> RefusedError:
    return RefusedError(Refusal.UNAUTHORIZED, error)
