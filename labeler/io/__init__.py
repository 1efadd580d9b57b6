"""What a labelling process reads and writes: fetches in the background, and one chain of writes
each.

- `fetch_pace`: how long to wait for what was asked for before it is asked again, and how much to
  take at once
- `fetch_queue`: records fetched from one partition and not yet handed to a core
- `outbox`: what one chain still has to write
- `set_aside`: records that an operator sends to quarantine unread
- `tail`: reading back the end of a partition, to fold it
- `wait`: A wait by a clock that may be set back
"""
