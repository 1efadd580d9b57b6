"""Processes, machines and their surroundings that fail, and what is still exact.

- `growth`: Does anything grow but the model? The memory of each role while events flow, beside a
  role that cannot start and a topic of evaluations that holds much already
- `outages`: Does anything around the processes stop them, and is it said? Stores, brokers, disks,
  clocks and topics fail one after another under real processes on Apache Kafka, while events flow
- `outages_alerts`: Which alert rules of `deploy/monitoring` fire
- `outages_classes`: In which class every event of the site stands at the end of `bench.outages`
- `outages_faults`: The faults of `bench.outages`
- `recovery`: Is the promise true? Real processes on Apache Kafka, killed with -9 at random while
  events flow, and every event counted afterwards
- `recovery_check`: What became of every event, counted without the code that is being judged
- `recovery_command`: What is typed and printed for benches that kill processes and count events
  afterwards
- `recovery_plan`: Which process dies when
- `recovery_serving`: What replicas answer and follow while processes are killed and the store
  fails, for `bench.recovery`
- `recovery_site`: A shop's site for `bench.recovery`
- `recovery_watch`: How far every chain has got on every shard, over time, for `bench.recovery`
- `slow_store`: A store of checkpoints that is slow
- `upgrade`: Two versions in one system: every process is changed from an earlier version to this
  one and back while events flow and requests are answered, role by role, on Apache Kafka
"""
