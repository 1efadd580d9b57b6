"""The join of clicks to impressions (L1, L2).

- `click_join`: the clicks of one window, waiting for their impressions (L1, L5)
- `duplicates`: the ids of the last minutes of one partition (L2)
- `intake`: from records to what a labeler works on
- `record_queue`: the records of a stretch of one log, without their contents
- `resume_point`: where a labeler goes on
- `ring_index`: an open-addressing index over a ring of 64-bit ids
- `strategy`: when impressions are read to be labelled, and what a reading says
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.join.click_join import ClickJoin, ClickLimits, Matches
    from labeler.join.duplicates import DuplicateIds
    from labeler.join.intake import Intake, Read, clicks_intake, impressions_intake
    from labeler.join.record_queue import RecordQueue
    from labeler.join.resume_point import ExamplesFold, ResumePoint
    from labeler.join.ring_index import home
    from labeler.join.strategy import NO_WINDOW_MS, LabelStrategy, kept_negatives, label_strategies
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NO_WINDOW_MS",
    "ClickJoin",
    "ClickLimits",
    "DuplicateIds",
    "ExamplesFold",
    "Intake",
    "LabelStrategy",
    "Matches",
    "Read",
    "RecordQueue",
    "ResumePoint",
    "clicks_intake",
    "home",
    "impressions_intake",
    "kept_negatives",
    "label_strategies",
]
