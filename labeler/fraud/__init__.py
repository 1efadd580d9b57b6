"""The fraud filter: from `signals` to `verdicts` (F1 to F4).

- `rules`: The rules of the fraud filter, one a file
- `activity`: what every source did to every vendor within the last windows of event time, in
  columns
- `activity_pages`: the durable copy of `Activity`
- `app`: the fraud filter as a Faust app
- `faust_app`: how Faust is set up for it: app, tables and credentials
- `filter`: the fraud filter
- `metrics`: Prometheus metrics of the fraud filter (shell)
- `pair_index`: dense numbers for what the fraud filter counts, names (sources, vendors) and pairs
  of them
- `scores`: what is remembered of sources beyond a window
- `sender`: the one ordered producer of `verdicts`
- `sent_watermarks`: the highest watermark of each input that stands in `verdicts`
- `sessions`: which visits of a source did what
- `tables`: the fraud filter's tables, and the little that is asked of one
- `vendor_history`: what honest sources do to each vendor
- `window`: one window of event time, judged
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.fraud import app
    from labeler.fraud.filter import FraudFilter, run_step
    from labeler.fraud.tables import OtherTables, dict_tables, pair_key
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "FraudFilter",
    "OtherTables",
    "app",
    "dict_tables",
    "pair_key",
    "run_step",
]
