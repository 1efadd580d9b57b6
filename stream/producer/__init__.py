"""The library for sites that publish events.

- `config`: how a producer gathers and waits
- `open_batch`: events of one partition that go into one record
- `producer`: for sites
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.producer.config import ProducerConfig
    from stream.producer.producer import BufferFull, Delivery, EventProducer, Undelivered
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "BufferFull",
    "Delivery",
    "EventProducer",
    "ProducerConfig",
    "Undelivered",
]
