"""What became of one event, from its arrival to the model that serves it, as logs and store tell.

No process keeps or sends anything for it: a trace is a function of what stands there.

- `journey`: the steps of one event, and what it waits for (pure)
- `search`: the records of `examples`, `evaluations` and `checkpoints` that tell of one event
- `spans`: the same steps as spans of OpenTelemetry
"""
