"""Other software on the same work, each a process of its own but `plain_learners`.

- `faust_join`: Baseline of `bench.labeling`
- `fbgemm_dlrm`: The same model with fbgemm's table-batched embedding on the CPU
- `numpy_adagrad`: Baseline of `bench.table`
- `plain_learners`: Learners that an engineer has without us: FTRL, torch, Vowpal Wabbit
- `redis_rows`: Baseline of `bench.pushpull`
- `torch_dlrm`: Plain torch on the same model
- `torch_rpc`: Baseline of `bench.pushpull`
- `turns`: A baseline that works in turns
- `vowpal_wabbit`: Vowpal Wabbit on the same examples
"""
