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

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.wire import codec, frames, payload, wire_pb2
    from paramserver.wire.client import ClockClient, ShardClient, ShardPorts, connect
    from paramserver.wire.data_channel import DataChannelServer, refusal
    from paramserver.wire.frames import Body, Buffer
    from paramserver.wire.key_cache import KeyLists
    from paramserver.wire.payload import Lists, Payload, UnknownKeys
    from paramserver.wire.staging import StageFull, StageIncomplete, Staging
    from paramserver.wire.tls import ServerTls
    from paramserver.wire.token import with_token
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "Body",
    "Buffer",
    "ClockClient",
    "DataChannelServer",
    "KeyLists",
    "Lists",
    "Payload",
    "ServerTls",
    "ShardClient",
    "ShardPorts",
    "StageFull",
    "StageIncomplete",
    "Staging",
    "UnknownKeys",
    "codec",
    "connect",
    "frames",
    "payload",
    "refusal",
    "wire_pb2",
    "with_token",
]
