"""Tracing: the spans of a batch as a collector gets them, and a collector that is away."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from contract.collector import Collector, attributes, collecting, linked
from contract.pieces import nobody_listens, wait_for
from running import ROOT
from schemas import ModelName, Prediction, Reason, Rejection, Source
from worker.errors import BrokerError, Rewind, SettingsError
from worker.message import Headers, Message
from worker.service import open_tracing
from worker.settings import Settings, load_settings
from worker.tracing import CLOSE_SECONDS, Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e47{:02x}"
SPAN = "00f067aa0ba902{:02x}"
SECRET = b"nobody's business"


pytestmark = pytest.mark.usefixtures("own_environment")


SENDERS = ("spans", "OtelBatch")
"""Names of the threads that send: the worker's at the end, the SDK's before."""


@pytest.fixture(autouse=True)
def nothing_is_sent_any_more() -> Iterator[None]:
    """The worker leaves behind what a collector keeps waiting for too long, and ends; here it would go on, and say in
    the next test's log that it was not taken."""
    yield
    wait_for(lambda: not any(it.name.startswith(SENDERS) for it in threading.enumerate()), "nothing is sent", 60)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def settings_for(url: str, **others: Any) -> Settings:
    kafka = {"group_id": "scorers", "client_id": "one", "transactional_id": "first"}
    return load_settings(None, {"kafka": kafka, "tracing": {"endpoint": url}} | others)


@pytest.fixture
def tracing(collector: Collector) -> Iterator[Tracing]:
    with Tracing(settings_for(collector.url)) as made:
        yield made


def traceparent(number: int, flags: str = "01") -> Headers:
    return (("traceparent", f"00-{TRACE}-{SPAN}-{flags}".format(number, number).encode()),)


def messages(count: int) -> list[Message]:
    """Records with a trace each."""
    return [Message("reviews", 0, number, SECRET, SECRET, traceparent(number)) for number in range(count)]


def prediction(number: int) -> Prediction:
    return Prediction(
        review_id=SECRET.decode(),
        label="positive",
        label_id=1,
        confidence=1.0,
        probabilities={"negative": 0.0, "positive": 1.0},
        model=ModelName(name="m", version=7, digest="sha256:" + "0" * 64),
        source=Source(topic="reviews", partition=0, offset=number),
        tokens=12,
        truncated=False,
        scored_at=datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
    )


def rejection(number: int) -> Rejection:
    return Rejection(
        reason=Reason.NOT_JSON, detail="not JSON", source=Source(topic="reviews", partition=0, offset=number)
    )


def read(tracing: Tracing, batch: list[Message]) -> None:
    """As the loop does, up to the device."""
    with tracing.timed("poll", nullcontext()):
        pass
    tracing.read(batch)
    for stage in ("intake", "tokenize"):
        with tracing.timed(stage, nullcontext()):
            pass
    tracing.submitted()


def commit(tracing: Tracing, count: int, dead: int = 0) -> None:
    tracing.scored()
    with tracing.timed("commit", nullcontext()):
        pass
    tracing.committed([*map(prediction, range(count - dead)), *map(rejection, range(dead))])


def fail_to_commit(tracing: Tracing) -> None:
    tracing.scored()
    with pytest.raises(Rewind), tracing.timed("commit", nullcontext()):
        raise Rewind("CommitFailedError", "aborted")


def close(tracing: Tracing) -> None:
    tracing.__exit__(None, None, None)


def failed(span: Span) -> str | None:
    """Its `error.type`, if it says that it failed."""
    kind = attributes(span).get("error.type")
    assert (kind is not None) is (span.status.code == Status.STATUS_CODE_ERROR)
    assert not span.status.message, "an exception's text can hold a part of a record"
    assert not span.events, "an exception's text can hold a part of a record"
    return kind


# --- what a batch looks like ---


