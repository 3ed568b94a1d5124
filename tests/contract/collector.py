"""An OpenTelemetry collector for tests: OTLP over HTTP, read with the official protobuf messages."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What was received.

    Attributes:
        url: where spans are posted to, without `/v1/traces`.
        status: what every request is answered with.
        answering: requests wait for this.
        paths: of every request.
        bodies: the requests, as they came.
        requests: those that were taken.
    """

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.answering = Event()
        self.answering.set()
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        """All spans, as they came."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resources(self) -> list[dict[str, Any]]:
        """Who sent each part of a request."""
        return [attributes(it.resource) for request in list(self.requests) for it in request.resource_spans]

    def named(self, start: str) -> list[Span]:
        """The spans whose name begins so, the oldest first."""
        return sorted((it for it in self.spans if it.name.startswith(start)), key=lambda it: it.start_time_unix_nano)

    def children(self, parent: Span) -> list[Span]:
        """The spans right below one, the oldest first."""
        below = [it for it in self.named("") if it.parent_span_id == parent.span_id]
        assert all(it.trace_id == parent.trace_id for it in below)
        return below


def attributes(it: Any) -> dict[str, Any]:
    """Of a span, a link or a resource."""

    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value"))

    return {pair.key: value(pair) for pair in it.attributes}


def linked(span: Span) -> list[tuple[str, str]]:
    """Trace and span of each link, in hexadecimal."""
    return [(it.trace_id.hex(), it.span_id.hex()) for it in span.links]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of 127.0.0.1; gone afterwards."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.paths.append(self.path)
            collector.bodies.append(body)
            collector.answering.wait()
            if collector.status == 200:
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """The tests say what came."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that gave up."""

    server = Server(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, name="collector")
    thread.start()
    try:
        yield collector
    finally:
        collector.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()
