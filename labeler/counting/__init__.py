"""The counting reader: from inputs to `signals`, which the fraud filter judges.

- `heartbeats`: when a live partition needs its heartbeat (T2)
- `reader`: the counting readers
- `runner`: what runs at the head of the inputs, bound by no label
- `signals`: A record of `signals`
"""