def test_a_batch_is_one_trace_of_the_stages_it_went_through(tracing: Tracing, collector: Collector) -> None:
    read(tracing, messages(3))
    commit(tracing, 3, dead=1)
    close(tracing)

    (poll,) = collector.named("poll")
    (process,) = collector.children(poll)
    assert (poll.name, poll.kind, poll.parent_span_id) == ("poll reviews", Span.SPAN_KIND_CLIENT, b"")
    assert (process.name, process.kind) == ("process reviews", Span.SPAN_KIND_CONSUMER)
    stages = [(it.name, it.kind) for it in collector.children(process)]
    inner = Span.SPAN_KIND_INTERNAL
    assert stages == [
        ("intake", inner),
        ("tokenize", inner),
        ("score", inner),
        ("commit reviews", Span.SPAN_KIND_CLIENT),
    ]
    assert len(collector.spans) == 6
    assert not any(map(failed, collector.spans))


def test_the_attributes_are_those_of_opentelemetrys_conventions_for_messaging(
    tracing: Tracing, collector: Collector
) -> None:
    read(tracing, messages(3))
    commit(tracing, 3, dead=1)
    close(tracing)

    everywhere = {
        "messaging.system": "kafka",
        "messaging.destination.name": "reviews",
        "messaging.consumer.group.name": "scorers",
        "messaging.client.id": "one",
        "messaging.batch.message_count": 3,
    }
    found = {it.name.split()[0]: attributes(it) for it in collector.spans}
    assert found["poll"] == everywhere | {"messaging.operation.name": "poll", "messaging.operation.type": "receive"}
    assert found["commit"] == everywhere | {
        "messaging.operation.name": "commit",
        "messaging.operation.type": "settle",
    }
    assert found["process"] == everywhere | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "review_worker.transaction.outcome": "committed",
        "review_worker.predictions": 2,
        "review_worker.dead_letters": 1,
        "review_worker.model.version": 7,
    }


def test_times_follow_the_batch(tracing: Tracing, collector: Collector) -> None:
    began = time.time_ns()
    read(tracing, messages(1))
    commit(tracing, 1)
    ended = time.time_ns()
    close(tracing)

    (poll,), (process,) = collector.named("poll"), collector.named("process")
    assert began <= poll.start_time_unix_nano <= poll.end_time_unix_nano == process.start_time_unix_nano
    assert process.end_time_unix_nano <= ended
    before = process.start_time_unix_nano
    for stage in collector.children(process):
        assert before <= stage.start_time_unix_nano <= stage.end_time_unix_nano <= process.end_time_unix_nano
        before = stage.end_time_unix_nano


def test_a_batch_is_linked_to_the_trace_of_every_review_that_has_one(tracing: Tracing, collector: Collector) -> None:
    """Whether or not its publisher sampled it."""
    batch = [
        Message("reviews", 0, 0, None, b"", traceparent(1)),
        Message("reviews", 0, 1, None, b"", (("traceparent", b"no trace"), ("other", None))),
        Message("reviews", 0, 2, None, b""),
        Message("reviews", 0, 3, None, b"", (("traceparent", f"00-{'0' * 32}-{'0' * 16}-01".encode()),)),
        Message("reviews", 0, 4, None, None, traceparent(2, flags="00")),
    ]
    read(tracing, batch)
    commit(tracing, 5)
    close(tracing)

    (process,) = collector.named("process")
    assert linked(process) == [(TRACE.format(1), SPAN.format(1)), (TRACE.format(2), SPAN.format(2))]
    assert process.trace_id.hex() not in {trace for trace, _ in linked(process)}, "a batch has a trace of its own"
    assert not any(it.links for it in collector.spans if it.name != process.name)


def test_a_large_batch_is_linked_to_all_of_its_reviews(tracing: Tracing, collector: Collector) -> None:
    """The SDK's own limit is 128."""
    read(tracing, messages(200))
    commit(tracing, 200)
    close(tracing)

    (process,) = collector.named("process")
    assert len(process.links) == 200
    assert process.dropped_links_count == 0


def test_beyond_the_users_own_limit_the_last_links_stay_and_the_others_are_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "2")
    with Tracing(settings_for(collector.url)) as tracing:
        read(tracing, messages(5))
        commit(tracing, 5)

    (process,) = collector.named("process")
    assert linked(process) == [(TRACE.format(number), SPAN.format(number)) for number in (3, 4)]
    assert process.dropped_links_count == 3


