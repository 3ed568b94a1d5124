"""`replay` against a real broker: every dead letter goes back at most once, whatever is chosen in whatever order, and
whoever dies or gets in the way meanwhile."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event, Timer
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACLOperation, ResourceType
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaTimeoutError,
    TransactionalIdNotFoundError,
)
from kafka.structs import OffsetAndMetadata

from contract.pieces import (
    BAD_KEY,
    StubWorker,
    administration,
    denied,
    in_time,
    nobody_listens,
    paused,
    produce_raw,
    settings_of,
    visible,
    wait_for,
)
from running import ROOT, Broker, Stage
from schemas import Reason, Rejection
from worker.errors import BrokerError
from worker.letters import Letters, Outgoing
from worker.message import Headers, Message
from worker.outbox import Outbox
from worker.replay import Replayed, replay
from worker.replay.choice import Choice, Fate
from worker.settings import BatchSettings

pytestmark = pytest.mark.kafka

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HOUR_MS = 3_600_000


# === Dead letters ===


def letter(
    stage: Stage,
    number: int,
    reason: Reason = Reason.NOT_JSON,
    key: bytes | None = None,
    value: bytes | None = b"",
    headers: Headers = (),
) -> Outgoing:
    """What a worker writes of a record that stood at offset `number`; unless told otherwise its value says which."""
    value = b"%d" % number if value == b"" else value
    message = Message(stage.input, number % stage.partitions, number, key, value, headers)
    rejection = Rejection(reason=reason, detail="as a test wants it", source=message.source)
    return Letters(stage.output, stage.dead).write(message, rejection)


@contextmanager
def burying(stage: Stage) -> Iterator[Callable[..., None]]:
    """Puts records on the dead letter topic: `bury(letters, at_ms, partition)`."""
    producer = KafkaProducer(bootstrap_servers=stage.address, linger_ms=20)

    def bury(letters: Sequence[Outgoing], at_ms: int | None = None, partition: int = 0) -> None:
        sent = [
            producer.send(
                it.topic,
                key=it.key,
                value=it.value,
                headers=it.headers,
                partition=partition,
                timestamp_ms=at_ms,
            )
            for it in letters
        ]
        for future in sent:
            future.get(timeout=30)

    try:
        yield bury
    finally:
        producer.close(timeout=10)


def bury(stage: Stage, letters: Sequence[Outgoing], at_ms: int | None = None, partition: int = 0) -> None:
    with burying(stage) as into:
        into(letters, at_ms, partition)


def bury_in_transactions(stage: Stage, ends: str) -> KafkaProducer:
    """One dead letter for each sign, numbered: committed (c), aborted (a) or left open (o). The caller closes the
    producer."""
    producer = KafkaProducer(bootstrap_servers=stage.address, transactional_id=f"{stage.name}-publisher")
    producer.init_transactions()
    for number, end in enumerate(ends):
        it = letter(stage, number)
        producer.begin_transaction()
        producer.send(it.topic, value=it.value, headers=it.headers, partition=0).get(timeout=30)
        if end == "c":
            producer.commit_transaction()
        elif end == "a":
            producer.abort_transaction()
    return producer


# === Replays and what they leave behind ===


def replayed(stage: Stage, choice: Choice | None = None, most: int = 2_000, **options: Any) -> Replayed:
    """A replay in this process, with at most so many records in a transaction."""
    settings = settings_of(stage, **options.pop("kafka", {}))
    settings = settings.model_copy(update={"batch": BatchSettings(max_reviews=most)})
    done: Replayed = in_time(lambda: replay(settings, choice or Choice(), **options), 60)
    return done


def totals(done: Replayed) -> dict[str, int]:
    """The fates that occurred."""
    return {fate.value: done.total(fate) for fate in Fate if done.total(fate)}


def put_back(stage: Stage) -> list[ConsumerRecord]:
    """What a worker would read: everything committed on the input topic."""
    return visible(stage, stage.input)


def numbers(stage: Stage) -> list[int]:
    """The same by the numbers of `letter`."""
    return sorted(int(record.value) for record in put_back(stage))


def progress(stage: Stage, group: str | None = None) -> dict[int, tuple[int, str]]:
    """What the replays' group has committed: offset and metadata of each partition of the dead letters that has one.
    Waits for a commit that is under way."""
    consumer = KafkaConsumer(
        bootstrap_servers=stage.address,
        group_id=f"{group or stage.name}-replay",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    try:
        places = {number: TopicPartition(stage.dead, number) for number in stage.ends(stage.dead)}
        found = {number: consumer.committed(it, metadata=True, timeout_ms=20_000) for number, it in places.items()}
        return {number: (it.offset, it.metadata) for number, it in found.items() if it}
    finally:
        consumer.close(autocommit=False)


def divide_dead_letters(stage: Stage) -> None:
    """Their topic has two partitions from now on."""
    with administration(stage.address) as admin:
        admin.create_partitions({stage.dead: 2})
    wait_for(lambda: len(stage.ends(stage.dead)) == 2, "the broker has made the partition")


def set_progress(stage: Stage, offset: int, metadata: str) -> None:
    with administration(stage.address) as admin:
        place = {TopicPartition(stage.dead, 0): OffsetAndMetadata(offset, metadata, -1)}
        admin.alter_group_offsets(f"{stage.name}-replay", place)


def all_is_done(stage: Stage) -> bool:
    """The group stands at the ends of the dead letters, with nothing behind."""
    stage.settle()
    return progress(stage) == {number: (end, "") for number, end in stage.ends(stage.dead).items()}


# === What goes back ===


def test_records_go_back_byte_for_byte_in_their_order(stage: Stage) -> None:
    records = [
        (b"k", b"\xff\x00v"),
        (b"k", None),
        (None, b"v"),
        (b"", b"w"),
        (b"\xff", None),
        (None, b"\xfe"),
        (b"k", b"z"),
    ]
    bury(stage, [letter(stage, n, key=key, value=value) for n, (key, value) in enumerate(records)])
    assert totals(replayed(stage)) == {"put_back": len(records)}
    found = [(record.key, record.value) for record in put_back(stage)]
    assert sorted(found, key=repr) == sorted(records, key=repr)
    assert [value for key, value in found if key == b"k"] == [b"\xff\x00v", None, b"z"]


def test_a_key_gives_the_partition_and_without_one_it_is_the_old_one(stage: Stage) -> None:
    keys = [b"a", b"b", b"c", b"d", b"e", b""]
    stage.publish([b"first"] * len(keys), keys)
    far = letter(stage, 0)
    far = replace(far, headers=[(n, b"7" if n == "__connect.errors.partition" else v) for n, v in far.headers])
    bury(stage, [*(letter(stage, n, key=key, value=b"again") for n, key in enumerate(keys)), letter(stage, 12), far])
    replayed(stage)
    places: dict[bytes | None, set[int]] = {}
    for record in put_back(stage):
        places.setdefault(record.key or record.value, set()).add(record.partition)
    assert {key: len(places[key]) for key in keys if key} == dict.fromkeys(keys[:-1], 1)
    assert places[b"12"] == {0}
    assert places[b"0"] == {1}, "partition 7 of two"


def test_only_the_hops_and_the_trace_go_with_a_record(stage: Stage) -> None:
    headers: Headers = (("traceparent", TRACEPARENT), ("replay.hops", b"1"), ("authorization", b"secret"))
    bury(stage, [letter(stage, 0, headers=headers), letter(stage, 1)])
    replayed(stage)
    found = {record.value: record.headers for record in put_back(stage)}
    assert found[b"0"] == [("replay.hops", b"2"), ("traceparent", TRACEPARENT)]
    assert found[b"1"] == [("replay.hops", b"1")]


def test_a_record_that_keeps_failing_stays_a_dead_letter(stage: Stage, start_stub: Callable[..., StubWorker]) -> None:
    """The worker carries the count from the input into the dead letter."""
    start_stub()
    stage.publish([b"no json", None], [b"k", b"l"])
    for hops in range(3):
        wait_for(lambda wanted=2 * hops + 2: len(visible(stage, stage.dead)) == wanted, "the worker refuses them")
        assert totals(replayed(stage, Choice(max_hops=3))) == {"put_back": 2}
    wait_for(lambda: len(visible(stage, stage.dead)) == 8, "the worker refuses them again")
    assert totals(replayed(stage, Choice(max_hops=3))) == {"over_max_hops": 2}
    assert [dict(record.headers).get("replay.hops") for record in visible(stage, stage.dead)[::2]] == [
        None,
        b"1",
        b"2",
        b"3",
    ]
    assert {(record.key, record.value) for record in put_back(stage)} == {(b"k", b"no json"), (b"l", None)}
    assert totals(replayed(stage, Choice(max_hops=4))) == {"put_back": 2}


def test_what_came_from_elsewhere_is_left(stage: Stage) -> None:
    elsewhere = replace(stage, name="elsewhere")
    other = replace(letter(elsewhere, 1), topic=stage.dead)
    bare = Outgoing(stage.dead, 0, b"k", b"2", [])
    bury(stage, [letter(stage, 0), other, bare, letter(stage, 3)])
    assert totals(replayed(stage)) == {"put_back": 2, "not_ours": 2}
    assert numbers(stage) == [0, 3]
    assert progress(stage)[0][0] == 1, "the first that was left"
    assert totals(replayed(stage)) == {"put_back_earlier": 1, "not_ours": 2}


# === What is chosen ===


def test_reasons_and_times_choose_together(stage: Stage) -> None:
    now = round(time.time() * 1000)
    with burying(stage) as into:
        for age in (3, 2, 1):
            into([letter(stage, age, Reason.EMPTY), letter(stage, 10 + age, Reason.NOT_JSON)], now - age * HOUR_MS)
    recent = Choice(frozenset({Reason.EMPTY}), since_ms=now - 2 * HOUR_MS, until_ms=now - HOUR_MS)
    assert totals(replayed(stage, recent)) == {"put_back": 1, "left_by_filter": 5}
    assert numbers(stage) == [2]
    done = replayed(stage, Choice(until_ms=now - 2 * HOUR_MS))
    assert done.counts[Reason.EMPTY, Fate.PUT_BACK] == done.counts[Reason.NOT_JSON, Fate.PUT_BACK] == 1
    assert done.counts[Reason.EMPTY, Fate.PUT_BACK_EARLIER] == 1
    assert numbers(stage) == [2, 3, 13]


def test_a_limit_holds_over_all_partitions(stage: Stage) -> None:
    divide_dead_letters(stage)
    for partition in (0, 1):
        bury(
            stage, [letter(stage, number) for number in range(10 * partition, 10 * partition + 6)], partition=partition
        )
    for expected in ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 10, 11]):
        done = replayed(stage, Choice(limit=4), most=3)
        assert (totals(done), done.limited) == ({"put_back": 4}, True)
        assert numbers(stage) == expected
    done = replayed(stage, Choice(limit=4))
    assert (totals(done), done.limited) == ({"put_back": 4}, False)
    assert all_is_done(stage)


def test_a_dry_run_tells_and_changes_nothing(stage: Stage) -> None:
    bury(stage, [letter(stage, number, Reason.EMPTY if number % 3 else Reason.NOT_JSON) for number in range(20)])
    choice = Choice(frozenset({Reason.EMPTY}))
    before = stage.ends(stage.input, "read_uncommitted")
    foretold = replayed(stage, choice, dry_run=True)
    assert totals(foretold) == {"put_back": 13, "left_by_filter": 7}
    assert stage.ends(stage.input, "read_uncommitted") == before
    assert progress(stage) == {}
    with administration(stage.address) as admin:
        assert f"{stage.name}-replay" not in {group["group_id"] for group in admin.list_groups()}
        wait_for(lambda: nobody_used(admin, f"{stage.name}-replay"), "the broker has its coordinator")
    assert replayed(stage, choice).counts == foretold.counts
    kept = progress(stage)
    assert totals(replayed(stage, dry_run=True)) == {"put_back": 7, "put_back_earlier": 13}
    assert progress(stage) == kept


def nobody_used(admin: KafkaAdminClient, transactional_id: str) -> bool:
    """Asks again while a fresh broker has no coordinator yet."""
    try:
        used = admin.describe_transactions([transactional_id])
    except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError):
        return False
    except TransactionalIdNotFoundError:
        return True
    raise AssertionError(used)


# === Once ===


def test_twice_is_once(stage: Stage) -> None:
    bury(stage, [letter(stage, number) for number in range(50)])
    assert totals(replayed(stage, most=7)) == {"put_back": 50}
    assert totals(replayed(stage, most=7)) == {}
    assert numbers(stage) == list(range(50))
    assert all_is_done(stage)
    bury(stage, [letter(stage, 50)])
    assert totals(replayed(stage)) == {"put_back": 1}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_chosen_in_whatever_order_everything_goes_back_once(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same every time is the point
    reasons = [Reason.EMPTY, Reason.NOT_JSON, Reason.OUT_OF_MEMORY]
    divide_dead_letters(stage)
    for partition in (0, 1):
        many = range(100 * partition, 100 * partition + 60)
        bury(stage, [letter(stage, number, chance.choice(reasons)) for number in many], partition=partition)
    everything = [*range(60), *range(100, 160)]
    chance.shuffle(reasons)
    expected = 0
    for reason in reasons[:2]:
        expected += replayed(stage, Choice(frozenset({reason}), limit=15), most=4).total(Fate.PUT_BACK)
        expected += replayed(stage, Choice(frozenset({reason})), most=4).total(Fate.PUT_BACK)
        found = numbers(stage)
        assert len(found) == len(set(found)) == expected
    assert expected < len(everything)
    replayed(stage, most=4)
    assert numbers(stage) == everything
    assert all_is_done(stage)


def test_old_dead_letters_go_back_without_progress_only_on_request(stage: Stage) -> None:
    """A broker forgets the offsets of a group after a week: those may have been put back by a replay before that."""
    now = round(time.time() * 1000)
    with burying(stage) as into:
        for number, hours in enumerate((8 * 24, 6 * 24, 0)):
            into([letter(stage, number)], now - hours * HOUR_MS)
    for dry_run in (True, False):
        with pytest.raises(BrokerError, match=r"more than 7 days, .* Choose with --since"):
            replayed(stage, dry_run=dry_run)
    assert numbers(stage) == []
    assert progress(stage) == {}
    assert totals(replayed(stage, Choice(since_ms=now - 7 * 24 * HOUR_MS))) == {"put_back": 2, "left_by_filter": 1}
    assert totals(replayed(stage)) == {"put_back": 1, "put_back_earlier": 2}
    assert numbers(stage) == [0, 1, 2]


def test_every_replay_reminds_the_broker_of_its_progress(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that puts nothing back, on a topic without dead letters."""
    replayed(stage)
    assert progress(stage) == {0: (0, "")}
    bury(stage, [letter(stage, 0, Reason.EMPTY), letter(stage, 1)])
    replayed(stage, Choice(frozenset({Reason.NOT_JSON})))
    kept, told = progress(stage), []
    tell = KafkaProducer.send_offsets_to_transaction
    monkeypatch.setattr(KafkaProducer, "send_offsets_to_transaction", lambda *given: (told.append(given), tell(*given)))
    replayed(stage, Choice(frozenset({Reason.NOT_JSON})))
    assert len(told) == 1
    assert progress(stage) == kept


