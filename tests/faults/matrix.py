"""The fault matrix: what is done to the worker, the broker, the group and the data, each in a small and a full size.

A row is a function that publishes, starts workers, injects its fault and heals it. `play` waits until everything is
answered and asks the oracle: nothing missing, nothing twice, nothing out of order, whatever happened between.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.protocol.metadata import CoordinatorType
from kafka.structs import OffsetAndMetadata

from contract.pieces import process_id
from faults.arena import Arena, frozen, review
from faults.proxy import Api, DropReply, HoldRequest
from hostile.records import VALUES
from running import Broker
from schemas import Reason

BATCH = {"WORKER_BATCH__MAX_REVIEWS": "50", "STUB_SECONDS": "0.03"}
"""Small transactions, so that a fault meets one under way: 50 reviews each, some 1,500 a second and worker."""

QUICK = {
    "WORKER_KAFKA__SESSION_TIMEOUT_SECONDS": "2",
    "WORKER_KAFKA__MAX_POLL_INTERVAL_SECONDS": "10",
    "WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS": "6",
    "WORKER_KAFKA__REQUEST_TIMEOUT_SECONDS": "4",
}
"""Short time-outs, so that what is to be outlived is outlived soon."""


POISONED = 20
"""Reviews on which the device fails."""

HOSTILE = [value for value, outcome in VALUES.values() if isinstance(outcome, Reason) and len(value or b"") < 100_000]
"""Every kind of value that is no review, but for those that take more room than a topic has by default."""

CRASHES = (
    "before begin",
    "after begin",
    "mid sends",
    "before offsets",
    "after offsets",
    "reply to commit",
    "after commit",
    "in shutdown",
)
"""Points of a transaction at which the stub worker can end itself."""


@dataclass(frozen=True)
class Size:
    """How large a row is."""

    messages: int = 2_000
    partitions: int = 2
    rounds: int = 2
    seconds: float = 4
    """How long the fault lasts, where it does."""


@dataclass(frozen=True)
class Fault:
    """One row."""

    name: str
    what: str
    inject: Callable[[Arena, Size], None]
    full: Size
    small: Size = Size()
    extra: dict[str, str] = field(default_factory=dict)
    """Settings of its workers."""
    on: Literal["shared", "own", "cluster", "proxy"] = "shared"
    """The broker that all rows share, one that may be stopped, three of them, or one behind a proxy."""
    drain_seconds: float = 120
    arrive: float = 1
    """Share of the messages that are committed input in the end: some rows delete or abort them."""
    dead_letters: Callable[[Size], int] = lambda _: 0
    """How many there must be in the end."""


# === The worker ===


def rolling_stop(arena: Arena, size: Size) -> None:
    """Two workers are stopped and started in turn, whenever another fifth is done."""
    arena.publish(size.seconds)
    workers = [arena.start("one"), arena.start("two")]
    for round_ in range(size.rounds):
        arena.wait_for_progress(arena.total * 0.2 * (round_ + 1))
        assert workers[round_ % 2].stop() == 0
        workers[round_ % 2] = arena.start(("one", "two")[round_ % 2])
    arena.healed()


def kill_at_random(arena: Arena, size: Size) -> None:
    """Kill -9, at any moment from the start-up on."""
    arena.publish(size.seconds)
    for _ in range(size.rounds):
        worker = arena.start()
        time.sleep(arena.random.uniform(0.5, 4))
        worker.kill()
    arena.healed()
    arena.start()


def kill_at_each_point(arena: Arena, size: Size) -> None:
    """The worker kills itself at each point of its third transaction, and at its end."""
    arena.publish(size.seconds)
    for point in CRASHES:
        worker = arena.start(STUB_CRASH=point, STUB_CRASH_AT="3")
        if point == "in shutdown":
            worker.wait_until_ready()
            worker.signal(signal.SIGTERM)
        else:
            while worker.process.poll() is None:
                arena.publish(total=50).join(30)
        assert worker.wait(30) == -signal.SIGKILL, f"{point}: it did not get there"
    arena.healed()
    arena.start()


def zombie(arena: Arena, size: Size) -> None:
    """Frozen for longer than every time-out while another takes over, then it goes on where it was."""
    publisher = arena.publish(size.seconds)
    first = arena.start("one")
    arena.wait_for_progress(arena.total * 0.1)
    second = arena.start("two")
    second.wait_until_ready()
    with frozen(first.process.pid):
        time.sleep(size.seconds)
        publisher.join()
    arena.healed()
    time.sleep(3)
    assert first.process.poll() in (None, 1)


def slow_scoring(arena: Arena, size: Size) -> None:
    """Every batch takes longer than the group waits for a poll."""
    arena.publish()
    worker = arena.start()
    arena.wait_for_progress(arena.total)
    assert '"event": "going back' not in worker.log.read_text()
    arena.healed()


def hanging_scorer(arena: Arena, size: Size) -> None:
    """A batch never ends: the watchdog ends the process, and shows where it hung."""
    arena.publish(size.seconds)
    worker = arena.start(STUB_HANG_AT="5", WORKER_WATCHDOG__STAGE_SECONDS=str(size.seconds))
    assert worker.wait(size.seconds + 30) == 1
    assert "stage did not return" in worker.log.read_text()
    assert "Current thread" in worker.log.read_text() or "Thread 0x" in worker.log.read_text()
    arena.healed()
    arena.start()


def device_trouble(arena: Arena, size: Size) -> None:
    """The device has room for a few reviews only, and fails on some whatever their company."""
    poisoned = set(range(7, arena.total, arena.total // POISONED))
    arena.publish(size.seconds, lambda n: long_review(n, 40) if n in poisoned else review(n))
    arena.start(STUB_ROOM="150", STUB_POISON="40")
    arena.wait_for_progress(arena.total)
    arena.healed()


def long_review(number: int, words: int) -> bytes:
    """A review of more tokens than the others."""
    return json.dumps({"review_id": f"r{number}", "text": "great " * words}).encode()


def one_three_one(arena: Arena, size: Size) -> None:
    """Two more workers come and go."""
    arena.publish(size.seconds * size.rounds * 2)
    arena.start("one")
    for _ in range(size.rounds):
        more = [arena.start("two"), arena.start("three")]
        for worker in more:
            worker.wait_until_ready()
        time.sleep(size.seconds)
        for worker in more:
            assert worker.stop() == 0
        time.sleep(size.seconds)
    arena.healed()


def same_name(arena: Arena, size: Size) -> None:
    """Two workers with one transactional id: the one that came first is shut out and says so."""
    arena.publish(size.seconds)
    name = f"{arena.stage.name}-both"
    first = arena.start("one", WORKER_KAFKA__TRANSACTIONAL_ID=name)
    arena.wait_for_progress(arena.total * 0.1)
    arena.start("two", WORKER_KAFKA__TRANSACTIONAL_ID=name)
    patience = time.monotonic() + 60
    while first.process.poll() is None:  # it finds out with its next transaction
        assert time.monotonic() < patience, "it was not shut out"
        arena.publish(total=50).join(30)
    assert first.wait(1) == 1
    assert "another worker uses the transactional id" in first.log.read_text()
    arena.healed()


def broken_models(arena: Arena, size: Size) -> None:
    """A model that is incomplete, cut short, altered or contradicts itself: the worker does not start, and the group
    is not touched."""
    whole = arena.model
    arena.publish(size.seconds)
    for kind, damage in DAMAGES.items():
        arena.model = arena.folder / "models" / kind.replace(" ", "-")
        shutil.copytree(whole, arena.model)
        (version,) = arena.model.iterdir()
        damage(version)
        worker = arena.start(kind.replace(" ", "-"))
        assert worker.wait(60) == 1, kind
        assert "Traceback" not in worker.log.read_text(), kind
        assert arena.stage.committed() == {}, kind
    arena.model = whole
    arena.healed()
    arena.start()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _relabel(folder: Path) -> None:
    """Whole by its hashes, but the two files do not agree."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"labels": ["one", "two", "three"]}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda folder: (folder / "model.safetensors").unlink(),
    "cut short": lambda folder: os.truncate(folder / "model.safetensors", 1_000),
    "wrong hash": lambda folder: _flip(folder / "tokenizer.json"),
    "other labels": _relabel,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


