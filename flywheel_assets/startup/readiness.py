"""Waits until each service answers, and says once what is where and what to do first.

An address is printed when something answers there, never before: a page that a person opens too early looks broken.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape

_EXAMPLE = "assistant"
"""The example application, whose edits are texts."""
_PAUSE_S = 0.25
_ANSWER_S = 5.0


@dataclass(frozen=True)
class Awaited:
    """One service to wait for."""

    name: str
    probe: str
    """Address that answers once the service works; any answer below 500 counts."""


def is_answering(probe: str) -> bool:
    """Return whether something answers an HTTP request at `probe`."""
    address = urlsplit(probe)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", address.path or "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def wait_until_ready(
    awaited: Sequence[Awaited],
    check_alive: Callable[[], None],
    on_ready: Callable[[Awaited, float], None],
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until every service answers, in any order.

    Args:
        awaited: the services.
        check_alive: raises when one has ended; then there is nothing to wait for.
        on_ready: called once for each service, with the seconds that it took.
        monotonic: seconds of a clock.
    """
    started = monotonic()
    left = list(awaited)
    while left:
        check_alive()
        for each in [each for each in left if is_answering(each.probe)]:
            left.remove(each)
            on_ready(each, monotonic() - started)
        if left:
            time.sleep(_PAUSE_S)


def print_ready(console: Console, addresses: Sequence[tuple[str, str]], capture: str, application: str) -> None:
    """Print the one block that a person needs: addresses, and the three next things to do."""
    width = max(len(name) for name, _ in addresses)
    console.print("\n[bold green]ready[/]")
    for name, address in addresses:
        console.print(f"  {name:{width}}  {escape(address)}", highlight=False, soft_wrap=True)
    console.print("\n  next, in another terminal:")
    steps = (
        f"send a first edit     {_write_first_edit(capture)}"
        if application == _EXAMPLE
        else f"send a first event    {capture}/openapi.json says how, for each application",
        f"bring it to gold      flywheel turn --now -a {application}",
        f"see the wheel turn    {capture}/wheel/{application}",
    )
    for number, step in enumerate(steps, 1):
        console.print(f"  {number}. {escape(step)}", highlight=False, soft_wrap=True)
    console.print("\n  stop with Ctrl-C; a new application is taken after a restart", highlight=False, soft_wrap=True)


def _write_first_edit(capture: str) -> str:
    """Write a command that can be pasted as it stands."""
    edit = {
        "prompt": "Read the first 10 rows of orders",
        "original_llm_output": 'ledger.get_table("orders").head(10)',
        "final_user_edit": 'ledger.read("orders", limit=10)',
        "user_id": "ada",
    }
    return f"curl -s {capture}/v1/{_EXAMPLE}/edits -H 'content-type: application/json' -d '{json.dumps(edit)}'"
