"""The source against a real broker: where it begins, where it refuses to go on, and what it does when the group or the
topic changes. The rules of the notes have tests of their own, in test_rules."""

import os
import time
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import MemberState

import worker.source
from contract.pieces import (
    bring_back,
    drain,
    next_batch,
    next_messages,
    opened_outbox,
    opened_source,
    publish,
    review,
    settings_of,
    visible,
    wait_for,
)
from running import Broker, Stage
from worker.errors import BrokerError, Rewind
from worker.metrics import Metrics
from worker.source import ReviewSource

pytestmark = pytest.mark.kafka


def delete_before(stage: Stage, offset: int) -> None:
    """As retention does, in both partitions."""
    admin = KafkaAdminClient(bootstrap_servers=stage.address)
    try:
        admin.delete_records({TopicPartition(stage.input, number): offset for number in (0, 1)})
    finally:
        admin.close()


def test_a_new_group_begins_with_the_oldest_record_that_is_left(stage: Stage) -> None:
    stage.publish([review(number) for number in range(10)])
    delete_before(stage, 3)
    with opened_source(stage) as source:
        assert {message.offset for message in next_messages(source, 4)} == {3, 4}


def test_records_that_were_deleted_before_they_were_scored_stop_the_worker(stage: Stage) -> None:
    """G1: with a reset to the oldest or the newest record it would go on as if nothing was missing."""
    stage.publish([review(number) for number in range(10)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source, most=2)
        publish(outbox, stage, batch)
        committed = wait_for(stage.committed, "the batch is committed")
    delete_before(stage, 4)
    with opened_source(stage) as source:
        with pytest.raises(
            BrokerError, match=r"the records at the group's position are gone .*--reset-offsets"
        ) as error:
            next_messages(source, 1)
        assert stage.input in str(error.value)
    assert stage.committed() == committed


def test_records_that_the_broker_lost_after_they_were_read_stop_the_worker(
    fragile_broker: Broker, fragile: Stage
) -> None:
    """Going on at the old position would leave out whatever is written in their place."""
    for _ in range(2):
        fragile.publish([review(number) for number in range(10)])
    with opened_source(fragile) as source:
        assert len(next_messages(source, 20)) == 20
        fragile_broker.kill()
        for log in (fragile_broker.data / "data").glob(f"{fragile.input}-*/*.log"):
            os.truncate(log, log.stat().st_size - 1)  # a torn record batch: the broker drops it as it recovers
        bring_back(fragile_broker)
        with pytest.raises(BrokerError, match=r"has lost records that this worker has read .*--reset-offsets") as error:
            next_messages(source, 1)
        assert fragile.input in str(error.value)
        assert max(fragile.ends(fragile.input).values()) < 10


def test_an_idle_partition_is_committed_at_its_beginning(stage: Stage) -> None:
    """So that lag and autoscalers start from a fact; nothing else is committed when there is nothing new."""
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        assert batch.messages == []
        outbox.publish([], batch.positions, batch.membership)
        wait_for(lambda: stage.committed() == {0: 0, 1: 0}, "both are committed")
        assert source.poll(0.5, 10) is None


def test_a_poll_brings_no_more_than_it_was_asked_for(stage: Stage) -> None:
    stage.publish([review(number) for number in range(50)])
    with opened_source(stage) as source:
        sizes = [len(next_batch(source, most=7).messages) for _ in range(8)]
    assert max(sizes) <= 7
    assert sum(sizes) == 50


def test_a_message_has_what_the_record_had(stage: Stage) -> None:
    before = time.time() * 1000 - 60_000
    stage.publish([b"v"], [b"k"])
    with opened_source(stage) as source:
        (message,) = next_messages(source, 1)
    assert (message.topic, message.offset, message.key, message.value) == (stage.input, 0, b"k", b"v")
    assert message.headers == ()
    assert before < message.timestamp_ms < before + 120_000
    assert "b'v'" not in repr(message)


def test_partitions_that_are_added_are_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """G2."""
    monkeypatch.setattr(worker.source, "METADATA_MS", 300)
    stage.publish([review(number) for number in range(4)])
    with opened_source(stage, session_timeout_seconds=2) as source:
        assert len(next_messages(source, 4)) == 4
        admin = KafkaAdminClient(bootstrap_servers=stage.address)
        try:
            admin.create_partitions({stage.input: 4})
        finally:
            admin.close()
        more = Stage(stage.address, 4, stage.name)
        wait_for(lambda: set(more.ends(stage.input)) == {0, 1, 2, 3}, "the broker has made them")
        more.publish([review(number) for number in range(8)])
        seen: set[tuple[int, int]] = set()

        def busy_turn() -> bool:
            try:
                batch = source.poll(0.05, 10)
            except Rewind:
                source.rewind()
            else:
                seen.update((message.partition, message.offset) for message in (batch.messages if batch else ()))
            time.sleep(0.3)
            return {(2, 0), (2, 1), (3, 0), (3, 1)} <= seen

        wait_for(busy_turn, "the new partitions are read")


def test_a_member_that_is_stuck_between_two_generations_joins_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client that leads its group may stop half-way when partitions are added, and would stay so for ever."""
    stage.publish([review(number) for number in range(4)])
    with opened_source(stage, session_timeout_seconds=1) as source:
        assert len(next_messages(source, 4)) == 4
        consumer = source._consumer
        stuck = consumer.group_metadata()._replace(state=MemberState.REBALANCING)
        left: list[bool] = []
        leave = consumer.unsubscribe

        def unsubscribe() -> None:
            left.append(True)
            leave()

        with monkeypatch.context() as patch:
            patch.setattr(consumer, "group_metadata", lambda: stuck)
            patch.setattr(consumer, "unsubscribe", unsubscribe)
            began = time.monotonic()
            wait_for(lambda: source.poll(0.1, 10) or left, "it leaves")
            assert time.monotonic() - began > 1
        assert len(next_messages(source, 4)) == 4


def test_a_session_that_the_broker_does_not_allow_is_one_clear_line(stage: Stage) -> None:
    """The shared broker allows 1 s to 30 minutes."""
    with opened_source(stage) as source:
        source._consumer._coordinator.config["session_timeout_ms"] = 500
        with pytest.raises(BrokerError, match="WORKER_KAFKA__SESSION_TIMEOUT_SECONDS"):
            next_batch(source)


def test_it_is_ready_as_a_member_and_not_before(stage: Stage) -> None:
    with opened_source(stage) as source:
        assert not source.joined
        next_batch(source)
        assert source.joined


def test_lag_is_measured_at_most_every_five_seconds(stage: Stage) -> None:
    stage.publish([review(number) for number in range(4)])
    metrics = Metrics()
    with opened_source(stage, metrics) as source:
        next_messages(source, 4)
        asked: list[Any] = []
        ends = source._consumer.end_offsets
        source._consumer.end_offsets = lambda *given, **named: asked.append(given) or ends(*given, **named)
        for _ in range(20):
            source.measure_lag()
    assert len(asked) == 1


def test_a_broker_that_is_away_holds_no_turn_up_for_the_lag(stage: Stage) -> None:
    from kafka.errors import KafkaTimeoutError

    with opened_source(stage, request_timeout_seconds=15) as source:
        next_batch(source)
        waited: list[float] = []

        def nobody_answers(_: Any, timeout_ms: float) -> None:
            waited.append(timeout_ms)
            raise KafkaTimeoutError

        source._consumer.end_offsets = nobody_answers
        source.measure_lag()
        source.measure_lag()
    assert len(waited) == 1
    assert waited[0] <= 1_000


def test_a_partition_that_brings_nothing_although_it_has_records_ends_the_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kafka-python did when it forgot to fetch a partition that it had kept."""
    monkeypatch.setattr(worker.source, "LAG_INTERVAL_SECONDS", 0.2)
    stage.publish([review(number) for number in range(4)])
    settings = settings_of(stage)
    watchdog = settings.watchdog.model_copy(update={"partition_seconds": 1.5})
    source = ReviewSource(settings.model_copy(update={"watchdog": watchdog}), Metrics())
    try:
        assert len(next_messages(source, 4)) == 4
        forgotten = TopicPartition(stage.input, 1)
        source._consumer.pause(forgotten)
        # The other one goes on, and still it is noticed.
        stage.publish([review(number) for number in range(4)])
        began = time.monotonic()

        def turns() -> None:
            while time.monotonic() < began + 20:
                source.poll(0.05, 10)
                source.measure_lag()

        with pytest.raises(BrokerError, match="partition 1 has records behind offset 2, but none came for 2 s"):
            turns()
        assert time.monotonic() - began > 1.5
    finally:
        source.close()


def test_offsets_that_no_transaction_can_hold_back_for_so_long_end_the_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction whose end was decided and that has no marker holds them back for ever, as one here that outlives
    its worker's limit by far; once it is gone, the next worker goes on."""
    monkeypatch.setattr(worker.source, "HANGING_SECONDS", 1.0)
    stage.publish([review(number) for number in range(4)])
    with opened_outbox(stage) as outbox:
        with opened_source(stage) as source:
            batch = next_batch(source)
            outbox._producer.begin_transaction()
            outbox._producer.send_offsets_to_transaction(batch.positions, batch.membership)
        with opened_source(stage, request_timeout_seconds=1, transaction_timeout_seconds=5) as successor:

            def turns() -> None:
                began = time.monotonic()
                while time.monotonic() < began + 60:
                    try:
                        successor.poll(0.2, 10)
                    except Rewind:
                        successor.rewind()

            with pytest.raises(BrokerError, match=r"could not be read for 1\d s: .* Hanging transactions in deploy"):
                turns()
        outbox._producer.abort_transaction()
        with opened_source(stage) as successor:
            assert len(next_messages(successor, 4)) == 4


def test_a_partition_that_waits_for_its_turn_is_not_stuck(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others are read, a poll is never empty: nothing says that the waiting one was forgotten."""
    monkeypatch.setattr(worker.source, "LAG_INTERVAL_SECONDS", 0.1)
    stage.publish([review(number) for number in range(400)])
    settings = settings_of(stage)
    watchdog = settings.watchdog.model_copy(update={"partition_seconds": 1})
    source = ReviewSource(settings.model_copy(update={"watchdog": watchdog}), Metrics())
    try:
        read = len(next_messages(source, 1))
        while read < 400:
            batch = source.poll(1, 10)
            read += len(batch.messages) if batch else 0
            source.measure_lag()
            time.sleep(0.1)
    finally:
        source.close()


def test_a_worker_that_stays_keeps_its_membership_without_reading(stage: Stage) -> None:
    """Its poll time-out is 1 s here, and what it has in hand takes 4."""
    stage.publish([review(number) for number in range(4)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        source._consumer.config["max_poll_interval_ms"] = 1_000
        source._consumer._coordinator.config["max_poll_interval_ms"] = 1_000
        batch = next_batch(source, most=2)
        for _ in range(16):
            source.stay()
            time.sleep(0.25)
        publish(outbox, stage, batch)
        drain(source, outbox, stage)
    assert sorted(len(visible(stage, topic)) for topic in (stage.output, stage.dead)) == [0, 4]
