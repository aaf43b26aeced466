"""Telling the serving side about a new champion: a command, a webhook, or nothing."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from flywheel_assets.errors import RolloutError


def announce(
    event: Mapping[str, object], *, command: Sequence[str], webhook: str | None, timeout_s: float
) -> tuple[str, ...]:
    """Run the command and call the webhook, where configured; returns one sentence per step that was done.

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
        import httpx  # 40 ms that loading a code location must not pay

        # Of its address only the host is told: path, query and user part of a webhook often are its password.
        host = _host(webhook)
        try:
            httpx.post(webhook, json=dict(event), timeout=timeout_s, follow_redirects=False).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise RolloutError(f"on_promotion webhook at {host} answered {error.response.status_code}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RolloutError(f"on_promotion webhook at {host} failed: {type(error).__name__}") from None
        done.append(f"posted to {host}")
    return tuple(done)


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "an address without a host"
    except ValueError:
        return "an unreadable address"