def test_no_span_holds_a_text_a_key_or_a_review_id(tracing: Tracing, collector: Collector) -> None:
    read(tracing, messages(3))
    commit(tracing, 3)
    read(tracing, messages(3))
    tracing.given_up(Rewind("the group has changed"))
    close(tracing)

    assert collector.bodies
    assert not any(SECRET in body for body in collector.bodies)


def test_two_batches_under_way_keep_their_own_stages(tracing: Tracing, collector: Collector) -> None:
    """The next one is read while the device has the first, as the loop does it."""
    read(tracing, messages(1))
    with tracing.timed("poll", nullcontext()):
        pass
    tracing.read(messages(2))
    with tracing.timed("intake", nullcontext()):
        pass
    tracing.scored()
    tracing.submitted()
    with tracing.timed("commit", nullcontext()):
        pass
    tracing.committed([prediction(0)])
    commit(tracing, 2)
    close(tracing)

    first, second = collector.named("process")
    counts = [attributes(it)["messaging.batch.message_count"] for it in (first, second)]
    assert counts == [1, 2]
    assert [it.name for it in collector.children(first)] == ["intake", "tokenize", "score", "commit reviews"]
    assert [it.name for it in collector.children(second)] == ["intake", "score", "commit reviews"]
    (score,) = [it for it in collector.children(first) if it.name == "score"]
    (other,) = [it for it in collector.children(second) if it.name == "score"]
    assert score.end_time_unix_nano <= other.start_time_unix_nano
    assert first.trace_id != second.trace_id


# --- what is not committed ---


def test_a_transaction_that_was_aborted_says_so_and_why(tracing: Tracing, collector: Collector) -> None:
    read(tracing, messages(1))
    fail_to_commit(tracing)
    tracing.given_up(Rewind("CommitFailedError", "aborted"))
    close(tracing)

    (process,), (commit_span,) = collector.named("process"), collector.named("commit")
    assert failed(process) == failed(commit_span) == "CommitFailedError"
    assert attributes(process)["review_worker.transaction.outcome"] == "aborted"
    assert "review_worker.predictions" not in attributes(process)
    assert [it.name for it in collector.spans if failed(it)] == ["commit reviews", "process reviews"]


def test_the_batch_behind_an_aborted_one_had_no_transaction(tracing: Tracing, collector: Collector) -> None:
    read(tracing, messages(1))
    read(tracing, messages(2))
    fail_to_commit(tracing)
    tracing.given_up(Rewind("CommitFailedError", "unknown"))
    close(tracing)

    first, second = collector.named("process")
    assert (failed(first), failed(second)) == ("CommitFailedError", "rewind")
    assert attributes(first)["review_worker.transaction.outcome"] == "unknown"
    assert "review_worker.transaction.outcome" not in attributes(second)
    assert [it.name for it in collector.children(second) if failed(it)] == ["score"]


def test_a_change_of_the_group_is_no_failed_transaction(tracing: Tracing, collector: Collector) -> None:
    read(tracing, messages(1))
    tracing.given_up(Rewind("the group has changed"))
    tracing.given_up(Rewind("the group has changed"))
    close(tracing)

    (process,) = collector.named("process")
    assert failed(process) == "rewind"
    assert "review_worker.transaction.outcome" not in attributes(process)


def test_what_ends_the_worker_is_named_at_the_batch_in_hand(collector: Collector) -> None:
    def work() -> None:
        with Tracing(settings_for(collector.url)) as tracing:
            read(tracing, messages(1))
            with tracing.timed("commit", nullcontext()):
                raise BrokerError("a line that could hold anything")

    with pytest.raises(BrokerError):
        work()

    (process,) = collector.named("process")
    assert failed(process) == "BrokerError"


# --- settings ---


def test_a_share_of_the_batches_can_be_traced(collector: Collector) -> None:
    tracing_settings = {"endpoint": collector.url, "sample_ratio": 0.5}
    with Tracing(load_settings(None, {"tracing": tracing_settings})) as tracing:
        for _ in range(100):
            read(tracing, messages(1))
            commit(tracing, 1)

    traced = collector.named("process")
    assert 20 < len(traced) < 80
    assert len(collector.spans) == 6 * len(traced), "a batch is traced as a whole or not at all"


