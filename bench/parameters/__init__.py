"""Shards: tables, pulls and pushes, and slots that move.

- `moves`: How long training stands while slots move between shards
- `pushpull`: Rows per second pulled and pushed through one shard
- `pushpull_kernels`: Rows per second through one table in process
- `pushpull_peer`: Our server and our clients for `bench.pushpull`, which starts them as processes
  of this module
- `pushpull_work`: The work of `bench.pushpull`, the same on every side
- `table`: Bytes a row, pauses while growing and rows per second of one table in process, at 1, 10
  and 50 million rows
"""
