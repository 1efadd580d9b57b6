"""The benches: `python -m bench` lists them, `python -m bench.NAME` runs one.

A bench and its helpers stand in the room of what it measures. The command leaves the room out,
so a bench may move; imports name it.

- `attacks`: What should not be learned: fraud, outages of a shop's own, junk, and taking back
- `baselines`: Other software on the same work
- `checkpoints`: What cuts and checkpoints cost training
- `clients`: What clients of Kafka cost who reads and writes the log
- `end_to_end`: All roles at once
- `failures`: Processes, machines and their surroundings that fail
- `hosts`: One system on several hosts
- `labels`: Impressions and clicks to labelled batches
- `learning`: Learners: speed, staleness, the governor
- `measuring`: The list of benches, comparison, the machine, plots
- `parameters`: Shards: tables, pulls and pushes, slots that move
- `replicas`: Replicas: answers, load, the next checkpoint
"""

from pathlib import Path

# `python -m bench.cuts` finds bench/checkpoints/cuts.py: no room has the name of a bench.
__path__ += [str(room.parent) for room in sorted(Path(__file__).parent.glob("*/__init__.py"))]
