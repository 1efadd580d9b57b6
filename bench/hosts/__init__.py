"""One system on several hosts: what it costs, and what a lost host or wire does to it.

- `cluster`: Three hosts, each a network namespace with an address and a Kafka broker of its own,
  SASL_SSL that enforces the least rights of each role, TLS and a token between shards and their
  callers
- `cluster_flow`: How fast a system learns a backlog, what it spends on it, and the same on one
  machine without TLS
- `cluster_hosts`: Hosts for `bench.cluster`
- `cluster_wires`: Wires between the hosts of `bench.cluster`
"""
