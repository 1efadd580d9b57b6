"""One function a role, from the configuration to the package that does the work.

- `complete_cuts`: the complete cuts of a model in the store of checkpoints, for the governor
- `heap`: memory that a process has freed is kept for its next batch
- `model_check`: whether the model of a config can begin at all, asked before any process is started
- `roles`: the wiring
- `stop_signals`: SIGTERM and SIGINT ask a process to stop, and it does, in order or not, within a
  stated time
- `stored_state`: what shards must find again when a machine is replaced, beside the checkpoints of
  their model
"""
