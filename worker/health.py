"""Health: `/metrics`, `/livez` and `/readyz` over HTTP, for Prometheus and a supervisor's probes; `/` for people.

prometheus-client's own server answers 200 on every path, so that a probe pointed at it always passes; hence this one.
"""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType, TracebackType
from typing import Any, Self

from prometheus_client.exposition import choose_encoder

from worker.errors import SettingsError
from worker.metrics import Metrics
from worker.page import Page

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
"""Each has a thread and a file descriptor: a thousand that dawdle would leave none to reach the broker with."""

MAX_SECONDS = 30.0
"""From the first byte to the last of the answer."""

Probe = Callable[[], tuple[bool, str]]
"""Whether it is well, and one line that says why."""


class HealthServer:
    """Serves until closed, on threads of its own. Use as a context manager.

    Args:
        host: address to bind.
        port: TCP port; 0 takes a free one.
        metrics: what `/metrics` shows.
        live: `/livez`: the loop makes progress; a broker that is away is no reason to be restarted.
        ready: `/readyz`: the model is warm and the group joined.
        page: `/` and `/status.json`, which it asks for; without one there are neither.

    Raises:
        SettingsError: the address cannot be bound.
    """

    def __init__(
        self, host: str, port: int, metrics: Metrics, live: Probe, ready: Probe, page: Page | None = None
    ) -> None:
        handler = _handler(metrics, {"/livez": live, "/readyz": ready}, page)
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise SettingsError(
                f"http {host}:{port}: {error.strerror}; is another worker running? Choose with WORKER_HTTP__PORT"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers, with the port it really has."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._since: dict[socket.socket, float] = {}
        """The connections that are open, and when they began."""
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hang up on the oldest when there are too many: one that dawdles, while a probe is over in no time."""
        if len(self._since) >= MAX_CONNECTIONS:
            self._hang_up(min(list(self._since.items()), key=lambda it: it[1])[0])
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection is over."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Every half second: hang up on who sends a byte now and then, which no time-out of a single read notices."""
        late = time.monotonic() - MAX_SECONDS
        for request, since in list(self._since.items()):
            if since < late:
                self._hang_up(request)

    def _hang_up(self, request: socket.socket) -> None:
        self._since.pop(request, None)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, mostly. The base class prints a stack trace amid the log's JSON lines."""
        log.warning("request failed", exc_info=True)


def _handler(metrics: Metrics, probes: dict[str, Probe], page: Page | None) -> type[BaseHTTPRequestHandler]:
    here = f"{'/, /status.json, ' if page else ''}/metrics, /livez and /readyz"

    class Handler(BaseHTTPRequestHandler):
        server_version = "review-worker"
        sys_version = ""
        timeout = 10
        """Seconds for a request to arrive, so that an idle connection holds no thread for ever."""

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode(metrics.registry))
            elif path in probes:
                well, reason = probes[path]()
                self._answer(200 if well else 503, "text/plain; charset=utf-8", f"{reason}\n".encode())
            elif page and path == "/":
                self._answer(200, "text/html; charset=utf-8", page.html, page.headers)
            elif page and path == "/status.json":
                self._answer(200, "application/json", page.status(_after(query)))
            else:
                self._answer(404, "text/plain; charset=utf-8", f"{here} are here\n".encode())

        def _answer(
            self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Probes come every few seconds: they are not logged."""

    return Handler


def _after(query: str) -> int:
    """The last row of the history that who asks has already; 0 for none, and for any other query."""
    found = re.fullmatch(r"after=([0-9]{1,12})", query)
    return int(found[1]) if found else 0
