"""The library for sites that publish events.

- `producer`: for sites
"""

from stream.producer.producer import (
    BufferFull,
    Delivery,
    EventProducer,
    ProducerConfig,
    Undelivered,
)

__all__ = ["BufferFull", "Delivery", "EventProducer", "ProducerConfig", "Undelivered"]
