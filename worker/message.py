"""A message as it came: where it stood, its bytes, and nothing decoded yet."""

from dataclasses import dataclass, field

from schemas import Source

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One input record. Its text form leaves the payload out, so that no log can hold a review."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(default=(), repr=False)
    timestamp_ms: int = -1
    """Milliseconds since 1970 as the broker recorded it; -1 when there is none."""

    @property
    def source(self) -> Source:
        """Its coordinates, as predictions and rejections name them."""
        return Source(topic=self.topic, partition=self.partition, offset=self.offset)
