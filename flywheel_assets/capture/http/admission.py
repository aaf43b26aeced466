"""Bounds what each kind of sender may hold and cost, before its body is read.

| sender | may hold of the memory for bodies | one body |
|---|---|---|
| with a key of a server | all that is left; each key three quarters | as the service allows |
| with a browser's key, which everybody can read | a half; each address an eighth | a sixteenth of the memory |
| a stranger: a signature not verified yet | an eighth; each address a sixteenth | a thirty-second, within 15 s |

So three eighths of the memory are there for callers that only a server's key lets in. A stranger that costs something
and turns out to have no key is counted by its address, and soon waits before its bodies are read.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv6Address, ip_address

from starlette.requests import Request

from flywheel_assets.capture.http.answers import Refusal, RefusedError
from flywheel_assets.capture.http.bodies import BodyReader, MemoryBudget, Part, Share

STRANGER_TIMEOUT_S = 15.0
STRANGER_REQUESTS_PER_S = 50.0
"""Refused requests of one address, each of at most 16 KiB."""
PAGE_EVENTS_PER_S = 500.0
"""Events of one address by keys of browsers: the rate of such a key, 2,000, is for all who visit its pages."""
_BURST_S = 10.0
_MOST_ADDRESSES = 10_000
_IPV6_NETWORK_BITS = 64  # one customer has at least as many addresses


class Standing(StrEnum):
    """Names what is known of a sender before its body is read."""

    OPEN = "open"
    """The service has no keys: all who reach it are on this machine."""
    KEY = "key"
    PAGE = "page"
    STRANGER = "stranger"


class Admission:
    """Opens the share of each request, and counts what strangers cost; used from one event loop."""

    def __init__(self, limit_bytes: int, reader: BodyReader, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Divide the memory for bodies.

        Args:
            limit_bytes: what all bodies may hold together.
            reader: reads bodies of the size that the service allows.
            monotonic: seconds of any clock that does not jump.
        """
        self.budget = MemoryBudget(limit_bytes)
        of_one_key = max(limit_bytes * 3 // 4, min(limit_bytes, 2 * reader.limit_bytes))
        self._parts = {
            Standing.OPEN: None,
            Standing.KEY: Part(limit_bytes, of_one_key),
            Standing.PAGE: Part(limit_bytes // 2, limit_bytes // 8),
            Standing.STRANGER: Part(limit_bytes // 8, limit_bytes // 16),
        }
        self._readers = {
            Standing.OPEN: reader,
            Standing.KEY: reader,
            Standing.PAGE: reader.limit_to(limit_bytes // 16),
            Standing.STRANGER: reader.limit_to(limit_bytes // 32, STRANGER_TIMEOUT_S),
        }
        self._rates = {
            Standing.PAGE: AddressRates(PAGE_EVENTS_PER_S, "events by a browser's key", monotonic),
            Standing.STRANGER: AddressRates(
                STRANGER_REQUESTS_PER_S, "requests without a valid key or signature", monotonic
            ),
        }

    def find_reader(self, standing: Standing) -> BodyReader:
        """Return the reader of the bodies that such a sender may bring."""
        return self._readers[standing]

    def open_share(self, standing: Standing, holder: str) -> Share:
        """Open the share of one request.

        Args:
            standing: what is known of its sender.
            holder: the id of the key of a server; of every other sender the address, as `read_address` returns it.

        Raises:
            RefusedError: 429, a page or a stranger of an address that has cost too much. Entering the share raises
                503 where there is no room.
        """
        rates = self._rates.get(standing)
        if rates is not None:
            rates.check(holder)
        return self.budget.open_share(self._parts[standing], holder)

    def check_address(self, standing: Standing, address: str) -> None:
        """Raise `RefusedError` (429) where such senders from this address have cost too much; keys have their own."""
        self._rates[standing].check(address)

    def charge_address(self, standing: Standing, address: str, cost: int) -> None:
        """Count what a request of such a sender cost, in events."""
        self._rates[standing].charge(address, cost)


class AddressRates:
    """Limits what each address costs by a token bucket; the one unseen for longest is forgotten."""

    def __init__(self, per_s: float, sent: str, monotonic: Callable[[], float]) -> None:
        """Allow so much a second, and ten seconds of it at once; `sent` says what was too many."""
        self._per_s = per_s
        self._burst = per_s * _BURST_S
        self._sent = sent
        self._monotonic = monotonic
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What each address may still cost, and when that was counted."""

    def check(self, address: str) -> None:
        """Raise `RefusedError` (429) where an address has used up its rate."""
        left, _ = self._count(address)
        if left <= 0:
            raise RefusedError(
                Refusal.RATE_LIMITED,
                f"this address has sent too many {self._sent}; valid: {self._per_s:g} a second; see Retry-After",
                retry_after_s=(1 - left) / self._per_s,
            )

    def charge(self, address: str, cost: int) -> None:
        """Count a cost."""
        left, now = self._count(address)
        self._left[address] = left - cost, now
        self._left.move_to_end(address)
        if len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)

    def _count(self, address: str) -> tuple[float, float]:
        now = self._monotonic()
        left, counted_at = self._left.get(address, (self._burst, now))
        return min(self._burst, left + (now - counted_at) * self._per_s), now


def read_address(request: Request) -> str:
    """Return the address that a request comes from, as it is counted; empty where nothing says so.

    uvicorn has put the address there that a trusted proxy names.
    """
    client = request.scope.get("client")
    return group_address(client[0]) if client else ""


def group_address(host: str) -> str:
    """Return the name under which an address is counted: itself, or the /64 network of an IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _IPV6_NETWORK_BITS << _IPV6_NETWORK_BITS))
