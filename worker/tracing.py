"""Tracing: a trace of each micro-batch, sent to an OpenTelemetry collector over OTLP. Needs the extra `tracing`.

Without a collector in the settings this module is never imported, and the loop asks one attribute whether it is None.

By OpenTelemetry's conventions for messaging, a batch has one span for processing, with a link to every review's trace:

    poll reviews                 client; what waits is not traced, only a poll that brought a batch
    └── process reviews          consumer, with a link to the `traceparent` of each review that has one
        ├── intake, tokenize, score
        └── commit reviews       client: predictions, dead letters and offsets, in one transaction

A review's own trace goes on in its prediction or dead letter, whose `traceparent` is that of the review whether this is
on or off: the worker has no span of its own for a single review that it could put there. A span holds counts, names and
times, and neither text, key nor review id.

Spans are made when the batch is over, from the times that were noted, and a thread sends them. The loop never waits for
it: what the collector does not take is dropped and counted.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Self

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SPAN_LINK_COUNT_LIMIT
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags, set_span_in_context

from schemas import Prediction, Rejection
from worker.connection import begin
from worker.errors import Rewind, SettingsError
from worker.letters import trace
from worker.message import Message
from worker.metrics import Stage
from worker.settings import Settings

log = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0
"""How long the end of the worker waits for the last spans to be sent."""

REWOUND = "rewind"
"""`error.type` of a batch that was given up before its own transaction began: the group changed, or the batch before it
was not committed."""


@dataclass(slots=True)
class _Step:
    """One stage of a batch, in nanoseconds since 1970; what has no end was cut short."""

    name: str
    began: int
    ended: int | None = None


@dataclass(slots=True)
class _Batch:
    """A batch under way."""

    messages: Sequence[Message]
    polled: _Step
    steps: list[_Step] = field(default_factory=list)


class Tracing:
    """Notes what the loop does with its batches, and turns each into spans once it is over. Use as a context manager.

    The loop commits batches in the order in which it reads them, so that the stages behind the device belong to the
    oldest of those that are under way, and the stages before it to the newest.

    Raises:
        SettingsError: a variable `OTEL_…` holds what the SDK cannot use.
    """

    def __init__(self, settings: Settings) -> None:
        kafka, endpoint = settings.kafka, settings.tracing.endpoint
        self._topic = kafka.input_topic
        self._messaging = {
            "messaging.system": "kafka",
            "messaging.destination.name": kafka.input_topic,
            "messaging.consumer.group.name": kafka.group_id,
            "messaging.client.id": kafka.client_id,
        }
        release = version("review-scorer")
        named = {
            "service.name": "review-worker",
            "service.version": release,
            "service.instance.id": settings.transactional_id,
        }
        try:
            self._collector = _Collector(OTLPSpanExporter(endpoint=endpoint), str(endpoint))
            self._provider = TracerProvider(
                sampler=ParentBased(TraceIdRatioBased(settings.tracing.sample_ratio)),
                # The user's own OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
                resource=Resource.create(named | dict(OTELResourceDetector().detect().attributes)),
                span_limits=_limits(settings.batch.max_reviews),
            )
            self._provider.add_span_processor(BatchSpanProcessor(self._collector))
        except (ValueError, OSError) as error:
            raise SettingsError(f"OpenTelemetry cannot use a variable OTEL_…: {error}") from None
        # Else a collector that is away is a line every few seconds: `_Collector` says it once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._tracer = self._provider.get_tracer("review-worker", release)
        self._under_way: deque[_Batch] = deque()
        self._polled = _Step("poll", 0)
        self._made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is under way with the error that ends the worker, and send what is left, for three seconds."""
        while self._under_way:
            self._finish(self._under_way.popleft(), kind.__name__ if kind else REWOUND, {})
        try:
            begin(self._provider.shutdown, "spans").result(CLOSE_SECONDS)
        except TimeoutError:
            log.warning("the collector is too slow for the last spans", extra={"collector": self._collector.endpoint})
        if lost := self._made - self._collector.taken:
            log.warning("spans were lost", extra={"lost": lost, "made": self._made})

    def reach(self) -> bool:
        """Send nothing, and tell whether the collector takes it."""
        return self._collector.reach()

    @contextmanager
    def timed(self, stage: Stage, measured: AbstractContextManager[None]) -> Iterator[None]:
        """Note when the stage begins and, unless it raises, ends; `measured` is what takes its time besides."""
        step = _Step(stage, time.time_ns())
        if stage == "poll":
            self._polled = step
        else:
            self._under_way[0 if stage == "commit" else -1].steps.append(step)
        with measured:
            yield
        step.ended = time.time_ns()

    def read(self, messages: Sequence[Message]) -> None:
        """The poll brought a batch."""
        self._under_way.append(_Batch(messages, self._polled))

    def submitted(self) -> None:
        """The device has the newest batch."""
        self._under_way[-1].steps.append(_Step("score", time.time_ns()))

    def scored(self) -> None:
        """The device is done with the oldest batch."""
        self._under_way[0].steps[-1].ended = time.time_ns()

    def committed(self, outcomes: Sequence[Prediction | Rejection]) -> None:
        """The oldest batch is over."""
        predictions = [it for it in outcomes if isinstance(it, Prediction)]
        found: dict[str, str | int] = {
            "review_worker.transaction.outcome": "committed",
            "review_worker.predictions": len(predictions),
            "review_worker.dead_letters": len(outcomes) - len(predictions),
        }
        if predictions:
            found["review_worker.model.version"] = predictions[0].model.version
        self._finish(self._under_way.popleft(), None, found)

    def given_up(self, rewind: Rewind) -> None:
        """Every batch under way is void. Only the oldest can have had a transaction."""
        outcome = rewind.outcome
        while self._under_way:
            if outcome is None:
                self._finish(self._under_way.popleft(), REWOUND, {})
            else:
                aborted = {"review_worker.transaction.outcome": outcome}
                self._finish(self._under_way.popleft(), str(rewind), aborted)
            outcome = None

    def _finish(self, batch: _Batch, error: str | None, found: Mapping[str, str | int]) -> None:
        """Make the spans of a batch.

        Args:
            batch: what was noted.
            error: OpenTelemetry's `error.type`: a class or a word, never the text of an exception.
            found: attributes of the process span.
        """
        count: dict[str, str | int] = {"messaging.batch.message_count": len(batch.messages)}
        poll = self._span(batch.polled, None, "poll", "receive", SpanKind.CLIENT, count)
        if not poll.is_recording():  # not a sample; its children would not be either
            return
        began, now = batch.polled.ended or batch.polled.began, time.time_ns()
        poll.end(began)
        process = self._span(
            _Step("process", began), poll, "process", "process", SpanKind.CONSUMER, {**count, **found}, _links(batch)
        )
        for step in batch.steps:
            if step.name == "commit":
                span = self._span(step, process, "commit", "settle", SpanKind.CLIENT, count)
            else:
                span = self._tracer.start_span(
                    step.name, set_span_in_context(process), start_time=step.began, record_exception=False
                )
            if error and step.ended is None:
                _fail(span, error)
            span.end(step.ended or now)
        if error:
            _fail(process, error)
        process.end(now)
        self._made += 2 + len(batch.steps)

    def _span(
        self,
        step: _Step,
        parent: Span | None,
        operation: str,
        kind_of_operation: str,
        kind: SpanKind,
        attributes: Mapping[str, str | int],
        links: Sequence[Link] = (),
    ) -> Span:
        """A span of messaging, by the conventions' names."""
        named = {"messaging.operation.name": operation, "messaging.operation.type": kind_of_operation}
        return self._tracer.start_span(
            f"{operation} {self._topic}",
            set_span_in_context(parent) if parent else None,
            kind,
            {**self._messaging, **named, **attributes},
            links,
            step.began,
        )


