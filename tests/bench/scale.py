"""The scale trial: groups of stub workers on a real broker, how fast they are, and how soon a group is whole again when
a worker comes or goes.

All times are read off afterwards: the record of a prediction says when it was sent, in a transaction that was
committed, and a worker's log says when it was given its partitions. Beside the workers and the broker there is only
somebody who asks now and then how far the group is and, where the stream must not end, a publisher of a few hundred
reviews a second.
"""

import signal
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from kafka import KafkaProducer

from contract.pieces import wait_for
from faults.arena import Arena, review
from faults.oracle import Finding, examine, place_of_prediction
from running import Stage

WHOLE_SECONDS = 120
"""A group that is not whole by then never will be: the longest time-outs of these workers are 6 s."""

STALL_SECONDS = 120
PUBLISH_MS = 300_000

PATIENCE = {"WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS": "6", "WORKER_KAFKA__REQUEST_TIMEOUT_SECONDS": "4"}
"""Of the workers of a group that changes: by default 60 and 15 s."""

Sent = Mapping[int, Sequence[float]]
"""For each input partition the times at which its predictions were sent, in order; seconds since 1970."""


@dataclass(frozen=True)
class Device:
    """What the stub of each worker stands for."""

    name: str
    reviews_per_second: float | None
    """The most that one does; None where protocol and processor set the pace."""
    extra: dict[str, str] = field(default_factory=dict)


INSTANT = Device("instant", None)

SLOW = Device(
    "400 reviews/s",
    400,
    {
        "STUB_SECONDS": "0.25",
        "WORKER_BATCH__MAX_REVIEWS": "100",
        # The limit alone sets the batch, from the second one on.
        "WORKER_BATCH__TARGET_SECONDS": "30",
    },
)
"""A device that takes its time and no processor of this machine: what the group could do where each worker has one."""


# === Who has which partition ===


@dataclass(frozen=True)
class Share:
    """What a worker was given at the latest change of its group."""

    worker: str
    generation: int
    partitions: tuple[int, ...]
    at: float
    """Seconds since 1970."""


Shares = Mapping[int, Share]
"""For each partition whose share it is in."""


class Member:
    """A worker of the group, from one start to its end."""

    def __init__(self, arena: Arena, name: str, **extra: str) -> None:
        self.name = name
        self._since = time.time()
        self.worker = arena.start(name, **extra)

    def said(self, event: str) -> list[tuple[float, dict[str, object]]]:
        """When it logged that, and the lines. A worker of its name that was before has the same log."""
        lines = [(_seconds(line["at"]), line) for line in self.worker.lines if line["event"] == event]
        return [(at, line) for at, line in lines if at >= self._since]

    @property
    def share(self) -> Share | None:
        """None before the first."""
        said = self.said("partitions assigned")
        if not said:
            return None
        at, line = said[-1]
        return Share(self.name, line["generation"], tuple(line["partitions"]), at)


def _seconds(at: object) -> float:
    return datetime.fromisoformat(str(at)).timestamp()


def shares_of(members: Sequence[Member], partitions: int) -> Shares | None:
    """None while a member waits for its share, or a partition has no owner among them."""
    shares = [share for member in members if (share := member.share)]
    owned = {partition: share for share in shares for partition in share.partitions}
    one_generation = len({share.generation for share in shares}) == 1
    return owned if len(shares) == len(members) and one_generation and len(owned) == partitions else None


def wait_until_whole(members: Sequence[Member], partitions: int) -> Shares:
    """Until the members have one generation and all partitions."""

    def whole() -> Shares | None:
        for member in members:
            assert member.worker.process.poll() is None, f"{member.name}: {member.worker.log.read_text()[-2000:]}"
        return shares_of(members, partitions)

    return wait_for(whole, "the group is whole", WHOLE_SECONDS)


# === Speed ===


@dataclass(frozen=True)
class Speed:
    """What a group did with a backlog."""

    reviews_per_second: float | None
    """In the steady state; None when the group changed meanwhile, or lost something, so that there was none."""
    machine_busy: float | None
    """Share of all cores' time that anything at all used meanwhile; None too when it was too short to tell."""
    finding: Finding


@dataclass(frozen=True)
class Sample:
    """What the machine had done at a time."""

    at: float
    busy: int
    total: int
    """Ticks of all cores since the machine came up."""


