"""The worker's Kafka parts in the test's own process, a worker without TensorFlow, a broker that is paused, and records
that no client of ours would send."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.consumer.fetcher import ConsumerRecord
from kafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from faults.oracle import Finding, examine
from running import ROOT, Broker, Stage, Worker
from worker.errors import Rewind
from worker.letters import Outgoing
from worker.message import Message
from worker.metrics import Metrics
from worker.outbox import Outbox
from worker.settings import Settings, load_settings
from worker.source import Batch, ReviewSource

STUB = Path(__file__).parent / "stub_worker.py"

Header = tuple[str, bytes | None]
NOT_LEADER = 6
"""Kafka's error code of a partition that was made just now."""

LENGTH_OFFSET = 8
"""Where a record batch says how many bytes follow."""

GZIP = 1

BAD_KEY = "!bad-key!"
"""A header of this name reaches the broker with bytes in its place that are not UTF-8."""


def review(number: int, text: str = "the movie was great") -> bytes:
    """A record that is scored."""
    return json.dumps({"review_id": f"r{number}", "text": text}).encode()


# === Parts of the worker ===


def settings_of(stage: Stage, **kafka: Any) -> Settings:
    """Settings of a worker on the stage; each test that needs two workers names them."""
    named = {"transactional_id": f"{stage.name}-tx", "group_instance_id": "", "session_timeout_seconds": 6}
    topics = {
        "bootstrap_servers": stage.address,
        "group_id": stage.name,
        "input_topic": stage.input,
        "output_topic": stage.output,
        "dead_letter_topic": stage.dead,
    }
    return load_settings(None, {"kafka": topics | named | kafka})


@contextmanager
def opened_source(stage: Stage, metrics: Metrics | None = None, **kafka: Any) -> Iterator[ReviewSource]:
    """A member of the stage's group, a dynamic one unless `group_instance_id` is given."""
    source = ReviewSource(settings_of(stage, **kafka), metrics or Metrics())
    try:
        yield source
    finally:
        source.close()


@contextmanager
def opened_outbox(stage: Stage, **kafka: Any) -> Iterator[Outbox]:
    """A transactional producer on the stage."""
    outbox = Outbox(settings_of(stage, **kafka))
    try:
        yield outbox
    finally:
        outbox.close()


def nobody_listens() -> str:
    """An address of this machine at which there is nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def silent_peer() -> Iterator[str]:
    """The address of somebody who takes every connection and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def next_batch(source: ReviewSource, seconds: float = 30, most: int = 500) -> Batch:
    """The next batch; goes back to the committed offsets when it is told to, as the loop does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            batch = source.poll(0.2, most)
        except Rewind:
            source.rewind()
        else:
            if batch is not None:
                return batch
    raise AssertionError(f"nothing to read within {seconds} s")


def next_messages(source: ReviewSource, wanted: int, seconds: float = 30) -> list[Message]:
    """The next so many messages, over as many polls as it takes."""
    deadline = time.monotonic() + seconds
    messages: list[Message] = []
    while len(messages) < wanted:
        messages += next_batch(source, deadline - time.monotonic()).messages
    return messages


def answers(stage: Stage, batch: Batch) -> list[Outgoing]:
    """One output record for each message, as a dead letter: it names its input in its headers."""
    return [answer(stage.dead, message) for message in batch.messages]


def publish(outbox: Outbox, stage: Stage, batch: Batch) -> None:
    """Commit one dead letter for each message of the batch, with the batch's positions."""
    outbox.publish(answers(stage, batch), batch.positions, batch.membership)


def drain(source: ReviewSource, outbox: Outbox, stage: Stage, topic: str | None = None, most: int = 500) -> None:
    """Read and commit, to the dead letters unless told otherwise, until the group stands at the end of the input."""

    def turn() -> bool:
        try:
            batch = source.poll(0.1, most)
        except Rewind:
            source.rewind()
        else:
            if batch is not None:
                records = [answer(topic or stage.dead, message) for message in batch.messages]
                outbox.publish(records, batch.positions, batch.membership)
                return False
        return stage.committed() == stage.ends(stage.input)

    wait_for(turn, "the input is drained", 60)


def answer(topic: str, message: Message) -> Outgoing:
    """An output record that the oracle can tell the input of."""
    headers = [
        ("__connect.errors.partition", str(message.partition).encode()),
        ("__connect.errors.offset", str(message.offset).encode()),
    ]
    return Outgoing(topic, message.partition, message.key, message.value, headers)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Ask until the answer is true, and give it."""
    deadline = time.monotonic() + seconds
    while not (it := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return it


def in_time(call: Callable[[], Any], seconds: float = 15) -> Any:
    """What the call returns or raises. One that hangs is left alone, and the test fails."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def attempt() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"did not return within {seconds} s"
    returned, raised = outcome[0]
    if raised is not None:
        raise raised
    return returned


def visible(stage: Stage, topic: str) -> list[ConsumerRecord]:
    """What a reader of committed records sees in the end."""
    stage.settle()
    return stage.read(topic)


def examined(stage: Stage) -> Finding:
    """What the oracle says once nothing is under way."""
    stage.settle()
    return examine(stage)


