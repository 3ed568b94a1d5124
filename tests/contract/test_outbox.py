"""The outbox against a real broker: a batch is published whole or not at all, whatever the client makes of its errors.
The rules of the notes have tests of their own, in test_rules."""

import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import ACLOperation, ResourceType

from contract.pieces import (
    answer,
    answers,
    denied,
    drain,
    examined,
    next_batch,
    opened_outbox,
    opened_source,
    publish,
    review,
    settings_of,
    visible,
    wait_for,
)
from running import Stage
from worker.errors import BrokerError, Rewind
from worker.letters import Outgoing
from worker.outbox import Outbox
from worker.source import Batch, ReviewSource

pytestmark = pytest.mark.kafka

LATE_REQUEST_SECONDS = 1
"""In which a client would have sent what it sends by itself, fifty times its pause between two attempts."""


def nothing_is_visible(stage: Stage) -> bool:
    stage.settle()
    return not stage.read(stage.output) and not stage.read(stage.dead) and not any(stage.committed().values())


def halves(stage: Stage, batch: Batch) -> list[Outgoing]:
    """The first half to the output topic, the second to the dead letters."""
    middle = len(batch.messages) // 2
    return [
        answer(stage.output if number < middle else stage.dead, message)
        for number, message in enumerate(batch.messages)
    ]


def hold_back(outbox: Outbox, partition: TopicPartition) -> None:
    """Nothing goes to the partition, as if its leader was away; what waits for it expires after a second."""
    records = outbox._producer._accumulator
    records.muted.add(partition)
    records.config["delivery_timeout_ms"] = 1_000


