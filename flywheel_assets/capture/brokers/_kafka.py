"""Sends to and reads from Kafka through librdkafka.

All in-sync replicas acknowledge a message; its offset is committed only after the landing zone has it.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flywheel_assets.capture.brokers.broker import BrokerAddress, Received, build_missing_package_error
from flywheel_assets.errors import BrokerUnavailableError, SettingsError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer

_ANSWER_S = 5.0
_DELIVERY_MS = 8_000
"""A message without a broker's acknowledgement after this time has failed; its request is answered with 503."""
_MOST_RECEIVED = 100
_JOIN_S = 15.0
_DEFAULT_GROUP = "flywheel-drain"


class KafkaProducer:
    """Sends messages without Kafka's transactions: order does not matter, and the lake removes duplicates."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._properties = {
            "acks": "all",
            "delivery.timeout.ms": _DELIVERY_MS,
            "socket.timeout.ms": 5_000,
            "linger.ms": 0,  # requests are grouped before they come here
            "message.max.bytes": address.message_bytes,
            **_build_common_properties(address),
        }
        self._producer: Producer | None = None

    def check(self) -> None:
        """Check that the topic is there.

        Raises:
            BrokerUnavailableError: no broker answers.
            SettingsError: there is no such topic, we may not use it, or a property is wrong.
        """
        producer = self._connect()
        from confluent_kafka import KafkaException

        try:
            topics = producer.list_topics(self._address.path, timeout=_ANSWER_S).topics
        except KafkaException as error:
            self._give_up()
            raise _translate_error(self._address, error.args[0]) from None
        problem = topics[self._address.path].error
        if problem is not None:
            raise _translate_error(self._address, problem)

    def publish(self, messages: Sequence[bytes]) -> list[str | None]:
        """Send everything, then wait for every answer."""
        producer = self._connect()
        problems: list[str | None] = [f"{self._address} does not answer"] * len(messages)

        def build_listener(number: int) -> Any:
            def listen(error: "KafkaError | None", _: object) -> None:
                problems[number] = None if error is None else f"{self._address}: {error.str()}"

            return listen

        for number, message in enumerate(messages):
            try:
                producer.produce(self._address.path, message, on_delivery=build_listener(number))
            except BufferError:
                problems[number] = f"{self._address}: too many messages wait"
        producer.flush(_DELIVERY_MS / 1000 + 2.0)
        if any(problems):
            # This producer would send the messages that still wait in it some day, though they were not acknowledged.
            self._give_up()
        return problems

    def close(self) -> None:
        """Close the connections."""
        self._give_up()

    def _connect(self) -> "Producer":
        if self._producer is None:
            self._producer = _build_client(self._address, "Producer", self._properties)
        return self._producer

    def _give_up(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0.1)
            self._producer = None


class KafkaConsumer:
    """Receives messages of this group member's partitions, and commits them once they are settled."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._consumer: Consumer = _build_client(
            address,
            "Consumer",
            {
                "group.id": address.options.get("group", _DEFAULT_GROUP),
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                # librdkafka's 45 s keep a partition idle that long after its consumer was killed.
                "session.timeout.ms": 6_000,
                "heartbeat.interval.ms": 2_000,
                **_build_common_properties(address),
            },
        )
        self._has_partitions = False
        self._consumer.subscribe([address.path], on_assign=self._note_assignment)

    def receive(self, wait_s: float) -> list[Received]:
        """Receive up to a hundred messages.

        Raises:
            BrokerUnavailableError: the group or a partition cannot be read right now.
            SettingsError: there is no such topic, or we may not read it.
        """
        first = self._consumer.poll(wait_s)
        if first is None and not self._has_partitions:
            # A group takes some seconds to form: until then an empty answer does not mean that the topic is empty.
            first = self._wait_for_partitions() or self._consumer.poll(wait_s)
        if first is None:
            return []
        # `consume` waits for its whole timeout unless it is full: take only what has arrived already.
        received = []
        for message in [first, *self._consumer.consume(_MOST_RECEIVED - 1, timeout=0)]:
            error = message.error()
            if error is not None:
                raise _translate_error(self._address, error)
            received.append(Received(message.value() or b"", message))
        return received

    def _note_assignment(self, *_: object) -> None:
        self._has_partitions = True

    def _wait_for_partitions(self) -> "Message | None":
        until = time.monotonic() + _JOIN_S
        while time.monotonic() < until:
            message = self._consumer.poll(0.2)
            if message is not None or self._has_partitions:
                return message
        raise BrokerUnavailableError(f"{self._address}: not in the group after {_JOIN_S:.0f} s")

    def settle(self, messages: Sequence[Received]) -> None:
        """Commit the offsets behind these messages.

        Raises:
            BrokerUnavailableError: they may not be committed.
        """
        from confluent_kafka import KafkaException, TopicPartition

        ends: dict[tuple[str, int], int] = {}
        for received in messages:
            message: Message = received.receipt
            place = (message.topic() or "", message.partition() or 0)
            ends[place] = max(ends.get(place, 0), (message.offset() or 0) + 1)
        offsets = [TopicPartition(topic, partition, end) for (topic, partition), end in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise BrokerUnavailableError(f"{self._address} did not commit: {error.args[0].str()}") from None

    def close(self) -> None:
        """Leave the group, so that others take its partitions over at once."""
        self._consumer.close()


def _build_common_properties(address: BrokerAddress) -> dict[str, Any]:
    return {
        "bootstrap.servers": address.hosts,
        "log_level": 2,  # failures are reported as errors of ours
        "allow.auto.create.topics": False,
        **address.properties,
    }


def _build_client(address: BrokerAddress, kind: str, properties: dict[str, Any]) -> Any:
    try:
        import confluent_kafka
    except ImportError:
        raise build_missing_package_error(address, "confluent-kafka") from None
    try:
        return getattr(confluent_kafka, kind)(properties)
    except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
        raise SettingsError(f"Kafka properties for {address}: {error}; see FLYWHEEL_QUEUE_PROPERTIES_FILE") from None


def _translate_error(address: BrokerAddress, error: "KafkaError") -> BrokerUnavailableError | SettingsError:
    from confluent_kafka import KafkaError

    permanent = (
        *(
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ),
        *(KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED),
    )
    if error.code() in permanent or error.code() == KafkaError._UNKNOWN_TOPIC:
        return SettingsError(f"Kafka refuses {address}: {error.str()}; check FLYWHEEL_QUEUE and the topic")
    return BrokerUnavailableError(f"{address}: {error.str()}")
