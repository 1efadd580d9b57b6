"""All roles at once: throughput, and how fresh what is served is.

- `freshness`: How long what was learned waits to be served, on one clock, with a checkpoint a
  second
- `pipeline`: Examples a second from impressions in Kafka to applied push, and what each role
  spends on them
- `pipeline_log`: The log that `bench.pipeline` measures
"""
