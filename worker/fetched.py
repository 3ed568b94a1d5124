"""Fetched: what a fetch brought of one partition, as messages.

The place of kafka-python's `Fetcher.PartitionRecords`, of which it keeps everything but the decoding of records: the
walk over the batches below is that of `_unpack_records` in kafka-python 3.0.12.
"""

from collections.abc import Iterator
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.structs import TopicPartition

from worker.message import Message
from worker.records import read_records

FORMAT_V2 = 2


class FetchedMessages(Fetcher.PartitionRecords):  # type: ignore[misc]
    """Messages instead of `ConsumerRecord`s, under `read_committed`. They are decoded as they are taken, so that one
    that is no Kafka record comes behind all that are good before it."""

    def _unpack_records(self, partition: TopicPartition, batches: Any, *_: object) -> Iterator[Message]:
        """Every committed record of the batches; `next_fetch_offset` is always the offset behind what was taken."""
        last = None
        while (batch := batches.next_batch()) is not None:
            last = batch
            if not batch.validate_crc():
                raise CorruptRecordError(f"the record batch at {batch.base_offset} of {partition} fails its checksum")
            if batch.magic < FORMAT_V2:
                yield from self._old_format(partition, batch)
                continue
            self.leader_epoch = batch.leader_epoch
            if self._left_out(batch):
                self.next_fetch_offset = batch.next_offset
                continue
            # Not nothing: a partition that brought something goes to the end of the line.
            self.bytes_read += len(batch._buffer)
            batch._maybe_uncompress()
            for message in read_records(
                bytes(memoryview(batch._buffer)[batch._pos :]),
                batch.records_count,
                partition.topic,
                partition.partition,
                batch.base_offset,
                batch.first_timestamp,
                batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None,
            ):
                self.next_fetch_offset = message.offset + 1
                yield message
        # A batch keeps its last offset when compaction takes its last record: the next fetch begins behind the batch.
        if last is not None and last.magic >= FORMAT_V2:
            self.next_fetch_offset = last.next_offset
        self.drain()

    def _left_out(self, batch: Any) -> bool:
        """Of an aborted transaction, or the marker at the end of one."""
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _old_format(self, partition: TopicPartition, batch: Any) -> Iterator[Message]:
        """Of a topic from before Kafka 0.11: no headers, no transactions."""
        self.bytes_read += len(batch._buffer)
        for record in batch:
            self.next_fetch_offset = record.offset + 1
            time_ms = -1 if record.timestamp is None else record.timestamp
            yield Message(partition.topic, partition.partition, record.offset, record.key, record.value, (), time_ms)