def sample() -> Sample:
    """As Linux counts it."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return Sample(time.time(), sum(ticks) - idle, sum(ticks))


def measure_speed(arena: Arena, workers: int, every_seconds: float = 1) -> Speed:
    """Start so many workers, give them the arena's reviews at once, and ask the oracle when all are answered.

    Args:
        arena: with what the workers are told.
        workers: how many.
        every_seconds: how often the machine is looked at, and the group asked how far it is.
    """
    stage = arena.stage
    with hidden_backlog(stage, arena.total) as show:
        members = [Member(arena, f"worker-{number}") for number in range(workers)]
        shares = wait_until_whole(members, stage.partitions)
        show()
    samples = [sample()]
    moved_at, before = time.monotonic(), 0
    while (done := arena.progress()) < arena.total:
        if done > before:
            before, moved_at = done, time.monotonic()
        assert time.monotonic() < moved_at + STALL_SECONDS, f"stands at {done} of {arena.total}"
        time.sleep(every_seconds)
        samples.append(sample())
    unchanged = shares_of(members, stage.partitions) == shares
    finding = finish(arena)
    if not (unchanged and finding.sound):
        return Speed(None, None, finding)
    sent = sent_times(stage)
    begin, end = steady_state(sent, shares)
    reviews = sum(bisect_right(times, end) - bisect_right(times, begin) for times in sent.values())
    return Speed(reviews / (end - begin), busy_share(samples, begin, end), finding)


def steady_state(sent: Sent, shares: Shares) -> tuple[float, float]:
    """From when a tenth is answered until a first worker has nothing left; seconds since 1970."""
    every = sorted(chain.from_iterable(sent.values()))
    last: dict[str, float] = {}
    for partition, times in sent.items():
        worker = shares[partition].worker
        last[worker] = max(times[-1], last.get(worker, 0))
    return every[len(every) // 10], min(last.values())


def busy_share(samples: Sequence[Sample], begin: float, end: float) -> float | None:
    """Between the first and the last sample within."""
    within = [it for it in samples if begin <= it.at <= end]
    ticks = within[-1].total - within[0].total if within else 0
    return (within[-1].busy - within[0].busy) / ticks if ticks else None


@contextmanager
def hidden_backlog(stage: Stage, total: int) -> Iterator[Callable[[], object]]:
    """Publish reviews, as many on each partition, in one transaction; gives the call that commits it.

    Until then no worker reads one: publishing has ended when the measurement begins, and every worker begins at once.
    """
    producer = KafkaProducer(
        bootstrap_servers=stage.address,
        transactional_id=f"{stage.name}-publisher",
        transaction_timeout_ms=PUBLISH_MS,
        acks="all",
        linger_ms=20,
        batch_size=256 << 10,
    )
    try:
        producer.init_transactions()
        producer.begin_transaction()
        sent = [send(producer, stage, number) for number in range(total)]
        producer.flush(timeout=PUBLISH_MS / 1000)
        assert all(future.succeeded() for future in sent)
        yield producer.commit_transaction
    finally:
        producer.close(timeout=10)


def send(producer: KafkaProducer, stage: Stage, number: int) -> object:
    """One review. Its partition is chosen here: by their keys, some would get more than others."""
    key = f"k{number % 50}".encode()
    return producer.send(stage.input, key=key, value=review(number), partition=number % stage.partitions)


def sent_times(stage: Stage) -> Sent:
    """Of all predictions that are committed."""
    found: dict[int, list[float]] = {partition: [] for partition in range(stage.partitions)}
    for record in stage.read(stage.output):
        found[place_of_prediction(record)[0]].append(record.timestamp / 1000)
    return {partition: sorted(times) for partition, times in found.items()}


def finish(arena: Arena) -> Finding:
    """Wait until all is answered, stop the workers, and ask the oracle."""
    arena.stage.wait_until_drained(120)
    for worker in arena.workers:
        if worker.process.poll() is None:
            assert worker.stop() == 0, worker.log.read_text()[-2000:]
    arena.stage.settle()
    return examine(arena.stage)


# === Rebalances ===


@dataclass(frozen=True)
class Change:
    """A worker came or went, and the group that was whole again afterwards."""

    name: str
    at: float
    """Seconds since 1970."""
    shares: Shares

    @property
    def whole_seconds(self) -> float:
        """Until the last member was given its share."""
        return max(share.at for share in self.shares.values()) - self.at

    def scored_seconds(self, sent: Sent) -> float:
        """Until each partition had a prediction by its owner of then."""
        again = []
        for partition, share in self.shares.items():
            times = sent[partition]
            again.append(times[bisect_left(times, max(self.at, share.at))])
        return max(again) - self.at


class Trickle(Thread):
    """Reviews on every partition in turn, at an even rate, until told to stop."""

    def __init__(self, stage: Stage, reviews_per_second: float) -> None:
        super().__init__(name="trickle", daemon=True)
        self._stage = stage
        self._rate = reviews_per_second
        self._over = Flag()

    def run(self) -> None:
        """Until told to stop."""
        producer = KafkaProducer(bootstrap_servers=self._stage.address, acks="all", linger_ms=20)
        begun = time.monotonic()
        try:
            for number in count():
                if self._over.wait(max(0.0, begun + number / self._rate - time.monotonic())):
                    return
                send(producer, self._stage, number)
        finally:
            producer.close(timeout=30)

    def stop(self) -> None:
        """And wait until the broker has all."""
        self._over.set()
        self.join(60)
        assert not self.is_alive()


class Group:
    """Some workers that stay, and one that comes and goes. Each change ends when every partition moves again."""

    def __init__(self, arena: Arena, staying: int, dynamic: bool) -> None:
        self._arena = arena
        self._extra = {"WORKER_KAFKA__GROUP_INSTANCE_ID": ""} if dynamic else {}
        self._members = [Member(arena, f"worker-{number}", **self._extra) for number in range(staying)]
        self.changes: list[Change] = []
        wait_until_whole(self._members, arena.stage.partitions)

    def join(self) -> None:
        """Counted from when its model is ready: what loading takes is the model's."""
        self._members.append(self._come())
        self._wait("joins", lambda: self._members[-1].said("model ready")[-1][0])

    def stop(self) -> None:
        """The last one to come gets SIGTERM."""
        at = self._end_last(signal.SIGTERM, 0)
        self._wait("SIGTERM", lambda: at)

    def kill(self) -> None:
        """The same with SIGKILL."""
        at = self._end_last(signal.SIGKILL, -signal.SIGKILL)
        self._wait("SIGKILL", lambda: at)

    def restart(self) -> None:
        """The last one to come gets SIGTERM, and is started again under its name once it has ended."""
        at = self._end_last(signal.SIGTERM, 0)
        self._members.append(self._come())
        self._wait("SIGTERM and started again", lambda: at)

    def crash(self) -> None:
        """One comes, and dies right before it commits: a batch and its offsets are left open."""
        doomed = self._come(STUB_CRASH="after offsets", STUB_CRASH_AT="5")
        assert doomed.worker.wait(WHOLE_SECONDS) == -signal.SIGKILL
        at = time.time()
        self._wait("SIGKILL within a transaction", lambda: at)

    def _come(self, **extra: str) -> Member:
        return Member(self._arena, "comer", **self._extra | extra)

    def _end_last(self, number: signal.Signals, code: int) -> float:
        member = self._members.pop()
        at = time.time()
        member.worker.signal(number)
        assert member.worker.wait() == code, member.worker.log.read_text()[-2000:]
        return at

    def _wait(self, name: str, at: Callable[[], float]) -> None:
        stage = self._arena.stage
        shares = wait_until_whole(self._members, stage.partitions)
        self.changes.append(Change(name, at(), shares))
        before = stage.committed()
        wait_for(
            lambda: all(offset > before.get(partition, -1) for partition, offset in stage.committed().items()),
            f"{name}: every partition moves",
            STALL_SECONDS,
        )


def measure_changes(
    arena: Arena, events: Sequence[str], staying: int, *, dynamic: bool, reviews_per_second: float
) -> tuple[dict[str, list[Change]], Sent, Finding]:
    """Let a worker come and go while reviews trickle in.

    Args:
        arena: with what the workers are told.
        events: methods of `Group`, in turn.
        staying: workers that are there all the time.
        dynamic: they have no group instance id.
        reviews_per_second: well below what the workers that stay can do, so that no backlog is in the way.

    Returns:
        The changes by name, when each prediction was sent, and what the oracle says.
    """
    trickle = Trickle(arena.stage, reviews_per_second)
    trickle.start()
    try:
        group = Group(arena, staying, dynamic)
        for event in events:
            getattr(group, event)()
    finally:
        trickle.stop()
    finding = finish(arena)
    named: dict[str, list[Change]] = {}
    for change in group.changes:
        named.setdefault(change.name, []).append(change)
    return named, sent_times(arena.stage), finding
