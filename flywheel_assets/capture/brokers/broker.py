"""Defines the producer and consumer of a broker, and reads `FLYWHEEL_QUEUE`.

| `FLYWHEEL_QUEUE` | where an acknowledged event goes first |
|---|---|
| `local` | a segment on this machine's disk |
| `sqs://sqs.eu-west-1.amazonaws.com/123456789012/events` | an SQS queue: its URL with `sqs` for `https` |
| `kafka://broker-1:9092,broker-2:9092/events` | a Kafka topic |

Options are the URL's query. Both: `message_bytes`, the largest message that the queue or topic takes. SQS: `region`,
where the host does not say it; `tls=false`; `visibility_s` (120), after which other drains get a dead drain's messages.
Kafka: `group` (flywheel-drain), the drains that share the work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import msgspec

from flywheel_assets.errors import SettingsError
from flywheel_assets.settings import Settings

LOCAL = "local"
_VALID = "valid: local, sqs://HOST/ACCOUNT/QUEUE or kafka://HOST:PORT[,HOST:PORT…]/TOPIC"
_SMALLEST_MESSAGE_BYTES = 16 * 1024


class BrokerKind(StrEnum):
    """Names the supported brokers: the scheme of the URL, and the extra that installs the package."""

    SQS = "sqs"
    KAFKA = "kafka"


_OPTIONS = {
    BrokerKind.SQS: {"region", "tls", "visibility_s", "message_bytes"},
    BrokerKind.KAFKA: {"group", "message_bytes"},
}
_MESSAGE_BYTES = {
    BrokerKind.SQS: 256 * 1024,  # what every queue takes; new ones may be set to 1 MiB
    BrokerKind.KAFKA: 1_000_000,  # librdkafka's `message.max.bytes`, a little below a broker's default
}


@dataclass(frozen=True)
class BrokerAddress:
    """Addresses a queue or a topic; it holds no secret and may be shown."""

    kind: BrokerKind
    hosts: str
    path: str
    message_bytes: int
    options: Mapping[str, str]
    properties: Mapping[str, Any]
    """Of `FLYWHEEL_QUEUE_PROPERTIES_FILE`: librdkafka's, may hold secrets."""

    @property
    def payload_bytes(self) -> int:
        """Return the largest message of ours. SQS carries base64, and Kafka adds a few bytes of its own."""
        return self.message_bytes // 4 * 3 if self.kind is BrokerKind.SQS else self.message_bytes - 1024

    def __str__(self) -> str:
        return f"{self.kind}://{self.hosts}/{self.path}"


@dataclass(frozen=True)
class Received:
    """Holds one message that is not settled yet; only the broker's module reads `receipt`."""

    body: bytes
    receipt: Any


class Producer(Protocol):
    """Hands messages to a broker; used by one thread."""

    def check(self) -> None:
        """Ask the broker whether messages could be sent.

        Raises:
            BrokerUnavailableError: not now.
            SettingsError: not with these settings.
        """

    def publish(self, messages: Sequence[bytes]) -> list[str | None]:
        """Return when the broker has every message for good, or has refused it.

        Returns:
            One entry per message: the problem, or None where there was none.
        """

    def close(self) -> None:
        """Close the connections."""


class Consumer(Protocol):
    """Takes messages from a broker; used by one thread. A message that is not settled comes again."""

    def receive(self, wait_s: float) -> list[Received]:
        """Receive the waiting messages, after at most about this long for the first one.

        Raises:
            BrokerUnavailableError: the broker does not answer.
            SettingsError: not with these settings.
        """

    def settle(self, messages: Sequence[Received]) -> None:
        """Let the broker forget these messages, because they are safe elsewhere.

        They are all messages that `receive` returned last.

        Raises:
            BrokerUnavailableError: it may not have heard; they may come again.
        """

    def close(self) -> None:
        """Close the connections; a message that is not settled comes again to another consumer."""


def read_broker_address(settings: Settings) -> BrokerAddress | None:
    """Read the broker's address from `FLYWHEEL_QUEUE`; None for `local`.

    Raises:
        SettingsError: it cannot be understood, or the properties file cannot be read.
    """
    url = settings.queue
    if url == LOCAL:
        return None
    parts = urlsplit(url)
    path = parts.path.strip("/")
    shown = f"{parts.scheme}://…" if "@" in parts.netloc else repr(url)
    if parts.scheme not in set(BrokerKind) or not parts.netloc or not path or "@" in parts.netloc:
        raise SettingsError(f"FLYWHEEL_QUEUE is {shown}; {_VALID}, without user or password")
    kind = BrokerKind(parts.scheme)
    if path.count("/") != (1 if kind is BrokerKind.SQS else 0):
        raise SettingsError(f"FLYWHEEL_QUEUE is {url!r}; {_VALID}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - _OPTIONS[kind])
    if unknown:
        known = ", ".join(sorted(_OPTIONS[kind]))
        raise SettingsError(f"FLYWHEEL_QUEUE has the option {unknown[0]!r}; options of {kind}: {known}")
    properties = _read_properties(settings, kind)
    return BrokerAddress(kind, parts.netloc, path, _read_message_bytes(options, kind), options, properties)


def build_missing_package_error(address: BrokerAddress, package: str) -> SettingsError:
    """Build the error that says how to install the broker's package."""
    return SettingsError(
        f"FLYWHEEL_QUEUE is {address}, which needs the package {package}: install this project with its extra "
        f"`{address.kind}`, for instance `pip install -e '.[{address.kind}]'`"
    )


def read_number_option(options: Mapping[str, str], name: str, default: int, smallest: int) -> int:
    """Read a whole number from the URL's query.

    Raises:
        SettingsError: it is none, or too small.
    """
    given = options.get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or len(given) > 9 or int(given) < smallest:
        raise SettingsError(f"{name} in FLYWHEEL_QUEUE is {given[:20]!r}; valid: a whole number from {smallest} on")
    return int(given)


def _read_message_bytes(options: Mapping[str, str], kind: BrokerKind) -> int:
    return read_number_option(options, "message_bytes", _MESSAGE_BYTES[kind], _SMALLEST_MESSAGE_BYTES)


def _read_properties(settings: Settings, kind: BrokerKind) -> dict[str, Any]:
    path = settings.queue_properties_file
    if path is None:
        return {}
    if kind is not BrokerKind.KAFKA:
        raise SettingsError("FLYWHEEL_QUEUE_PROPERTIES_FILE is for Kafka; SQS takes credentials as every AWS client")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str | int | float | bool])
    except OSError as error:
        raise SettingsError(f"FLYWHEEL_QUEUE_PROPERTIES_FILE {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SettingsError(
            f"FLYWHEEL_QUEUE_PROPERTIES_FILE {path} must hold one JSON object of librdkafka properties: {error}"
        ) from None
