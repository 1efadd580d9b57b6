"""Columns in memory: events, values given and missing, and pointers for kernels.

- `arrow_messages`: what an Arrow IPC stream is going to take, read off its messages before anything
  is unpacked
- `column_pointers`: where the columns of a batch lie in memory, so that one call of a kernel reads
  all of them
- `declaration`: the registry of features
- `derived`: what a model reads of a declared feature's column
- `events`: impressions and clicks in memory
- `feature_names`: which names features may have
- `pictures`: a picture's file to 32 x 32 pixels, under limits
- `values`: what stands in a column for a value that was given, or not
"""
