"""Health: what a supervisor and Prometheus get over real HTTP."""

import json
import logging
import re
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from threading import Event, Thread
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

import worker.health
from worker.errors import SettingsError
from worker.health import HealthServer, Probe
from worker.logs import JsonLines
from worker.metrics import Metrics
from worker.page import Condition, Page
from worker.settings import Settings


def well() -> tuple[bool, str]:
    return True, "in poll for 0.1 s"


@contextmanager
def serving(live: Probe = well, ready: Probe = well, host: str = "127.0.0.1") -> Iterator[HealthServer]:
    metrics = Metrics()
    # Not entered: its only row is the first.
    page = Page(metrics, lambda: Condition("ready", "scoring"), Settings())
    page.refresh()
    with HealthServer(host, 0, metrics, live, ready, page) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[HealthServer]:
    """One that is well. Closing takes half a second, so that the tests share it."""
    with serving() as server:
        yield server


def get(server: HealthServer, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(server.url + path, headers=headers)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def raw(server: HealthServer) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize(("state", "status"), [(True, 200), (False, 503)])
def test_a_probe_answers_by_its_status_and_says_why(path: str, state: bool, status: int) -> None:
    other: Probe = lambda: (not state, "the other one")  # noqa: E731
    probe: Probe = lambda: (state, "in score for 130.0 s")  # noqa: E731
    probes = {"live": probe, "ready": other} if path == "/livez" else {"live": other, "ready": probe}

    with serving(**probes) as server:
        assert get(server, path)[0] == status
        assert get(server, path)[2] == "in score for 130.0 s\n"


def test_a_probe_is_asked_each_time() -> None:
    answers = iter([(False, "loading the model"), (True, "ready")])

    with serving(ready=lambda: next(answers)) as server:
        assert [get(server, "/readyz")[0] for _ in range(2)] == [503, 200]


def test_no_answer_may_be_kept_by_a_proxy(server: HealthServer) -> None:
    for path in ("/", "/status.json", "/livez", "/metrics", "/other"):
        assert get(server, path)[1]["Cache-Control"] == "no-store"


def test_a_browser_may_not_guess_what_an_answer_is(server: HealthServer) -> None:
    for path in ("/", "/status.json", "/livez", "/metrics", "/other"):
        assert get(server, path)[1]["X-Content-Type-Options"] == "nosniff"


def test_metrics_are_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.rebalances.inc(3)

    with HealthServer("127.0.0.1", 0, metrics, well, well) as server:
        status, headers, body = get(server, "/metrics")

    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(body) for sample in family.samples
    }
    assert samples["review_worker_rebalances_total"] == 3


def test_metrics_come_in_the_format_that_is_asked_for(server: HealthServer) -> None:
    _, headers, body = get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/metrics?name[]=up", "/livez?verbose", "/readyz?"])
def test_a_query_is_no_part_of_the_path(server: HealthServer, path: str) -> None:
    assert get(server, path)[0] == 200


@pytest.mark.parametrize(
    "path", ["/livez/", "/LIVEZ", "/index.html", "/status.json/", "/healthz", "/metrics/..", "/../etc/passwd"]
)
def test_any_other_path_is_404_so_that_a_wrong_probe_shows(server: HealthServer, path: str) -> None:
    """prometheus-client's own server answers 200 to all of them."""
    status, _, body = get(server, path)

    assert status == 404
    assert path not in body
    assert body == "/, /status.json, /metrics, /livez and /readyz are here\n"


@pytest.mark.parametrize("path", ["/", "/status.json"])
def test_without_a_page_there_is_none(path: str) -> None:
    with HealthServer("127.0.0.1", 0, Metrics(), well, well) as server:
        assert get(server, path)[::2] == (404, "/metrics, /livez and /readyz are here\n")


def test_the_page_comes_with_what_a_browser_is_to_hold_it_to(server: HealthServer) -> None:
    status, headers, body = get(server, "/")

    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith("<!doctype html>")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_figures_are_json(server: HealthServer) -> None:
    status, headers, body = get(server, "/status.json")

    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body)["state"]["name"] == "ready"


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", 1),
        ("after=0", 1),
        ("after=1", 0),
        ("after=99", 0),
        ("after=", 1),
        ("after=-1", 1),
        ("after=x", 1),
        ("after=1&after=0", 1),
        ("before=1", 1),
        ("after=%31", 1),
        pytest.param("after=" + "9" * 5_000, 1, id="after=9…"),
    ],
)
def test_the_history_is_sent_from_the_row_that_is_asked_for(server: HealthServer, query: str, rows: int) -> None:
    """And all of it to who asks for something else."""
    status, _, body = get(server, f"/status.json?{query}")

    assert (status, len(json.loads(body)["history"]["rows"])) == (200, rows)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE"])