def test_a_transaction_is_bounded_in_bytes_as_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    bury(stage, [letter(stage, number, value=b"%d" % number + b" " * 100) for number in range(10)])
    begin, begun = KafkaProducer.begin_transaction, []
    monkeypatch.setattr(KafkaProducer, "begin_transaction", lambda self: (begun.append(self), begin(self)))
    monkeypatch.setattr("worker.replay.TRANSACTION_BYTES", 200)
    replayed(stage)
    assert numbers(stage) == list(range(10))
    assert len(begun) == 6, "two records in each of five, and the end"


def test_the_progress_of_another_group_is_its_own(stage: Stage) -> None:
    bury(stage, [letter(stage, number) for number in range(5)])
    replayed(stage)
    other = {"group_id": f"{stage.name}-other"}
    assert totals(replayed(stage, dry_run=True, kafka=other)) == {"put_back": 5}
    assert totals(replayed(stage, Choice(limit=2), kafka=other)) == {"put_back": 2}
    assert progress(stage, other["group_id"])[0] == (2, "")
    assert all_is_done(stage)
    assert numbers(stage) == [0, 0, 1, 1, 2, 3, 4]


MORTAL = """
import os, signal, sys
from kafka import KafkaProducer

number, method, when = (sys.argv.pop(1) for _ in range(3))
whole, calls = getattr(KafkaProducer, method), []

def part(self, *given, **named):
    calls.append(self)
    if len(calls) == 3 and when == "before":
        os.kill(os.getpid(), int(number))
    whole(self, *given, **named)
    if len(calls) == 3 and when == "after":
        os.kill(os.getpid(), int(number))

setattr(KafkaProducer, method, part)
from worker.cli import main
main()
"""
"""A `review-worker` that gets a signal in its third transaction, before or after a step of it."""


