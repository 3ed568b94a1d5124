"""Tail: predictions as they are committed. It joins no group and commits nothing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import AuthorizationError, KafkaConnectionError, KafkaError

from schemas import Prediction
from worker.connection import client_options, connect
from worker.errors import BrokerError
from worker.settings import KafkaSettings
from worker.topics import missing, require_topics

POLL_MS = 250
CLOSE_MS = 2_000
MAX_RECORDS = 500


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record of the output topic."""

    value: bytes
    review_timestamp_ms: int

    def prediction(self) -> Prediction:
        """Decoded."""
        return Prediction.model_validate_json(self.value)


def follow(
    settings: KafkaSettings, topic: str, *, from_beginning: bool, idle_seconds: float | None = None
) -> Iterator[list[Arrival]]:
    """Committed records as they arrive, a poll's worth at a time; an empty list when there was nothing new.

    Args:
        settings: where.
        topic: usually the output topic.
        from_beginning: start at the oldest record instead of at the end.
        idle_seconds: stop when nothing came for so long; never when absent.

    Raises:
        BrokerError: no broker, no topic, no right to read it.
    """
    require_topics(settings, [topic])
    consumer = connect(
        lambda: KafkaConsumer(
            **client_options(settings),
            metrics_enabled=False,
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ),
        settings,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise BrokerError(missing(topic))
        consumer.assign(partitions)
        if from_beginning:
            consumer.seek_to_beginning(*partitions)
        else:
            consumer.seek_to_end(*partitions)
            for partition in partitions:
                consumer.position(partition)  # resolve the end now, not at the first poll
        yield from _arrivals(consumer, idle_seconds)
    except AuthorizationError as error:
        raise BrokerError(f"the broker refuses to let you read {topic}: {error}") from None
    except KafkaError as error:
        raise BrokerError(f"{topic}: {error}") from None
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


def _arrivals(consumer: KafkaConsumer, idle_seconds: float | None) -> Iterator[list[Arrival]]:
    last = time.monotonic()
    while idle_seconds is None or time.monotonic() - last < idle_seconds:
        try:
            polled = consumer.poll(POLL_MS, max_records=MAX_RECORDS)
        except KafkaConnectionError:
            time.sleep(POLL_MS / 1000)
            polled = {}
        arrivals = [Arrival(r.value or b"", r.timestamp) for records in polled.values() for r in records]
        if arrivals:
            last = time.monotonic()
        yield arrivals