def test_a_record_that_expires_takes_the_whole_batch_with_it(stage: Stage) -> None:
    """kafka-python commits what is left when a record has expired: here six would be sent, and three visible."""
    stage.publish([review(number) for number in range(6)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        hold_back(outbox, TopicPartition(stage.dead, 0))
        with pytest.raises(Rewind, match="KafkaTimeoutError") as rewind:
            outbox.publish(halves(stage, batch), batch.positions, batch.membership)
        assert rewind.value.outcome == "aborted"
        assert nothing_is_visible(stage)
        publish(outbox, stage, batch)
        stage.wait_until_drained(20)
    found = examined(stage)
    assert found.sound, found


def test_no_commit_is_asked_for_before_the_broker_has_every_record(stage: Stage) -> None:
    """When the broker has aborted the transaction and a record meets that while it is being committed, kafka-python's
    commit returns as if all was well."""
    stage.publish([review(number) for number in range(6)])
    held = TopicPartition(stage.dead, 0)
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        hold_back(outbox, held)
        commit = outbox._producer.commit_transaction

        def commit_what_is_aborted() -> None:
            with opened_outbox(stage):  # aborts what is open under this transactional id
                outbox._producer._accumulator.muted.discard(held)
                commit()

        outbox._producer.commit_transaction = commit_what_is_aborted
        with pytest.raises(Rewind, match="KafkaTimeoutError"):
            outbox.publish(halves(stage, batch), batch.positions, batch.membership)
        assert nothing_is_visible(stage)


def test_a_worker_that_shares_its_instance_id_leaves_and_its_batch_with_it(stage: Stage) -> None:
    """The fenced one is told by nothing else: it goes on reading, and believes to be a member."""
    stage.publish([review(number) for number in range(6)])
    twin = {"group_instance_id": "twin"}
    with opened_source(stage, **twin) as source, opened_outbox(stage, **twin) as outbox:
        batch = next_batch(source)
        with opened_source(stage, **twin) as successor:
            same = next_batch(successor)
            given_up = partial(source.has_left, batch.membership)
            with pytest.raises(BrokerError, match="another worker uses the group instance id twin"):
                outbox.publish(answers(stage, batch), batch.positions, batch.membership, given_up)
            # The same transactional id: what the first one left open is aborted.
            with opened_outbox(stage) as other:
                publish(other, stage, same)
                stage.wait_until_drained(20)
    found = examined(stage)
    assert found.sound, found


def test_a_worker_whose_transactional_id_is_taken_in_the_midst_of_its_records_leaves(stage: Stage) -> None:
    """The broker says INVALID_PRODUCER_EPOCH to a record where it says PRODUCER_FENCED to a commit. Whoever starts over
    then shuts out the newer worker; so does kafka-python, by itself, while that one has a transaction open."""
    stage.publish([review(number) for number in range(6)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox, ExitStack() as others:
        batch = next_batch(source)
        records = answers(stage, batch)
        begin, newer = outbox._producer.begin_transaction, []

        def begin_and_be_overtaken() -> None:
            begin()
            # Every partition takes part before the other one comes: what the broker hears next are records.
            outbox._send(records)
            newer.append(others.enter_context(opened_outbox(stage)))
            newer[0]._producer.begin_transaction()
            newer[0]._send(records)

        outbox._producer.begin_transaction = begin_and_be_overtaken
        with pytest.raises(BrokerError, match=f"another worker uses the transactional id {stage.name}-tx"):
            outbox.publish(records, batch.positions, batch.membership)
        time.sleep(LATE_REQUEST_SECONDS)
        newer[0]._producer.send_offsets_to_transaction(batch.positions, batch.membership)
        newer[0]._producer.commit_transaction()
        stage.wait_until_drained(20)
    found = examined(stage)
    assert found.sound, found


def poll_for(source: ReviewSource, seconds: float) -> None:
    """Whatever comes of it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        source.poll(0.2, 100)


def test_a_worker_that_has_joined_again_itself_goes_back_and_stays(stage: Stage) -> None:
    """It was shut out of the group and joined it anew while its commit was under way: the broker says the same as of a
    twin, since the instance id has a new member."""
    stage.publish([review(number) for number in range(6)])
    with opened_source(stage, group_instance_id="one") as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        assert not source.has_left(batch.membership)
        source._consumer._coordinator.reset_generation()
        with pytest.raises(Rewind, match="the group has changed"):
            poll_for(source, 20)
        given_up = partial(source.has_left, batch.membership)
        with pytest.raises(Rewind, match="FencedInstanceIdError") as rewind:
            outbox.publish(answers(stage, batch), batch.positions, batch.membership, given_up)
        assert rewind.value.outcome == "aborted"
        assert nothing_is_visible(stage)
        source.rewind()
        publish(outbox, stage, next_batch(source))
        stage.wait_until_drained(20)
    found = examined(stage)
    assert found.sound, found


def test_an_output_record_that_is_too_large_stops_the_worker_and_commits_nothing(stage: Stage) -> None:
    """D5: trying again cannot help; which topics to change is said."""
    stage.publish([review(number) for number in range(4)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        # Random: compressed it would fit.
        large = Outgoing(stage.output, 0, None, os.urandom(2_000_000), [])
        with pytest.raises(BrokerError, match=f"max.message.bytes of {stage.dead} and {stage.output}"):
            outbox.publish([*answers(stage, batch), large], batch.positions, batch.membership)
    with opened_outbox(stage):
        assert nothing_is_visible(stage)


def test_records_of_one_key_and_records_without_one_stay_in_order(stage: Stage) -> None:
    stage.publish([review(number) for number in range(100)], [b"k" if n % 3 == 0 else None for n in range(100)])
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        drain(source, outbox, stage, topic=stage.output, most=9)
    placed: dict[bytes, set[int]] = {}
    for record in visible(stage, stage.output):
        headers = dict(record.headers)
        name = record.key or b"none from " + headers["__connect.errors.partition"]
        placed.setdefault(name, set()).add(record.partition)
    assert {name: len(partitions) for name, partitions in placed.items()} == {
        b"k": 1,
        b"none from 0": 1,
        b"none from 1": 1,
    }
    for partition in (0, 1):
        offsets = [
            int(dict(record.headers)["__connect.errors.offset"])
            for record in visible(stage, stage.output)
            if dict(record.headers)["__connect.errors.partition"] == str(partition).encode() and record.key is None
        ]
        assert offsets == sorted(offsets)


def test_a_batch_of_offsets_only_is_committed(stage: Stage) -> None:
    """Positions that only crossed transaction markers: without a commit the lag would stay."""
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        outbox.publish([], batch.positions, batch.membership)
    wait_for(lambda: stage.committed() == {0: 0, 1: 0}, "the offsets are committed")


def test_a_transaction_time_out_above_the_brokers_is_one_clear_line(stage: Stage) -> None:
    with pytest.raises(BrokerError, match="WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS is above"):
        Outbox(too_patient(stage))


def too_patient(stage: Stage) -> Any:
    """The settings allow what Kafka allows by default, 15 minutes; a broker may allow less."""
    settings = settings_of(stage)
    kafka = settings.kafka.model_copy(update={"transaction_timeout_seconds": 1_000})
    return settings.model_copy(update={"kafka": kafka})


# === Rights ===


@pytest.mark.parametrize("right", [ACLOperation.DESCRIBE, ACLOperation.WRITE])
def test_a_topic_that_may_not_be_written_stops_the_worker_and_commits_nothing(
    fragile: Stage, right: ACLOperation
) -> None:
    """D5. A send to a topic that may not be described fails in its future alone; the client would commit the rest."""
    fragile.publish([review(number) for number in range(6)], [b"k"] * 6)
    with opened_source(fragile) as source, opened_outbox(fragile) as outbox:
        batch = next_batch(source)
        with (
            denied(fragile, ResourceType.TOPIC, fragile.dead, right),
            pytest.raises(BrokerError, match=rf"refuses to let this worker publish.*{fragile.dead}"),
        ):
            outbox.publish(halves(fragile, batch), batch.positions, batch.membership)
    with opened_outbox(fragile):
        assert nothing_is_visible(fragile)


def test_a_transactional_id_that_may_not_be_used_stops_the_worker(fragile: Stage) -> None:
    with (
        denied(fragile, ResourceType.TRANSACTIONAL_ID, f"{fragile.name}-tx", ACLOperation.WRITE),
        pytest.raises(BrokerError, match=r"refuses to let this worker publish.*TransactionalId"),
    ):
        Outbox(settings_of(fragile))


def test_a_group_that_may_not_be_read_stops_the_worker(fragile: Stage) -> None:
    with (
        denied(fragile, ResourceType.GROUP, fragile.name, ACLOperation.READ),
        opened_source(fragile) as source,
        pytest.raises(BrokerError, match="refuses to let this worker read"),
    ):
        next_batch(source)
