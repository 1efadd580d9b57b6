"""The labeler: impressions + clicks + verdicts in, training batches out, each a function of the
logs alone.

Theory of operation ------------------- An impression's label is known only later: a click may come
within `window`, and arrive `grace` after that. Most systems hold a window of impressions in state
for that time. Here the log is the waiting room: `impressions[p]` is read a second time, one
deadline late, and what is held in memory is only the clicks of one window and the ids of a few
minutes (L5).

            arrival time of partition p, as the logs tell it (T1: broker's stamps, made monotone)

    impressions[p]  ----+-----[ head of labels ]--------------------------------+---- end of the log
                     ids|re-read     ^ range [E, end) is labelled here          ^ counting (F1)
                        |            |<------- window + grace -------->|
    clicks[p]       ------------+------------------------------------+----------+---- end of the log
                     clicks_from|<-- held: arrival in [head - early, |          ^ counting (F1)
                                |                 deadline(head)] -->| joining reader
    verdicts        ---------------------+---- V(deadline) ----+--------------------- end of the log
                                         | re-read from here   | all watermarks passed deadline

A *range* is closed by the log (C3: `batching`): after `batch_rows_max` impressions, or before the
first record of a later `flush_ms` bucket. It is written once `clicks[p]` was read past the deadline
of its last impression and all watermarks in `verdicts` have passed it (L4). Then, for each of its
impressions: seen before within `dedup_ms`? (L2: `duplicates`); covered by a verdict that stands
before V? (L3: `verdict_index`); which clicks count? (L1: `click_join`).

Nothing is closed by this process's clock. Where nobody shops, heartbeats (T2) keep time moving; the
deadline of a range is that of its last impression, and only a range without any takes its last
record's instead.

What makes it exact
-------------------
1. *One partition, one chain.* The record of `examples[p]` that covers [start, end) is the commit
   record: its headers are a complete resume point (C4: `resume_point`). There are no
   transactions and no committed offsets.
2. *Every byte is a function of range and logs* (I7), however records were polled. The resume point
   says how far back the logs must be re-read, not how far the writer happened to have read.
3. *A late or repeated writer does no harm*: every reader folds the chain the same way (C2,
   `stream.chain`), and what a labeler that was thought dead still writes are the same bytes again.
4. *One unacknowledged record a chain* (C5: `outbox`). After any failed send everything known is
   dropped and the log is folded again: the log is asked what it holds, a client library is not
   believed.
5. *Barriers* (E3) come from `clicks[p]`, which is read past every deadline that is handled. So the
   labeler knows of a barrier before it writes the first range that belongs behind it, without
   holding a window of impressions.
6. *A verdict applies by where it stands*, not by when it was read. Each held verdict keeps the
   lowest watermark at its offset; it stands before V(i) iff that is at most deadline(i).

Why not ...
-----------
- *a keyed state store with timers* (Flink, Faust): it would hold a window of impressions, of which
  few are clicked; its snapshots would be the system's largest state, and label time would be the
  processor's clock.
- *a registry of joined click ids* (Photon): ranges of one log are a smaller and ordered registry.
- *Kafka transactions*: they bind output to offsets, but not to where `clicks`, `verdicts` and ids
  must be re-read from; the headers do, and work on brokers without transactions.

- `breaker`: The circuit breaker
- `click_cache`: A local copy of waiting clicks, so that a start does not read a whole window again
  (C4)
- `counting`: The counting reader
- `catalogues`: Catalogues, joined to impressions as of their arrival
- `counts`: Counters
- `joined_inputs`: where the partitions of a labeler read what is joined to impressions
- `fraud`: The fraud filter
- `io`: What a labelling process reads and writes
- `join`: The join of clicks to impressions (L1, L2)
- `labels`: From impressions, clicks and verdicts of one partition to labelled batches (L1 to L7)
- `process`: The labeler's process
- `retraction`: Taking back what was learned of events that a late verdict rejects (L3)
- `breaker_config`: what the circuit breaker watches, and from where on it withholds (L8)
- `config`: what a labeler decides for itself
- `fraud_config`: what the fraud filter counts, and from where on it speaks of fraud
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.breaker_config import VENDOR, BreakerConfig, check_breaker, sliceable
    from labeler.config import LabelerConfig
    from labeler.fraud_config import FraudConfig, check_room
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "VENDOR",
    "BreakerConfig",
    "FraudConfig",
    "LabelerConfig",
    "check_breaker",
    "check_room",
    "sliceable",
]