def mortal(number: signal.Signals, method: str, when: str) -> tuple[str, ...]:
    """The program's arguments for `command`."""
    return ("-c", MORTAL, str(int(number)), method, when, "replay")


@pytest.mark.parametrize(
    ("method", "when", "landed"),
    [
        ("flush", "before", 20),
        ("flush", "after", 20),
        ("send_offsets_to_transaction", "after", 20),
        ("commit_transaction", "after", 30),
    ],
)
def test_a_replay_that_is_killed_leaves_both_or_neither(stage: Stage, method: str, when: str, landed: int) -> None:
    bury(stage, [letter(stage, number, Reason.EMPTY if number % 5 else Reason.NOT_JSON) for number in range(100)])
    chosen = ("--reason", "empty", "--set", "batch.max_reviews=10")
    done = command(stage, *chosen, program=mortal(signal.SIGKILL, method, when))
    assert done.returncode == -signal.SIGKILL
    again = command(stage, *chosen, "--json")
    assert json.loads(again.stdout)["put_back"] == 80 - landed
    assert numbers(stage) == [number for number in range(100) if number % 5]
    assert totals(replayed(stage)) == {"put_back": 20, "put_back_earlier": 80}
    assert numbers(stage) == list(range(100))
    assert all_is_done(stage)


