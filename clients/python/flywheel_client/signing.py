"""Signs the id of a signed-in user, so that what their page sends counts as theirs.

A key that a page shows to everybody proves nothing about who uses it. The product's server knows who is signed in: it
signs the id with the application's webhook secret and gives the token to the page, which sends it as `user_token` next
to `user_id`. `clients/user_token_vectors.json` holds examples for other languages.
"""

from __future__ import annotations

import time


def sign_user(secret: str, user_id: str, signed_at_s: int | None = None) -> str:
    """Return the token of a user: it vouches for 24 hours. Call it on your server only.

    It is `v1.<seconds>.<digest>`: the HMAC-SHA256, in base64 for addresses and without padding, of `flywheel-user`, the
    seconds and the user id in UTF-8, each on a line of its own.

    Args:
        secret: `whsec_…`, of `flywheel keys create APPLICATION --holder NAME --webhook`.
        user_id: as events carry it.
        signed_at_s: whole seconds since 1970; now where absent.
    """
    import base64
    import hmac  # it loads OpenSSL, which a process that signs nobody need not wait for

    at = int(time.time()) if signed_at_s is None else signed_at_s
    key, said = base64.b64decode(secret[len("whsec_") :]), f"flywheel-user\n{at}\n{user_id}".encode()
    digest = base64.urlsafe_b64encode(hmac.new(key, said, "sha256").digest()).decode().rstrip("=")
    return f"v1.{at}.{digest}"
