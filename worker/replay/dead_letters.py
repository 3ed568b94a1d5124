"""Dead letters: their topic, up to where it ends, and how far earlier replays came."""

import time
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError, RetriableError
from kafka.structs import TopicPartition

from worker.connection import client_options, connect
from worker.errors import BrokerError
from worker.message import Message
from worker.replay.progress import Progress
from worker.settings import KafkaSettings
from worker.topics import missing

FETCH_BYTES = 1 << 20
"""Decompression is not bounded, so that a small fetch is the only bound on memory."""

POLL_MS = 250
RETRY_SECONDS = 0.2
CLOSE_MS = 2_000


def group_of(kafka: KafkaSettings) -> str:
    """The consumer group that has the progress, and the transactional id."""
    return f"{kafka.group_id}-replay"


class DeadLetters:
    """The dead letter topic, up to where it ends now.

    Attributes:
        ends: the partitions in order, each with its last stable offset: no transaction before it is open.
        unreadable: records that were stepped over, since no Kafka client of ours can decode them.

    Raises:
        BrokerError: no broker answers, or it refuses this client.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._topic = kafka.dead_letter_topic
        self._milliseconds = round(kafka.request_timeout_seconds * 1000)
        self.unreadable = 0
        self._consumer = connect(
            lambda: KafkaConsumer(
                **client_options(kafka),
                metrics_enabled=False,
                group_id=group_of(kafka),
                # It also makes the broker hold back offsets that a transaction has not committed yet.
                isolation_level="read_committed",
                enable_auto_commit=False,
                # Dead letters that retention deleted cannot be put back: go on with the oldest that is there.
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_bytes=FETCH_BYTES,
            ),
            kafka,
        )
        try:
            self.ends = self._find_ends()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _find_ends(self) -> dict[TopicPartition, int]:
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise BrokerError(missing(self._topic))
        partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        ends: dict[TopicPartition, int] = self._consumer.end_offsets(partitions, timeout_ms=self._milliseconds)
        return {partition: ends[partition] for partition in partitions}

    def beginning(self, partition: TopicPartition) -> int:
        """Offset of the oldest dead letter that is there."""
        offsets = self._consumer.beginning_offsets([partition], timeout_ms=self._milliseconds)
        return int(offsets[partition])

    def progress(self, partition: TopicPartition) -> Progress | None:
        """As it is committed; None where nothing is.

        Raises:
            BrokerError: it cannot be read, or belongs to another topic of this name.
        """
        try:
            committed = self._consumer.committed(partition, metadata=True, timeout_ms=self._milliseconds)
        except KafkaTimeoutError:
            raise BrokerError(
                f"the progress of group {group_of(self._kafka)} cannot be read yet: a replay is under way, or one that "
                f"died has left its transaction open for {self._kafka.transaction_timeout_seconds:g} s; try again then"
            ) from None
        if committed is None:
            return None
        if committed.offset > self.ends[partition]:
            raise BrokerError(self._unusable(partition, "it is behind the topic's end: that was made anew"))
        try:
            return Progress.decode(committed.offset, committed.metadata or "")
        except ValueError as error:
            raise BrokerError(self._unusable(partition, str(error))) from None

    def _unusable(self, partition: TopicPartition, cause: str) -> str:
        group = group_of(self._kafka)
        return (
            f"the progress of group {group} in partition {partition.partition} of {self._topic} cannot be used: "
            f"{cause}. To begin anew: kafka-consumer-groups --group {group} --topic {self._topic} --reset-offsets "
            "--to-earliest --execute"
        )

    def read(self, partition: TopicPartition, start: int) -> Iterator[Message]:
        """The committed records from `start` up to the partition's end.

        Raises:
            BrokerError: nothing comes any more.
        """
        self._consumer.assign([partition])
        self._consumer.seek(partition, start)
        position, end, patience = start, self.ends[partition], time.monotonic() + self._milliseconds / 1000
        while position < end:
            for record in self._poll(partition):
                if record.offset < end:
                    headers = tuple(record.headers)
                    place = record.topic, record.partition, record.offset
                    yield Message(*place, record.key, record.value, headers, record.timestamp)
            before, position = position, self._consumer.position(partition, timeout_ms=self._milliseconds) or position
            now = time.monotonic()
            if position > before:
                patience = now + self._milliseconds / 1000
            elif now > patience:
                raise BrokerError(
                    f"{self._topic}: nothing came behind offset {position} of partition {partition.partition} for "
                    f"{self._milliseconds / 1000:g} s"
                )

    def _poll(self, partition: TopicPartition) -> list[Any]:
        try:
            return list(self._consumer.poll(POLL_MS).get(partition, ()))
        except RetriableError:
            time.sleep(RETRY_SECONDS)  # the client reconnects by itself
        except Exception as error:
            if not _in_decoding(error):
                raise
            # Polled again at the same offset, the client would spin for ever.
            self.unreadable += 1
            position = self._consumer.position(partition, timeout_ms=self._milliseconds)
            self._consumer.seek(partition, position + 1)
        return []


def _in_decoding(error: Exception) -> bool:
    """Whether a fetched record is at fault; neither the class nor the text of the error tells (see `source`)."""
    return any(frame.f_code.co_name == "_unpack_records" for frame, _ in walk_tb(error.__traceback__))