@pytest.mark.parametrize("method", ["flush", "commit_transaction"])
def test_an_interrupt_lets_the_transaction_in_hand_end(stage: Stage, method: str) -> None:
    """An open one would keep the workers from reading on for up to a minute."""
    bury(stage, [letter(stage, number) for number in range(50)])
    done = command(stage, "--set", "batch.max_reviews=10", program=mortal(signal.SIGINT, method, "before"))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    stage.settle(10)
    assert numbers(stage) == list(range(30))
    assert progress(stage) == {0: (30, "")}


def test_replays_that_are_killed_at_any_time_put_nothing_back_twice(stage: Stage) -> None:
    bury(stage, [letter(stage, number) for number in range(1_500)])
    for round_ in range(3):
        before = sum(stage.ends(stage.input, "read_uncommitted").values())
        with started(stage, "--set", "batch.max_reviews=20") as process:
            wait_for(
                lambda before=before: sum(stage.ends(stage.input, "read_uncommitted").values()) > before,
                "it puts records back",
            )
            time.sleep(0.1 * round_)
            process.kill()
            assert process.wait(10) == -signal.SIGKILL, "it was done already"
    assert command(stage).returncode == 0
    assert numbers(stage) == list(range(1_500))
    assert all_is_done(stage)


@pytest.mark.parametrize("method", ["begin_transaction", "flush", "commit_transaction"])
def test_of_two_at_once_the_first_one_leaves(stage: Stage, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The second begins while the first is in its third transaction."""
    bury(stage, [letter(stage, number) for number in range(50)])
    whole, calls = getattr(KafkaProducer, method), []

    def interrupted(self: KafkaProducer, *given: Any, **named: Any) -> None:
        calls.append(self)
        if len(calls) == 3:
            assert totals(replayed(stage, Choice(limit=15))) == {"put_back": 15}
        whole(self, *given, **named)

    monkeypatch.setattr(KafkaProducer, method, interrupted)
    line = rf"another replay of group {stage.name} has begun; put back (at least )?20; it goes on where"
    with pytest.raises(BrokerError, match=line):
        replayed(stage, most=10)
    monkeypatch.undo()
    assert numbers(stage) == list(range(35))
    replayed(stage)
    assert numbers(stage) == list(range(50))


def test_one_that_takes_a_new_producer_does_not_go_on_with_old_progress(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When answers were lost, the outbox opens another producer, and so shuts out a replay that has begun meanwhile."""
    bury(stage, [letter(stage, number) for number in range(50)])
    whole, calls = Outbox.publish, []

    def interrupted(self: Outbox, *given: Any) -> None:
        calls.append(self)
        whole(self, *given)
        if len(calls) == 2:
            assert totals(replayed(stage, Choice(limit=15))) == {"put_back": 15}
            self._reopen()

    monkeypatch.setattr(Outbox, "publish", interrupted)
    with pytest.raises(BrokerError, match=f"another replay of group {stage.name} has begun; put back 20; it goes on"):
        replayed(stage, most=10)
    monkeypatch.undo()
    assert numbers(stage) == list(range(35))
    replayed(stage)
    assert numbers(stage) == list(range(50))


# === What stands in the way ===


def test_gaps_between_dead_letters_hold_nothing_up(stage: Stage) -> None:
    """Markers and aborted records take offsets, at the end as well; what is open may still be aborted."""
    publisher = bury_in_transactions(stage, "acacaaccaao")
    try:
        assert totals(replayed(stage)) == {"put_back": 4}
        # Ten transactions with a record and a marker each, and the open one.
        assert progress(stage) == {0: (20, "")}
        publisher.commit_transaction()
        wait_for(lambda: stage.ends(stage.dead) == {0: 22}, "the last one is committed")
        assert totals(replayed(stage)) == {"put_back": 1}
        assert numbers(stage) == [1, 3, 6, 7, 10]
        assert all_is_done(stage)
    finally:
        publisher.close(timeout=10)


def test_dead_letters_that_were_deleted_hold_nothing_up(stage: Stage) -> None:
    """Retention: before the first replay, and between two."""
    bury(stage, [letter(stage, number, Reason.EMPTY if number % 2 else Reason.NOT_JSON) for number in range(12)])
    for before, reason, expected in ((4, Reason.EMPTY, [5, 7, 9, 11]), (9, Reason.NOT_JSON, [5, 7, 9, 10, 11])):
        with administration(stage.address) as admin:
            admin.delete_records({TopicPartition(stage.dead, 0): before})
        replayed(stage, Choice(frozenset({reason})))
        assert numbers(stage) == expected
    assert all_is_done(stage)


def test_a_record_that_cannot_be_decoded_is_stepped_over(stage: Stage) -> None:
    bury(stage, [letter(stage, 0)])
    produce_raw(stage.address, stage.dead, 0, [(None, b"1", [(BAD_KEY, b"x")])])
    bury(stage, [letter(stage, 2)])
    assert totals(replayed(stage)) == {"put_back": 2, "not_ours": 1}
    assert numbers(stage) == [0, 2]
    assert totals(replayed(stage)) == {}


@pytest.mark.parametrize(
    ("offset", "metadata", "cause"),
    [(99, "", "it is behind the topic's end: that was made anew"), (1, "written by somebody else", "")],
)
def test_progress_that_is_not_to_be_trusted_is_refused(stage: Stage, offset: int, metadata: str, cause: str) -> None:
    bury(stage, [letter(stage, 0), letter(stage, 1)])
    set_progress(stage, offset, metadata)
    with pytest.raises(
        BrokerError, match=rf"group {stage.name}-replay in partition 0 .* cannot be used: {cause}.*--reset"
    ):
        replayed(stage)
    assert progress(stage) == {0: (offset, metadata)}
    set_progress(stage, 0, "")  # as the line says: kafka-consumer-groups --reset-offsets
    assert totals(replayed(stage)) == {"put_back": 2}


@pytest.mark.parametrize(("characters", "limit"), [(100, 99), (5_000, 5_000)])
def test_too_many_gaps_are_refused_before_anything_is_committed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, characters: int, limit: int
) -> None:
    """By the replay itself, and by a broker that allows fewer characters than Kafka does by default."""
    bury(stage, [letter(stage, number) for number in range(10)])
    monkeypatch.setattr("worker.replay.Progress.encode", lambda _: "x" * characters)
    monkeypatch.setattr("worker.replay.MAX_METADATA", limit)
    with pytest.raises(BrokerError, match=r"no longer fits .*; put back 0"):
        replayed(stage)
    assert progress(stage) == {}
    assert numbers(stage) == []
    monkeypatch.undo()
    assert totals(replayed(stage)) == {"put_back": 10}


