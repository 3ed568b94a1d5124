"""Publish: reviews from a file onto the input topic."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kafka import KafkaProducer
from kafka.errors import KafkaError

from schemas import Rejection, Review
from worker.connection import client_options, connect, discard
from worker.errors import BrokerError
from worker.intake import read_review
from worker.message import Message
from worker.settings import KafkaSettings
from worker.topics import require_topics

FLUSH_EVERY = 10_000
"""Records. kafka-python buffers without a limit: a broker that does not keep up must slow the reading of the file."""


@dataclass(frozen=True)
class Published:
    """What became of a file."""

    sent: int
    refused: int
    seconds: float


def publish(
    messages: Iterator[Message],
    settings: KafkaSettings,
    *,
    max_message_bytes: int,
    rate: float | None = None,
    unchecked: bool = False,
    refuse: Callable[[Rejection], object] = lambda _: None,
    sent: Callable[[], object] = lambda: None,
) -> Published:
    """Put messages on the input topic, keyed by review id, and wait until the broker has them all.

    Args:
        messages: from a file.
        settings: where to.
        max_message_bytes: what the worker accepts.
        rate: reviews per second; as fast as the broker takes them when absent.
        unchecked: send what the worker would refuse too, without a key.
        refuse: told of each message that is not sent.
        sent: called after each message that is.

    Raises:
        BrokerError: no broker, no topic, or the broker did not take a message.
    """
    require_topics(settings, [settings.input_topic])
    producer = connect(
        lambda: KafkaProducer(
            **client_options(settings),
            metrics_enabled=False,
            acks="all",
            linger_ms=20,
            batch_size=256 << 10,
            compression_type=None if settings.compression == "none" else settings.compression,
            max_request_size=max(1 << 20, 2 * max_message_bytes),
        ),
        settings,
    )
    failures: list[BaseException] = []
    start = time.monotonic()
    count = refused = 0
    try:
        for message in messages:
            read = read_review(message, max_message_bytes)
            if isinstance(read, Rejection) and not unchecked:
                refused += 1
                refuse(read)
                continue
            if rate:
                time.sleep(max(0.0, start + count / rate - time.monotonic()))
            key = read.review_id.encode() if isinstance(read, Review) else None
            producer.send(settings.input_topic, key=key, value=message.value).add_errback(failures.append)
            count += 1
            sent()
            if failures:
                break
            if count % FLUSH_EVERY == 0:
                producer.flush(timeout=settings.request_timeout_seconds)
        producer.flush(timeout=settings.request_timeout_seconds)
    except KafkaError as error:
        failures.append(error)
    finally:
        discard(producer)
    if failures:
        # Who may describe a topic and not write to it is told of a right on the cluster.
        lacks = "AuthorizationFailed" in f"{failures[0]!r}"
        hint = f"; this client may not WRITE topic {settings.input_topic}" if lacks else ""
        raise BrokerError(f"{settings.input_topic}: the broker did not take a review: {failures[0]}{hint}")
    return Published(count, refused, time.monotonic() - start)
