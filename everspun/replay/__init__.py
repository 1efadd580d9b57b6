"""Histories, and how they are replayed into the topics.

- `attackers`: attackers of eight kinds, drawn into a history with the truth kept apart from what
  the pipeline sees
- `attacks`: attacks planted into a history
- `history`: A recorded history of a shop
- `movielens`: MovieLens 100k as a shop's log
- `outcome`: what became of the attacks that a replay planted
- `own_log`: A log of a user's own, as docs/events.md has it
- `own_replay`: the replay of a log of a user's own
- `plan`: what a replay writes, in order
- `replay`: the replayer
- `traffic`: simulated traffic of a shop with a known truth
- `writer`: what every replay does to the topics
"""
