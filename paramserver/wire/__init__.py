"""What travels between processes: gRPC, the data channel, and their encodings.

- `client`: both ports of the parameter server over gRPC, pulls and pushes over data channels where
  the shard has them
- `codec`: messages as protobuf, and back
- `data_channel`: data channels
- `frames`: A frame
- `key_cache`: lists of keys by their digest, so that a list is sent once
- `payload`: pulls, parts of pushes and pushes as the header and the arrays of a frame, and back
- `staging`: pushes and pulls too large for one message
- `tls`: certificates of shards and of their callers, for gRPC and for data channels (shell)
- `token`: the bearer token that calls to a shard must carry where its port is open to other users
  of the host (shell)
- `wire_pb2`: generated protocol buffer code
"""
