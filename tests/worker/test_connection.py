"""Connection: what every Kafka client is given, and one clear line where no broker answers."""

import gc
import logging
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from running import free_ports
from worker.connection import SteadyClient, client_options, connect
from worker.errors import BrokerError, SettingsError
from worker.settings import KafkaSettings

PASSWORD = "hunter2-the-secret"  # noqa: S105 - the one that must never be shown
SASL: dict[str, Any] = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_plain_username": "worker",
    "sasl_plain_password": PASSWORD,
}

# kafka-python leaves the sockets of a bootstrap that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _collected_here() -> Iterator[None]:
    """What they leave is collected before some other module's test, where the warning is an error."""
    yield
    gc.collect()


def options(**fields: Any) -> dict[str, Any]:
    return client_options(KafkaSettings(**fields))


# --- what a client is given ---


def test_a_plain_connection_has_no_security_options() -> None:
    assert options() == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "client_id": "review-worker",
        "bootstrap_timeout_ms": 8_000,
        "request_timeout_ms": 15_000,
        "reconnect_backoff_max_ms": 1_000,
        "security_protocol": "PLAINTEXT",
        "kafka_client": SteadyClient,
    }


@pytest.mark.parametrize(
    ("servers", "given"),
    [
        ("a:1", ["a:1"]),
        ("a:1,b:2", ["a:1", "b:2"]),
        (" a:1 , b:2 ,", ["a:1", "b:2"]),
        ("[::1]:9092", ["[::1]:9092"]),
    ],
)
def test_servers_are_parted_at_commas(servers: str, given: list[str]) -> None:
    assert options(bootstrap_servers=servers)["bootstrap_servers"] == given


def test_seconds_become_milliseconds() -> None:
    given = options(bootstrap_timeout_seconds=0.25, request_timeout_seconds=1.5)

    assert (given["bootstrap_timeout_ms"], given["request_timeout_ms"]) == (250, 1_500)


def test_tls_has_its_files_as_text_and_its_password_in_the_clear() -> None:
    given = options(
        security_protocol="SSL",
        ssl_cafile="ca.pem",
        ssl_certfile="cert.pem",
        ssl_keyfile="key.pem",
        ssl_password=PASSWORD,
    )

    assert {name: value for name, value in given.items() if name.startswith("ssl_")} == {
        "ssl_check_hostname": True,
        "ssl_cafile": "ca.pem",
        "ssl_certfile": "cert.pem",
        "ssl_keyfile": "key.pem",
        "ssl_password": PASSWORD,
    }
    assert not any(name.startswith("sasl") for name in given)


def test_sasl_has_its_user_and_its_password() -> None:
    given = options(**SASL)

    assert {name: value for name, value in given.items() if name.startswith("sasl_")} == {
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "worker",
        "sasl_plain_password": PASSWORD,
    }
    assert given["ssl_check_hostname"] is True


def test_a_password_from_a_file_wins(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from the file\n", encoding="utf-8")
    given = options(**SASL, sasl_plain_password_file=tmp_path / "password")

    assert given["sasl_plain_password"] == "from the file"  # noqa: S105 - a test's own
    with pytest.raises(SettingsError, match="secret file"):
        options(**SASL, sasl_plain_password_file=tmp_path / "none")


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaProducer, KafkaAdminClient])
def test_every_option_is_known_to_every_client(client: Any) -> None:
    assert options(**SASL).keys() <= client.DEFAULT_CONFIG.keys()


# --- no broker ---


@pytest.fixture
def free_port() -> int:
    """A port where nobody listens."""
    (port,) = free_ports(1)
    return port


def fail(servers: str, **fields: Any) -> str:
    """The line for the user."""
    settings = KafkaSettings(bootstrap_servers=servers, bootstrap_timeout_seconds=0.5, **fields)
    with pytest.raises(BrokerError) as caught:
        connect(lambda: KafkaAdminClient(**client_options(settings)), settings)
    said = str(caught.value)
    assert "\n" not in said
    assert PASSWORD not in said
    return said


def test_no_broker_is_one_line_with_address_time_cause_and_setting(free_port: int) -> None:
    start = time.perf_counter()

    said = fail(f"127.0.0.1:{free_port}")

    assert said.startswith(f"no broker answered at 127.0.0.1:{free_port} within 0.5 s: ")
    assert "ECONNREFUSED" in said
    assert said.endswith("Is it running, and is WORKER_KAFKA__BOOTSTRAP_SERVERS right?")
    assert time.perf_counter() - start < 20


def test_an_unknown_host_says_so() -> None:
    assert "DNS" in fail("no-such-host.invalid:9092")


def test_a_password_is_not_shown_with_it(free_port: int) -> None:
    assert "no broker answered" in fail(f"127.0.0.1:{free_port}", **SASL)


def test_what_the_client_warns_of_meanwhile_is_not_printed(
    free_port: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("kafka")
    before = logger.propagate, logger.level, list(logger.handlers)

    fail(f"127.0.0.1:{free_port}")

    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert (logger.propagate, logger.level, logger.handlers) == before


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers: a broker that hangs, or something else."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_listener_that_never_answers_is_not_waited_for(silent_port: int) -> None:
    start = time.perf_counter()

    assert f"127.0.0.1:{silent_port}" in fail(f"127.0.0.1:{silent_port}")
    assert time.perf_counter() - start < 20


@pytest.fixture(scope="module")
def tls_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A TLS server whose certificate nobody vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                client.settimeout(2)
                with suppress(OSError), closing(client):
                    context.wrap_socket(client, server_side=True).close()

    thread = Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_a_certificate_that_nobody_vouches_for_says_so(tls_port: int) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in fail(f"127.0.0.1:{tls_port}", security_protocol="SSL")


def test_a_missing_certificate_file_says_so(tls_port: int, tmp_path: Path) -> None:
    said = fail(f"127.0.0.1:{tls_port}", security_protocol="SSL", ssl_cafile=tmp_path / "none.pem")

    assert "No such file or directory" in said


def test_a_client_that_can_be_made_is_given_back() -> None:
    assert connect(lambda: "a client", KafkaSettings()) == "a client"


def test_a_defect_is_not_disguised_as_a_missing_broker() -> None:
    def defect() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        connect(defect, KafkaSettings())


# --- the client itself ---


@pytest.mark.parametrize("node", ["bootstrap-0", 17])
def test_a_connection_that_dies_is_an_answer_and_no_exception(free_port: int, node: Any) -> None:
    """kafka-python's producer loses the request at hand when this raises, and its commit then waits for ever."""
    servers = [f"127.0.0.1:{free_port}"]

    with closing(KafkaNetClient(bootstrap_servers=servers)) as client, pytest.raises(KafkaError):
        client.await_ready(node, timeout_ms=300)
    with closing(SteadyClient(bootstrap_servers=servers)) as client:
        assert client.await_ready(node, timeout_ms=300) is False
