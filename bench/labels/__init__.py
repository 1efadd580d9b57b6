"""Impressions and clicks to labelled batches.

- `catalogue_rows`: A catalogue with more rows than memory is given
- `click_spill`: A window of 30 days, whose clicks do not fit in memory
- `delayed_feedback`: Which label strategy to choose when
- `delayed_traffic`: Simulated traffic whose every click is known, with a given share of late
  ones, through the labeling core
- `event_formats`: What it costs to decode an event, by the form in which a site sends it
- `held_verdicts`: What one more verdict costs a labeler, by how many it holds
- `kept`: What counters and sequences cost an impression in the labeler, CPU time, one thread
- `kept_keys`: What counters, sequences and a catalogue of many keys cost where memory is bounded
- `kept_rows`: Rows of a shop, as labelled and as they arrive
- `label_lag`: How long after its deadline an impression stands in `examples`, on the live clock,
  the fraud filter in the path
- `labeling`: Impressions per CPU second of a labeler, by format
- `labeling_log`: The log that `bench.labeling` measures
- `labeling_memory`: The memory side of `bench.labeling`
- `labeling_peer`: The plain Faust app beside the labeler in `bench.labeling`
"""
