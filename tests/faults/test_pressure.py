"""Back-pressure: a backlog of any length and a broker that takes little slow the worker down and never fill its memory.

The loop holds one batch on the device and one that is prepared; not polling is all the pressure that is needed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.pieces import StubWorker, examined, started_stubs, wait_for
from running import BROKER, Broker, Stage

pytestmark = pytest.mark.kafka

LENGTH = 5_000
"""Characters of a review."""

BACKLOG = 20_000
ROOM_KIB = 96 * 1024
"""What a backlog of 100 MB may add to a worker's memory: two batches of 2,000 such reviews, what is fetched ahead, and
the allocator's share."""

BYTES_PER_SECOND = 200_000


def long_review(number: int) -> bytes:
    return json.dumps({"review_id": f"r{number}", "text": ("great film " * LENGTH)[:LENGTH]}).encode()


def peak_kib(worker: StubWorker) -> int:
    """The most memory that the process ever held."""
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def start(stage: Stage, tiny_model: Path, tmp_path: Path) -> Iterator[Callable[..., StubWorker]]:
    with started_stubs(stage, tiny_model, tmp_path) as started:
        yield started


def peak_after(stage: Stage, start: Callable[..., StubWorker], reviews: int, name: str) -> int:
    """Of a new worker that finds so many reviews waiting."""
    stage.publish([long_review(number) for number in range(reviews)])
    worker = start(name)
    stage.wait_until_drained(120)
    peak = peak_kib(worker)
    assert worker.stop() == 0
    return peak


def test_memory_does_not_follow_the_backlog(stage: Stage, start: Callable[..., StubWorker]) -> None:
    small = peak_after(stage, start, 200, "small")
    large = peak_after(stage, start, BACKLOG, "large")
    print(f"peak {small:,} KiB with 200 reviews, {large:,} KiB with {BACKLOG:,}")
    assert large < small + ROOM_KIB
    assert examined(stage).sound


@contextmanager
def quota(broker: Broker, client: str) -> Iterator[None]:
    """The broker takes so many bytes a second from clients of that name, by Kafka's own means."""
    install = subprocess.run([sys.executable, str(BROKER), "install"], check=True, capture_output=True, text=True)
    jars = install.stdout.strip()

    def configure(*change: str) -> None:
        tool = ["java", "-cp", f"{jars}/*", "kafka.admin.ConfigCommand", "--bootstrap-server", broker.address]
        entity = ["--entity-type", "clients", "--entity-name", client]
        subprocess.run([*tool, "--alter", *change, *entity], check=True, capture_output=True, timeout=60)

    configure("--add-config", f"producer_byte_rate={BYTES_PER_SECOND}")
    try:
        yield
    finally:
        configure("--delete-config", "producer_byte_rate")


def test_a_broker_that_takes_little_slows_the_worker_and_nothing_is_lost(
    kafka: Broker, stage: Stage, start: Callable[..., StubWorker]
) -> None:
    reviews = 4_000
    stage.publish([long_review(number) for number in range(reviews)])
    with quota(kafka, stage.name):
        began = time.monotonic()
        uncompressed = {"WORKER_KAFKA__COMPRESSION": "none", "WORKER_BATCH__MAX_REVIEWS": "200"}
        worker = start(WORKER_KAFKA__CLIENT_ID=stage.name, **uncompressed)
        wait_for(lambda: sum(stage.committed().values()) >= reviews // 4, "a quarter is done", 120)
        early = peak_kib(worker)
        stage.wait_until_drained(240)
        seconds = time.monotonic() - began
        late = peak_kib(worker)
        assert worker.stop() == 0
    print(f"{reviews / seconds:,.0f} reviews/s, peak {early:,} KiB after a quarter, {late:,} KiB at the end")
    assert seconds > 5, "the quota did not bite"
    assert late < early + ROOM_KIB / 4
    assert examined(stage).sound
