"""Connection: the settings as kafka-python's options, and a broker that does not answer as one clear line."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterator
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
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    TxnOffsetCommitRequest,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from worker.errors import BrokerError
from worker.settings import KafkaSettings, secret

T = TypeVar("T")

Positions = dict[TopicPartition, OffsetAndMetadata]
"""Where reading goes on: what is committed."""

OF_A_TRANSACTION = (AddPartitionsToTxnRequest, AddOffsetsToTxnRequest, TxnOffsetCommitRequest, EndTxnRequest)

CHECK = "`review-worker check` names the right that is missing"

CLOSE_SECONDS = 2.0
"""What is discarded has nothing left that is worth waiting for."""

CONNECT_GRACE_SECONDS = 2.0
"""Beyond the client's own bootstrap time-out, which comes first wherever it works."""

USUAL = "Is it running, and is WORKER_KAFKA__BOOTSTRAP_SERVERS right?"

RECONNECT_BACKOFF_MAX_MS = 1_000
"""30 s by default: a worker would sit idle for that long after its broker is back."""


class SteadyClient(KafkaNetClient):  # type: ignore[misc]
    """A client whose `await_ready` answers False when a connection dies.

    kafka-python 3.0.12's producer takes a transactional request off its queue, and puts it back only when
    `await_ready` returns False. The client raises instead, the request is lost, and the commit waits for ever.

    Attributes:
        doubtful: requests of a transaction that were sent and have no answer. The producer sends them again, and the
            broker may get the first ones later, in the midst of the next transaction (KAFKA-17754).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._manager._build_transport = _hearing_out(self._manager._build_transport)
        self.doubtful = 0

    def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """Send, and take note of what becomes of it."""
        future = super().send(node_id, request, **options)
        if isinstance(request, OF_A_TRANSACTION):
            future.add_errback(self._doubt)
        return future

    def _doubt(self, _: BaseException) -> None:
        self.doubtful += 1

    def await_ready(self, node_id: int, timeout_ms: int = 30_000) -> bool:
        """True once the node can be sent to."""
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except (KafkaConnectionError, NodeNotReadyError, UnknownBrokerIdError):
            return False


def _hearing_out(build: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Build transports that hand on what the broker said before it hung up, and read nothing once they are closed.

    kafka-python 3.0.12 drops what comes together with the end of the connection. A broker that refuses a password says
    so and hangs up at once: it would look like any broken connection. And a transport that is closed between the news
    that there is something to read and the reading has no socket any more: the client logs the stack of that.
    """

    async def built(*arguments: Any, **options: Any) -> Any:
        transport = await build(*arguments, **options)
        receive = transport._sock_recv

        def heard_out() -> tuple[bytes, Exception | None]:
            if transport.is_closing():
                return b"", KafkaConnectionError("closed")
            data, error = receive()
            # The end is there again when the connection is read next.
            return data, None if data else error

        transport._sock_recv = heard_out
        return transport

    return built


def caused_by(error: BaseException, *kinds: type[KafkaError]) -> bool:
    """Whether it is one of these, or was caused by one: after a producer's first error kafka-python raises a plain
    KafkaError, whose text names the class of the cause. A large batch gets that one, a small one the cause itself."""
    return isinstance(error, kinds) or any(kind.__name__ in str(error) for kind in kinds)


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
            # Without one OpenSSL would ask for it on the terminal, and wait for ever.
            "ssl_password": secret(settings.ssl_password, settings.ssl_password_file) or "",
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
            # kafka-python's own time-out does not cover the TLS handshake: it waits for ever for a peer that accepts
            # the connection and then says nothing.
            return begin(make, "connect").result(settings.bootstrap_timeout_seconds + CONNECT_GRACE_SECONDS)
        except TimeoutError:
            raise BrokerError(
                f"{settings.bootstrap_servers} accepts connections, but did not answer within "
                f"{settings.bootstrap_timeout_seconds:g} s; is it a Kafka listener for {settings.security_protocol}?"
            ) from None
        except KafkaTimeoutError:
            cause = _likeliest(said)
            raise BrokerError(
                f"no broker answered at {settings.bootstrap_servers} within "
                f"{settings.bootstrap_timeout_seconds:g} s: {cause}. {advice(cause)}"
            ) from None
        except AuthorizationError as error:
            raise BrokerError(f"the broker at {settings.bootstrap_servers} refuses: {error}") from None
        except (KafkaError, OSError) as error:
            raise BrokerError(trouble(error, settings)) from None


def begin(call: Callable[[], T], name: str, outcome: Future[T] | None = None) -> Future[T]:
    """Run a call on a thread of its own, for whoever will not wait for ever; one that hangs ends with the process.

    Args:
        call: what to run.
        name: of the thread.
        outcome: where to put what it returns or raises, for whoever may be interrupted before this returns.
    """
    outcome = Future() if outcome is None else outcome

    def attempt() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=attempt, name=name, daemon=True).start()
    return outcome


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


ADVICE = {
    "SaslAuthenticationFailed": "Check WORKER_KAFKA__SASL_PLAIN_USERNAME and its password",
    "SaslMechanism": "Check WORKER_KAFKA__SASL_MECHANISM",
    "IllegalSaslState": "Check WORKER_KAFKA__SECURITY_PROTOCOL: this listener asks for no password",
    "certificate is not valid for": "Connect by a name that the certificate holds, and let the broker advertise it",
    "CERTIFICATE_VERIFY_FAILED": "Check WORKER_KAFKA__SSL_CAFILE: it must hold who signed the broker's certificate",
    "ALERT": "Check WORKER_KAFKA__SSL_CERTFILE: the broker does not take this client's certificate, or wants one",
    "PEM lib": "Check WORKER_KAFKA__SSL_CERTFILE, WORKER_KAFKA__SSL_KEYFILE and WORKER_KAFKA__SSL_PASSWORD_FILE",
    "no certificate or crl found": "Check WORKER_KAFKA__SSL_CAFILE",
    "No such file": "Check WORKER_KAFKA__SSL_CAFILE, WORKER_KAFKA__SSL_CERTFILE and WORKER_KAFKA__SSL_KEYFILE",
    "Handshake failed": "Check WORKER_KAFKA__SECURITY_PROTOCOL: this listener does not speak TLS, it seems",
    "Invalid frame length": "Check WORKER_KAFKA__SECURITY_PROTOCOL: this listener speaks TLS, it seems",
    "socket disconnected": "Check WORKER_KAFKA__SECURITY_PROTOCOL: the listener may ask for TLS, or for a password",
    "DNS": "Is WORKER_KAFKA__BOOTSTRAP_SERVERS right?",
    "ECONNREFUSED": USUAL,
}
"""Words of the causes that explain themselves, the most telling first, and what to do about each."""

_FAILURE = re.compile(r"Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff", re.DOTALL)


def advice(cause: str, otherwise: str = USUAL) -> str:
    """What to do about a cause, in the client's words."""
    return next((it for word, it in ADVICE.items() if word in cause), otherwise)


def trouble(error: Exception, settings: KafkaSettings) -> str:
    """The line for the user about an error that came behind the first connection. A broker leads its clients on to the
    name that it advertises, where everything may be different."""
    return f"broker {settings.bootstrap_servers}: {error}. {advice(str(error), '')}".removesuffix(". ")


def _likeliest(said: list[str]) -> str:
    """The cause in what the client warned of: with a wrong password, some tries say so and others only that the socket
    was closed."""
    causes = [found[1] for line in said if (found := _FAILURE.match(line))]
    for word in ADVICE:
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
