"""Exchanges one request for one answer with a chat endpoint, and says whether a failure may pass."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

_LONGEST_ANSWER_BYTES = 2**20
_PASSING = frozenset((408, 409, 425, 429))


class UnansweredError(Exception):
    """Carries the reason why one request gave no answer; its message holds no user text."""

    def __init__(
        self, why: str, *, may_pass: bool, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(why)
        self.may_pass = may_pass
        self.status = status
        """Of the HTTP answer; None: there was none."""
        self.retry_after_s = retry_after_s
        """Pause that the server asked for."""


def open_client(api_key: str | None, timeout_s: float, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """Open a client without redirects and without proxies from the environment: text goes to its host or nowhere."""
    return httpx.Client(
        headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
        timeout=timeout_s,
        trust_env=False,
        follow_redirects=False,
        transport=transport,
    )


def exchange(client: httpx.Client, method: str, url: str, body: Mapping[str, Any] | None, timeout_s: float) -> bytes:
    """Send one request and return the body of its answer.

    Args:
        client: of `open_client`.
        method: "GET" or "POST".
        url: whole.
        body: sent as JSON; None: nothing is sent.
        timeout_s: from the beginning of the request to the last byte of the answer.

    Raises:
        UnansweredError: no answer, a late or too long one, or a status other than 200.
    """
    # httpx's time-outs are per read: a server that drips a byte a second would never run into one.
    deadline = time.monotonic() + timeout_s
    received = bytearray()
    try:
        with client.stream(method, url, json=body) as response:
            for chunk in response.iter_bytes():
                received += chunk
                if time.monotonic() > deadline:
                    raise UnansweredError(f"no answer within {timeout_s:g} s", may_pass=True)
                if len(received) > _LONGEST_ANSWER_BYTES:
                    raise UnansweredError("the answer is too long", may_pass=False)
    except httpx.HTTPError as error:
        raise UnansweredError(f"not reached ({type(error).__name__})", may_pass=True) from None
    if response.status_code != 200:
        raise UnansweredError(
            f"answered with status {response.status_code}",
            may_pass=response.status_code in _PASSING or response.status_code >= 500,
            status=response.status_code,
            retry_after_s=_read_pause(response),
        )
    return bytes(received)


@dataclass(frozen=True)
class Completion:
    """The one choice of a completion."""

    choice: dict[str, Any]
    """With `finish_reason`, and `message` or `text`."""
    model: str | None
    """That answered, as the endpoint names it; None: it does not say."""


def read_completion(content: bytes) -> Completion:
    """Read a completion with one choice.

    Raises:
        UnansweredError: the answer is none.
    """
    try:
        decoded = json.loads(content)
        choice, model = decoded["choices"][0], decoded.get("model")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        choice, model = None, None
    if not isinstance(choice, dict):
        raise UnansweredError("the answer is no chat completion", may_pass=True)
    return Completion(choice, model)


def _read_pause(response: httpx.Response) -> float | None:
    """Read Retry-After in seconds; a date is not read."""
    with suppress(KeyError, ValueError):
        return max(0.0, float(response.headers["retry-after"]))
    return None
