"""Tables of rows in memory: an index, row stores, copies that writes do not disturb.

- `admission`: which new keys get a row
- `ages`: how many rows were last touched when, in steps of a few seconds of event time
- `arena`: A 2-D array that grows without copying
- `cow_copy`: A copy of a table's rows as they stand now, made while pushes go on (X1
- `dense`: the dense parameters of a model that live on one shard
- `float16`: numbers in 16 bits, and how they are rounded to
- `hash_index`: key -> row number
- `initializer`: the value of a row that nobody has pushed to
- `policy`: which keys get a row, and how long they keep it
- `row_header`: how a row lies in memory
- `row_layout`: how weights and optimizer state of a row are kept behind its head, by
  `TableSpec.storage`
- `row_store`: records under 64-bit keys
- `table`: one embedding table of one shard
- `tombstones`: which keys a table has evicted since a version, so that a delta can say so (X3)
"""