def test_what_was_put_back_out_of_order_is_known_for_thousands(stage: Stage) -> None:
    """With the broker's own limit."""
    chance = random.Random(1)  # noqa: S311 - the same every time is the point
    chosen = [chance.random() < 0.5 for _ in range(12_000)]
    bury(stage, [letter(stage, number, Reason.EMPTY if it else Reason.NOT_JSON) for number, it in enumerate(chosen)])
    assert totals(replayed(stage, Choice(frozenset({Reason.EMPTY}))))["put_back"] == sum(chosen)
    assert 2_000 < len(progress(stage)[0][1]) <= 4_096
    assert totals(replayed(stage))["put_back"] == 12_000 - sum(chosen)
    assert numbers(stage) == list(range(12_000))


# === Errors on the way ===


@pytest.mark.parametrize("landed", [True, False])
def test_after_an_error_the_next_replay_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch, landed: bool) -> None:
    """Whether a commit whose reply is lost has landed, only the broker knows."""
    bury(stage, [letter(stage, number) for number in range(50)])
    commit, calls = KafkaProducer.commit_transaction, []

    def commit_without_reply(self: KafkaProducer) -> None:
        calls.append(self)
        if len(calls) < 3 or landed:
            commit(self)
        if len(calls) == 3:
            raise KafkaTimeoutError("as if the reply was lost")

    monkeypatch.setattr(KafkaProducer, "commit_transaction", commit_without_reply)
    with pytest.raises(BrokerError, match=r"as if the reply was lost; put back at least 20; start again to go on"):
        replayed(stage, most=10)
    monkeypatch.undo()
    assert totals(replayed(stage)) == {"put_back": 20 if landed else 30}
    assert numbers(stage) == list(range(50))


