"""The log: partitions of records over Kafka, and in memory.

- `broken_batches`: record batches of Kafka that cannot be read
- `kafka`: the log over Apache Kafka or another broker that speaks its protocol (kafka-python)
- `kafka_admin`: connections to a cluster
- `kafka_fetch_columns`: what kafka-python's fetcher holds of one partition's fetch, as columns
  instead of an object a record
- `kafka_socket_patch`: how kafka-python takes a fetch off its socket
- `kafka_writer`: appending to the log over Kafka
- `log`: the log as the parts see it
- `memory`: the log in memory
- `record_batches`: Kafka's record batches (format v2), read into columns
- `record_columns`: records as columns
- `security`: how clients of a cluster prove who they are, and know the broker
- `topics`: the topics
- `transactions`: transactions that are open on partitions, and whose they are (Kafka's KIP-664)
- `unpacking`: unpacking of what producers packed
- `wall_clock`: what time it is on this host (shell)
"""
