"""The join of clicks to impressions (L1, L2).

- `click_join`: the clicks of one window, waiting for their impressions (L1, L5)
- `duplicates`: the ids of the last minutes of one partition (L2)
- `intake`: from records to what a labeler works on
- `record_queue`: the records of a stretch of one log, without their contents
- `resume_point`: where a labeler goes on
- `ring_index`: an open-addressing index over a ring of 64-bit ids
- `strategy`: when impressions are read to be labelled, and what a reading says
"""
