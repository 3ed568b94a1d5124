"""Connecting: whatever is at the other end, the user gets one line that says where and why, and gets it soon."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient

from contract.pieces import nobody_listens, settings_of, silent_peer
from running import ROOT, Broker, Stage
from worker.connection import SteadyClient, client_options

pytestmark = pytest.mark.kafka

CLIENTS = ("KafkaAdminClient", "KafkaConsumer", "KafkaProducer")

ATTEMPT = """
import kafka, sys
from worker.connection import client_options, connect
from worker.errors import BrokerError
from worker.settings import load_settings
client, address, protocol, seconds = sys.argv[1:]
chosen = load_settings(None, {"kafka": {
    "bootstrap_servers": address, "security_protocol": protocol, "bootstrap_timeout_seconds": float(seconds)}}).kafka
try:
    connect(lambda: getattr(kafka, client)(**client_options(chosen)), chosen)
    print("connected")
except BrokerError as error:
    print(error)
"""
"""In a process of its own: a client whose constructor fails leaves a thread and sockets behind."""


def attempts(address: str, protocol: str = "PLAINTEXT", seconds: float = 1) -> list[str]:
    """What each kind of client says; none may take much longer than its bootstrap time-out, `seconds`."""

    def attempt(client: str) -> str:
        command = [sys.executable, "-c", ATTEMPT, client, address, protocol, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20 + seconds, cwd=ROOT, check=False)
        assert done.stderr == "", "more than the line"
        assert done.stdout.count("\n") == 1
        return done.stdout

    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        lines = list(threads.map(attempt, CLIENTS))
    assert time.monotonic() - began < 14 + seconds
    return lines


def test_where_nobody_listens_the_address_the_cause_and_the_setting_are_named() -> None:
    address = nobody_listens()
    for line in attempts(address):
        assert f"no broker answered at {address} within 1 s" in line
        assert "ECONNREFUSED" in line
        assert "WORKER_KAFKA__BOOTSTRAP_SERVERS" in line


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_peer_that_says_nothing_is_given_up(protocol: str) -> None:
    """kafka-python's own time-out does not cover the TLS handshake: it would wait for ever."""
    with silent_peer() as address:
        for line in attempts(address, protocol):
            assert address in line
            assert "answer" in line


def test_tls_to_a_listener_without_it_is_named_as_the_cause(kafka: Broker) -> None:
    for line in attempts(kafka.address, "SSL"):
        assert "Handshake failed" in line


def test_several_servers_are_tried(kafka: Broker) -> None:
    # Which is tried first is chance, and the second only after a while: a busy machine may need more than a second.
    assert set(attempts(f"{nobody_listens()}, {kafka.address}", seconds=30)) == {"connected\n"}


def test_every_client_can_be_told_apart_and_waits_as_long_as_it_was_told(stage: Stage) -> None:
    chosen = settings_of(stage, client_id="mine", request_timeout_seconds=7)
    options = client_options(chosen.kafka)
    assert options["client_id"] == "mine"
    assert options["request_timeout_ms"] == 7_000


@pytest.mark.parametrize(("kind", "stacks"), [(KafkaNetClient, 1), (SteadyClient, 0)], ids=["kafka-python", "ours"])
def test_a_connection_that_is_closed_before_it_is_read_says_nothing(
    kind: type[KafkaNetClient], stacks: int, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """News that there is something to read, then the end, then the reading: in a worker that stops, now and then."""
    with closing(kind(bootstrap_servers=[stage.address])) as client:
        client._manager.bootstrap(10_000)
        (node,) = [broker.node_id for broker in client.cluster.brokers()]
        client.await_ready(node)
        transport = client._manager._conns[node].transport
        transport.abort()
        caplog.clear()
        data, error = transport._sock_recv()
    assert data == b""
    assert isinstance(error, KafkaConnectionError)
    assert len([record for record in caplog.records if record.exc_info]) == stacks
