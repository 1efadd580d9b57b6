"""The learner's process: its reader, its calls to shards, its metrics.

- `examples_reader`: reads `examples` as a group member, on a thread of its own
- `metrics`: what a learner's process exports to Prometheus (shell)
- `overlap_meter`: how long pulls and pushes ran beside a computation
- `port_caller`: performs the calls of the core against the ports, each on a thread, and hands back
  one event for each (shell)
- `worker`: A learner's process
"""
