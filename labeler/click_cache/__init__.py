"""A local copy of waiting clicks, so that a start does not read a whole window again (C4).

- `cache`: the local copy of one partition's waiting clicks
- `page`: A page of clicks
- `rocks`: A labeler's local copy on disk
- `spilled`: clicks that lie in pages of the copy and not in memory, and which of them an impression
  may have (L5)
- `storage`: where a labeler's local copy lies (C4)
"""
