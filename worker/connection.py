"""Connection: the settings as kafka-python's options, and a broker that does not answer as one clear line."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, TypeVar

from kafka.errors import (
    AuthorizationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    UnknownBrokerIdError,
)
from kafka.net.compat import KafkaNetClient

from worker.errors import BrokerError
from worker.settings import KafkaSettings, secret

T = TypeVar("T")

CLOSE_SECONDS = 2.0
"""What is discarded has nothing left that is worth waiting for."""

CONNECT_GRACE_SECONDS = 2.0
"""Beyond the client's own bootstrap time-out, which comes first wherever it works."""

RECONNECT_BACKOFF_MAX_MS = 1_000
"""30 s by default: a worker would sit idle for that long after its broker is back."""


class SteadyClient(KafkaNetClient):  # type: ignore[misc]
    """A client whose `await_ready` answers False when a connection dies.

    kafka-python 3.0.12's producer takes a transactional request off its queue, and puts it back only when
    `await_ready` returns False. The client raises instead, the request is lost, and the commit waits for ever.
    """

    def await_ready(self, node_id: int, timeout_ms: int = 30_000) -> bool:
        """True once the node can be sent to."""
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except (KafkaConnectionError, NodeNotReadyError, UnknownBrokerIdError):
            return False


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of ours is given.

    Raises:
        SettingsError: a secret's file cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",") if server.strip()],
        "client_id": settings.client_id,
        "bootstrap_timeout_ms": round(settings.bootstrap_timeout_seconds * 1000),
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        "security_protocol": settings.security_protocol,
        "kafka_client": SteadyClient,
    }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_check_hostname": settings.ssl_check_hostname,
            "ssl_cafile": _text(settings.ssl_cafile),
            "ssl_certfile": _text(settings.ssl_certfile),
            "ssl_keyfile": _text(settings.ssl_keyfile),
            "ssl_password": secret(settings.ssl_password, settings.ssl_password_file),
        }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_plain_username,
            "sasl_plain_password": secret(settings.sasl_plain_password, settings.sasl_plain_password_file),
        }
    return options


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def connect(make: Callable[[], T], settings: KafkaSettings) -> T:
    """Make a client, and say in one line why it could not be made.

    kafka-python reports a wrong password or certificate authority like a broker that is not there: as a time-out of
    its bootstrap. Its log has the cause, so that is where this looks.

    Raises:
        BrokerError: no broker answered in time, or it refused the client.
    """
    with _warnings() as said:
        try:
            return _in_time(make, settings.bootstrap_timeout_seconds + CONNECT_GRACE_SECONDS)
        except TimeoutError:
            raise BrokerError(
                f"{settings.bootstrap_servers} accepts connections, but did not answer within "
                f"{settings.bootstrap_timeout_seconds:g} s; is it a Kafka listener for {settings.security_protocol}?"
            ) from None
        except KafkaTimeoutError:
            raise BrokerError(
                f"no broker answered at {settings.bootstrap_servers} within "
                f"{settings.bootstrap_timeout_seconds:g} s: {_likeliest(said)}. Is it running, and is "
                "WORKER_KAFKA__BOOTSTRAP_SERVERS right?"
            ) from None
        except AuthorizationError as error:
            raise BrokerError(f"the broker at {settings.bootstrap_servers} refuses: {error}") from None
        except (KafkaError, OSError) as error:
            raise BrokerError(f"broker {settings.bootstrap_servers}: {error}") from None


def _in_time(make: Callable[[], T], seconds: float) -> T:
    """What `make` makes, or TimeoutError.

    kafka-python's own time-out does not cover the TLS handshake: it waits for ever for a peer that accepts the
    connection and then says nothing.
    """
    made: Future[T] = Future()

    def attempt() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    Thread(target=attempt, name="connect", daemon=True).start()
    return made.result(seconds)


def discard(producer: Any) -> None:
    """Close a producer that may be broken. With records unresolved, kafka-python's `close` raises and leaves its thread
    running; there is no public way to end that."""
    try:
        producer.close(timeout=CLOSE_SECONDS)
    except KafkaError:
        producer._sender.force_close()
        producer._sender.join(CLOSE_SECONDS)
        with suppress(KafkaError):
            producer.close(timeout=0)


_TELLING = ("Sasl", "Handshake", "DNS", "No such file", "ECONNREFUSED")
"""Words of the causes that explain themselves, the most telling first."""


def _likeliest(said: list[str]) -> str:
    """The cause in what the client warned of: with a wrong password, some tries say so and others only that the socket
    was closed."""
    causes = [line.partition("failed: ")[2].partition(" (backoff")[0] for line in said if "connection" in line]
    for word in _TELLING:
        for cause in causes:
            if word in cause:
                return cause
    return causes[-1] if causes else "nothing answered"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what kafka-python warns of meanwhile, instead of printing it."""
    seen: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logger, collector = logging.getLogger("kafka"), Collector()
    before = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logger.addHandler(collector)
    try:
        yield seen
    finally:
        logger.removeHandler(collector)
        logger.propagate = before[0]
        logger.setLevel(before[1])
