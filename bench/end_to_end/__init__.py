"""All roles at once: throughput, how fresh what is served is, and how good it is on real logs.

- `freshness`: How long what was learned waits to be served, on one clock, with a checkpoint a
  second
- `pipeline`: Examples a second from impressions in Kafka to applied push, and what each role
  spends on them
- `pipeline_log`: The log that `bench.pipeline` measures
- `real_logs`: Two real logs, each with every feature that it has, beside plain learners
"""
