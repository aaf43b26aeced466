"""Writes what a sender vouches for into landed feedback: whose source it is, and whether the user is known.

An event may claim any `source` and any `user_id`. What is *attested* comes from the sender's key: the name under which
its feedback counts, and whether it vouches for the people that it names. A server's key does, because the product signs
its users in. A key that a page shows to everybody does not; there the product's own server signs the user id, and the
page sends the token along (docs/clients.md). See docs/adr/0050.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from flywheel_assets.errors import InvalidEventError

TOKEN_LASTS = timedelta(hours=24)
"""A token vouches for so long after it was signed: a page stays open for a working day."""
TOKEN_CLOCK_TOLERANCE = timedelta(minutes=5)

_TOKEN = re.compile(r"v1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Sender:
    """Describes what the key behind a request vouches for."""

    name: str
    """The key's holder: all that is merely claimed with the key counts as one crowd of this name."""
    sources: frozenset[str] = frozenset()
    """Sources that the key may name, each attested as itself: one for each tenant."""
    attests_users: bool = False
    user_secrets: tuple[bytes, ...] = ()
    """HMAC keys that may have signed a user token for this application."""

    def attest(self, source: str, user_id: str | None, user_token: str | None, now: datetime) -> bytes:
        """Return the end of a landed JSON line that says what is attested of one event.

        Raises:
            InvalidEventError: the token was not signed for this user.
        """
        attested = self.attests_users or (user_token is not None and self._is_signed(user_id, user_token, now))
        name = source if source in self.sources else self.name
        return b',"attested_source":%b,"is_attested":%b' % (_encoder.encode(name), b"true" if attested else b"false")

    def _is_signed(self, user_id: str | None, token: str, now: datetime) -> bool:
        """Return whether a good token is still young; one that is too old is no error: pages stay open."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidEventError(
                "`user_token` is no token; valid: `v1.<seconds since 1970>.<43 characters>`, as `sign_user` of the "
                "client makes it"
            )
        if user_id is None:
            raise InvalidEventError("`user_token` comes without the `user_id` that it is for; send both")
        given = _decode_digest(match[2])
        if not any(hmac.compare_digest(given, _compute_digest(key, user_id, match[1])) for key in self.user_secrets):
            raise InvalidEventError(
                f"`user_token` was not signed for user {user_id[:80]!r} with a webhook secret of this application; "
                "sign the id as it is in `user_id`, with the secret of `flywheel keys create --webhook`"
            )
        age_s = now.timestamp() - int(match[1])
        return -TOKEN_CLOCK_TOLERANCE.total_seconds() <= age_s <= TOKEN_LASTS.total_seconds()


def _compute_digest(key: bytes, user_id: str, signed_at: str) -> bytes:
    """Compute the HMAC-SHA256 of a user token.

    A signed webhook begins with its id and a dot, and an id has no line break: neither signature is ever the other's.
    """
    return hmac.digest(key, f"flywheel-user\n{signed_at}\n{user_id}".encode("utf-8", "surrogatepass"), hashlib.sha256)


def _decode_digest(text: str) -> bytes:
    try:
        return urlsafe_b64decode(f"{text}=")
    except (Base64Error, ValueError):
        return b""
