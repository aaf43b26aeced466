"""Announces a new champion to the serving side, and posts JSON to webhooks."""

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from flywheel_assets.errors import RolloutError


def announce_champion(
    event: Mapping[str, object], *, command: Sequence[str], webhook: str | None, timeout_s: float
) -> tuple[str, ...]:
    """Run the command and call the webhook, where configured; return one sentence per finished step.

    Args:
        event: application, gold version, adapter folder, base model, the champion it replaces.
        command: run without a shell, `event` as JSON on its standard input.
        webhook: gets `event` as a JSON POST; redirects are not followed.
        timeout_s: for each of the two.

    Raises:
        RolloutError: the command or the webhook failed. The alias has moved already; announcing again is safe.
    """
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
        posted = post_json(webhook, event, timeout_s)
        if not posted.was_taken:
            how = f"failed: {posted.error}" if posted.status is None else f"answered {posted.status}"
            raise RolloutError(f"on_promotion webhook at {posted.host} {how}") from None
        done.append(f"posted to {posted.host}")
    return tuple(done)


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


def post_json(webhook: str, body: Mapping[str, object], timeout_s: float) -> Posted:
    """POST `body` as JSON to a webhook; redirects are not followed.

    Nothing is raised for what the webhook or the network does: an error's text and frames may hold the address.
    """
    import httpx  # the import takes 40 ms, and a code location must load without it

    # It logs every request with its address, which is a secret of many chat services, where a process logs at INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)

    host = _read_host(webhook)
    try:
        answer = httpx.post(webhook, json=dict(body), timeout=timeout_s, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Posted(host, error=type(error).__name__)
    return Posted(host, answer.status_code)


def _read_host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "an address without a host"
    except ValueError:
        return "an unreadable address"
