"""Topics: whether the broker has what the worker needs, and making what is missing. Changes nothing in the group."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    AuthorizationError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorError,
    TransactionalIdNotFoundError,
)

from worker.connection import client_options, connect, trouble
from worker.errors import BrokerError
from worker.settings import KafkaSettings

MISSING = 3
"""Kafka's error code UNKNOWN_TOPIC_OR_PARTITION."""

DENIED = 29
"""Kafka's error code TOPIC_AUTHORIZATION_FAILED, whether the topic exists or not."""

DEAD_LETTER_ROOM = 2
"""A dead letter holds the whole message and headers beside it: its topic must take larger records than the input's."""

MAX_MESSAGE_BYTES = 1_048_588
"""The broker's default for `max.message.bytes`."""

COORDINATOR_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Topic:
    """A topic as the broker describes it to this client."""

    name: str
    partitions: int
    """0 when it does not exist."""
    rights: frozenset[str]
    """Operations that this client may do, such as `READ`."""
    denied: bool = False
    """The broker does not even say whether it exists."""


@contextmanager
def admin(settings: KafkaSettings) -> Iterator[KafkaAdminClient]:
    """An administrative connection.

    Raises:
        BrokerError: no broker answers, or it refuses.
    """
    client = connect(lambda: KafkaAdminClient(**client_options(settings)), settings)
    try:
        yield client
    except KafkaError as error:
        raise BrokerError(trouble(error, settings)) from None
    finally:
        client.close()


def describe(client: KafkaAdminClient, names: list[str]) -> list[Topic]:
    """The topics of these names, in their order."""
    found = {topic["name"]: topic for topic in client.describe_topics(names)}
    return [
        Topic(
            name,
            len(found[name]["partitions"]) if found[name]["error_code"] != MISSING else 0,
            frozenset(found[name].get("authorized_operations") or ()),
            denied=found[name]["error_code"] == DENIED,
        )
        for name in names
    ]


def topic_names(settings: KafkaSettings) -> list[str]:
    """The three topics: input, output, dead letters."""
    return [settings.input_topic, settings.output_topic, settings.dead_letter_topic]


def require_topics(settings: KafkaSettings, names: list[str] | None = None) -> None:
    """Fail early when a topic is missing.

    Args:
        settings: where.
        names: of the topics that are needed; all three when absent.

    Raises:
        BrokerError: names the topic, and what to do.
    """
    with admin(settings) as client:
        refuse_absent(describe(client, names or topic_names(settings)))


def refuse_absent(topics: list[Topic]) -> None:
    """Fail at the first topic that is not there for this client.

    Raises:
        BrokerError: names the topic, and what to do.
    """
    for topic in topics:
        if topic.denied:
            raise BrokerError(forbidden("DESCRIBE", f"topic {topic.name}"))
        if not topic.partitions:
            raise BrokerError(missing(topic.name))


def forbidden(operation: str, what: str) -> str:
    """The line for a right that the client lacks."""
    return f"this client may not {operation} {what}; add an ACL for it"


def missing(name: str) -> str:
    """The line for a topic that is not there."""
    return f"topic {name} does not exist; `review-worker check --create-topics` makes the three topics"


def create_missing(client: KafkaAdminClient, settings: KafkaSettings, partitions: int) -> list[str]:
    """Make the topics that are missing, and wait until they can be used.

    Returns:
        The names of the topics that were made.

    Raises:
        BrokerError: the client may not make them.
    """
    described = describe(client, topic_names(settings))
    absent = [topic.name for topic in described if not topic.partitions and not topic.denied]
    wanted: dict[str, dict[str, Any]] = {name: {"num_partitions": partitions} for name in absent}
    if settings.dead_letter_topic in wanted:
        room = {"max.message.bytes": str(DEAD_LETTER_ROOM * MAX_MESSAGE_BYTES)}
        wanted[settings.dead_letter_topic]["configs"] = room
    if wanted:
        try:
            client.create_topics(wanted, wait_for_metadata=True)
        except AuthorizationError:
            raise BrokerError(forbidden("CREATE", f"topics {', '.join(wanted)}")) from None
    return absent


def max_message_bytes(client: KafkaAdminClient, name: str) -> int | None:
    """The largest record batch that a topic takes, in bytes; None when this client may not DESCRIBE_CONFIGS of it, a
    right that nothing else needs."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    described = client.describe_configs([resource], config_filter="all")
    # kafka-python drops the broker's refusal, and gives a topic without any configuration.
    limit = described["topic"][name].get("max.message.bytes")
    return None if limit is None else int(limit["value"])


def group_rights(client: KafkaAdminClient, group_id: str) -> frozenset[str] | None:
    """Operations that this client may do on the consumer group; None while the group does not exist.

    Raises:
        BrokerError: the client may not even describe it.
    """
    try:
        described = _patiently(lambda: client.describe_groups([group_id], include_authorized_operations=True))
    except AuthorizationError:
        raise BrokerError(forbidden("READ", f"group {group_id}")) from None
    rights = described[group_id].get("authorized_operations")
    return None if rights is None else frozenset(rights)


def transaction_rights(client: KafkaAdminClient, transactional_id: str) -> None:
    """Ask after the transactional id: anything more would fence the worker that uses it.

    Raises:
        BrokerError: the client may not use it.
    """
    try:
        _patiently(lambda: client.describe_transactions([transactional_id]))
    except TransactionalIdNotFoundError:
        return
    except AuthorizationError:
        raise BrokerError(forbidden("WRITE", f"transactional id {transactional_id}")) from None


def _patiently(ask: Callable[[], Any]) -> Any:
    """A fresh broker makes its internal topics when a coordinator is first asked for; ask again until it has."""
    patience = time.monotonic() + COORDINATOR_PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            if time.monotonic() > patience:
                raise
            time.sleep(0.2)
