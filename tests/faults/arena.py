"""The arena: a stream, workers and witnesses around one fault.

Reviews are published while the fault is injected, a reader of committed records watches the outputs all the time, and
at the end the oracle looks at the topics. Workers run the stub engine, so that the protocol sets the pace.
"""

import gc
import json
import os
import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from contract.pieces import StubWorker
from faults.cluster import Cluster
from faults.oracle import Finding, Place, examine, place_of_dead_letter, place_of_prediction
from faults.proxy import Proxy
from running import Broker, Stage

Value = Callable[[int], bytes | None]

PUBLISHER_PATIENCE_MS = 900_000
"""A review is never given up: what the oracle compares is what the broker has, but a row should have its full size."""

MOVE_SECONDS = 60
"""I7: every partition moves within this time of healing."""


SHOWN_CHARACTERS = 4_000
"""Of each worker's log, from its end."""

WITNESS_SECONDS = 60
"""A reader whose broker went away in the midst of a request waits for its answer half of that."""


@dataclass(frozen=True)
class Result:
    """What one row of the matrix came to."""

    finding: Finding
    seen_otherwise: int
    """I8: records that the reader during the faults saw and the one afterwards did not, or the other way round."""
    recovery_seconds: float | None
    """From healing to the first committed output that a reader saw; None when all was answered by then."""
    restarts: int
    """Workers that were started in all, but for the first."""

    @property
    def sound(self) -> bool:
        """Every invariant that topics can show holds."""
        return self.finding.sound and not self.seen_otherwise


class Witness(Thread):
    """Reads committed outputs during the faults, and remembers where each stood and when it came."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(name="witness", daemon=True)
        self._stage = stage
        self._over = Event()
        self.seen: dict[tuple[str, int, int], Place] = {}
        self.repeated = 0
        self.troubles: Counter[str] = Counter()
        self.times: list[float] = []

    def run(self) -> None:
        """Until told to stop; a broker that is away is waited for."""
        topics = (self._stage.output, self._stage.dead)
        consumer = KafkaConsumer(
            bootstrap_servers=self._stage.address,
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            reconnect_backoff_max_ms=1_000,
        )
        try:
            consumer.assign(
                [TopicPartition(topic, n) for topic in topics for n in consumer.partitions_for_topic(topic)]
            )
            while not self._over.is_set():
                try:
                    found = consumer.poll(200)
                except KafkaError as error:
                    self.troubles[repr(error)] += 1
                    time.sleep(0.2)
                    continue
                for records in found.values():
                    self._take(records)
        finally:
            consumer.close(autocommit=False)

    def _take(self, records: Sequence[Any]) -> None:
        self.times.append(time.monotonic())
        for record in records:
            is_dead = record.topic == self._stage.dead
            place = place_of_dead_letter(record) if is_dead else place_of_prediction(record)
            key = (record.topic, record.partition, record.offset)
            self.repeated += key in self.seen
            self.seen[key] = place

    def stop(self) -> None:
        """And wait for it. What it met is printed: pytest shows that of a test that fails."""
        self._over.set()
        self.join(30)
        state = "alive" if self.is_alive() else "ended"
        print(f"the witness, {state}, saw {len(self.seen)}, {self.repeated} again, and met {dict(self.troubles)}")


class Publisher(Thread):
    """Publishes so many reviews over so many seconds, through whatever happens to the broker."""

    def __init__(self, stage: Stage, value: Value, total: int, seconds: float) -> None:
        super().__init__(name="publisher", daemon=True)
        self._stage = stage
        self._value = value
        self._total = total
        self._seconds = seconds
        self.failures: list[BaseException] = []

    def run(self) -> None:
        """Keyed by one of fifty keys, and every tenth without one."""
        producer = KafkaProducer(
            bootstrap_servers=self._stage.address,
            acks="all",
            linger_ms=20,
            delivery_timeout_ms=PUBLISHER_PATIENCE_MS,
            max_block_ms=PUBLISHER_PATIENCE_MS,
            reconnect_backoff_max_ms=1_000,
        )
        begun = time.monotonic()
        try:
            for number in range(self._total):
                time.sleep(max(0.0, begun + self._seconds * number / self._total - time.monotonic()))
                key = None if number % 10 == 0 else f"k{number % 50}".encode()
                value = self._value(number)
                if key is None and value is None:
                    key = b"k"
                producer.send(self._stage.input, key=key, value=value).add_errback(self.failures.append)
            producer.flush(timeout=PUBLISHER_PATIENCE_MS / 1000)
        except KafkaError as error:
            self.failures.append(error)
        finally:
            producer.close(timeout=10)


class Supervised(Thread):
    """A worker that is started again whenever it ends with an error, as a supervisor does."""

    def __init__(self, start: Callable[..., StubWorker], name: str, **extra: str) -> None:
        super().__init__(name=f"supervisor of {name}", daemon=True)
        self._start = start
        self._extra = extra
        self._over = Event()
        self._called = name
        self.worker = start(name, **extra)

    def run(self) -> None:
        """Watch it."""
        while not self._over.wait(0.1):
            if self.worker.process.poll() not in (None, 0):
                time.sleep(0.5)
                self.worker = self._start(self._called, **self._extra)

    def stop(self) -> None:
        """No more restarts; the worker goes on."""
        self._over.set()
        self.join(30)


@dataclass(frozen=True)
class Brokers:
    """What carries the stream."""

    nodes: Sequence[Broker]
    cluster: Cluster | None = None
    """Where there are several."""
    link: Proxy | None = None
    """What workers go through, where they do."""

    @property
    def address(self) -> str:
        """Of all of them."""
        return ",".join(node.address for node in self.nodes)


class Arena:
    """One fault's stage, workers and witnesses."""

    def __init__(
        self, stage: Stage, model: Path, folder: Path, total: int, extra: dict[str, str], brokers: Brokers
    ) -> None:
        self.stage = stage
        self.brokers = brokers
        self.model = model
        self.total = total
        self.random = random.Random(0)  # noqa: S311 - the same faults in every run
        self.workers: list[StubWorker] = []
        self.healed_at: float | None = None
        self.folder = folder
        self._extra = extra
        self._stack = ExitStack()

    def start(self, name: str = "one", **extra: str) -> StubWorker:
        """A worker of its own name, the same after a restart. `extra` wins over the row's own settings."""
        names = {
            "WORKER_KAFKA__TRANSACTIONAL_ID": f"{self.stage.name}-{name}",
            "WORKER_KAFKA__GROUP_INSTANCE_ID": f"{self.stage.name}-{name}",
        }
        if self.brokers.link:
            names["WORKER_KAFKA__BOOTSTRAP_SERVERS"] = self.brokers.link.address
        made = StubWorker(self.stage, self.model, self.folder / f"{name}.log", **(self._extra | names | extra))
        self.workers.append(made)
        return made

    def supervise(self, name: str = "one", **extra: str) -> Supervised:
        """The same, started again whenever it ends with an error."""
        made = Supervised(self.start, name, **extra)
        made.start()
        self._stack.callback(made.stop)
        return made

    def publish(self, seconds: float = 0, value: Value | None = None, total: int | None = None) -> Publisher:
        """Begin to publish."""
        made = Publisher(self.stage, value or review, total or self.total, seconds)
        made.start()
        return made

    def log(self, name: str = "one") -> str:
        """What a worker logged, over all its lives."""
        return (self.folder / f"{name}.log").read_text()

    def progress(self) -> int:
        """Input offsets that are committed, over all partitions."""
        try:
            return sum(self.stage.committed().values())
        except (KafkaError, AssertionError):
            return 0

    def wait_for_progress(self, offset: float) -> None:
        """Wait until so many input offsets are committed, as long as it goes on at all (I7)."""
        last, moved_at = -1, time.monotonic()
        while (now := self.progress()) < offset:
            if now > last:
                last, moved_at = now, time.monotonic()
            assert time.monotonic() < moved_at + MOVE_SECONDS, f"stands at {now} of {offset:.0f} for {MOVE_SECONDS} s"
            time.sleep(0.02)

    def healed(self) -> None:
        """The fault is over: from here on the time to recover counts."""
        self.healed_at = time.monotonic()

    def close(self) -> None:
        """Whatever happened: no process is left."""
        self._stack.close()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()


