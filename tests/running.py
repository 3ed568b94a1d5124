"""Real processes for tests: a broker, topics of a test's own, and workers, all ended whatever happens."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError

ROOT = Path(__file__).resolve().parent.parent
BROKER = ROOT / "deploy" / "kafka" / "broker"
HOST = "127.0.0.1"
READY_SECONDS = 90
COORDINATOR_SECONDS = 20
CONFIGURED_SECONDS = 30


def free_ports(count: int) -> list[int]:
    """Different free ports of this machine, below those that outgoing connections get (from 32768 on Linux): a client
    that keeps calling a port where nobody listens can be given that very port as its own end, and whoever listened
    cannot come back."""
    ports: list[int] = []
    with ExitStack() as bound:
        while len(ports) < count:
            probe = bound.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((HOST, secrets.choice(range(20_000, 32_768))))
                ports.append(probe.getsockname()[1])
    return ports


@dataclass(frozen=True)
class Broker:
    """A broker of the project's own script."""

    data: Path
    address: str

    def command(self, *arguments: str) -> str:
        """Run `broker <arguments> --data …` and give what it printed."""
        done = subprocess.run(
            [sys.executable, str(BROKER), *arguments, "--data", str(self.data)],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def kill(self) -> None:
        """As a crash would."""
        self.command("kill")

    def start_again(self) -> None:
        """On the same port, with the same data."""
        self.command("start", "--fast-failover")


@contextmanager
def broker(data: Path, *options: str) -> Iterator[Broker]:
    """A broker that is gone afterwards."""
    made = Broker(data, "")
    address = made.command("start", "--fast-failover", *options)
    try:
        yield Broker(data, address)
    finally:
        made.command("stop")


@dataclass(frozen=True)
class Stage:
    """Topics and a group of one test's own on a shared broker."""

    address: str
    partitions: int
    name: str = field(default_factory=lambda: f"t{uuid4().hex[:8]}")

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def output(self) -> str:
        return f"{self.name}-out"

    @property
    def dead(self) -> str:
        return f"{self.name}-dead"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that point a worker at this stage. Short time-outs, since tests kill things."""
        return {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": self.address,
            "WORKER_KAFKA__GROUP_ID": self.name,
            "WORKER_KAFKA__INPUT_TOPIC": self.input,
            "WORKER_KAFKA__OUTPUT_TOPIC": self.output,
            "WORKER_KAFKA__DEAD_LETTER_TOPIC": self.dead,
            "WORKER_KAFKA__SESSION_TIMEOUT_SECONDS": "6",
            "WORKER_KAFKA__TRANSACTIONAL_ID": f"{self.name}-worker",
            "WORKER_KAFKA__GROUP_INSTANCE_ID": f"{self.name}-worker",
            "WORKER_HTTP__PORT": "0",
        }

    def make_topics(self) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.address)
        try:
            room = {"max.message.bytes": "3000000"}
            admin.create_topics(
                {
                    self.input: {"num_partitions": self.partitions},
                    self.output: {"num_partitions": self.partitions},
                    self.dead: {"num_partitions": 1, "configs": room},
                },
                wait_for_metadata=True,
            )
        finally:
            admin.close()

    def configure(self, topic: str, **values: int) -> None:
        """Change a topic; `_` stands for the points in the names. A change is in force where the broker lists it: it
        takes up one change after the other, and a topic that was just made is the one before."""
        wanted = {name.replace("_", "."): str(value) for name, value in values.items()}
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        admin = KafkaAdminClient(bootstrap_servers=self.address)
        try:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
            deadline = time.monotonic() + CONFIGURED_SECONDS
            while True:
                found = admin.describe_configs([resource], config_filter="all")["topic"][topic]
                if all(found[name]["value"] == value for name, value in wanted.items()):
                    return
                assert time.monotonic() < deadline, f"{topic} did not get {wanted}"
                time.sleep(0.05)
        finally:
            admin.close()

    def publish(self, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None) -> None:
        """Put values on the input topic, round robin where there is no key, and wait until the broker has them."""
        producer = KafkaProducer(bootstrap_servers=self.address, acks="all", linger_ms=20)
        try:
            sent = [
                producer.send(
                    self.input,
                    key=keys[index] if keys else None,
                    value=value,
                    partition=None if keys and keys[index] is not None else index % self.partitions,
                )
                for index, value in enumerate(values)
            ]
            for future in sent:
                future.get(timeout=30)
        finally:
            producer.close(timeout=10)

    def read(self, topic: str) -> list[ConsumerRecord]:
        """Everything committed in a topic, partition by partition in order."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.address,
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            records: list[ConsumerRecord] = []
            deadline = time.monotonic() + 60
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                assert time.monotonic() < deadline, f"{topic} could not be read to its end"
                for some in consumer.poll(200).values():
                    records += some
            return sorted(records, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close(autocommit=False)

    def committed(self) -> dict[int, int]:
        """The group's committed offset of each input partition that has one. Asks again while the broker is only just
        coming up, or coming back."""
        admin = KafkaAdminClient(bootstrap_servers=self.address)
        deadline = time.monotonic() + COORDINATOR_SECONDS
        try:
            while True:
                try:
                    offsets = admin.list_group_offsets({self.name: None})[self.name]
                except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
                    assert time.monotonic() < deadline, "the broker did not find its coordinator"
                    time.sleep(0.1)
                else:
                    return {tp.partition: offset.offset for tp, offset in offsets.items() if tp.topic == self.input}
        finally:
            admin.close()

    def ends(self, topic: str, isolation_level: str = "read_committed") -> dict[int, int]:
        """The last stable offset of each partition, which transaction markers count in; with `read_uncommitted` the
        end of its log."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.address,
            group_id=None,
            isolation_level=isolation_level,
            enable_auto_commit=False,
        )
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            return {tp.partition: end for tp, end in consumer.end_offsets(partitions).items()}
        finally:
            consumer.close(autocommit=False)

    def beginnings(self, topic: str) -> dict[int, int]:
        """The offset of the oldest record that is left in each partition."""
        consumer = KafkaConsumer(bootstrap_servers=self.address, group_id=None, enable_auto_commit=False)
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            return {tp.partition: offset for tp, offset in consumer.beginning_offsets(partitions).items()}
        finally:
            consumer.close(autocommit=False)

    def settle(self, seconds: float = 90) -> None:
        """Wait until every transaction has its markers: a commit returns before readers see it, and an open one may be
        followed by records that are committed. That of a worker which never came back ends with its time-out, 60 s by
        default."""
        deadline = time.monotonic() + seconds
        for topic in (self.input, self.output, self.dead):
            while self.ends(topic) != self.ends(topic, "read_uncommitted"):
                assert time.monotonic() < deadline, f"{topic}: a transaction is open after {seconds} s"
                time.sleep(0.05)

    def wait_until_drained(self, seconds: float) -> None:
        """Wait until the group's offsets stand at the ends of the input, and readers see everything."""
        deadline = time.monotonic() + seconds
        while (committed := self.committed()) != (ends := self.ends(self.input)):
            assert time.monotonic() < deadline, f"not drained in {seconds} s: committed {committed} of {ends}"
            time.sleep(0.2)
        self.settle()


class Worker:
    """A `review-worker run` process."""

    def __init__(self, stage: Stage, model: Path, log: Path, **extra: str) -> None:
        self.log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run", "--model", str(model)],
                env=environment | stage.environment | extra,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                cwd=ROOT,
            )
        self._from = 0

    @property
    def lines(self) -> list[dict[str, object]]:
        """The JSON lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    @property
    def url(self) -> str:
        """Where its HTTP server is; it took a free port."""
        started = [line for line in self.lines if line["event"] == "starting"]
        return str(started[-1]["http"])

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the worker ended: {self.log.read_text()[-2000:]}"
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except (OSError, IndexError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready within {seconds} s: {self.log.read_text()[-2000:]}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float = 60) -> int:
        """Its exit code."""
        return self.process.wait(timeout=seconds)

    def stop(self, seconds: float = 60) -> int:
        """Ask it to stop, and give its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)


@contextmanager
def worker(stage: Stage, model: Path, log: Path, **extra: str) -> Iterator[Worker]:
    """A worker that is gone afterwards."""
    made = Worker(stage, model, log, **extra)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()