def test_it_only_tells(server: HealthServer, method: str) -> None:
    with closing(HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
        connection.request(method, "/metrics")
        assert connection.getresponse().status == 501


def test_it_does_not_name_its_software(server: HealthServer) -> None:
    assert not re.search(r"python|\d", get(server, "/livez")[1]["Server"], re.IGNORECASE)


def test_a_slow_scraper_does_not_keep_a_probe_waiting() -> None:
    asked, answer = Event(), Event()

    def slow() -> tuple[bool, str]:
        asked.set()
        return answer.wait(10), "ready"

    with serving(ready=slow) as server:
        waiting = Thread(target=get, args=(server, "/readyz"))
        waiting.start()
        assert asked.wait(10)
        # One that connects and says nothing holds a thread as well, and no more than that.
        with raw(server):
            assert get(server, "/livez")[0] == 200
        answer.set()
        waiting.join()


def gone_at_once(server: HealthServer) -> None:
    """A scraper that resets the connection before it has read the answer."""
    with raw(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_client_that_goes_away_is_no_stack_trace_on_standard_error(
    server: HealthServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        gone_at_once(server)
    assert get(server, "/livez")[0] == 200
    time.sleep(0.2)

    # A reset may also come too late to be noticed; what matters is where it is told.
    assert capfd.readouterr().err == ""
    assert all(json.loads(JsonLines().format(record))["event"] == "request failed" for record in caplog.records)


def test_a_probe_that_fails_is_a_failed_probe_and_is_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> tuple[bool, str]:
        raise RuntimeError("what is inside")

    with serving(live=broken) as server:
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            get(server, "/livez")
        assert get(server, "/readyz")[0] == 200

    assert capfd.readouterr().err == ""
    (line,) = [JsonLines().format(record) for record in caplog.records if record.name == "worker.health"]
    assert json.loads(line)["error"] == "RuntimeError"
    assert "what is inside" not in line


def test_requests_are_not_logged(
    server: HealthServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    for path in ("/", "/status.json", "/metrics", "/livez", "/nothing"):
        get(server, path)

    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_port_0_takes_a_free_one_and_the_url_has_it() -> None:
    with serving() as first, serving() as second:
        assert first.url != second.url
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", first.url)


def test_a_port_in_use_is_one_clear_line(server: HealthServer) -> None:
    port = urlsplit(server.url).port
    assert port
    with pytest.raises(SettingsError) as caught:
        HealthServer("127.0.0.1", port, Metrics(), well, well)

    assert str(caught.value) == (
        f"http 127.0.0.1:{port}: Address already in use; is another worker running? Choose with WORKER_HTTP__PORT"
    )


def test_after_closing_the_port_is_free_again() -> None:
    with serving() as server:
        port = urlsplit(server.url).port
    assert port

    with HealthServer("127.0.0.1", port, Metrics(), well, well) as again:
        assert get(again, "/livez")[0] == 200


def ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6 loopback")
def test_it_can_be_reached_over_ipv6() -> None:
    with serving(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert get(server, "/livez")[0] == 200


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"http 192\.0\.2\.1:0: Cannot assign requested address"):
        HealthServer("192.0.2.1", 0, Metrics(), well, well)


def test_too_many_connections_cost_the_oldest_and_not_the_next_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one holds a thread and a file descriptor, which Kafka needs too."""
    monkeypatch.setattr(worker.health, "MAX_CONNECTIONS", 3)
    with serving() as server, ExitStack() as opened:
        dawdlers = [opened.enter_context(raw(server)) for _ in range(5)]
        assert get(server, "/livez")[0] == 200
        assert dawdlers[0].recv(100) == b""
        dawdlers[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            dawdlers[-1].recv(100)


def test_who_sends_a_byte_now_and_then_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time-out of a single read would notice."""
    monkeypatch.setattr(worker.health, "MAX_SECONDS", 0.5)
    with serving() as server, raw(server) as dawdler:
        dawdler.settimeout(0.1)
        began = time.monotonic()
        ended = False
        while not ended and time.monotonic() < began + 10:
            try:
                dawdler.sendall(b"G")
                ended = dawdler.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended
