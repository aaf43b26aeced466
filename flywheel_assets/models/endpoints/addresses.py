"""Says which addresses user text may be sent to.

Free of any HTTP library, so that an application is checked at load.
"""

from collections.abc import Set
from urllib.parse import urlsplit

LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))


def find_address_fault(url: str, allowed_hosts: Set[str]) -> str | None:
    """Say what an address would have to be; None: user text may be sent there.

    Args:
        url: an endpoint's base, for instance http://127.0.0.1:8000/v1.
        allowed_hosts: names and addresses of hosts; plain http is for this machine only.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "an http(s) URL with a host"
    if parts.hostname not in allowed_hosts:
        hosts = ", ".join(sorted(allowed_hosts))
        return f"a host that is allowed: {hosts}. User text goes there: add it to allowed_hosts if that is meant"
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return "https: it would send user text unencrypted"
    return None
