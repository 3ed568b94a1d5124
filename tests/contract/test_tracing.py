"""Tracing on the real route: a worker, a broker, and a collector that reads what OpenTelemetry's own SDK sends."""

import signal
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaProducer
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from contract.collector import Collector, attributes, collecting, linked
from contract.pieces import StubWorker, nobody_listens, review, visible, wait_for
from running import Stage

pytestmark = pytest.mark.kafka

StartStub = Callable[..., StubWorker]
COUNT = 40
PATIENCE_SECONDS = 60


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def on(url: str) -> dict[str, str]:
    """Settings of a worker that traces, and sends its spans soon."""
    return {"WORKER_TRACING__ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}


def trace_of(number: int) -> tuple[str, str]:
    """Trace and span of a review's publisher."""
    return f"{number + 1:032x}", f"{number + 1:016x}"


def publish(stage: Stage, count: int) -> None:
    """Reviews with a trace each, and after every tenth a record that is none."""
    producer = KafkaProducer(bootstrap_servers=stage.address, acks="all")
    try:
        sent = [
            producer.send(
                stage.input,
                key=b"secret-key",
                value=b"no review" if number % 10 == 9 else review(number),
                headers=[("traceparent", "00-{}-{}-01".format(*trace_of(number)).encode())],
                partition=number % stage.partitions,
            )
            for number in range(count)
        ]
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close(timeout=10)


def traceparents(stage: Stage, topic: str) -> set[tuple[str, str]]:
    """Trace and span in the headers of what came out."""
    values = [dict(record.headers)["traceparent"].decode().split("-") for record in visible(stage, topic)]
    return {(trace, span) for _, trace, span, _ in values}


def test_every_batch_is_linked_to_its_reviews_and_every_answer_goes_on_in_its_reviews_trace(
    stage: Stage, start_stub: StartStub, collector: Collector
) -> None:
    worker = start_stub(**on(collector.url))
    publish(stage, COUNT)
    stage.wait_until_drained(PATIENCE_SECONDS)
    assert worker.stop() == 0

    published = {trace_of(number) for number in range(COUNT)}
    batches = collector.named("process")
    found = [link for batch in batches for link in linked(batch)]
    assert set(found) == published
    assert len(found) == COUNT, "a review in two batches"
    committed = [attributes(it) for it in batches]
    assert sum(it["review_worker.predictions"] for it in committed) == COUNT * 9 // 10
    assert sum(it["review_worker.dead_letters"] for it in committed) == COUNT // 10
    assert {it["review_worker.transaction.outcome"] for it in committed} == {"committed"}
    for batch in batches:
        names = [it.name for it in collector.children(batch)]
        assert names == ["intake", "tokenize", "score", f"commit {stage.input}"]
    assert traceparents(stage, stage.output) | traceparents(stage, stage.dead) == published
    assert not any(b"secret-key" in body or b"movie" in body for body in collector.bodies)
    assert collector.resources[0]["service.instance.id"] == f"{stage.name}-worker"


def test_with_and_without_tracing_the_answers_are_the_same(stage: Stage, start_stub: StartStub) -> None:
    publish(stage, COUNT)
    start_stub()
    stage.wait_until_drained(PATIENCE_SECONDS)
    published = {trace_of(number) for number in range(COUNT)}
    assert traceparents(stage, stage.output) | traceparents(stage, stage.dead) == published


def test_an_aborted_transaction_says_so(stage: Stage, start_stub: StartStub, collector: Collector) -> None:
    """The batch takes longer than the group waits for its worker."""
    publish(stage, 3)
    # A dynamic member leaves its group as soon as it notices; a static one would have its session's time.
    late = {"STUB_NO_STAY": "1", "STUB_MAX_POLL": "1", "STUB_SECONDS": "2.5", "WORKER_KAFKA__GROUP_INSTANCE_ID": ""}
    start_stub(**late, **on(collector.url))

    def aborted() -> list[Span]:
        return [it for it in collector.named("process") if "error.type" in attributes(it)]

    batch = wait_for(aborted, "a batch is given up", PATIENCE_SECONDS)[0]
    (commit,) = [it for it in collector.children(batch) if it.name.startswith("commit ")]
    assert attributes(batch)["review_worker.transaction.outcome"] == "aborted"
    for span in (batch, commit):
        assert attributes(span)["error.type"].endswith("Error")
        assert span.status.code == span.status.STATUS_CODE_ERROR
    assert len(batch.links) == 3, "what failed is linked too"


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_collector_that_is_away_neither_stops_nor_delays_the_worker(
    kind: str, stage: Stage, start_stub: StartStub, collector: Collector
) -> None:
    collector.answering.clear()
    url = collector.url if kind == "silent" else f"http://{nobody_listens()}"
    worker = start_stub(**on(url), WORKER_BATCH__MAX_REVIEWS="5")
    publish(stage, COUNT)
    stage.wait_until_drained(PATIENCE_SECONDS)
    worker.signal(signal.SIGTERM)
    # Three seconds for the last spans, and what a busy machine needs besides.
    assert worker.wait(20) == 0
    (lost,) = [line for line in worker.lines if line["event"] == "spans were lost"]
    assert lost["lost"] == lost["made"]
    assert not [line for line in worker.lines if str(line["logger"]).startswith("opentelemetry")]
