"""HTTP: who can reach the port gets the pages and nothing else, whatever is sent there."""

import logging
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from contract.pieces import StubWorker
from running import Stage
from worker.health import HealthServer
from worker.metrics import Metrics
from worker.settings import HttpSettings


@pytest.fixture
def server() -> Iterator[HealthServer]:
    """One that is well, where the settings put it by default, but for the port."""
    well = (True, "in poll for 0.1 s")
    with HealthServer(HttpSettings().host, 0, Metrics(), lambda: well, lambda: well) as server:
        yield server


def connected(server: HealthServer) -> socket.socket:
    """A client of the server that says nothing yet."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=5)


def answer(client: socket.socket) -> bytes:
    """Everything up to the end of the connection, by which an answer ends here."""
    received = b""
    while some := client.recv(65_536):
        received += some
    return received


def alive(server: HealthServer) -> bool:
    with urllib.request.urlopen(f"{server.url}/livez", timeout=5) as response:  # noqa: S310 - loopback
        return bool(response.status == 200)


LINE_LIMIT = 65_536
"""Bytes that Python's server reads of a line. The lines below are one longer: what it leaves unread when it hangs up
would make the system throw the answer away."""

ODD: dict[str, tuple[bytes, bytes]] = {
    "nothing but a line break": (b"\r\n", b""),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    "no path": (b"GET\r\n\r\n", b"400"),
    "a version that is none": (b"GET /livez HTTP/x\r\n\r\n", b"400"),
    "a version to come": (b"GET /livez HTTP/3.0\r\n\r\n", b"505"),
    "the oldest version": (b"GET /livez\r\n", b"in poll for 0.1 s"),
    "a huge path": (b"GET /" + b"a" * (LINE_LIMIT - 4), b"414"),
    "a huge header": (b"GET /livez HTTP/1.1\r\nX: " + b"a" * (LINE_LIMIT - 2), b"431"),
    "too many headers": (b"GET /livez HTTP/1.1\r\n" + b"X: a\r\n" * 101, b"431"),
    "bytes that are no text": (b"GET /\xff\xfe\x00 HTTP/1.1\r\n\r\n", b"404"),
    "a script": (b"GET /<script>alert(1)</script> HTTP/1.1\r\n\r\n", b"404"),
    "a script as a method": (b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n", b"501"),
    "a line break in disguise": (b"GET /%0d%0aX-Forged:%20yes HTTP/1.1\r\n\r\n", b"404"),
    "a way out of the folder": (b"GET /..%2f..%2f..%2fetc/passwd HTTP/1.1\r\n\r\n", b"404"),
    "somebody else's address": (b"GET http://192.0.2.1/ HTTP/1.1\r\n\r\n", b"404"),
    "a tunnel": (b"CONNECT 192.0.2.1:80 HTTP/1.1\r\n\r\n", b"501"),
    "a body that never comes": (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"501"),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_request_is_refused_and_the_next_one_served(
    server: HealthServer, what: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody hears of it: whoever can reach the port could fill the log otherwise."""
    caplog.set_level(logging.DEBUG)
    request, status = ODD[what]
    with connected(server) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        told = answer(client)
    assert status in told.partition(b"\r\n")[0]
    head, _, page = told.partition(b"\r\n\r\n")
    assert b"<script" not in page
    assert b"\r\nX-Forged" not in head
    assert b"Traceback" not in told
    assert b"root:" not in told
    assert alive(server)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("begun", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nX: a\r\n"])
def test_fifty_that_dawdle_keep_nobody_waiting(server: HealthServer, begun: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connected(server)).sendall(begun)
        assert alive(server)


def test_one_that_does_not_read_keeps_nobody_waiting(server: HealthServer) -> None:
    """The answers to what it asks fill its window, and the thread that writes them waits."""
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connected(server))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert alive(server)


def test_many_at_once_are_all_answered(server: HealthServer) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: alive(server), range(50)))


@pytest.mark.kafka
@pytest.mark.parametrize("reached", ["127.0.0.1", "127.0.0.2"])
def test_a_worker_listens_on_loopback_unless_told_otherwise(
    closed: Stage, start_stub: Callable[..., StubWorker], reached: str
) -> None:
    """All of 127.0.0.0/8 is this machine, and stands for its other addresses: who listens on all answers at each."""
    worker = start_stub(**({} if reached == "127.0.0.1" else {"WORKER_HTTP__HOST": reached}))
    worker.wait_until_ready()
    port = urlsplit(worker.url).port or 0
    for host in ("127.0.0.1", "127.0.0.2", "127.1.1.1"):
        with socket.socket() as client:
            client.settimeout(5)
            assert (client.connect_ex((host, port)) == 0) == (host == reached), host
