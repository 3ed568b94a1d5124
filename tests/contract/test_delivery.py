"""Delivery against a real broker: whole record batches, divided where the broker wants smaller ones, and no record
lost, repeated or out of order on the way."""

import os
import time

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from contract.pieces import next_batch, opened_outbox, opened_source, visible
from running import Stage
from worker.delivery import BATCH_BYTES, Delivery
from worker.letters import Outgoing
from worker.outbox import Outbox

pytestmark = pytest.mark.kafka

PATIENCE = 60


def numbered(stage: Stage, count: int, size: int = 10, keys: int = 0) -> list[Outgoing]:
    """So many records, the number in the value; random, so that they stay as large as they are."""
    return [
        Outgoing(
            stage.output,
            number % 2,
            f"k{number % keys}".encode() if keys else None,
            f"{number} ".encode() + os.urandom(size),
            [("number", str(number).encode()), ("empty", b"")],
        )
        for number in range(count)
    ]


def number_of(value: bytes) -> int:
    return int(value.partition(b" ")[0])


def send(outbox: Outbox, records: list[Outgoing]) -> list[KafkaError]:
    """In a transaction that stays open."""
    outbox._producer.begin_transaction()
    delivery = Delivery(outbox._producer)
    delivery.send(records)
    return delivery.failures(time.monotonic() + PATIENCE)


def deliver(outbox: Outbox, records: list[Outgoing]) -> list[KafkaError]:
    """In a transaction that is committed where nothing fails."""
    failures = send(outbox, records)
    if not failures:
        outbox._producer.commit_transaction()
    return failures


def test_records_arrive_as_they_were_given_and_in_their_order(stage: Stage) -> None:
    given = numbered(stage, 500, keys=7)
    with opened_outbox(stage) as outbox:
        assert deliver(outbox, given) == []

    found = visible(stage, stage.output)

    assert sorted(number_of(record.value) for record in found) == list(range(500))
    for record in found:
        sent = given[number_of(record.value)]
        assert (record.key, record.value, record.headers) == (sent.key, sent.value, sent.headers)
    for partition in (0, 1):
        numbers = [number_of(record.value) for record in found if record.partition == partition]
        assert numbers == sorted(numbers)


def test_a_key_goes_where_other_clients_put_it(stage: Stage) -> None:
    keys = [os.urandom(length) for length in range(1, 40)]
    with opened_outbox(stage) as outbox:
        assert deliver(outbox, [Outgoing(stage.output, 0, key, b"ours", []) for key in keys]) == []
    producer = KafkaProducer(bootstrap_servers=stage.address)
    try:
        for key in keys:
            producer.send(stage.output, key=key, value=b"theirs")
    finally:
        producer.close(timeout=10)

    found = visible(stage, stage.output)

    ours, theirs = (
        {record.key: record.partition for record in found if record.value == who} for who in (b"ours", b"theirs")
    )
    assert ours == theirs
    assert set(ours.values()) == {0, 1}


def test_what_is_larger_than_one_batch_becomes_several(stage: Stage) -> None:
    given = numbered(stage, 60, size=BATCH_BYTES // 8)
    with opened_outbox(stage) as outbox:
        assert deliver(outbox, given) == []

    found = visible(stage, stage.output)

    assert [number_of(record.value) for record in found if record.partition == 0] == list(range(0, 60, 2))
    assert [number_of(record.value) for record in found if record.partition == 1] == list(range(1, 60, 2))


def test_a_batch_that_the_broker_finds_too_large_is_divided_until_it_is_not(stage: Stage) -> None:
    """By default a broker takes 1 MiB; a topic may have another limit. Nothing of it may be lost or come twice."""
    stage.configure(stage.output, max_message_bytes=20_000)
    given = numbered(stage, 300, size=1_000)
    with opened_outbox(stage) as outbox:
        assert deliver(outbox, given) == []
        assert deliver(outbox, given[:1]) == []  # the sequence goes on where it should

    found = visible(stage, stage.output)

    numbers = [number_of(record.value) for record in found if record.partition == 0]
    assert numbers == [*range(0, 300, 2), 0]
    assert [number_of(record.value) for record in found if record.partition == 1] == list(range(1, 300, 2))


def test_of_a_divided_batch_the_record_at_fault_is_told(stage: Stage) -> None:
    stage.configure(stage.output, max_message_bytes=20_000)
    given = numbered(stage, 100, size=1_000)
    given[40] = Outgoing(stage.output, 0, None, os.urandom(30_000), [])
    with opened_outbox(stage) as outbox:
        failures = send(outbox, given)
        outbox._reopen()  # which aborts

    assert any(isinstance(failure, MessageSizeTooLargeError) for failure in failures)
    assert visible(stage, stage.output) == []


def test_without_an_answer_in_time_a_record_has_failed(stage: Stage) -> None:
    with opened_outbox(stage) as outbox:
        outbox._producer._accumulator.muted.add(TopicPartition(stage.output, 0))
        outbox._producer.begin_transaction()
        delivery = Delivery(outbox._producer)
        delivery.send(numbered(stage, 4))
        failures = delivery.failures(time.monotonic() + 2)

        assert [type(failure) for failure in failures] == [KafkaTimeoutError]
        outbox._producer._accumulator.muted.clear()
        outbox._producer._sender.wakeup()
        assert delivery.failures(time.monotonic() + PATIENCE) == []
        outbox._producer.abort_transaction()


def test_several_batches_of_one_partition_fail_together(stage: Stage) -> None:
    """The broker takes the second only behind the first: what is left of a transaction is never committed."""
    stage.configure(stage.output, max_message_bytes=20_000)
    records = [Outgoing(stage.output, 0, None, os.urandom(BATCH_BYTES), []) for _ in range(3)]
    with opened_source(stage) as source, opened_outbox(stage) as outbox:
        batch = next_batch(source)
        failures = send(outbox, records)
        assert len(failures) == 3
        outbox._reopen()
        outbox.publish([], batch.positions, batch.membership)
    assert visible(stage, stage.output) == []