# === The broker ===


def restarts(arena: Arena, size: Size) -> None:
    """One broker after the other is stopped in good order and started again."""
    _in_turn(arena, size, lambda node: node.command("stop"))


def crashes(arena: Arena, size: Size) -> None:
    """One broker after the other is killed and started again."""
    _in_turn(arena, size, lambda node: node.kill())


def _in_turn(arena: Arena, size: Size, end: Callable[[Broker], object]) -> None:
    arena.publish(size.seconds)
    arena.supervise()
    nodes = arena.brokers.nodes
    for round_ in range(size.rounds):
        arena.wait_for_progress(arena.total * (round_ + 1) / (size.rounds + 2))
        node = nodes[round_ % len(nodes)]
        end(node)
        time.sleep(1)
        node.start_again()
        if arena.brokers.cluster:
            arena.brokers.cluster.wait_until_whole()
    arena.healed()


def coordinators_killed(arena: Arena, size: Size) -> None:
    """Whoever coordinates the group is killed, and then whoever coordinates the transactions."""
    cluster = arena.brokers.cluster
    assert cluster is not None
    arena.publish(size.seconds)
    arena.supervise()
    for round_ in range(size.rounds):
        arena.wait_for_progress(arena.total * (round_ + 1) / (size.rounds + 2))
        if round_ % 2:
            victim = cluster.coordinator_of(f"{arena.stage.name}-one", CoordinatorType.TRANSACTION)
        else:
            victim = cluster.coordinator_of(arena.stage.name)
        cluster.nodes[victim].kill()
        time.sleep(2)
        cluster.nodes[victim].start_again()
        cluster.wait_until_whole()
    arena.healed()


