"""Outbox: predictions, dead letters and offsets of one batch in one transaction."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from kafka import KafkaProducer
from kafka.errors import (
    FencedInstanceIdError,
    GroupAuthorizationFailedError,
    InvalidProducerEpochError,
    InvalidTransactionTimeoutError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
)
from kafka.structs import ConsumerGroupMetadata

from worker.connection import CHECK, Positions, SteadyClient, caused_by, client_options, connect, discard
from worker.delivery import BATCH_BYTES, Delivery
from worker.errors import BrokerError, Rewind
from worker.letters import Outgoing
from worker.settings import Settings

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 << 20
"""The broker's `max.message.bytes` is the limit that counts; a smaller one here would only add a second."""

LINGER_MS = 5
"""Of the parts of a batch that the broker found too large; whole ones do not wait."""

RETRY_BACKOFF_MS = 20
"""Right after a commit the broker answers the next transaction CONCURRENT_TRANSACTIONS until its markers are written,
and the client sleeps this long: small transactions took a median of 10 ms with 20, 25 ms with the default of 100."""


TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
FORBIDDEN = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, TransactionalIdAuthorizationFailedError)
FENCED = (ProducerFencedError, InvalidProducerEpochError)
"""The broker has given the transactional id to a newer producer, or has ended the transaction for its age: the first is
its answer to a request of a transaction, the second to a record."""

HOPELESS = (*TOO_LARGE, *FORBIDDEN, *FENCED, UnsupportedVersionError, UnknownTopicOrPartitionError)
"""Trying again cannot help."""


class Outbox:
    """A transactional producer. `publish` either commits a batch whole, or raises and the batch is void.

    After any error the producer is thrown away: kafka-python 3.0.12 keeps the offsets of an aborted transaction and
    commits them with the next one, which loses what they skip. A new producer with the same transactional id makes the
    broker settle what was open: `init_transactions()` waits for a commit under way, aborts anything else, and shuts out
    late requests of the old producer. For the sake of these it is also thrown away when the answer to a request of a
    transaction was lost, although sending it again did help: the first one may still arrive, and would end the next
    transaction half-way (KAFKA-17754).

    Raises:
        BrokerError: no broker answers, or it refuses this client.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: SteadyClient | None = None
        self._producer = self._open()

    def publish(
        self,
        records: Sequence[Outgoing],
        positions: Positions,
        membership: ConsumerGroupMetadata,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Commit the output records and the input positions together.

        Args:
            records: in the order in which they are to appear.
            positions: of the input, after the batch.
            membership: under which the batch was read; the broker refuses it when the partitions have moved on.
            given_up: whether this worker has let go of that membership since. Where it has not, another one has taken
                it.

        Raises:
            Rewind: nothing was published, or the outcome was unknown and is settled now.
            BrokerError: trying again cannot help.
        """
        producer, committing = self._producer, False
        try:
            producer.begin_transaction()
            self._send(records)
            producer.send_offsets_to_transaction(positions, membership)
            committing = True
            producer.commit_transaction()
        except KafkaError as error:
            self._settle(error, committing, given_up)
        if self._client and self._client.doubtful:
            log.warning("answers of a transaction were lost; going on with a new producer")
            self._reopen()

    def close(self) -> None:
        """Close the connections."""
        discard(self._producer)

    def _send(self, records: Sequence[Outgoing]) -> None:
        """Send, and wait until the broker has every record.

        A commit alone would not tell: kafka-python 3.0.12 commits what is left when a record has expired, was refused,
        or went to a topic that may not be described.
        """
        delivery = Delivery(self._producer)
        delivery.send(records)
        patience = self._settings.kafka.transaction_timeout_seconds
        deadline = time.monotonic() + patience
        # It gives up as soon as the broker finds a batch too large, and the client divides it: the batches know better.
        with suppress(KafkaError):
            self._producer.flush(timeout=patience)
        failures = delivery.failures(deadline)
        if failures:
            # Of several, the one that says why trying again cannot help.
            raise next((error for error in failures if caused_by(error, *HOPELESS)), failures[0])

    def _open(self) -> KafkaProducer:
        """A producer whose transactional id is its own, with nothing left open."""
        kafka = self._settings.kafka
        transaction_ms = round(kafka.transaction_timeout_seconds * 1000)

        def client(**options: Any) -> SteadyClient:
            self._client = SteadyClient(**options)
            return self._client

        producer = connect(
            lambda: KafkaProducer(
                **client_options(kafka) | {"kafka_client": client},
                # Sensors cost time on every record, and the worker has metrics of its own.
                metrics_enabled=False,
                transactional_id=self._settings.transactional_id,
                transaction_timeout_ms=transaction_ms,
                # A record that is still being sent when its transaction is aborted would be sent in vain.
                delivery_timeout_ms=transaction_ms,
                max_block_ms=transaction_ms,
                acks="all",
                linger_ms=LINGER_MS,
                batch_size=BATCH_BYTES,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                max_request_size=MAX_REQUEST_BYTES,
                compression_type=None if kafka.compression == "none" else kafka.compression,
            ),
            kafka,
        )
        # Told that its epoch is old, kafka-python 3.0.12 would ask for a new one by itself, in the background; a broker
        # aborts whatever transaction is open under the id then, also that of a newer producer.
        producer._transaction_manager._supports_epoch_bump = lambda: False
        try:
            producer.init_transactions()
        except KafkaError as error:
            discard(producer)
            self._refuse_fatal(error)
            raise BrokerError(f"no transactions at {kafka.bootstrap_servers}: {error}") from None
        return producer

    def _reopen(self) -> None:
        discard(self._producer)
        self._producer = self._open()

    def _settle(self, error: KafkaError, committing: bool, given_up: Callable[[], bool]) -> NoReturn:
        """Start over with a new producer, so that nothing is left open, and leave when trying again cannot help."""
        # Where another worker has the name now, a new producer would shut it out. The broker also refuses a static
        # member what it has let go of itself, to join the group anew.
        if caused_by(error, FencedInstanceIdError) and not given_up():
            raise BrokerError(
                f"another worker uses the group instance id {self._settings.group_instance_id}; give each worker its "
                "own WORKER_KAFKA__GROUP_INSTANCE_ID, or leave it to its default"
            ) from None
        if caused_by(error, *FENCED):
            self._refuse_fatal(error)
        self._reopen()
        self._refuse_fatal(error)
        raise Rewind(type(error).__name__, "unknown" if committing else "aborted") from None

    def _refuse_fatal(self, cause: BaseException) -> None:
        kafka = self._settings.kafka
        if caused_by(cause, *FENCED):
            raise BrokerError(
                f"another worker uses the transactional id {self._settings.transactional_id}, or this one stalled for "
                "longer than WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS; give each worker its own "
                "WORKER_KAFKA__TRANSACTIONAL_ID, or leave it to its default"
            ) from None
        if caused_by(cause, *TOO_LARGE):
            raise BrokerError(
                f"an output record is larger than the broker takes: raise max.message.bytes of "
                f"{kafka.dead_letter_topic} and {kafka.output_topic} above that of {kafka.input_topic}"
            ) from None
        if caused_by(cause, *FORBIDDEN):
            raise BrokerError(f"the broker refuses to let this worker publish: {cause}; {CHECK}") from None
        if caused_by(cause, InvalidTransactionTimeoutError):
            raise BrokerError(
                "WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS is above the broker's transaction.max.timeout.ms"
            ) from None
        if caused_by(cause, UnsupportedVersionError, UnknownTopicOrPartitionError):
            raise BrokerError(f"cannot publish: {cause}") from None
