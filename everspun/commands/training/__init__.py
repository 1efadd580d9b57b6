"""Commands about training and its models.

- `checkpoints`: list checkpoints, show one (why it was rejected, too), verify, or restore one
- `inspect`: what a key has learned
- `learners`: start or stop learner processes of a system that `everspun run` runs here
- `models`: the models that one store holds, side by side
- `pause`: stop training (`pause`) and start it again (`resume`)
- `predict`: one row answered by hand
- `retrain`: train another model from history, in order, beside the live one
- `shards`: change the number of shards while training goes on
- `staleness`: set how far learners may run ahead of each other, while they run
"""

__all__: tuple[str, ...] = ()
