"""What clients of Kafka cost who reads and writes the log.

- `kafka_clients`: CPU of a record that is read and of a write that is waited for, beside librdkafka
"""