def commit_unheard(arena: Arena, size: Size) -> None:
    """The broker commits, and the worker does not hear of it: the connection goes silent, or is closed."""
    _around_commits(arena, size, lambda round_: DropReply(close_after=None if round_ % 5 == 0 else 0.05))


def commit_late(arena: Arena, size: Size) -> None:
    """The connection breaks at a commit, and the broker gets it later, in the midst of the next transaction."""
    arena.supervise(STUB_OPEN=str(size.seconds * 1.2))
    _around_commits(arena, size, lambda _: HoldRequest(size.seconds, hang_up=True), start=False)


def _around_commits(arena: Arena, size: Size, fault: Callable[[int], Any], start: bool = True) -> None:
    link = arena.brokers.link
    assert link is not None
    if start:
        arena.supervise()
    publisher = arena.publish(size.rounds)
    for round_ in range(size.rounds):
        rule = link.on(Api.END_TXN, fault(round_))
        while True:
            arena.publish(total=20).join(60)
            try:
                rule.wait_until_done(5)
            except AssertionError:
                continue
            break
    publisher.join(120)
    arena.healed()


def link_cut(arena: Arena, size: Size) -> None:
    """Nothing gets through: from the worker, to the worker, both ways, and with connections refused."""
    link = arena.brokers.link
    assert link is not None
    arena.publish(size.seconds * 4)
    arena.supervise()
    for round_ in range(size.rounds):
        arena.wait_for_progress(arena.total * (round_ + 1) / (size.rounds + 2))
        match round_ % 4:
            case 0:
                link.cut()
            case 1:
                link.stall(to_broker=False)
            case 2:
                link.stall(to_client=False)
            case 3:
                link.stall()
        time.sleep(size.seconds)
        link.heal()
    arena.healed()


def freezes(arena: Arena, size: Size) -> None:
    """The broker accepts connections and answers nothing, for several lengths of time."""
    arena.publish(size.seconds)
    arena.supervise()
    for round_ in range(size.rounds):
        arena.wait_for_progress(arena.total * (round_ + 1) / (size.rounds + 2))
        with frozen(process_id(arena.brokers.nodes[0])):
            time.sleep(size.seconds * (round_ + 1))
    arena.healed()


def gone(arena: Arena, size: Size) -> None:
    """No broker at all, for longer than the worker's time-outs."""
    arena.publish(2)
    arena.supervise()
    arena.wait_for_progress(arena.total * 0.2)
    for node in arena.brokers.nodes:
        node.command("stop")
    time.sleep(size.seconds)
    for node in arena.brokers.nodes:
        node.start_again()
    arena.healed()


# === The group and its topics ===


def deleted_unread(arena: Arena, size: Size) -> None:
    """Records are deleted behind the group's position: the worker stops and says so, and goes on when told where."""
    arena.publish().join(60)
    worker = arena.start()
    arena.wait_for_progress(arena.total * 0.1)
    worker.kill()
    before = arena.stage.committed()
    oldest = {partition: min(end, before.get(partition, 0) + 20) for partition, end in _ends(arena).items()}
    admin = KafkaAdminClient(bootstrap_servers=arena.stage.address)
    try:
        admin.delete_records({TopicPartition(arena.stage.input, p): offset for p, offset in oldest.items()})
        stopped = arena.start()
        assert stopped.wait(60) == 1
        assert "the records at the group's position are gone" in stopped.log.read_text()
        assert arena.stage.committed() == before
        time.sleep(3)  # for the dead member's session to end: a group in use takes no new offsets
        admin.alter_group_offsets(
            arena.stage.name,
            {TopicPartition(arena.stage.input, p): OffsetAndMetadata(offset, "", -1) for p, offset in oldest.items()},
        )
    finally:
        admin.close()
    arena.healed()
    arena.start()


