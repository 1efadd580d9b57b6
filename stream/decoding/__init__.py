"""From what sites send to columns, and what is said of records that are wrong.

- `arrival`: when a record arrived (T1), and which stamps and event times are believed (T3)
- `arrow_values`: Arrow IPC values of many records read into one set of flat columns
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
