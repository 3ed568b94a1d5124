"""Source: the input topic as micro-batches, each with the positions and the membership that its commit will need."""

import logging
import time
from dataclasses import dataclass
from itertools import chain
from traceback import walk_tb
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    AuthorizationError,
    FencedInstanceIdError,
    InvalidSessionTimeoutError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
    SaslAuthenticationFailedError,
)
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata, TopicPartition

from worker.connection import CHECK, Positions, client_options, connect
from worker.errors import BrokerError, Rewind
from worker.fetched import FetchedMessages
from worker.message import Message
from worker.metrics import Metrics
from worker.settings import Settings

log = logging.getLogger(__name__)

FETCH_BYTES_PER_PARTITION = 1 << 20
FETCH_BYTES = 8 << 20
"""Bounds of what is fetched ahead: decompression is not bounded, so that a small fetch is the only bound on memory."""

HANGING_SECONDS = 60.0
"""Beyond the longest life of a transaction of this worker and of one of another: for the broker to notice."""

LAG_INTERVAL_SECONDS = 5.0
LAG_PATIENCE_MS = 1_000
"""The stream does not wait longer than this for a metric."""

METADATA_MS = 30_000
"""How soon partitions that were added are noticed: 300 s by default, in which their reviews wait."""

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
        self._rejoin_seconds = kafka.session_timeout_seconds
        self.patience_seconds = kafka.max_poll_interval_seconds / 4
        """How long the loop may leave the group without a sign of life: `poll` or `stay`."""
        self._consumer = connect(
            lambda: KafkaConsumer(
                **client_options(kafka),
                # Sensors cost time on every record, and the worker has metrics of its own.
                metrics_enabled=False,
                group_id=kafka.group_id,
                group_instance_id=settings.group_instance_id,
                isolation_level="read_committed",
                enable_auto_commit=False,
                # Not "latest", which would skip, and not "earliest" either, which would jump in silence when records
                # were deleted before they were scored: a new group is sent to the beginning below.
                auto_offset_reset="none",
                # Not the cooperative one, which costs more in kafka-python 3.0.12 and brings nothing: a poll returns no
                # records while the group changes, whatever the assignor, and it changes twice (measured by
                # tests/bench/assignors.py). It can also leave partitions to nobody, for ever: claimed by a member that
                # was late and by one that took over, they wait for either to give up what both gave up already.
                partition_assignment_strategy=[RangePartitionAssignor],
                session_timeout_ms=round(kafka.session_timeout_seconds * 1000),
                heartbeat_interval_ms=round(kafka.session_timeout_seconds * 1000 / 10),
                metadata_max_age_ms=METADATA_MS,
                max_poll_interval_ms=round(kafka.max_poll_interval_seconds * 1000),
                max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
                fetch_max_bytes=FETCH_BYTES,
            ),
            kafka,
        )
        # Looked up on the object for every fetch.
        self._consumer._fetcher.PartitionRecords = FetchedMessages
        self._subscribe()
        self._entered: tuple[int, str] | None = None
        """Generation, and this worker's member id in it. A static member that joins anew, shut out for a while, gets
        another id in the same generation: the broker refuses what was read under the old one."""
        self._given: dict[TopicPartition, int | None] = {}
        """Position up to which each partition was given out, or committed before; None where nothing ever was."""
        self._void = False
        """Records were read that may not be used: the next poll of a member begins with going back."""
        self._unstable_since: float | None = None
        self._unreadable_since: float | None = None
        self._unreadable_seconds = 2 * kafka.transaction_timeout_seconds + HANGING_SECONDS
        self._stuck_seconds = settings.watchdog.partition_seconds
        self._stuck_since: dict[TopicPartition, float] = {}
        """Partitions that have records and brought none, although nothing else was left to read."""
        self._ran_dry = False
        """A poll brought nothing since the lag was last measured."""
        self._measured: dict[TopicPartition, int] = {}
        self._measured_at = 0.0
        self._measure_at = 0.0

    @property
    def joined(self) -> bool:
        """True while this worker is a member of a generation of the group, with or without partitions."""
        return _is_member(self._consumer.group_metadata())

    def has_left(self, membership: ConsumerGroupMetadata) -> bool:
        """True once this worker has let go of a membership that it had, to join the group anew."""
        return bool(self._consumer.group_metadata().member_id != membership.member_id)

    def poll(self, seconds: float, max_messages: int) -> Batch | None:
        """What is there, at most `max_messages`, waiting up to `seconds` for a first one.

        Returns:
            None when there is nothing to commit either.

        Raises:
            Rewind: the group has changed; batches that were read before are void.
            BrokerError: the broker refuses this worker, records were deleted unread, or another worker uses its name.
        """
        records = self._poll_records(round(seconds * 1000), max_messages)
        membership = self._membership(records)
        if membership is None:
            return None
        messages = list(chain.from_iterable(records.values()))
        self._ran_dry = self._ran_dry or not records
        positions = self._advanced()
        if not messages and not positions:
            return None
        return Batch(messages, positions, membership)

    def stay(self) -> None:
        """Stay in the group without reading, while a batch takes long.

        Raises:
            Rewind: the group has changed; batches that were read before are void.
            BrokerError: as `poll` does.
        """
        self._consumer.pause(*self._consumer.assignment())
        try:
            records = self._poll_records(0, 1)
        finally:
            # Not those that were paused: they may have gone to others meanwhile.
            self._consumer.resume(*self._consumer.assignment())
        # Of a partition that came meanwhile. Nobody takes it: go back for it.
        self._void = self._void or bool(records)
        self._membership(records)

    def _membership(self, records: dict[TopicPartition, list[Message]]) -> ConsumerGroupMetadata | None:
        """The membership that records were read under; None, and the records void, while the group is changing.

        To be asked for at once: right after a poll, a stable generation is never newer than the records; between polls
        it can be.
        """
        membership = self._consumer.group_metadata()
        if not _is_member(membership):
            self._void = self._void or bool(records)
            self._rejoin_when_stuck()
            return None
        self._unstable_since = None
        if self._void or self._entered != (membership.generation_id, membership.member_id):
            self._enter(membership)
        return membership

    def _poll_records(self, milliseconds: int, max_records: int) -> dict[TopicPartition, list[Message]]:
        """A poll whose every error has its consequence."""
        try:
            records: dict[TopicPartition, list[Message]] = self._consumer.poll(milliseconds, max_records=max_records)
        except NoOffsetForPartitionError as error:
            self._consumer.seek_to_beginning(*error.args[0])
        except OffsetOutOfRangeError as error:
            gone = ", ".join(f"{tp.partition} at offset {offset}" for tp, offset in error.args[0].items())
            raise BrokerError(
                f"{self._topic}: the records at the group's position are gone (partition {gone}): retention deleted "
                "them unread, the topic was made anew, or the broker lost the end of its log. Decide where to go on: "
                "kafka-consumer-groups --reset-offsets"
            ) from None
        except LogTruncationError as error:
            raise self._lost(error) from None
        except FencedInstanceIdError:
            raise BrokerError(
                "another worker joined the group with the same group_instance_id; give each worker its own "
                "WORKER_KAFKA__GROUP_INSTANCE_ID, or leave it to its default"
            ) from None
        except (AuthorizationError, SaslAuthenticationFailedError) as error:
            raise BrokerError(f"the broker refuses to let this worker read {self._topic}: {error}; {CHECK}") from None
        except InvalidSessionTimeoutError:
            raise BrokerError(
                "WORKER_KAFKA__SESSION_TIMEOUT_SECONDS is outside of what the broker allows "
                "(group.min.session.timeout.ms to group.max.session.timeout.ms)"
            ) from None
        except RetriableError as error:
            # A broker that is away: nothing to read, and the client reconnects by itself. Without the pause this
            # would spin.
            log.warning("no connection", extra={"cause": type(error).__name__})
            time.sleep(RETRY_SECONDS)
        except Exception as error:
            unread = _being_decoded(error)
            if unread is None:
                raise
            self._step_over(unread)
        else:
            return records
        return {}

    def rewind(self) -> None:
        """Go back to the committed offsets: what was given out since is given out again.

        Raises:
            BrokerError: the broker refuses to tell them, or could not for longer than a transaction lasts.
        """
        self._given = {}
        try:
            for partition in self._consumer.assignment():
                committed = self._given[partition] = self._committed(partition)
                if committed is None:
                    self._consumer.seek_to_beginning(partition)
                else:
                    self._consumer.seek(partition, committed)
        except KafkaTimeoutError:
            self._wait_for_offsets()
        else:
            self._unreadable_since = None

    def measure_lag(self) -> None:
        """Refresh the lag metrics, at most every five seconds.

        Raises:
            BrokerError: a partition has records, and the client does not fetch them.
        """
        now = time.monotonic()
        if now < self._measure_at:
            return
        self._measure_at = now + LAG_INTERVAL_SECONDS
        assignment = self._consumer.assignment()
        try:
            # Under read_committed this is the last stable offset: a record of an open transaction is not lag yet.
            ends = self._consumer.end_offsets(list(assignment), timeout_ms=LAG_PATIENCE_MS) if assignment else {}
        except KafkaError:
            self._stuck_since = {}
            return
        given = {partition: self._given.get(partition) or 0 for partition in ends}
        behind = {partition: max(0, end - given[partition]) for partition, end in ends.items()}
        advanced = sum(max(0, given[partition] - self._measured.get(partition, given[partition])) for partition in ends)
        self._require_progress({p for p in ends if behind[p] and given[p] == self._measured.get(p)}, now)
        elapsed = now - self._measured_at
        self._measured_at, self._measured = now, given
        self._metrics.show_lag(
            {(partition.topic, partition.partition): records for partition, records in behind.items()},
            rate=advanced / elapsed,
        )

    def _require_progress(self, waiting: set[TopicPartition], now: float) -> None:
        """Hold every partition to the time limit.

        kafka-python has stopped to fetch a partition in silence before (dpkp/kafka-python#3131), and the group sees
        nothing of it. A partition that waits while others are read is no such case: it has its turn.
        """
        dry, self._ran_dry = self._ran_dry, False
        self._stuck_since = {p: self._stuck_since.get(p, now) for p in waiting} if dry else {}
        for partition, since in self._stuck_since.items():
            if now - since > self._stuck_seconds:
                raise BrokerError(
                    f"{self._topic}: partition {partition.partition} has records behind offset "
                    f"{self._given.get(partition)}, but none came for {now - since:.0f} s; start again to fetch anew"
                )

    def close(self) -> None:
        """Leave the group (a static member keeps its place until its session ends) and close the connections."""
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic])
        # Without the topic's metadata a first member joins twice, and may be stuck between the two.
        self._consumer.partitions_for_topic(self._topic)

    def _enter(self, membership: ConsumerGroupMetadata) -> None:
        """The group has changed, or this is the first generation: learn where it stands.

        A partition that was kept also keeps its position in the client, past what others may since have committed, so
        that everything goes back to the committed offsets.
        """
        first = self._entered is None and not self._void
        self._entered, self._void = (membership.generation_id, membership.member_id), False
        self._metrics.rebalances.inc()
        assignment = self._consumer.assignment()
        log.info(
            "partitions assigned",
            extra={"generation": membership.generation_id, "partitions": sorted(p.partition for p in assignment)},
        )
        if not first:
            raise Rewind("the group has changed")
        try:
            self._given = {partition: self._committed(partition) for partition in assignment}
        except KafkaTimeoutError:
            self._wait_for_offsets()
            raise Rewind("the committed offsets cannot be read yet") from None

    def _wait_for_offsets(self) -> None:
        """A worker that died or stalled within its transaction holds the offsets back until the broker aborts that. One
        that stays open for longer hangs: its end was decided, and a marker of it was never written.

        Seen where the only broker of a cluster (4.3.1) was stopped in good order in the midst of a commit. Which way
        it was decided is not known here, and a wrong guess would lose reviews or score them twice: an operator has to
        look.
        """
        now = time.monotonic()
        self._unreadable_since = self._unreadable_since or now
        self._void = True
        waited = now - self._unreadable_since
        if waited > self._unreadable_seconds:
            raise BrokerError(
                f"the committed offsets could not be read for {waited:.0f} s: the broker does not answer, or a "
                "transaction hangs there; see Hanging transactions in deploy/README.md"
            )
        log.warning("the committed offsets cannot be read yet")

    def _rejoin_when_stuck(self) -> None:
        """kafka-python 3.0.12 can stop half-way through a rebalance that a change of the topic began: it then neither
        joins nor sends heartbeats, for ever."""
        now = time.monotonic()
        if self._unstable_since is None:
            self._unstable_since = now
        elif now - self._unstable_since > self._rejoin_seconds:
            log.warning("stuck between two generations; joining again")
            self._unstable_since = now
            self._consumer.unsubscribe()
            self._subscribe()

    def _committed(self, partition: TopicPartition) -> int | None:
        """None where nothing ever was. Waits for a transaction that is being committed, and then times out."""
        try:
            offset: int | None = self._consumer.committed(partition, timeout_ms=self._request_ms)
        except AuthorizationError as error:
            raise BrokerError(f"the broker refuses the group's offsets: {error}; {CHECK}") from None
        return offset

    def _advanced(self) -> Positions:
        """Positions that moved since they were last given out, transaction markers included. A partition without any
        commit is committed at its first position, so that lag and autoscalers start from a fact."""
        moved: Positions = {}
        for partition in self._given:
            try:
                position = self._consumer.position(partition, timeout_ms=0)
            except (NoOffsetForPartitionError, RetriableError):
                continue  # not known yet; a later poll finds it out
            except LogTruncationError as error:  # this or the next poll, whichever asks first behind the client's check
                raise self._lost(error) from None
            if position is not None and position != self._given[partition]:
                moved[partition] = OffsetAndMetadata(position, "", -1)
                self._given[partition] = position
        return moved

    def _lost(self, error: LogTruncationError) -> BrokerError:
        """What to say of it: at the old position whatever is written in place of the lost records would be left out."""
        partitions = ", ".join(str(partition.partition) for partition in error.divergent_offsets)
        return BrokerError(
            f"{self._topic}: the broker has lost records that this worker has read (partition {partitions}): a power "
            "failure or an unclean leader election took the end of its log. Decide where to go on: "
            "kafka-consumer-groups --reset-offsets"
        )

    def _step_over(self, unread: Any) -> None:
        """Skip a record that is no Kafka record, so that it cannot stop its partition; repeated until a poll is clean.

        Always one further: polling again at the same offset spins for ever. What stands behind the record in the same
        record batch goes with it, since a batch can only be read from its start.
        """
        partition = unread.topic_partition
        position = self._consumer.position(partition, timeout_ms=self._request_ms)
        log.error("corrupt record stepped over", extra={"partition": partition.partition, "offset": position})
        self._metrics.corrupt_records.inc()
        # A rewind may lead back to the same offset: what the client still holds of it would be polled for ever.
        unread.drain()
        self._consumer.seek(partition, position + 1)


def _being_decoded(error: Exception) -> Any:
    """The fetched records (`FetchedMessages`) in whose decoding `error` was raised, or None.

    Neither the class nor the text of the error tells: a damaged record raises `CorruptRecordError`, whose text holds
    bytes of the record; so does a fetch that the broker refuses; a damaged compressed batch raises whatever its codec
    raises.
    """
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_unpack_records":
            return frame.f_locals["self"]
    return None


def _is_member(membership: ConsumerGroupMetadata) -> bool:
    """A generation that is being replaced is no membership: the broker would accept its commits all the same."""
    return bool(membership.state == MemberState.STABLE and membership.generation_id >= 0)