def _ends(arena: Arena) -> dict[int, int]:
    return arena.stage.ends(arena.stage.input)


def more_partitions(arena: Arena, size: Size) -> None:
    """Partitions are added while the stream runs."""
    arena.publish(2)
    arena.start("one")
    arena.start("two")
    arena.wait_for_progress(arena.total * 0.2)
    admin = KafkaAdminClient(bootstrap_servers=arena.stage.address)
    try:
        admin.create_partitions({arena.stage.input: arena.stage.partitions * 2})
    finally:
        admin.close()
    time.sleep(2)
    arena.publish(2, lambda number: review(10_000_000 + number))
    arena.healed()


def transactional_input(arena: Arena, size: Size) -> None:
    """The publisher itself works in transactions, and takes every third back."""
    producer = KafkaProducer(bootstrap_servers=arena.stage.address, transactional_id=f"{arena.stage.name}-publisher")
    producer.init_transactions()
    arena.start()
    for number in range(arena.total // 10):
        producer.begin_transaction()
        for place in range(10):
            producer.send(arena.stage.input, key=f"k{place}".encode(), value=review(10 * number + place))
        producer.flush(timeout=30)
        if number % 3:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close(timeout=10)
    arena.healed()


def rebalance_in_flight(arena: Arena, size: Size) -> None:
    """Another worker joins while a batch is between poll and commit, and leaves again."""
    arena.publish(size.seconds)
    first = arena.start("one", STUB_SECONDS="1")
    first.wait_until_ready()
    for _ in range(size.rounds):
        second = arena.start("two", STUB_SECONDS="1")
        second.wait_until_ready()
        time.sleep(arena.random.uniform(0.5, 2))
        second.kill()
        time.sleep(arena.random.uniform(0.5, 2))
    first.stop()
    arena.healed()
    arena.start("three")


def overtaken(arena: Arena, size: Size) -> None:
    """A batch takes longer than the group waits, another worker scores it too, and then the first one commits; after
    ten such times in a row it ends, to be started again."""
    arena.publish(size.seconds)
    late = arena.supervise("one", STUB_NO_STAY="1", STUB_MAX_POLL="1", STUB_SECONDS="2.5")
    arena.start("two")
    deadline = time.monotonic() + 30 * size.rounds
    log = late.worker.log
    while log.read_text().count("going back to the committed offsets") < size.rounds:
        assert time.monotonic() < deadline, "no commit was refused"
        arena.publish(total=20).join(30)
        time.sleep(0.2)
    late.stop()
    late.worker.stop()
    arena.healed()


# === The data ===


def some_hostile(arena: Arena, size: Size) -> None:
    """Every kind of record that is no review stands among reviews, and the worker is killed among them."""
    arena.publish(size.seconds, lambda n: HOSTILE[n // 10 % len(HOSTILE)] if n % 10 == 3 else review(n))
    worker = arena.start()
    arena.wait_for_progress(arena.total / 2)
    worker.kill()
    arena.healed()
    arena.start()


def all_invalid(arena: Arena, size: Size) -> None:
    """Nothing but garbage: the worker stops at its limit, and the rest is still there."""
    arena.publish(size.seconds, lambda _: b"not JSON").join(60)
    worker = arena.start(WORKER_LIMITS__CONSECUTIVE_DEAD_LETTERS="200")
    assert worker.wait(60) == 1
    assert "more than 200 dead letters in a row" in worker.log.read_text()
    assert arena.progress() <= 200, "it went beyond its limit"
    arena.healed()
    arena.start("two", WORKER_LIMITS__CONSECUTIVE_DEAD_LETTERS="0")


def cannot_publish(arena: Arena, size: Size) -> None:
    """The output topic takes no record of this size: the worker stops, and nothing is committed."""
    arena.publish(size.seconds)
    arena.stage.configure(arena.stage.output, max_message_bytes=100)
    worker = arena.start()
    assert worker.wait(60) == 1
    assert "an output record is larger than the broker takes" in worker.log.read_text()
    assert arena.progress() == 0
    arena.stage.configure(arena.stage.output, max_message_bytes=1_048_588)
    arena.healed()
    arena.start()


STALL = 14
"""Seconds, above every time-out of `QUICK`."""

ROWS = (
    Fault("W1", "two workers stopped and started in turn", rolling_stop, Size(100_000, 9, 3, 60), extra=BATCH),
    Fault("W2", "kill -9 at random", kill_at_random, Size(100_000, 9, 20, 90), extra=BATCH),
    Fault("W3", "kill -9 at each of 8 points", kill_at_each_point, Size(16_000, 9, 1, 10), Size(400), BATCH),
    Fault(
        "W4",
        "frozen past every time-out, then on",
        zombie,
        Size(20_000, 9, 1, 90),
        Size(2_000, 2, 1, STALL),
        BATCH | QUICK,
    ),
    Fault(
        "W5",
        "scoring slower than the group waits",
        slow_scoring,
        Size(2_000, 2),
        Size(300, 2),
        {"STUB_SECONDS": "3", "STUB_MAX_POLL": "1", "WORKER_BATCH__TARGET_SECONDS": "30"},
    ),
    Fault("W6", "scoring hangs", hanging_scorer, Size(20_000, 9, 1, 60), Size(1_000, 2, 1, 3), BATCH),
    Fault(
        "W7",
        "device out of memory, and failing on some",
        device_trouble,
        Size(10_000, 9, 1, 20),
        Size(400, 2, 1, 2),
        {"WORKER_BATCH__MAX_REVIEWS": "50"},
        dead_letters=lambda _: POISONED,
    ),
    Fault("W8", "1 worker, 3, 1 again", one_three_one, Size(100_000, 9, 12, 5), Size(3_000, 2, 1, 2), BATCH),
    Fault("W9", "two workers with one transactional id", same_name, Size(20_000, 2, 1, 15), Size(), BATCH),
    Fault("W10", "broken models", broken_models, Size(20_000, 9, 1, 20), Size(500, 2, 1, 1), BATCH),
    Fault("B1", "the only broker restarted", restarts, Size(100_000, 9, 5, 90), Size(), BATCH, "own"),
    Fault("B1c", "three brokers restarted in turn", restarts, Size(100_000, 9, 6, 120), Size(), BATCH, "cluster"),
    Fault("B2", "the only broker killed", crashes, Size(100_000, 9, 5, 90), Size(), BATCH, "own"),
    Fault("B2c", "three brokers killed in turn", crashes, Size(100_000, 9, 6, 120), Size(), BATCH, "cluster"),
    Fault("B3", "broker frozen, longer each time", freezes, Size(20_000, 9, 3, 40), Size(2_000, 2, 1, 3), BATCH, "own"),
    Fault(
        "B4",
        "no broker",
        gone,
        Size(20_000, 9, 1, 300),
        Size(2_000, 2, 1, STALL),
        BATCH | QUICK,
        "own",
        drain_seconds=240,
    ),
    Fault("B5", "coordinators killed", coordinators_killed, Size(20_000, 9, 6, 120), Size(), BATCH, "cluster"),
    Fault(
        "B6",
        "commit done, reply lost",
        commit_unheard,
        Size(5_000, 9, 50),
        Size(500, 2, 3),
        BATCH | QUICK,
        "proxy",
    ),
    Fault(
        "B7",
        "commit late, in the next transaction",
        commit_late,
        Size(600, 9, 20, 2),
        Size(300, 2, 2, 2),
        BATCH,
        "proxy",
    ),
    Fault("B8", "link cut one way and both", link_cut, Size(20_000, 9, 8, 30), Size(2_000, 2, 2, 3), BATCH, "proxy"),
    Fault("G1", "records deleted unread", deleted_unread, Size(20_000, 9), Size(1_000, 2), BATCH | QUICK, arrive=0.5),
    Fault("G2", "partitions added", more_partitions, Size(20_000, 9), Size(), BATCH | {"STUB_METADATA": "1"}),
    Fault(
        "G3",
        "transactional input, a third aborted",
        transactional_input,
        Size(33_333, 9),
        Size(1_000),
        BATCH,
        arrive=0.6,
    ),
    Fault("G4", "rebalance between poll and commit", rebalance_in_flight, Size(5_000, 9, 10, 30), Size(500), BATCH),
    Fault("G5", "overtaken while scoring", overtaken, Size(5_000, 9, 50, 60), Size(300, 2, 1, 1), BATCH | QUICK),
    Fault(
        "D1",
        "every tenth record is hostile, and a kill -9",
        some_hostile,
        Size(20_000, 9, 1, 20),
        Size(2_000),
        BATCH,
        dead_letters=lambda size: size.messages // 10,
    ),
    Fault(
        "D4",
        "nothing but garbage",
        all_invalid,
        Size(20_000, 9),
        Size(1_000),
        BATCH,
        dead_letters=lambda size: size.messages,
    ),
    Fault("D5", "predictions cannot be published", cannot_publish, Size(20_000, 9), Size(1_000), BATCH),
)
