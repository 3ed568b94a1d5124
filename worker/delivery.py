"""Delivery: the output records of a transaction as whole record batches in kafka-python's producer, and what became of
them.

`KafkaProducer.send` takes one record and gives a future for it; with the locks, checks and look-ups around that it
takes 30 µs of a processor for each. Here the records of a transaction are written one behind the other, a record batch
for each output partition, and handed to the producer's own accumulator. From there on everything is kafka-python's:
sequence numbers, compression, retries, expiry, and the division of a batch that the broker finds too large.
"""

import time
from collections.abc import Iterator, Sequence

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from worker.letters import Outgoing
from worker.partitioner import partition_of
from worker.records import write_record

MESSAGE_FORMAT = 2

BATCH_BYTES = 768 << 10
"""A partition has one request in flight, so that a larger batch means fewer round trips; before it is compressed, and
below the 1 MiB that a broker takes by default."""


class WholeBatch(ProducerBatch):  # type: ignore[misc]
    """A record batch that is made at once, and has no future for each of its records.

    Attributes:
        parts: where kafka-python has divided it, since the broker found it too large: a future for each record, which
            now belongs to one of the parts. The future of the whole is then never resolved.
    """

    def __init__(self, partition: TopicPartition, records: MemoryRecordsBuilder) -> None:
        self.parts: list[FutureRecordMetadata] = []
        super().__init__(partition, records)

    @property
    def _record_futures(self) -> list[FutureRecordMetadata]:
        """Asked for by kafka-python when it divides the batch, and by nobody else."""
        if not self.parts:
            made = (
                FutureRecordMetadata(self.produce_future, n, None, None, -1, -1, -1) for n in range(self.record_count)
            )
            self.parts = list(made)
        return self.parts

    @_record_futures.setter
    def _record_futures(self, _: list[FutureRecordMetadata]) -> None:
        """What the constructor would begin with."""

    def failures(self, deadline: float) -> Iterator[KafkaError]:
        """As of `Delivery`, for the records of this batch."""
        # Divided, it is woken up as well.
        self.produce_future.wait(max(0.0, deadline - time.monotonic()))
        if self.produce_future.is_done:
            _, _, error_of = self.produce_future.value
            if error_of is not None:
                yield from (error_of(number) for number in range(self.record_count))
            return
        if not self.parts:
            yield KafkaTimeoutError(f"no answer for {self.topic_partition} in time")
        for future in self.parts:
            try:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
            except KafkaError as error:
                yield error


class Delivery:
    """The records of one transaction, on their way.

    Args:
        producer: within a transaction.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._under_way: list[WholeBatch] = []

    def send(self, records: Sequence[Outgoing]) -> None:
        """Hand records over, without waiting. Those of a partition stay in their order.

        Raises:
            KafkaError: a topic may not be written, or the transaction is over.
        """
        manager, accumulator = self._producer._transaction_manager, self._producer._accumulator
        for partition, some in self._placed(records).items():
            manager.maybe_add_partition_to_transaction(partition)
            for made in _batches(some, accumulator.config["compression_attrs"]):
                batch = WholeBatch(partition, made)
                with accumulator._tp_lock(partition):
                    accumulator._batches[partition].append(batch)
                    accumulator._incomplete.add(batch)
                self._under_way.append(batch)
        self._producer._sender.wakeup()

    def failures(self, deadline: float) -> list[KafkaError]:
        """Wait until the broker has every record, or will not have it: the errors of those.

        Args:
            deadline: on the monotonic clock; whatever has no answer by then has failed.
        """
        return [error for batch in self._under_way for error in batch.failures(deadline)]

    def _placed(self, records: Sequence[Outgoing]) -> dict[TopicPartition, list[Outgoing]]:
        """The key chooses the partition, as every Kafka client does. Without a key the input's partition does, so that
        what was in order stays in order."""
        topics: dict[str, list[list[Outgoing]]] = {}
        for record in records:
            places = topics.get(record.topic)
            if places is None:
                places = topics[record.topic] = [[] for _ in self._producer.partitions_for(record.topic)]
            number = record.source_partition if record.key is None else partition_of(record.key, len(places))
            places[number % len(places)].append(record)
        return {
            TopicPartition(topic, number): some
            for topic, places in topics.items()
            for number, some in enumerate(places)
            if some
        }


def _batches(records: Sequence[Outgoing], compression: int) -> Iterator[MemoryRecordsBuilder]:
    """Record batches of at most `BATCH_BYTES`; a larger record is a batch of its own."""
    written: list[bytes] = []
    size = 0
    for record in records:
        one = write_record(len(written), record.key, record.value, record.headers)
        if written and size + len(one) > BATCH_BYTES:
            yield _sealed(written, compression)
            # Its number in the batch is a part of the record.
            one, written, size = write_record(0, record.key, record.value, record.headers), [], 0
        written.append(one)
        size += len(one)
    yield _sealed(written, compression)


def _sealed(written: Sequence[bytes], compression: int) -> MemoryRecordsBuilder:
    """As kafka-python has a batch to which so many records were appended, and no more will be."""
    now_ms = int(time.time() * 1000)
    records = MemoryRecordsBuilder(MESSAGE_FORMAT, compression, 0)
    builder = records._builder
    builder._buffer += b"".join(written)
    builder._num_records = records._next_offset = len(written)
    builder._last_offset = len(written) - 1
    builder._first_timestamp = builder._max_timestamp = now_ms
    return records
