"""The checkpointer's process, and what operators do to checkpoints.

- `learned_to_served`: how long what was learned waits to be served
- `operator_actions`: what an operator does with checkpoints
- `process`: the checkpointer process
- `served_watch`: the thread that watches shards and replicas for that wait
"""
