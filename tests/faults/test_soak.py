"""S1: a steady stream, a worker that is killed again and again, and one beside it that must not grow."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.arena import Arena, Brokers, opened, play
from faults.matrix import BATCH
from faults.table import note
from running import Broker, Stage

pytestmark = pytest.mark.kafka

REVIEWS_PER_SECOND = 300
KILL_EVERY_SECONDS = 60
GROWTH = 1.05
"""I9: at most, over the second half."""


@dataclass(frozen=True)
class Use:
    """What a process holds."""

    resident: int
    """KiB."""
    threads: int
    files: int


def use_of(pid: int) -> Use:
    """As Linux counts it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Use(int(status["VmRSS"].split()[0]), int(status["Threads"]), files)


def test_nothing_is_lost_and_nothing_grows(
    request: pytest.FixtureRequest, kafka: Broker, tiny_model: Path, tmp_path: Path
) -> None:
    seconds = request.config.getoption("--soak-minutes") * 60
    kill_every = min(KILL_EVERY_SECONDS, seconds / 5)
    stage = Stage(kafka.address, 3)
    stage.make_topics()
    used: list[Use] = []

    def soak(arena: Arena) -> None:
        publisher = arena.publish(seconds)
        steady = arena.start("steady")
        victim = arena.start("victim")
        steady.wait_until_ready()
        next_kill = time.monotonic() + kill_every
        while publisher.is_alive():
            publisher.join(1)
            used.append(use_of(steady.process.pid))
            if time.monotonic() > next_kill:
                victim.kill()
                victim = arena.start("victim")
                next_kill += kill_every
        victim.wait_until_ready()
        arena.healed()

    with opened(
        Arena(stage, tiny_model, tmp_path, round(seconds * REVIEWS_PER_SECOND), BATCH, Brokers([kafka]))
    ) as arena:
        result = play(arena, soak)
    note(request, "S1", f"soak of {seconds / 60:g} min, kill -9 every {kill_every:.0f} s", result)
    assert result.sound, result
    # The first quarter is warm-up: allocators and caches fill.
    counted = used[len(used) // 4 :]
    early, late = counted[: len(counted) // 2], counted[len(counted) // 2 :]
    for what in ("resident", "threads", "files"):
        before, after = (statistics.median(getattr(use, what) for use in half) for half in (early, late))
        note_growth = f"{what}: {before:,.0f} in the first half, {after:,.0f} in the second"
        print(note_growth)
        assert after <= before * GROWTH + (2 if what != "resident" else 0), note_growth
