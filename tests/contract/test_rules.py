"""One test for every rule of the project's notes on Kafka: what kafka-python 3.0.12 and the broker do otherwise, each
was seen. The rules' numbers are those of the notes."""

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, NodeNotReadyError, UnknownBrokerIdError
from kafka.net.compat import KafkaNetClient
from kafka.structs import MemberState, OffsetAndMetadata

from contract.pieces import (
    BAD_KEY,
    GZIP,
    StubWorker,
    answers,
    bring_back,
    drain,
    examined,
    in_time,
    next_batch,
    next_messages,
    opened_outbox,
    opened_source,
    paused,
    produce_raw,
    publish,
    review,
    settings_of,
    started_stubs,
    visible,
    wait_for,
)
from running import Broker, Stage
from schemas import ModelName, Prediction
from worker.connection import client_options
from worker.errors import BrokerError, Rewind
from worker.letters import Letters
from worker.logs import start_logging
from worker.metrics import Metrics
from worker.outbox import Outbox
from worker.settings import load_settings
from worker.source import ReviewSource

pytestmark = pytest.mark.kafka

StartStub = Callable[..., StubWorker]
NO_MEMBER = {"WORKER_KAFKA__GROUP_INSTANCE_ID": ""}
"""A dynamic member of the group."""


@pytest.fixture
def start_on_fragile(fragile: Stage, tiny_model: Path, tmp_path: Path) -> Iterator[StartStub]:
    """Start workers without TensorFlow on the broker that may be paused and killed."""
    with started_stubs(fragile, tiny_model, tmp_path) as start:
        yield start


# === 1 and 2: calls that would wait for ever ===


@pytest.mark.parametrize("error", [KafkaConnectionError, NodeNotReadyError, UnknownBrokerIdError])
def test_a_connection_that_dies_right_before_a_commit_does_not_hang_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: type[KafkaError]
) -> None:
    """Rule 1: kafka-python loses the request when `await_ready` raises."""
    stage.publish([review(1)])
    dying: list[KafkaError] = []
    await_ready = KafkaNetClient.await_ready

    def may_die(self: KafkaNetClient, node_id: int, timeout_ms: int = 30_000) -> Any:
        if dying:
            raise dying.pop()
        return await_ready(self, node_id, timeout_ms=timeout_ms)

    monkeypatch.setattr(KafkaNetClient, "await_ready", may_die)
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        commit = outbox._producer.commit_transaction

        def commit_on_a_dead_connection() -> None:
            dying.append(error("as if the connection had just died"))
            commit()

        outbox._producer.commit_transaction = commit_on_a_dead_connection
        in_time(lambda: publish(outbox, stage, batch))
        assert not dying, "the connection did not die"
    assert len(visible(stage, stage.dead)) == 1


def test_a_commit_that_never_returns_ends_the_process_and_the_next_one_goes_on(
    fragile_broker: Broker, fragile: Stage, start_on_fragile: StartStub
) -> None:
    """Rule 2: a transaction's calls have no time-out; here the broker is frozen and requests may take 50 s."""
    fragile.publish([review(number) for number in range(400)])
    slow = {"STUB_SECONDS": "0.1", "WORKER_BATCH__MAX_REVIEWS": "20"}
    patient = {"WORKER_KAFKA__REQUEST_TIMEOUT_SECONDS": "50", "WORKER_WATCHDOG__STAGE_SECONDS": "4"}
    first = start_on_fragile("first", **slow, **patient)
    wait_for(lambda: sum(fragile.committed().values()) >= 40, "the worker commits")
    with paused(fragile_broker):
        assert first.wait(25) == 1
    (line,) = [line for line in first.lines if line["level"] == "critical"]
    assert (line["event"], line["stage"]) == ("stage did not return; ending the process", "commit")
    stacks = first.log.read_text().partition("stage did not return")[2]
    assert "worker/outbox.py" in stacks, "no stack of the hung thread"
    assert sum(fragile.committed().values()) < 400
    start_on_fragile("second")
    fragile.wait_until_drained(60)
    found = examined(fragile)
    assert found.sound, found
    assert found.dead_letters == 0


# === 3: a worker that has lost its partitions commits nothing ===


