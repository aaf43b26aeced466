"""The same through a queue: SQS or Kafka between capture and the landing zone."""

from flywheel_assets.capture.brokers.broker import BrokerAddress, BrokerKind, Consumer, Producer


def open_producer(address: BrokerAddress) -> Producer:
    """A producer for this address; does not connect.

    Raises:
        SettingsError: the broker's package is not installed.
    """
    if address.kind is BrokerKind.SQS:
        from flywheel_assets.capture.brokers._sqs import SqsProducer

        return SqsProducer(address)
    from flywheel_assets.capture.brokers._kafka import KafkaProducer

    return KafkaProducer(address)


def open_consumer(address: BrokerAddress) -> Consumer:
    """A consumer for this address; does not connect.

    Raises:
        SettingsError: the broker's package is not installed.
    """
    if address.kind is BrokerKind.SQS:
        from flywheel_assets.capture.brokers._sqs import SqsConsumer

        return SqsConsumer(address)
    from flywheel_assets.capture.brokers._kafka import KafkaConsumer

    return KafkaConsumer(address)
