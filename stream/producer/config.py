"""How a site's producer gathers and waits."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProducerConfig:
    """How a site's producer gathers and waits."""

    name: str = field(
        default="site",
        metadata={"help": "who sends, for the header `producer` and messages about it"},
    )
    batch_rows_max: int = field(default=500, metadata={"help": "events in one record"})
    batch_age_max_ms: int = field(
        default=100, metadata={"help": "an event waits this long for company, ms"}
    )
    buffer_bytes_max: int = field(
        default=33_554_432, metadata={"help": "accepted and not yet in the log, bytes"}
    )
    block_ms_max: int = field(
        default=60_000, metadata={"help": "a call waits this long for room, ms, then raises"}
    )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isprintable():
            raise ValueError(f"name = {self.name!r}: a text is meant, such as 'site-1'")
        for name in ("batch_rows_max", "buffer_bytes_max"):
            _check(name, getattr(self, name), low=1)
        for name in ("batch_age_max_ms", "block_ms_max"):
            _check(name, getattr(self, name), low=0)


def _check(name: str, value: object, low: int) -> None:
    if type(value) is not int or value < low:
        raise ValueError(f"{name} = {value!r}: allowed is a whole number of {low} or more")
