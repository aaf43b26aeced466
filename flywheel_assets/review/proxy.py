"""Takes the reviewer's name from a reverse proxy that has signed them in, and from nothing else.

A company signs its people in at one place: a proxy (oauth2-proxy, Authelia, an ingress with OpenID Connect) asks the
provider and passes the name on in a header. A request that reaches the service without that proxy could hold the header
as well, so it counts only from the proxy's own addresses, and every other request is refused.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

from starlette.requests import Request

from flywheel_assets.capture.http.answers import Refusal, RefusedError
from flywheel_assets.errors import SettingsError

LONGEST_NAME = 80
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class TrustedProxy:
    """Names the header that holds a reviewer's name, and the addresses from which it counts."""

    header: str
    networks: tuple[Network, ...]

    @classmethod
    def from_settings(cls, header: str, addresses: str) -> Self | None:
        """Read the two settings; None where there is no such proxy.

        Raises:
            SettingsError: only one of them is given, or an address is none.
        """
        if not header and not addresses:
            return None
        if not header or not addresses:
            raise SettingsError(
                f"FLYWHEEL_REVIEW_PROXY_HEADER is {header!r} and FLYWHEEL_REVIEW_PROXY_ADDRESSES is {addresses!r}; "
                "valid: both, for instance X-Forwarded-User and 127.0.0.1,10.0.3.0/24, or neither. Without addresses "
                "anyone could send the header"
            )
        try:
            networks = tuple(ip_network(each.strip()) for each in addresses.split(","))
        except ValueError as error:
            raise SettingsError(
                f"FLYWHEEL_REVIEW_PROXY_ADDRESSES is {addresses!r}: {error}; valid: addresses and networks, for "
                "instance 127.0.0.1,10.0.3.0/24"
            ) from None
        return cls(header.lower(), networks)

    def name_reviewer(self, request: Request) -> str:
        """Return the reviewer whom the proxy names.

        Raises:
            RefusedError: the request did not come through the proxy, or the proxy names no reviewer.
        """
        peer = request.scope.get("state", {}).get("peer")
        if peer is None or not any(ip_address(peer) in network for network in self.networks):
            raise RefusedError(Refusal.FORBIDDEN, "Reviewers come through the proxy that signs them in.")
        names = request.headers.getlist(self.header)
        # The bytes of a header are Latin-1 to ASGI, and UTF-8 to every proxy that sends more than ASCII.
        name = " ".join(names[0].encode("latin-1").decode("utf-8", "replace").split()) if len(names) == 1 else ""
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise RefusedError(
                Refusal.FORBIDDEN,
                f"The proxy sent {len(names)} headers {self.header}; valid: one, with a name of 1 to {LONGEST_NAME} "
                "printable characters.",
            )
        return name
