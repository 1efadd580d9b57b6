"""Clocks of learners, bounded staleness (K1 to K7), and operators' settings.

- `allow`: the allow list, as the clock holder says it
- `allow_list_sender`: how the allow list gets to every shard and is confirmed (K5)
- `clocks`: stale synchronous parallel clocks (K1-K7) and the stop lease of cuts (X1), as a pure
  core
- `governor`: the governor's judgement, as a pure core
- `model_clocks`: the clocks of one model
- `operator_settings`: what an operator has ordered of a model's training
"""
