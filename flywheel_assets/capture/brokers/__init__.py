"""Carries events through SQS or Kafka between capture and the landing zone.

It imports `capture/events` for the rows and `capture/log` for the segments; the packages of the brokers are imported
where one is opened. A new broker starts at `BrokerKind` in `broker.py`.
"""

from flywheel_assets.capture.brokers.broker import BrokerAddress, BrokerKind, Consumer, Producer


def open_producer(address: BrokerAddress) -> Producer:
    """Make a producer for this address, without connecting.

    Raises:
        SettingsError: the broker's package is not installed.
    """
    match address.kind:
        case BrokerKind.SQS:
            from flywheel_assets.capture.brokers._sqs import SqsProducer

            return SqsProducer(address)
        case BrokerKind.KAFKA:
            from flywheel_assets.capture.brokers._kafka import KafkaProducer

            return KafkaProducer(address)


def open_consumer(address: BrokerAddress) -> Consumer:
    """Make a consumer for this address, without connecting.

    Raises:
        SettingsError: the broker's package is not installed.
    """
    match address.kind:
        case BrokerKind.SQS:
            from flywheel_assets.capture.brokers._sqs import SqsConsumer

            return SqsConsumer(address)
        case BrokerKind.KAFKA:
            from flywheel_assets.capture.brokers._kafka import KafkaConsumer

            return KafkaConsumer(address)