def review(number: int) -> bytes:
    """A record that is scored."""
    return json.dumps({"review_id": f"r{number}", "text": "the movie was great"}).encode()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process stands still until the end of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def opened(arena: Arena) -> Iterator[Arena]:
    """An arena that is left clean. What its workers logged is printed: pytest shows that of a test that fails."""
    try:
        yield arena
    finally:
        arena.close()
        for log in sorted(arena.folder.glob("*.log")):
            print(f"--- {log.name} ---", log.read_text()[-SHOWN_CHARACTERS:], sep="\n")


def play(arena: Arena, inject: Callable[[Arena], None], drain_seconds: float = 120) -> Result:
    """Inject the fault, wait until everything is answered, stop the workers, and ask the oracle.

    `inject` publishes, starts the workers and leaves at least one that works.
    """
    with warnings.catch_warnings():
        # kafka-python leaves the sockets of refused connections to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        witness = Witness(arena.stage)
        witness.start()
        try:
            inject(arena)
            healed = arena.healed_at or time.monotonic()
            arena.stage.wait_until_drained(drain_seconds)
            for worker in arena.workers:
                if worker.process.poll() is None:
                    # All may be answered before the last one has even begun to listen to signals.
                    worker.wait_until_ready()
                    assert worker.stop() == 0, worker.log.read_text()[-2000:]
            arena.stage.settle()
            after = {
                (record.topic, record.partition, record.offset)
                for topic in (arena.stage.output, arena.stage.dead)
                for record in arena.stage.read(topic)
            }
            patience = time.monotonic() + WITNESS_SECONDS
            while len(witness.seen) < len(after) and time.monotonic() < patience:
                time.sleep(0.05)
            time.sleep(0.5)  # for it to see what it should not
        finally:
            witness.stop()
            gc.collect()
    for log in arena.folder.glob("*.log"):
        assert "movie" not in log.read_text(), "I10: a log holds a review"
    finding = examine(arena.stage)
    first = next((seen - healed for seen in witness.times if seen > healed), None)
    return Result(finding, len(after ^ witness.seen.keys()) + witness.repeated, first, len(arena.workers) - 1)
