"""From what sites send to columns, and what is said of records that are wrong.

- `arrival`: when a record arrived (T1), and which stamps and event times are believed (T3)
- `arrow_values`: Arrow IPC values of many records read into one set of flat columns
- `catalogues`: Catalogues
- `cloud_events`: events in an envelope, which is taken off
- `decode`: from records to columns
- `event_faults`: what is wrong with one event, in words
- `json_features`: features of many rows as JSON gave them, read into the columns that `examples`
  has of them
- `json_extent`: how large JSON is before a parser makes anything of it
- `json_frames`: framing of JSON records
- `json_values`: JSON values of many records read into flat columns
- `portions`: how many records may be decoded at once
- `record_faults`: what is wrong with one JSON record that could not be read
- `registered_values`: values in Avro and Protobuf, with their schemas, read into flat columns
- `row_checks`: which rows are wrong
- `schema`: what impressions and clicks look like outside (JSON, Arrow IPC) and how a parsed JSON
  object becomes flat rows
- `missing_shares`: how much of the last minutes' impressions lacks a component
- `undeclared`: features in events that nobody declared
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.decoding.arrival import (
        TIME_FINE,
        ArrivalClock,
        Arrived,
        arrival_clock,
        event_time_reason,
        judge_event_times,
    )
    from stream.decoding.cloud_events import NoEvent, unwrapped_value
    from stream.decoding.decode import (
        BadRecord,
        DecodedActivity,
        decode_activity,
        decode_clicks,
        decode_impressions,
    )
    from stream.decoding.event_faults import PRODUCER, row_faults, too_many_pixels
    from stream.decoding.json_extent import extent
    from stream.decoding.json_features import WrongValue, given_features
    from stream.decoding.json_frames import objects_of
    from stream.decoding.missing_shares import MissingShares
    from stream.decoding.portions import fitting
    from stream.decoding.schema import Shape, click_shape, impression_shape
    from stream.decoding.undeclared import NAMES_MAX, count_undeclared
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NAMES_MAX",
    "PRODUCER",
    "TIME_FINE",
    "ArrivalClock",
    "Arrived",
    "BadRecord",
    "DecodedActivity",
    "MissingShares",
    "NoEvent",
    "Shape",
    "WrongValue",
    "arrival_clock",
    "click_shape",
    "count_undeclared",
    "decode_activity",
    "decode_clicks",
    "decode_impressions",
    "event_time_reason",
    "extent",
    "fitting",
    "given_features",
    "impression_shape",
    "judge_event_times",
    "objects_of",
    "row_faults",
    "too_many_pixels",
    "unwrapped_value",
]
