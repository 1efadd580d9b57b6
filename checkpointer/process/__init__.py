"""The checkpointer's process, and what operators do to checkpoints.

- `operator_actions`: what an operator does with checkpoints
- `process`: the checkpointer process
"""