def test_a_batch_is_committed_only_by_the_membership_it_was_read_under(stage: Stage) -> None:
    """Rule 3: a membership taken at commit time would be accepted, and the records scored twice."""
    stage.publish([review(number) for number in range(20)])
    with opened_source(stage) as first, opened_outbox(stage) as outbox, ExitStack() as later:
        old = next_batch(first)
        second = later.enter_context(opened_source(stage))
        owned = share(first, second)
        with pytest.raises(Rewind) as rewind:
            publish(outbox, stage, old)
        assert rewind.value.outcome == "aborted"
        assert not visible(stage, stage.dead)
        # The client would commit the offsets of the aborted transaction with the next one.
        first.rewind()
        publish(outbox, stage, next_batch(first))
        wait_for(lambda: stage.committed() == {owned: 10}, "only the new batch's offsets are committed")
        second.rewind()
        publish(outbox, stage, next_batch(second))
    found = examined(stage)
    assert found.sound, found


def share(first: ReviewSource, second: ReviewSource) -> int:
    """Poll both until each has one partition of the two, and give the one of the first. What is read is lost: whoever
    wants it goes back."""

    def turn(source: ReviewSource) -> None:
        try:
            source.poll(0.5, 1)
        except Rewind:
            source.rewind()

    def settled() -> bool:
        # At the same time, as workers do: a member whose invitation comes between two polls joins once more.
        list(threads.map(turn, (first, second)))
        return all(len(source._consumer.assignment()) == 1 and source.joined for source in (first, second))

    with ThreadPoolExecutor(2) as threads:
        wait_for(settled, "each member has a partition")
    (partition,) = first._consumer.assignment()
    return int(partition.partition)