def _fail(span: Span, error: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", error)


def _links(batch: _Batch) -> list[Link]:
    """One for each review that came with a `traceparent`, as its prediction or dead letter carries it on.

    Without attributes: with partition and offset, a link took three times the bytes and the time (109 bytes and 24 µs
    to encode, against 35 and 9).
    """
    links = []
    for message in batch.messages:
        for _, value in trace(message.headers):
            _, trace_id, span_id, flags = value.split(b"-")
            # All zeros have the form of a traceparent, and name nothing: the SDK leaves such a link out.
            context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
            links.append(Link(context))
    return links


def _limits(max_reviews: int) -> SpanLimits:
    """As many links as a batch can have reviews: the SDK's 128 would leave the first reviews of a large batch out. With
    OTEL_SPAN_LINK_COUNT_LIMIT in the environment that limit holds: the span then has the last ones, and the number of
    those that were left out.

    A link takes some 600 bytes while it waits. The queue is bounded in spans and not in links, but large batches come
    one a second, and a collector that is away costs ten seconds an export: there wait those of some twenty seconds.
    """
    return SpanLimits(max_links=None if OTEL_SPAN_LINK_COUNT_LIMIT in os.environ else max_reviews)


class _Collector(SpanExporter):
    """Sends spans, on a thread of the SDK's, and says once when that fails and once when it works again.

    Attributes:
        endpoint: where.
        taken: spans that the collector has accepted.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self.endpoint = endpoint
        self.taken = 0
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; a failure loses them."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("the collector takes no spans; going on without", extra={"collector": self.endpoint})
        if not failed:
            self.taken += len(spans)
            if self._failing:
                log.info("the collector takes spans again", extra={"collector": self.endpoint})
        self._failing = failed
        return result

    def reach(self) -> bool:
        """Send nothing, and tell whether it was taken."""
        return self._exporter.export(()) is SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()
