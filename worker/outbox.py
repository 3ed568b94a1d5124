"""Outbox: predictions, dead letters and offsets of one batch in one transaction."""

import logging
from collections.abc import Sequence
from typing import NoReturn

from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    FencedInstanceIdError,
    InvalidTransactionTimeoutError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
)
from kafka.structs import ConsumerGroupMetadata

from worker.connection import client_options, connect
from worker.errors import BrokerError, TransactionAborted
from worker.letters import Outgoing
from worker.settings import Settings
from worker.source import Positions

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 << 20
"""The broker's `max.message.bytes` is the limit that counts; a smaller one here would only add a second."""

CLOSE_SECONDS = 5.0


class Outbox:
    """A transactional producer. `publish` either commits a batch whole, or raises and has published nothing.

    Raises:
        BrokerError: no broker answers, or it refuses this client.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = self._open()

    def publish(self, records: Sequence[Outgoing], positions: Positions, membership: ConsumerGroupMetadata) -> None:
        """Commit the output records and the input positions together.

        Args:
            records: in the order in which they are to appear.
            positions: of the input, after the batch.
            membership: under which the batch was read; the broker refuses it when the partitions have moved on.

        Raises:
            TransactionAborted: nothing was published, or the outcome was unknown and is settled now; the caller reads
                the committed offsets and goes on from there.
            BrokerError: trying again cannot help.
        """
        producer = self._producer
        try:
            producer.begin_transaction()
            for record in records:
                producer.send(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    partition=self._partition(record),
                )
            producer.send_offsets_to_transaction(positions, membership)
            producer.commit_transaction()
        except KafkaError as error:
            self._settle(error)

    def close(self) -> None:
        """Close the connections."""
        self._producer.close(timeout=CLOSE_SECONDS)

    def _partition(self, record: Outgoing) -> int | None:
        """None lets the key choose, as every Kafka client does. Without a key the input's partition does, so that what
        was in order stays in order."""
        if record.key is not None:
            return None
        partitions = self._producer.partitions_for(record.topic)
        return record.source_partition % len(partitions)

    def _open(self) -> KafkaProducer:
        """A producer that has ended whatever its predecessor of the same transactional id left open."""
        kafka = self._settings.kafka
        transaction_ms = round(kafka.transaction_timeout_seconds * 1000)
        producer = connect(
            lambda: KafkaProducer(
                **client_options(kafka),
                # Sensors cost time on every record, and the worker has metrics of its own.
                metrics_enabled=False,
                transactional_id=self._settings.transactional_id,
                transaction_timeout_ms=transaction_ms,
                # A record that is still being sent when its transaction is aborted would be sent in vain.
                delivery_timeout_ms=transaction_ms,
                max_block_ms=transaction_ms,
                acks="all",
                linger_ms=5,
                batch_size=256 << 10,
                max_request_size=MAX_REQUEST_BYTES,
                compression_type=None if kafka.compression == "none" else kafka.compression,
            ),
            kafka,
        )
        try:
            producer.init_transactions()
        except KafkaError as error:
            producer.close(timeout=0)
            self._refuse_fatal(error)
            raise BrokerError(f"no transactions at {kafka.bootstrap_servers}: {error}") from None
        return producer

    def _settle(self, error: KafkaError) -> NoReturn:
        """Decide by consequence what a failed transaction means."""
        cause = root_cause(error)
        self._refuse_fatal(cause)
        log.warning("transaction not committed", extra={"cause": type(cause).__name__})
        if isinstance(cause, CommitFailedError):
            try:
                self._producer.abort_transaction()
            except KafkaError as failed:
                log.warning("abort failed", extra={"cause": type(failed).__name__})
            else:
                raise TransactionAborted(type(cause).__name__, reopen=False) from None
        # The broker may or may not have committed. A new producer with the same transactional id makes it decide:
        # init_transactions() waits for a commit under way and aborts anything else.
        self._producer.close(timeout=0)
        self._producer = self._open()
        raise TransactionAborted(type(cause).__name__, reopen=True) from None

    def _refuse_fatal(self, cause: BaseException) -> None:
        kafka = self._settings.kafka
        if isinstance(cause, ProducerFencedError):
            raise BrokerError(
                f"another worker uses the transactional id {self._settings.transactional_id}; give each worker its own "
                "WORKER_KAFKA__TRANSACTIONAL_ID, or leave it to its default"
            ) from None
        if isinstance(cause, FencedInstanceIdError):
            raise BrokerError(
                f"another worker uses the group instance id {self._settings.group_instance_id}; give each worker its "
                "own WORKER_KAFKA__GROUP_INSTANCE_ID, or leave it to its default"
            ) from None
        if isinstance(cause, (MessageSizeTooLargeError, RecordListTooLargeError)):
            raise BrokerError(
                f"an output record is larger than the broker takes: raise max.message.bytes of "
                f"{kafka.dead_letter_topic} and {kafka.output_topic} above that of {kafka.input_topic}"
            ) from None
        if isinstance(cause, AuthorizationError):
            raise BrokerError(f"the broker refuses to let this worker publish: {cause}") from None
        if isinstance(cause, InvalidTransactionTimeoutError):
            raise BrokerError(
                "WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS is above the broker's transaction.max.timeout.ms"
            ) from None
        if isinstance(cause, (UnsupportedVersionError, UnknownTopicOrPartitionError)):
            raise BrokerError(f"cannot publish: {cause}") from None


def root_cause(error: KafkaError) -> BaseException:
    """kafka-python wraps the error that broke a transaction into the arguments of the next ones."""
    inner = next((argument for argument in error.args if isinstance(argument, BaseException)), None)
    return error if inner is None else inner
