"""What a rebalance costs under the assignors of kafka-python: why the worker takes the range assignor.

A member reads a steady stream, beside it one that polls only now and then, and a new one joins. Prints the longest
pause of the member that stays, and when the new one had its first record.

    PYTHONPATH=tests .venv/bin/python tests/bench/assignors.py
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event

from kafka import KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from running import Stage, broker

PARTITIONS = 6
ROUNDS = 3
SETTLED_SECONDS = 12.0
"""Until the first members share the partitions, and until the new one has its part."""

SLOW_SECONDS = (0.0, 3.0)
"""Between two polls of the member beside: as long as it works on a batch."""


def trial(address: str, assignor: type[AbstractPartitionAssignor], slow_seconds: float) -> tuple[float, float]:
    """One new member: the longest pause of the one that stays, and the time to the new one's first record, seconds."""
    stage = Stage(address, PARTITIONS)
    stage.make_topics()
    stop = Event()

    def publish() -> None:
        producer = KafkaProducer(bootstrap_servers=address)
        while not stop.wait(0.02):
            for partition in range(PARTITIONS):
                producer.send(stage.input, value=b"{}", partition=partition)
        producer.close()

    def read(pause: float = 0.0) -> list[float]:
        consumer = KafkaConsumer(
            stage.input,
            bootstrap_servers=address,
            group_id=stage.name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[assignor],
            session_timeout_ms=10_000,
            heartbeat_interval_ms=500,
        )
        times = []
        while not stop.is_set():
            if consumer.poll(100):
                times.append(time.monotonic())
            time.sleep(pause)
        consumer.close(autocommit=False)
        return times

    with ThreadPoolExecutor(4) as threads:
        threads.submit(publish)
        staying = threads.submit(read)
        if slow_seconds:
            threads.submit(read, slow_seconds)
        time.sleep(SETTLED_SECONDS)
        joined = time.monotonic()
        new = threads.submit(read)
        time.sleep(SETTLED_SECONDS)
        stop.set()
    times = [at for at in staying.result() if at > joined - 1]
    pause = max(after - before for before, after in pairwise(times))
    return pause, min(new.result()) - joined


def main(say: Callable[[str], None] = print) -> None:
    """Both assignors by turns, the median of three rounds."""
    assignors = (RangePartitionAssignor, CooperativeStickyAssignor)
    say("| assignor | slowest member polls every | longest pause | first record of the new member |")
    say("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder) / "kafka") as running:
        for slow_seconds in SLOW_SECONDS:
            rounds = [[trial(running.address, it, slow_seconds) for it in assignors] for _ in range(ROUNDS)]
            for assignor, trials in zip(assignors, zip(*rounds, strict=True), strict=True):
                pauses, firsts = zip(*trials, strict=True)
                say(
                    f"| {assignor.name} | {slow_seconds or 0.1:g} s | {median(pauses):.2f} s | {median(firsts):.2f} s |"
                )


if __name__ == "__main__":
    main()
