"""Message brokers between capture and the landing zone: SQS and Kafka behind two small protocols."""
