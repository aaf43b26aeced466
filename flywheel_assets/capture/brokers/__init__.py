"""The same through a queue: SQS or Kafka between capture and the landing zone."""