def test_a_record_that_the_input_does_not_take_leaves_no_transaction_open(stage: Stage) -> None:
    """An open one would keep the workers from reading on for as long as the broker lets it be."""
    bury(stage, [letter(stage, 0), letter(stage, 1, value=os.urandom(3_000)), letter(stage, 2)])
    stage.configure(stage.input, max_message_bytes=2_000)
    with pytest.raises(BrokerError, match=f"larger than {stage.input} takes; put back 0; raise its max.message.bytes"):
        replayed(stage)
    stage.settle(10)
    assert put_back(stage) == []
    assert progress(stage) == {}


def test_a_broker_that_freezes_during_a_commit_leaves_no_doubt_behind(
    fragile_broker: Broker, fragile: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gives up after its request time-out; the broker may commit all the same when it wakes up."""
    bury(fragile, [letter(fragile, number) for number in range(50)])
    commit, calls = KafkaProducer.commit_transaction, []
    with ExitStack() as thawing:

        def freeze_and_commit(self: KafkaProducer) -> None:
            calls.append(self)
            if len(calls) == 3:
                thaw = ExitStack()
                thaw.enter_context(paused(fragile_broker))
                thawing.callback(thaw.close)
                timer = Timer(3, thaw.close)
                timer.start()
                thawing.callback(timer.join)
            commit(self)

        monkeypatch.setattr(KafkaProducer, "commit_transaction", freeze_and_commit)
        with pytest.raises(BrokerError, match=r"; put back at least 20; start again to go on"):
            replayed(fragile, most=10, kafka={"request_timeout_seconds": 1, "transaction_timeout_seconds": 20})
    monkeypatch.undo()
    replayed(fragile)
    assert numbers(fragile) == list(range(50))


def test_a_transaction_that_does_not_end_ends_the_replay(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python waits without end for a broker that is away."""
    bury(stage, [letter(stage, 0)])
    goes_on = Event()
    monkeypatch.setattr(Outbox, "publish", lambda *_: goes_on.wait(60))
    quick = {"transaction_timeout_seconds": 5, "request_timeout_seconds": 1, "bootstrap_timeout_seconds": 0.5}
    try:
        with pytest.raises(BrokerError, match="no longer answers; put back at least 0; start again to go on"):
            replayed(stage, kafka=quick)
    finally:
        goes_on.set()
    assert put_back(stage) == []


def test_a_topic_that_brings_nothing_ends_the_replay(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python has stopped to fetch a partition in silence before."""
    bury(stage, [letter(stage, 0)])
    monkeypatch.setattr("kafka.KafkaConsumer.poll", lambda *_, **__: {})
    with pytest.raises(
        BrokerError, match=f"{stage.dead}: nothing came behind offset 0 of partition 0 for 1 s; put back 0"
    ):
        replayed(stage, kafka={"request_timeout_seconds": 1})


@pytest.mark.parametrize(
    ("kind", "name", "right"),
    [
        (ResourceType.TOPIC, "{0.dead}", ACLOperation.READ),
        (ResourceType.TOPIC, "{0.input}", ACLOperation.WRITE),
        (ResourceType.GROUP, "{0.name}-replay", ACLOperation.READ),
        (ResourceType.TRANSACTIONAL_ID, "{0.name}-replay", ACLOperation.WRITE),
    ],
)
def test_a_right_that_is_missing_is_said(fragile: Stage, kind: ResourceType, name: str, right: ACLOperation) -> None:
    bury(fragile, [letter(fragile, 0, key=b"k")])
    with (
        denied(fragile, kind, name.format(fragile), right),
        pytest.raises(
            BrokerError, match=rf"the broker refuses: .*; put back 0; a replay has to .*WRITE {fragile.input} and"
        ),
    ):
        replayed(fragile)
    assert put_back(fragile) == []


# === The command ===


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The test's own without the settings in it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    return clean | {"PYTHONPATH": str(ROOT)} | dict(variables)


def command(
    stage: Stage | None, *arguments: str, program: Sequence[str] = ("-m", "worker", "replay"), **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run `review-worker replay` to its end."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment((stage.environment if stage else {}) | variables),
        cwd=ROOT,
    )


@contextmanager
def started(stage: Stage, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A `review-worker replay` that is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "replay", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(stage.environment),
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def error_of(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line for the user."""
    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    return str(line)


def test_the_command_shows_a_table_and_a_summary(stage: Stage) -> None:
    bury(stage, [letter(stage, number, Reason.CONFLUENT_FRAMED if number < 3 else Reason.EMPTY) for number in range(5)])
    done = command(stage, "--reason", "confluent_framed", "--dry-run")
    rows = [line.split() for line in done.stdout.splitlines() if "_framed" in line or "empty" in line]
    assert rows == [["empty", "0", "2", "0", "0"], ["confluent_framed", "3", "0", "0", "0"]]
    assert done.stderr.startswith(f"3 would be put back on {stage.input}, 0 put back earlier; left: 2 by filter, ")
    done = command(stage)
    assert (done.returncode, done.stderr.partition(",")[0]) == (0, f"5 put back on {stage.input}")
    done = command(stage)
    assert (done.stdout, done.stderr.partition(",")[0]) == ("", f"0 put back on {stage.input}")


def test_the_command_writes_one_json_object_when_asked(stage: Stage) -> None:
    bury(stage, [letter(stage, number, Reason.EMPTY) for number in range(3)])
    done = command(stage, "--json", "--limit", "2", "--since", "1h", "--until", "0s")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["put_back"], document["limited"], document["dry_run"]) == (2, True, False)
    assert document["reasons"]["empty"]["put_back"] == 2


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a reason": (("--reason", "no_json"), "--reason no_json: no such reason; there are tombstone, empty, "),
    "a time": (("--since", "yesterday"), "--since yesterday: no time; give ISO 8601, such as 2026-11-23T10:00"),
    "nothing between": (("--since", "1h", "--until", "2h"), "--since 1h is not before --until 2h"),
    "a setting": (("--set", "kafka.groupid=x"), "did you mean kafka.group_id?"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_usage_is_named_with_what_is_accepted(wrong: str) -> None:
    arguments, expected = WRONG[wrong]
    done = command(None, *arguments)
    assert done.returncode == 2
    assert expected in error_of(done)


def test_without_a_broker_or_a_topic_one_line_says_so(stage: Stage) -> None:
    address = nobody_listens()
    done = command(None, "--bootstrap-servers", address, "--set", "kafka.bootstrap_timeout_seconds=1")
    assert done.returncode == 1
    assert f"no broker answered at {address} within 1 s" in error_of(done)
    for topic in ("INPUT", "DEAD_LETTER"):
        done = command(stage, **{f"WORKER_KAFKA__{topic}_TOPIC": "no-such-topic"})
        assert done.returncode == 1
        assert "topic no-such-topic does not exist; `review-worker check --create-topics` makes" in error_of(done)


def test_the_help_shows_how_it_is_used() -> None:
    done = command(None, "--help", COLUMNS="100", NO_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "review-worker replay --dry-run" in done.stdout
    for option in ("--reason", "--since", "--until", "--max-hops", "--limit", "--dry-run", "--json", "--config"):
        assert option in done.stdout