@contextmanager
def flowing(stage: Stage, some: Callable[[int], Sequence[bytes]], seconds: float) -> Iterator[None]:
    """Records come all the time: every so many seconds those that `some` makes, told how many there were before."""
    stop = Event()

    def publish() -> None:
        number = 0
        while not stop.wait(seconds):
            values = some(number)
            stage.publish(values)
            number += len(values)

    thread = Thread(target=publish, name="publisher")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def administration(address: str) -> Iterator[KafkaAdminClient]:
    """A client for what only an administrator asks or does."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        yield admin
    finally:
        admin.close()


# === Commands ===


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def in_time(self) -> bool:
        """Whether it took less than 15 s, more than half of them patience with a broker; in proportion more where
        several processes share a core, since then the rest takes longer."""
        return self.seconds < 15 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    @property
    def error(self) -> str:
        """The line for the user; JSON lines are the log of `run`."""
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if not line.startswith("{")]
        return line


# === A worker without TensorFlow ===


class StubWorker(Worker):
    """`review-worker run` with an engine that takes `STUB_SECONDS` for a batch, 0 unless given."""

    def __init__(self, stage: Stage, model: Path, log: Path, **extra: str) -> None:
        self.log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(STUB), "run", "--model", str(model)],
                env=environment | {"PYTHONPATH": str(ROOT)} | stage.environment | extra,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                cwd=ROOT,
            )


@contextmanager
def started_stubs(stage: Stage, model: Path, folder: Path) -> Iterator[Callable[..., StubWorker]]:
    """Starts stub workers, `start("name", WORKER_…=…)`; all are gone afterwards."""
    with ExitStack() as stack:

        def start(name: str = "stub", **extra: str) -> StubWorker:
            made = StubWorker(stage, model, folder / f"{name}.log", **extra)
            stack.callback(_end, made)
            return made

        yield start


def _end(worker: StubWorker) -> None:
    if worker.process.poll() is None:
        worker.kill()


# === A broker in trouble ===


def process_id(broker: Broker) -> int:
    """Of the broker that runs now."""
    return int(json.loads(broker.command("status", "--json"))["pid"])


GUARDED = (
    "--set",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "--set",
    "allow.everyone.if.no.acl.found=true",
)
"""Options of a broker on which rights can be denied."""


def bring_back(broker: Broker) -> None:
    """Start a broker that was killed, with its options."""
    broker.command("start", "--fast-failover", *GUARDED)


@contextmanager
def denied(stage: Stage, kind: ResourceType, name: str, right: ACLOperation) -> Iterator[None]:
    """Everybody has every right on the topic, group or transactional id of that name but this one."""
    pattern = ResourcePattern(kind, name)
    admin = KafkaAdminClient(bootstrap_servers=stage.address)
    rules = [
        ACL("User:*", "*", operation, permission, pattern)
        for operation, permission in (
            (ACLOperation.ALL, ACLPermissionType.ALLOW),
            (right, ACLPermissionType.DENY),
        )
    ]
    try:
        assert not admin.create_acls(rules)["failed"]
        wait_for(lambda: len(admin.describe_acls(_every_rule(pattern))[0]) == len(rules), "the broker knows the rules")
        try:
            yield
        finally:
            admin.delete_acls([_every_rule(pattern)])
            wait_for(lambda: not admin.describe_acls(_every_rule(pattern))[0], "the rules are gone")
    finally:
        admin.close()


def _every_rule(pattern: ResourcePattern) -> ACLFilter:
    return ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, pattern)


@contextmanager
def paused(broker: Broker) -> Iterator[None]:
    """The broker accepts connections, and answers nothing until the end of the block."""
    pid = process_id(broker)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# === Records of other clients ===


def produce_raw(
    address: str,
    topic: str,
    partition: int,
    records: Sequence[tuple[bytes | None, bytes | None, Sequence[Header]]],
    compression: int = 0,
    trailer: bytes = b"",
) -> None:
    """Put key, value and headers on a partition as one record batch, in a request of our own: kafka-python refuses a
    header without a value, and a header's name that is not UTF-8. `trailer` stands behind the batch's own bytes."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for offset, (key, value, headers) in enumerate(records):
        assert builder.append(offset, round(time.time() * 1000), key, value, list(headers)) is not None
    batch = bytearray(builder.build())
    batch = batch.replace(BAD_KEY.encode(), b"\xff" * len(BAD_KEY)) + trailer
    struct.pack_into(">i", batch, LENGTH_OFFSET, len(batch) - LENGTH_OFFSET - 4)
    crc = calc_crc32c(memoryview(batch)[DefaultRecordBase.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", batch, DefaultRecordBase.CRC_OFFSET, crc)
    # Produce (API key 0) version 7: no transactional id, acks -1, 10 s, one topic, one partition.
    request = struct.pack(">hhih", 0, 7, 1, -1) + struct.pack(">hhi", -1, -1, 10_000)
    request += struct.pack(">ih", 1, len(topic)) + topic.encode()
    request += struct.pack(">iii", 1, partition, len(batch)) + batch
    host, _, port = address.rpartition(":")
    wait_for(lambda: _ask(host, int(port), request, topic) != NOT_LEADER, "the partition has a leader")


def _ask(host: str, port: int, request: bytes, topic: str) -> int:
    """The error code of a Produce request; only one that time heals is returned."""
    with socket.create_connection((host, port), timeout=10) as link, link.makefile("rwb") as stream:
        stream.write(struct.pack(">i", len(request)) + request)
        stream.flush()
        (size,) = struct.unpack(">i", stream.read(4))
        body = stream.read(size)
    (error,) = struct.unpack_from(">h", body, 4 + 4 + 2 + len(topic) + 4 + 4)
    assert error in (0, NOT_LEADER), f"the broker refused the batch with error {error}"
    return int(error)
