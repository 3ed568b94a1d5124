"""Source: the input topic as micro-batches, each with the positions and the membership that its commit will need."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from kafka import KafkaConsumer
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyPartitionAssignor
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    FencedInstanceIdError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
)
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from worker.connection import client_options, connect
from worker.errors import BrokerError
from worker.message import Message
from worker.metrics import Metrics
from worker.settings import Settings

log = logging.getLogger(__name__)

Positions = dict[TopicPartition, OffsetAndMetadata]

FETCH_BYTES_PER_PARTITION = 1 << 20
FETCH_BYTES = 8 << 20
"""Bounds of what is fetched ahead: decompression is not bounded, so that a small fetch is the only bound on memory."""

LAG_INTERVAL_SECONDS = 5.0
CLOSE_MS = 5_000
RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought.

    Attributes:
        messages: in order within each partition; none when only transaction markers were passed.
        positions: where each partition stands after this batch: what its transaction commits. Not the last offset
            plus one: markers of the publishers' transactions take offsets too.
        membership: the group membership under which the records were read. Taken at commit time instead, it would
            let a worker commit after its partitions went to another, and records would be scored twice.
    """

    messages: list[Message]
    positions: Positions
    membership: ConsumerGroupMetadata


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes that the assignment changed. It runs on the client's own thread, where nothing may block."""

    def __init__(self) -> None:
        self.changed = False
        self.count = 0

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.changed = True

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.changed = True
        self.count += 1

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.changed = True


class ReviewSource:
    """A member of the consumer group.

    Raises:
        BrokerError: no broker answers, or it refuses this client.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        kafka = settings.kafka
        self._metrics = metrics
        self._topic = kafka.input_topic
        self._request_ms = round(kafka.request_timeout_seconds * 1000)
        self._consumer = connect(
            lambda: KafkaConsumer(
                **client_options(kafka),
                # Sensors cost time on every record, and the worker has metrics of its own.
                metrics_enabled=False,
                group_id=kafka.group_id,
                group_instance_id=settings.group_instance_id,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                partition_assignment_strategy=[CooperativeStickyPartitionAssignor],
                session_timeout_ms=round(kafka.session_timeout_seconds * 1000),
                heartbeat_interval_ms=round(kafka.session_timeout_seconds * 1000 / 10),
                max_poll_interval_ms=round(kafka.max_poll_interval_seconds * 1000),
                max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
                fetch_max_bytes=FETCH_BYTES,
            ),
            kafka,
        )
        self._changes = _Changes()
        self._consumer.subscribe([self._topic], listener=self._changes)
        self._given: dict[TopicPartition, int | None] = {}
        """Position up to which each partition was given out, or committed before; None where nothing ever was."""
        self._measured: dict[TopicPartition, int] = {}
        self._measured_at = 0.0

    @property
    def joined(self) -> bool:
        """True while this worker is a member of a generation of the group, with or without partitions."""
        return int(self._consumer.group_metadata().generation_id) >= 0

    def poll(self, seconds: float, max_messages: int) -> Batch | None:
        """What is there, at most `max_messages`, waiting up to `seconds` for a first one.

        Returns:
            None when there is nothing to commit either.

        Raises:
            BrokerError: the broker refuses this worker, or another one uses its name.
        """
        records = self._poll_records(round(seconds * 1000), max_messages)
        # Joining happens only inside poll: the membership read here is that of the records, or, when a heartbeat
        # was refused meanwhile, none at all.
        membership = self._consumer.group_metadata()
        if membership.generation_id < 0:
            return None
        if self._changes.changed:
            self._take_over_assignment()
        messages = [
            Message(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
            for partition in records.values()
            for r in partition
        ]
        positions = self._advanced()
        if not messages and not positions:
            return None
        return Batch(messages, positions, membership)

    def _poll_records(self, milliseconds: int, max_records: int) -> dict[TopicPartition, list[object]]:
        try:
            records: dict[TopicPartition, list[object]] = self._consumer.poll(milliseconds, max_records=max_records)
        except KafkaConnectionError as error:
            # A broker that is away: nothing to read, and the client reconnects by itself. Without the pause this
            # would spin.
            log.warning("no connection", extra={"cause": type(error).__name__})
            time.sleep(RETRY_SECONDS)
            return {}
        except CorruptRecordError:
            self._step_over_corrupt()
            return {}
        except FencedInstanceIdError:
            raise BrokerError(
                "another worker joined the group with the same group_instance_id; give each worker its own "
                "WORKER_KAFKA__GROUP_INSTANCE_ID, or leave it to its default"
            ) from None
        except AuthorizationError as error:
            raise BrokerError(f"the broker refuses to let this worker read {self._topic}: {error}") from None
        return records

    def rewind(self) -> None:
        """Go back to the committed offsets: what was given out since is given out again.

        Raises:
            BrokerError: the offsets cannot be read.
        """
        for partition in self._consumer.assignment():
            committed = self._committed(partition)
            self._given[partition] = committed
            if committed is None:
                self._consumer.seek_to_beginning(partition)
            else:
                self._consumer.seek(partition, committed)

    def measure_lag(self) -> None:
        """Refresh the lag metrics, at most every five seconds."""
        now = time.monotonic()
        elapsed = now - self._measured_at
        if elapsed < LAG_INTERVAL_SECONDS:
            return
        assignment = self._consumer.assignment()
        try:
            # Under read_committed this is the last stable offset: a record of an open transaction is not lag yet.
            ends = self._consumer.end_offsets(list(assignment), timeout_ms=self._request_ms) if assignment else {}
        except KafkaError:
            return
        given = {partition: self._given.get(partition) or 0 for partition in ends}
        behind = {partition: max(0, end - given[partition]) for partition, end in ends.items()}
        advanced = sum(max(0, given[partition] - self._measured.get(partition, given[partition])) for partition in ends)
        self._measured_at, self._measured = now, given
        self._metrics.show_lag(
            {(partition.topic, partition.partition): records for partition, records in behind.items()},
            rate=advanced / elapsed,
        )

    def close(self) -> None:
        """Leave the group (a static member keeps its place until its session ends) and close the connections."""
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _take_over_assignment(self) -> None:
        """Learn where the group stands on partitions that are new here, and forget the ones that are gone."""
        self._changes.changed = False
        self._metrics.rebalances.inc(self._changes.count)
        self._changes.count = 0
        assignment = self._consumer.assignment()
        self._given = {
            partition: self._given[partition] if partition in self._given else self._committed(partition)
            for partition in assignment
        }
        log.info("partitions assigned", extra={"partitions": sorted(p.partition for p in assignment)})

    def _committed(self, partition: TopicPartition) -> int | None:
        try:
            offset: int | None = self._consumer.committed(partition, timeout_ms=self._request_ms)
        except KafkaTimeoutError:
            raise BrokerError(
                f"the committed offset of {partition.topic}/{partition.partition} cannot be read"
            ) from None
        except AuthorizationError as error:
            raise BrokerError(f"the broker refuses the group's offsets: {error}") from None
        return offset

    def _advanced(self) -> Positions:
        """Positions that moved since they were last given out, transaction markers included. A partition without any
        commit is committed at its first position, so that lag and autoscalers start from a fact."""
        moved: Positions = {}
        for partition in self._given:
            position = self._consumer.position(partition, timeout_ms=0)
            if position is not None and position != self._given[partition]:
                moved[partition] = OffsetAndMetadata(position, "", -1)
                self._given[partition] = position
        return moved

    def _step_over_corrupt(self) -> None:
        """Skip a record that cannot be decoded as a Kafka record at all, so that it cannot stop its partition."""
        raise NotImplementedError