def test_who_sent_it_can_be_named_by_the_users_own_variables(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,service.version=9")
    with Tracing(settings_for(collector.url)) as tracing:
        read(tracing, messages(1))
        commit(tracing, 1)

    (resource,) = collector.resources
    assert resource["service.name"] == "review-worker"
    assert resource["service.instance.id"] == "first"
    assert resource["service.version"] == "9"
    assert resource["deployment.environment.name"] == "staging"


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_spans_go_to_the_path_of_otlp(collector: Collector, path: str) -> None:
    with Tracing(settings_for(collector.url + path)) as tracing:
        read(tracing, messages(1))
        commit(tracing, 1)

    assert collector.paths == ["/v1/traces"]


@pytest.mark.parametrize(
    "url", ["collector:4317", "localhost", "grpc://collector:4317", "http://", "http://a:b", "http://a/?key=1"]
)
def test_what_is_no_address_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"tracing\.endpoint: .*give http://host:4318"):
        settings_for(url)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        settings_for("https://user:hunter2@collector")
    assert "hunter2" not in str(caught.value)


def test_a_variable_that_the_sdk_cannot_use_is_one_line(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "many")
    with pytest.raises(SettingsError, match="OTEL_SPAN_LINK_COUNT_LIMIT"):
        Tracing(settings_for(collector.url))


# --- off ---


@pytest.mark.parametrize("url", [None, ""])
def test_without_a_collector_nothing_traces(url: str | None) -> None:
    assert open_tracing(load_settings(None, {"tracing": {"endpoint": url}})) is None


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    """Not even where the user's other programs have it on."""
    code = (
        "import sys\nimport worker.cli, worker.loop, worker.service\nfrom worker.settings import load_settings\n"
        "assert worker.service.open_tracing(load_settings()) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'worker.tracing'))])\n"
    )
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "otlp"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert ended.stdout == "[]\n"


def test_without_the_extra_one_line_names_it(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\nfrom worker.cli import main\n"
        "sys.argv = ['review-worker', 'run', *sys.argv[1:]]\nmain()\n"
    )
    arguments = ("--model", tmp_path, "--set", "tracing.endpoint=http://127.0.0.1:4318")
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert "pip install 'review-scorer[tracing]'" in line
    assert "tracing.endpoint" in line


# --- a collector that is away ---


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the user was told."""
    return [record.getMessage() for record in caplog.records if record.name == "worker.tracing"]


def timed(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_collector_that_is_away_holds_nothing_up(
    kind: str, collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more spans than the queue holds; the end waits for three seconds at most, and says how many were lost."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "4")
    collector.answering.clear()
    url = collector.url if kind == "silent" else f"http://{nobody_listens()}"
    with ExitStack() as stack:
        tracing = stack.enter_context(Tracing(settings_for(url)))

        def work() -> None:
            for _ in range(200):
                read(tracing, messages(1))
                commit(tracing, 1)

        # The SDK gives an export four seconds here: the loop would wait for two minutes and a half.
        assert timed(work) < 10
        assert timed(stack.close) < CLOSE_SECONDS + 10
    (lost,) = [record for record in caplog.records if record.getMessage() == "spans were lost"]
    assert (lost.lost, lost.made) == (1200, 1200)  # type: ignore[attr-defined]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_collector_that_refuses_is_told_of_once_and_again_when_it_takes_spans(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.tracing")
    collector.status = 400
    with Tracing(settings_for(collector.url)) as tracing:
        for status in (400, 400, 200, 200):
            collector.status = status
            read(tracing, messages(1))
            commit(tracing, 1)
            tracing._provider.force_flush()
    assert events(caplog) == [
        "the collector takes no spans; going on without",
        "the collector takes spans again",
        "spans were lost",
    ]
    assert [record.lost for record in caplog.records if hasattr(record, "lost")] == [12]
    assert len(collector.spans) == 12


def test_the_last_spans_are_sent_before_the_end(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """They would wait in the queue for five seconds."""
    with Tracing(settings_for(collector.url)) as tracing:
        read(tracing, messages(1))
        commit(tracing, 1)
    assert len(collector.spans) == 6
    assert events(caplog) == []