@pytest.mark.parametrize("state", [MemberState.UNJOINED, MemberState.REBALANCING])
def test_what_was_read_without_a_membership_is_void(stage: Stage, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 3: the broker accepts generation -1, and a generation that is being replaced, without any fencing."""
    stage.publish([review(number) for number in range(10)])
    with opened_source(stage) as source:
        assert source._consumer.poll(0) is not None
        real = source._consumer.group_metadata
        lost = real()._replace(generation_id=-1 if state == MemberState.UNJOINED else 7, state=state)
        with monkeypatch.context() as patch:
            patch.setattr(source._consumer, "group_metadata", lambda: lost)
            wait_for(lambda: source.poll(0.2, 4) or source._void, "records are read")
            assert source._void
            assert source.poll(0, 4) is None
        messages = next_messages(source, 10)
        assert sorted((message.partition, message.offset) for message in messages) == [
            (partition, offset) for partition in (0, 1) for offset in range(5)
        ]


def test_after_a_rebalance_everything_starts_from_what_is_committed(stage: Stage) -> None:
    """Rule 3: the client keeps its position in a partition that it keeps, past or behind what others have committed."""
    stage.publish([review(number) for number in range(20)])
    publisher = KafkaProducer(bootstrap_servers=stage.address, transactional_id=f"{stage.name}-publisher")
    with opened_source(stage) as first, opened_outbox(stage) as outbox, opened_source(stage) as second:
        drain(first, outbox, stage)
        # Ten records more in each partition: they cannot be read yet, and another owner commits them as done.
        publisher.init_transactions()
        publisher.begin_transaction()
        for number in range(20):
            publisher.send(stage.input, value=review(number), partition=number % 2)
        publisher.flush()
        others = {TopicPartition(stage.input, number): OffsetAndMetadata(20, "", -1) for number in (0, 1)}
        outbox.publish([], others, first._consumer.group_metadata())
        share(first, second)
        publisher.commit_transaction()
        publisher.close(timeout=10)
        stage.publish([review(20), review(21)])
        read = [*next_messages(first, 1), *next_messages(second, 1)]
    # Offset 20 has the marker of the transaction.
    assert sorted((message.partition, message.offset) for message in read) == [(0, 21), (1, 21)]


@pytest.mark.parametrize(("member", "seconds"), [("dynamic", "8"), ("static", "0.3")])
def test_a_worker_that_was_stalled_past_its_session_repeats_nothing(
    stage: Stage, start_stub: StartStub, member: str, seconds: str
) -> None:
    """Rule 3, W4: while it stands still another one takes over; when it wakes up its batch in hand is void. With 8 s to
    score a batch, the client learns of it first, and would commit without any membership."""
    stage.publish([review(number) for number in range(600)])
    common = {
        "WORKER_KAFKA__SESSION_TIMEOUT_SECONDS": "2",
        "WORKER_KAFKA__REQUEST_TIMEOUT_SECONDS": "2",
        "WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS": "5",
        "WORKER_BATCH__MAX_REVIEWS": "10",
    }

    def start(name: str, **extra: str) -> StubWorker:
        names = {"WORKER_KAFKA__TRANSACTIONAL_ID": f"{stage.name}-{name}"}
        names["WORKER_KAFKA__GROUP_INSTANCE_ID"] = f"{stage.name}-{name}" if member == "static" else ""
        return start_stub(name, **common, **names, **extra)

    stalled = start("stalled", STUB_SECONDS=seconds)
    wait_for(lambda: any("partitions" in line for line in stalled.lines), "the first one has partitions")
    time.sleep(1)
    stalled.signal(signal.SIGSTOP)
    start("other")
    stage.wait_until_drained(60)
    stalled.signal(signal.SIGCONT)
    wait_for(lambda: stalled.process.poll() is not None or went_back(stalled), "the first one notices")
    stalled.kill()
    stage.publish([review(number) for number in range(100)])
    stage.wait_until_drained(60)
    found = examined(stage)
    assert found.sound, found
    assert found.predictions == 700


def went_back(worker: StubWorker) -> bool:
    return any(line["event"] == "going back to the committed offsets" for line in worker.lines)


# === 4 and 5: what is read, and what is committed of it ===


def publish_in_transactions(stage: Stage, ends: str) -> KafkaProducer:
    """One record to partition 0 for each letter: committed, aborted, or left open. The caller closes the producer."""
    producer = KafkaProducer(bootstrap_servers=stage.address, transactional_id=f"{stage.name}-publisher")
    producer.init_transactions()
    for number, end in enumerate(ends):
        producer.begin_transaction()
        producer.send(stage.input, value=review(number), partition=0).get(timeout=30)
        if end == "c":
            producer.commit_transaction()
        elif end == "a":
            producer.abort_transaction()
    return producer


def test_only_committed_records_are_read_from_the_oldest_on_and_nothing_is_committed_by_itself(stage: Stage) -> None:
    """Rule 4: the client's defaults are read_uncommitted, auto-commit, and the newest record first."""
    publisher = publish_in_transactions(stage, "cacao")
    try:
        with opened_source(stage) as source:
            texts = [json.loads(message.value or b"")["review_id"] for message in next_messages(source, 2)]
            assert texts == ["r0", "r2"]
            assert source.poll(1, 10) is None or texts == ["r0", "r2"]
            assert source._consumer.config["enable_auto_commit"] is False
        assert stage.committed() == {}
    finally:
        publisher.close(timeout=10)


def test_committed_offsets_are_read_only_when_no_commit_of_them_is_under_way(stage: Stage) -> None:
    """Rule 4: a consumer that is not read_committed is given the offsets before the pending ones, and reads twice."""
    stage.publish([review(number) for number in range(10)])
    with opened_outbox(stage) as outbox:
        with opened_source(stage) as source:
            batch = next_batch(source)
            producer = outbox._producer
            producer.begin_transaction()
            outbox._send(answers(stage, batch))
            producer.send_offsets_to_transaction(batch.positions, batch.membership)
        with opened_source(stage, request_timeout_seconds=1) as successor:
            for _ in range(2):
                with pytest.raises(Rewind, match=r"cannot be read yet|the group has changed"):
                    poll_nothing(successor)
                successor.rewind()
            producer.commit_transaction()
            stage.publish([review(10)])
            assert [message.offset for message in next_messages(successor, 1)] == [5]


def poll_nothing(source: ReviewSource) -> None:
    """Until it is told to go back."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert source.poll(0.2, 10) is None


def test_positions_count_the_markers_of_transactions(stage: Stage) -> None:
    """Rule 5: last offset plus one would leave a lag for ever, and three fields are what the call takes."""
    publish_in_transactions(stage, "ccaa").close(timeout=10)
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        drain(source, outbox, stage)
    assert stage.committed() == {0: 8, 1: 0}
    assert len(visible(stage, stage.dead)) == 2


# === 6: after an error ===


def test_after_an_aborted_batch_its_records_come_again(stage: Stage) -> None:
    """Rule 6: nothing goes back by itself."""
    stage.publish([review(number) for number in range(20)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        publish(outbox, stage, next_batch(source, most=4))
        batch = next_batch(source, most=4)
        stale = batch.membership._replace(generation_id=batch.membership.generation_id + 5)
        with pytest.raises(Rewind) as rewind:
            outbox.publish(answers(stage, batch), batch.positions, stale)
        assert rewind.value.outcome == "aborted"
        source.rewind()
        drain(source, outbox, stage)
    found = examined(stage)
    assert found.sound, found
    assert found.dead_letters == 20


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_whose_reply_is_lost_is_settled_before_going_on(stage: Stage, landed: bool) -> None:
    """Rule 6: going on from the start of the batch would repeat it when the commit had landed, and from its end lose it
    when it had not."""
    stage.publish([review(number) for number in range(20)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source, most=4)
        commit = outbox._producer.commit_transaction

        def commit_without_reply() -> None:
            if landed:
                commit()
            raise KafkaTimeoutError("as if the reply was lost")

        outbox._producer.commit_transaction = commit_without_reply
        with pytest.raises(Rewind) as rewind:
            publish(outbox, stage, batch)
        assert rewind.value.outcome == "unknown"
        source.rewind()
        drain(source, outbox, stage)
    found = examined(stage)
    assert found.sound, found
    assert found.dead_letters == 20


def test_a_broker_that_freezes_during_a_commit_leaves_no_doubt_behind(fragile_broker: Broker, fragile: Stage) -> None:
    """Rule 6: the client gives up after its request time-out; the broker may commit all the same when it wakes up."""
    fragile.publish([review(number) for number in range(20)])
    quick = {"request_timeout_seconds": 1, "transaction_timeout_seconds": 20}
    with opened_source(fragile) as source, opened_outbox(fragile, **quick) as outbox, ExitStack() as thawing:
        batch = next_batch(source, most=4)
        commit = outbox._producer.commit_transaction

        def freeze_and_commit() -> None:
            thaw = ExitStack()
            thaw.enter_context(paused(fragile_broker))
            thawing.callback(thaw.close)
            timer = Timer(3, thaw.close)
            timer.start()
            thawing.callback(timer.join)
            commit()

        outbox._producer.commit_transaction = freeze_and_commit
        with pytest.raises(Rewind) as rewind:
            publish(outbox, fragile, batch)
        assert rewind.value.outcome == "unknown"
        source.rewind()
        drain(source, outbox, fragile)
    found = examined(fragile)
    assert found.sound, found
    assert found.dead_letters == 20


@pytest.mark.parametrize("records", [10, 3_000])
def test_a_worker_whose_transactional_id_was_taken_leaves(stage: Stage, records: int) -> None:
    """Rule 6: fencing is final; opening again would only fence the other. In a large batch the client comes upon its
    own error state first, and raises that."""
    stage.publish([review(number) for number in range(records)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source, most=records)
        with opened_outbox(stage) as successor:
            many = answers(stage, batch) * (1 if records < 100 else 3)
            with pytest.raises(BrokerError, match=f"transactional id {stage.name}-tx"):
                outbox.publish(many, batch.positions, batch.membership)
            publish(successor, stage, batch)
            drain(source, successor, stage)
    found = examined(stage)
    assert found.sound, found


# === 7: records that cannot be decoded ===


def test_records_are_taken_as_bytes(stage: Stage) -> None:
    """Rule 7: a deserializer that raises makes the next poll spin for ever."""
    values: list[bytes | None] = [b"\xff\xfe", None, b"{", review(1)]
    stage.publish(values, [b"\xfd", b"k", b"k", b"k"])
    with opened_source(stage) as source:
        read = in_time(lambda: next_messages(source, 4))
    assert {message.value for message in read} == set(values)
    assert b"\xfd" in {message.key for message in read}


def corrupt_count(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("review_worker_corrupt_records_total") or 0


def test_a_corrupt_record_is_stepped_over_and_counted(stage: Stage) -> None:
    """Rule 7: a header's name that is not UTF-8 is legal for the broker; what stands behind it in its record batch goes
    with it, everything else is read."""
    stage.publish([review(number) for number in range(4)])
    produce_raw(
        stage.address,
        stage.input,
        0,
        [(None, review(4), []), (None, review(5), [(BAD_KEY, b"x")]), (None, review(6), [])],
    )
    stage.publish([review(number) for number in range(7, 11)])
    metrics = Metrics()
    with opened_source(stage, metrics) as source, opened_outbox(stage) as outbox:
        in_time(lambda: drain(source, outbox, stage), 30)
        assert corrupt_count(metrics) == 2
    scored = [dict(record.headers) for record in visible(stage, stage.dead)]
    offsets = [
        int(headers["__connect.errors.offset"]) for headers in scored if headers["__connect.errors.partition"] == b"0"
    ]
    assert sorted(offsets) == [0, 1, 2, 5, 6]
    assert len(scored) == 9


def test_going_back_to_a_corrupt_record_does_not_spin(stage: Stage) -> None:
    """Rule 7: polled again at the same offset, the client would wait for ever for what it holds of the batch."""
    stage.publish([review(0), review(1)])
    metrics = Metrics()
    with opened_outbox(stage) as outbox, ExitStack() as stack:
        source = stack.enter_context(opened_source(stage, metrics))
        drain(source, outbox, stage)
        produce_raw(stage.address, stage.input, 0, [(None, review(2), [(BAD_KEY, b"x")])])
        wait_for(lambda: source.poll(0.2, 10) or corrupt_count(metrics), "the corrupt record is met")
        source.rewind()
        stage.publish([review(3), review(4)])
        read = in_time(lambda: next_messages(source, 2))
    assert sorted((message.partition, message.offset) for message in read) == [(0, 2), (1, 1)]


def test_a_compressed_batch_that_only_java_can_read_is_stepped_over(stage: Stage) -> None:
    """Rule 7: Java ignores what stands behind a gzip stream, so the broker takes the batch; Python's gzip does not."""
    records = [(None, review(number), []) for number in range(3)]
    produce_raw(stage.address, stage.input, 0, records, compression=GZIP, trailer=b"what is this")
    stage.publish([review(number) for number in range(4)])
    metrics = Metrics()
    with opened_source(stage, metrics) as source:
        read = in_time(lambda: next_messages(source, 4))
    assert sorted((message.partition, message.offset) for message in read) == [(0, 3), (0, 4), (1, 0), (1, 1)]
    assert corrupt_count(metrics) == 3


def test_an_error_of_the_fetch_itself_skips_no_record(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 7: the broker answers with the same class when it cannot read its own log; no record is at fault then."""
    from kafka.errors import CorruptRecordError

    stage.publish([review(number) for number in range(4)])
    with opened_source(stage) as source:
        read = [next_batch(source, most=1).messages, next_batch(source, most=1).messages]

        def refuse(*_: Any, **__: Any) -> None:
            raise CorruptRecordError("Unexpected error while fetching data")

        with monkeypatch.context() as patch:
            patch.setattr(source._consumer, "poll", refuse)
            with pytest.raises(CorruptRecordError):
                source.poll(0.1, 10)
        read.append(next_messages(source, 2))
    assert len({(message.partition, message.offset) for messages in read for message in messages}) == 4


# === 8 to 10: rebalances, brokers and workers that go away and come back ===


def test_a_rebalance_only_ever_shows_as_going_back(stage: Stage) -> None:
    """Rule 8: a callback that blocks raises inside the client; there is none, and the poll says what has changed."""
    stage.publish([review(number) for number in range(40)])
    with opened_source(stage) as first, opened_outbox(stage) as outbox:
        publish(outbox, stage, next_batch(first, most=4))
        with opened_source(stage) as second:
            share(first, second)
            first.rewind()
            second.rewind()
            publish(outbox, stage, next_batch(first, most=4))
            publish(outbox, stage, next_batch(second, most=4))
        first.rewind()
        drain(first, outbox, stage)
    found = examined(stage)
    assert found.sound, found


def test_a_poll_that_finds_no_broker_is_an_empty_poll(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 9: the client raises what its connections raise."""
    stage.publish([review(1)])
    with opened_source(stage) as source:

        def refuse(*_: Any, **__: Any) -> None:
            raise KafkaConnectionError("111 ECONNREFUSED")

        with monkeypatch.context() as patch:
            patch.setattr(source._consumer, "poll", refuse)
            assert source.poll(0.1, 10) is None
        assert len(next_messages(source, 1)) == 1


def test_clients_look_for_a_broker_every_second(stage: Stage) -> None:
    """Rule 9: up to 30 s apart by default, so that a worker would sit idle after its broker is back."""
    assert client_options(settings_of(stage).kafka)["reconnect_backoff_max_ms"] <= 1000
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        assert source._consumer.config["reconnect_backoff_max_ms"] <= 1000
        assert outbox._producer.config["reconnect_backoff_max_ms"] <= 1000


def test_a_worker_goes_on_by_itself_after_its_broker_crashed(
    fragile_broker: Broker, fragile: Stage, start_on_fragile: StartStub
) -> None:
    """Rule 9, B2."""
    fragile.publish([review(number) for number in range(600)])
    worker = start_on_fragile("worker", STUB_SECONDS="0.1", WORKER_BATCH__MAX_REVIEWS="20")
    wait_for(lambda: sum(fragile.committed().values()) >= 60, "the worker commits")
    fragile_broker.kill()
    time.sleep(1)
    bring_back(fragile_broker)
    assert sum(fragile.committed().values()) < 600
    fragile.wait_until_drained(60)
    assert worker.process.poll() is None
    assert worker.stop() == 0
    found = examined(fragile)
    assert found.sound, found


def test_a_restarted_worker_has_its_partitions_back_before_its_session_ends(
    stage: Stage, start_stub: StartStub
) -> None:
    """Rule 10: without static membership the group would wait 45 s for the dead one."""
    stage.publish([review(number) for number in range(400)])
    usual = {"WORKER_KAFKA__SESSION_TIMEOUT_SECONDS": "45"}
    worker = start_stub("killed", STUB_SECONDS="0.1", WORKER_BATCH__MAX_REVIEWS="20", **usual)
    wait_for(lambda: sum(stage.committed().values()) >= 40, "the worker commits")
    worker.kill()
    assert sum(stage.committed().values()) < 400
    start_stub("restarted", **usual)
    stage.wait_until_drained(20)
    found = examined(stage)
    assert found.sound, found


def test_each_worker_of_a_machine_has_names_of_its_own_and_keeps_them() -> None:
    """Rule 10: the port is what two workers on one machine cannot share."""
    one, other = (load_settings(None, {"http": {"port": port}}) for port in (9108, 9109))
    assert one.transactional_id != other.transactional_id
    assert one.group_instance_id != other.group_instance_id
    assert one.transactional_id == load_settings(None, {"http": {"port": 9108}}).transactional_id


# === 11 to 15 ===


def test_no_record_outlives_its_transaction(stage: Stage) -> None:
    """Rule 11: by default a record is tried for twice as long as its transaction lasts."""
    with opened_outbox(stage) as outbox:
        config = outbox._producer.config
        assert config["delivery_timeout_ms"] <= config["transaction_timeout_ms"]


def test_closing_ends_although_the_broker_is_frozen(
    fragile_broker: Broker, fragile: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 11: without a time limit, a producer with a record under way is closed after its delivery time-out."""
    monkeypatch.setattr("worker.source.CLOSE_MS", 1_000)
    fragile.publish([review(1)])
    source, outbox = ReviewSource(settings_of(fragile), Metrics()), Outbox(settings_of(fragile))
    batch = next_batch(source)
    outbox._producer.partitions_for(fragile.dead)
    outbox._producer.begin_transaction()
    with paused(fragile_broker):
        outbox._producer.send(fragile.dead, value=batch.messages[0].value, partition=0)
        in_time(outbox.close, 10)
        in_time(source.close, 10)


def test_headers_without_a_value_are_not_passed_on(stage: Stage) -> None:
    """Rule 12: legal in Kafka, but the producer raises TypeError."""
    produce_raw(stage.address, stage.input, 0, [(b"k", review(1), [("a", None), ("traceparent", None)])])
    letters = Letters(stage.output, stage.dead)
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        (message,) = batch.messages
        assert message.headers == (("a", None), ("traceparent", None))
        prediction = Prediction(
            review_id="r1",
            label="positive",
            label_id=0,
            confidence=1.0,
            probabilities={"positive": 1.0},
            model=ModelName(name="m", version=1, digest="sha256:" + "0" * 64),
            source=message.source,
            tokens=3,
            truncated=False,
            scored_at=datetime(2026, 11, 23, tzinfo=UTC),
        )
        outbox.publish([letters.write(message, prediction)], batch.positions, batch.membership)
    (record,) = visible(stage, stage.output)
    assert not {"a", "traceparent"} & dict(record.headers).keys()


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """As it was, afterwards."""
    root, kafka = logging.getLogger(), logging.getLogger("kafka")
    before = root.level, root.handlers[:], kafka.level
    yield root
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    kafka.setLevel(before[2])


def test_payloads_stay_out_of_the_logs_at_any_level(
    stage: Stage, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rule 12: at DEBUG the client prints keys, values and headers."""
    start_logging("debug")
    stage.publish([review(1, "xyzzy")], [b"plugh"])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        publish(outbox, stage, next_batch(source))
    shown = capsys.readouterr().err
    assert "xyzzy" not in shown
    assert "plugh" not in shown


def test_lag_is_what_could_be_read_and_was_not(stage: Stage) -> None:
    """Rule 13: the high watermark counts the records of open transactions, so that the lag would never be 0."""
    publisher = publish_in_transactions(stage, "ccco")
    metrics = Metrics()
    try:
        with opened_source(stage, metrics) as source, opened_outbox(stage) as outbox:
            batch = next_batch(source, most=1)
            source.measure_lag()
            assert shown_lag(metrics, stage) == {0: 5, 1: 0}
            publish(outbox, stage, batch)
            drain(source, outbox, stage)
            source._measure_at = 0
            source.measure_lag()
            assert shown_lag(metrics, stage) == {0: 0, 1: 0}
    finally:
        publisher.close(timeout=10)


def shown_lag(metrics: Metrics, stage: Stage) -> dict[int, float | None]:
    name = "review_worker_lag_records"
    return {
        number: metrics.registry.get_sample_value(name, {"topic": stage.input, "partition": str(number)})
        for number in (0, 1)
    }


def test_what_is_fetched_ahead_is_bounded(stage: Stage) -> None:
    """Rule 14: decompression is not, and the defaults fetch 50 MB."""
    with opened_source(stage) as source:
        assert source._consumer.config["max_partition_fetch_bytes"] <= 1 << 20
        assert source._consumer.config["fetch_max_bytes"] <= 8 << 20


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_every_compression_of_kafka_is_read_and_written(stage: Stage, codec: str) -> None:
    """Rule 14: only gzip is built in."""
    producer = KafkaProducer(bootstrap_servers=stage.address, compression_type=codec, linger_ms=50)
    try:
        for number in range(20):
            producer.send(stage.input, value=review(number), partition=number % 2)
    finally:
        producer.close(timeout=10)
    with opened_source(stage) as source, opened_outbox(stage, compression=codec) as outbox:
        drain(source, outbox, stage)
    found = examined(stage)
    assert found.sound, found
    assert found.dead_letters == 20


def test_harmless_lines_of_the_client_are_dropped_and_no_others(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rule 15: they come with every orderly close and look like an outage."""
    start_logging("info")
    log = logging.getLogger("kafka.cluster")
    log.error("Metadata refresh loop error: weakly-referenced object no longer exists")
    log.error("Metadata refresh: failed Cancelled")
    log.error("Topic reviews not found in cluster metadata")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["Topic reviews not found in cluster metadata"]


def test_an_orderly_stop_looks_orderly(stage: Stage, start_stub: StartStub) -> None:
    """Rule 15."""
    stage.publish([review(number) for number in range(50)])
    worker = start_stub()
    stage.wait_until_drained(30)
    assert worker.stop() == 0
    assert {line["level"] for line in worker.lines} == {"info"}
    assert [line["event"] for line in worker.lines][-1] == "stopped"
