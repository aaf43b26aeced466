"""Announces a new champion to the serving side, and posts JSON to webhooks."""

import hashlib
import hmac
import json
import logging
import subprocess
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from flywheel_assets.errors import RolloutError, SettingsError

PAUSES_S = (1.0, 5.0)
"""Pauses before the second and the third attempt to reach a webhook."""
_KEY_PREFIX = "whsec_"
_WORTH_RETRYING = (408, 425, 429)


def announce_champion(
    event: Mapping[str, object],
    *,
    command: Sequence[str],
    webhook: str | None,
    timeout_s: float,
    secret: str | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
) -> tuple[str, ...]:
    """Run the command and call the webhook, where configured; return one sentence per finished step.

    Args:
        event: as `rollout.events` describes it, with an `id`.
        command: run without a shell, `event` as JSON on its standard input.
        webhook: gets `event` as a JSON POST; redirects are not followed.
        timeout_s: for the command, and for each attempt to reach the webhook.
        secret: signs the POST as a Standard Webhook; None: it carries id and time without a signature.
        pauses_s: before each further attempt; every one carries the same id.

    Raises:
        RolloutError: the command or the webhook failed. The alias has moved already; announcing again is safe.
        SettingsError: the secret is none.
    """
    key = None if secret is None else decode_secret(secret)
    done = []
    if command:
        try:
            finished = subprocess.run(
                list(command),
                input=json.dumps(dict(event)).encode(),
                timeout=timeout_s,
                capture_output=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RolloutError(f"on_promotion command {command[0]!r} could not run: {error}") from error
        if finished.returncode:
            complaint = finished.stderr.decode("utf-8", "replace").strip()[-500:]
            raise RolloutError(f"on_promotion command {command[0]!r} ended with {finished.returncode}: {complaint}")
        done.append(f"ran {command[0]}")
    if webhook:
        posted = _post_signed(webhook, event, timeout_s, key)
        for pause_s in pauses_s:
            if posted.was_taken or not posted.may_succeed_later:
                break
            time.sleep(pause_s)
            posted = _post_signed(webhook, event, timeout_s, key)
        if not posted.was_taken:
            how = f"failed: {posted.error}" if posted.status is None else f"answered {posted.status}"
            raise RolloutError(f"on_promotion webhook at {posted.host} {how}") from None
        done.append(f"posted to {posted.host}")
    return tuple(done)


def decode_secret(secret: str) -> bytes:
    """Decode the key of a Standard Webhook.

    Raises:
        SettingsError: it is no `whsec_` with base64 of 24 to 64 bytes after it. The text is not quoted.
    """
    try:
        key = b64decode(secret.removeprefix(_KEY_PREFIX), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if not (secret.startswith(_KEY_PREFIX) and 24 <= len(key) <= 64):
        raise SettingsError(
            "FLYWHEEL_PROMOTION_WEBHOOK_SECRET is no secret of a Standard Webhook; need whsec_ and base64 of 24 to 64 "
            'bytes. Make one with: python -c "import base64, os; '
            "print('whsec_' + base64.b64encode(os.urandom(32)).decode())\""
        )
    return key


def _post_signed(webhook: str, event: Mapping[str, object], timeout_s: float, key: bytes | None) -> "Posted":
    """POST an event with the headers of Standard Webhooks 1.0; each attempt has its own time."""
    name, timestamp, body = str(event["id"]), str(int(time.time())), _encode(event)
    headers = {"webhook-id": name, "webhook-timestamp": timestamp}
    if key is not None:
        digest = hmac.digest(key, b".".join((name.encode(), timestamp.encode(), body)), hashlib.sha256)
        headers["webhook-signature"] = f"v1,{b64encode(digest).decode()}"
    return _post(webhook, body, timeout_s, headers)


@dataclass(frozen=True)
class Posted:
    """Holds the result of a POST without the webhook's address.

    Path, query and user part of the address often are its password.
    """

    host: str
    status: int | None = None
    """Status of the webhook's answer; None: there was no answer."""
    error: str | None = None
    """Class of the error that ended the request."""

    @property
    def was_taken(self) -> bool:
        """Return whether the webhook answered with success."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def may_succeed_later(self) -> bool:
        """Return whether the same request may be taken later."""
        return self.status is None or self.status >= 500 or self.status in _WORTH_RETRYING


def post_json(webhook: str, body: Mapping[str, object], timeout_s: float) -> Posted:
    """POST `body` as JSON to a webhook; redirects are not followed.

    Nothing is raised for what the webhook or the network does: an error's text and frames may hold the address.
    """
    return _post(webhook, _encode(body), timeout_s, {})


def _encode(body: Mapping[str, object]) -> bytes:
    return json.dumps(dict(body), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _post(webhook: str, body: bytes, timeout_s: float, headers: Mapping[str, str]) -> Posted:
    import httpx  # the import takes 40 ms, and a code location must load without it

    # It logs every request with its address, which is a secret of many chat services, where a process logs at INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)

    host = _read_host(webhook)
    try:
        answer = httpx.post(
            webhook,
            content=body,
            headers={"content-type": "application/json", **headers},
            timeout=timeout_s,
            follow_redirects=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Posted(host, error=type(error).__name__)
    return Posted(host, answer.status_code)


def _read_host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "an address without a host"
    except ValueError:
        return "an unreadable address"
