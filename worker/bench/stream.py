"""The stream of a place: reviews published onto its input, all at once or at an even rate, and its predictions read."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from worker.connection import client_options, connect, discard, trouble
from worker.errors import BrokerError
from worker.settings import KafkaSettings

PUBLISH_MS = 600_000
FLUSH_SECONDS = 60.0

Ends = Mapping[TopicPartition, int]


class Stream:
    """Reviews are keyed `k0`, `k1` and so on, by their place among the values."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._kafka = settings

    @contextmanager
    def hidden(self, values: Sequence[bytes]) -> Iterator[Callable[[], None]]:
        """Publish in one transaction, the partitions in turn; gives the call that shows it to readers.

        Raises:
            BrokerError: the broker did not take every review.
        """
        with self._producer(
            linger_ms=20,
            transactional_id=f"{self._kafka.group_id}-publisher",
            transaction_timeout_ms=PUBLISH_MS,
            delivery_timeout_ms=PUBLISH_MS,
        ) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            topic = self._kafka.input_topic
            partitions = len(producer.partitions_for(topic))
            futures = [
                producer.send(topic, key=f"k{number}".encode(), value=value, partition=number % partitions)
                for number, value in enumerate(values)
            ]
            producer.flush(timeout=PUBLISH_MS / 1000)
            if not all(future.succeeded() for future in futures):
                raise BrokerError(f"{topic}: the broker did not take every review")
            yield producer.commit_transaction

    def pace(self, values: Sequence[bytes], rate: float, sent: dict[bytes, float], over: Event) -> None:
        """Publish `rate` reviews a second, until told that it is over.

        Args:
            values: what to publish.
            rate: reviews a second.
            sent: takes for each key when its review was published; seconds since 1970.
            over: ends it early.
        """
        with self._producer(linger_ms=0) as producer:
            begun = time.monotonic()
            for number, value in enumerate(values):
                if over.wait(max(0.0, begun + number / rate - time.monotonic())):
                    return
                key = f"k{number}".encode()
                sent[key] = time.time()
                producer.send(self._kafka.input_topic, key=key, value=value)
            producer.flush(timeout=FLUSH_SECONDS)

    def ends(self) -> Ends:
        """Where the predictions end now."""
        topic = self._kafka.output_topic
        with self._consumer() as consumer:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            return dict(consumer.end_offsets(partitions))

    @contextmanager
    def reader(self, starts: Ends) -> Iterator[KafkaConsumer]:
        """A consumer of committed predictions, from `starts` on."""
        with self._consumer() as consumer:
            consumer.assign(list(starts))
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
            yield consumer

    def predictions(self, starts: Ends) -> list[Any]:
        """The records since `starts`, as far as they are committed."""
        ends = self.ends()
        records: list[Any] = []
        with self.reader(starts) as consumer:
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for some in consumer.poll(500, max_records=10_000).values():
                    records += some
        return records

    @contextmanager
    def _producer(self, **options: object) -> Iterator[KafkaProducer]:
        compression = self._kafka.compression
        producer = connect(
            lambda: KafkaProducer(
                **client_options(self._kafka),
                metrics_enabled=False,
                acks="all",
                batch_size=256 << 10,
                compression_type=None if compression == "none" else compression,
                **options,
            ),
            self._kafka,
        )
        try:
            yield producer
        except KafkaError as error:
            raise BrokerError(trouble(error, self._kafka)) from None
        finally:
            discard(producer)

    @contextmanager
    def _consumer(self) -> Iterator[KafkaConsumer]:
        consumer = connect(
            lambda: KafkaConsumer(
                **client_options(self._kafka),
                metrics_enabled=False,
                group_id=None,
                isolation_level="read_committed",
                enable_auto_commit=False,
            ),
            self._kafka,
        )
        try:
            yield consumer
        except KafkaError as error:
            raise BrokerError(trouble(error, self._kafka)) from None
        finally:
            consumer.close(autocommit=False)
