"""Sends to and reads from SQS, ten messages per request.

Bodies are in base64, because SQS accepts only characters that XML may hold.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

from flywheel_assets.capture.brokers.broker import (
    BrokerAddress,
    Received,
    build_missing_package_error,
    read_number_option,
)
from flywheel_assets.errors import BrokerUnavailableError, SettingsError

_MOST_ENTRIES = 10
_MOST_RECEIVED = 100
_VISIBILITY_S = 120
"""For this long SQS gives a received message to no other consumer; writing it to disk takes milliseconds."""
_LONGEST_POLL_S = 10.0
_PERMANENT = frozenset(
    {
        *("AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidAddress"),
        *("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "UnrecognizedClientException"),
    }
)


class _Queue:
    """Calls one queue, and translates its failures to our errors."""

    def __init__(self, address: BrokerAddress, read_timeout_s: float) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
        except ImportError:
            raise build_missing_package_error(address, "boto3") from None
        self.address = address
        self._unanswered = BotoCoreError
        self._refused = ClientError
        self._misconfigured = (NoCredentialsError, NoRegionError)
        scheme = "http" if address.options.get("tls", "true").lower() == "false" else "https"
        endpoint = f"{scheme}://{address.hosts}"
        self.url = f"{endpoint}/{address.path}"
        host = address.hosts.split(".")
        region = address.options.get("region") or (host[1] if len(host) > 3 and host[0] == "sqs" else None)
        # One attempt: capture answers 503 at once and its client comes again; the drain has pauses of its own.
        config = Config(connect_timeout=3, read_timeout=read_timeout_s, retries={"total_max_attempts": 1})
        try:
            self._client = boto3.session.Session().client(
                "sqs", region_name=region, endpoint_url=endpoint, config=config
            )
        except self._misconfigured as error:
            raise self._build_settings_error(str(error)) from None

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make one request about this queue."""
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(QueueUrl=self.url, **parameters)
        except self._misconfigured as error:
            raise self._build_settings_error(str(error)) from None
        except self._refused as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _PERMANENT:
                raise self._build_settings_error(code) from None
            raise BrokerUnavailableError(f"{self.address} answered {code}") from None
        except self._unanswered as error:
            raise BrokerUnavailableError(f"{self.address} does not answer ({type(error).__name__})") from None
        return answer

    def close(self) -> None:
        self._client.close()

    def _build_settings_error(self, problem: str) -> SettingsError:
        return SettingsError(
            f"SQS refuses {self.address}: {problem}. Check FLYWHEEL_QUEUE, the queue, the region (`?region=…` or "
            "AWS_DEFAULT_REGION) and the credentials, which are found as every AWS client finds them"
        )


class SqsProducer:
    """Sends messages to a standard queue: order does not matter, and the lake removes duplicates."""

    def __init__(self, address: BrokerAddress) -> None:
        self._queue = _Queue(address, read_timeout_s=5.0)
        self._message_bytes = address.message_bytes

    def check(self) -> None:
        """Check that the queue is there and accepts messages as large as ours.

        Raises:
            BrokerUnavailableError: SQS does not answer.
            SettingsError: there is no such queue, we may not use it, or its messages must be smaller.
        """
        answer = self._queue.call("get_queue_attributes", AttributeNames=["MaximumMessageSize"])
        largest = int(answer.get("Attributes", {}).get("MaximumMessageSize", self._message_bytes))
        if largest < self._message_bytes:
            raise SettingsError(
                f"{self._queue.address} takes messages of at most {largest} bytes, fewer than {self._message_bytes}: "
                f"add `?message_bytes={largest}` to FLYWHEEL_QUEUE, or raise the queue's MaximumMessageSize"
            )

    def publish(self, messages: Sequence[bytes]) -> list[str | None]:
        """Send in batches; the failure of one batch says nothing about the others."""
        problems: list[str | None] = [None] * len(messages)
        bodies = [base64.b64encode(message).decode("ascii") for message in messages]
        for numbers in self._split_batches(bodies):
            entries = [{"Id": str(number), "MessageBody": bodies[number]} for number in numbers]
            try:
                answer = self._queue.call("send_message_batch", Entries=entries)
            except (BrokerUnavailableError, SettingsError) as error:
                failed = {number: str(error) for number in numbers}
            else:
                sent = {int(entry["Id"]) for entry in answer.get("Successful", [])}
                codes = {int(entry["Id"]): str(entry.get("Code")) for entry in answer.get("Failed", [])}
                failed = {
                    number: f"{self._queue.address} answered {codes.get(number, 'nothing about the message')}"
                    for number in numbers
                    if number not in sent
                }
            for number, problem in failed.items():
                problems[number] = problem
        return problems

    def close(self) -> None:
        """Close the connections."""
        self._queue.close()

    def _split_batches(self, bodies: Sequence[str]) -> Iterator[list[int]]:
        numbers: list[int] = []
        size = 0
        for number, body in enumerate(bodies):
            # The limit of one message is the limit of a whole batch as well.
            if numbers and (len(numbers) == _MOST_ENTRIES or size + len(body) > self._message_bytes):
                yield numbers
                numbers, size = [], 0
            numbers.append(number)
            size += len(body)
        if numbers:
            yield numbers


class SqsConsumer:
    """Receives messages and deletes them once they are settled."""

    def __init__(self, address: BrokerAddress) -> None:
        self._queue = _Queue(address, read_timeout_s=_LONGEST_POLL_S + 10.0)
        self._visibility_s = read_number_option(address.options, "visibility_s", _VISIBILITY_S, 1)

    def receive(self, wait_s: float) -> list[Received]:
        """Receive up to a hundred messages: a long poll for the first ten, then the rest that is there.

        Raises:
            BrokerUnavailableError: SQS does not answer.
            SettingsError: there is no such queue, or we may not use it.
        """
        received = self._receive_some(min(wait_s, _LONGEST_POLL_S))
        while received and len(received) < _MOST_RECEIVED:
            more = self._receive_some(0.0)
            if not more:
                break
            received += more
        return received

    def settle(self, messages: Sequence[Received]) -> None:
        """Delete the messages.

        Raises:
            BrokerUnavailableError: SQS does not answer, or kept some of them.
        """
        kept = 0
        for start in range(0, len(messages), _MOST_ENTRIES):
            receipts = [message.receipt for message in messages[start : start + _MOST_ENTRIES]]
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
            answer = self._queue.call("delete_message_batch", Entries=entries)
            kept += len(entries) - len(answer.get("Successful", []))
        if kept:
            raise BrokerUnavailableError(f"{self._queue.address} did not delete {kept} messages; they come again")

    def close(self) -> None:
        """Close the connections."""
        self._queue.close()

    def _receive_some(self, wait_s: float) -> list[Received]:
        answer = self._queue.call(
            "receive_message",
            MaxNumberOfMessages=_MOST_ENTRIES,
            WaitTimeSeconds=round(wait_s),
            VisibilityTimeout=self._visibility_s,
        )
        return [Received(_decode_body(found["Body"]), found["ReceiptHandle"]) for found in answer.get("Messages", [])]


def _decode_body(body: str) -> bytes:
    """Decode the message of a body. A body that is no base64 stays as it is, and will turn out to be unreadable."""
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return body.encode("utf-8", "surrogatepass")
