"""More workers in one group: nothing is lost, however many there are and whoever comes and goes. The small sizes ask
for that alone; `make scale` also measures, and prints what it found."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.scale import (
    INSTANT,
    PATIENCE,
    SLOW,
    Change,
    Device,
    Sample,
    Share,
    Speed,
    busy_share,
    measure_changes,
    measure_speed,
    steady_state,
)
from bench.tables import REBALANCES, SPEED
from faults.arena import Arena, Brokers, opened
from faults.oracle import Finding
from running import Broker, Stage


@dataclass(frozen=True)
class Growing:
    """One to several workers with the same device."""

    device: Device
    partitions: int
    reviews: Mapping[int, int]
    """For each number of workers how many they are given."""
    extra: Mapping[str, str]
    every_seconds: float = 1

    def __str__(self) -> str:
        return f"{self.device.name.split()[0]}-{self.partitions}"


@dataclass(frozen=True)
class Changing:
    """Some workers, and one that comes and goes."""

    partitions: int
    staying: int
    reviews_per_second: float
    dynamic: bool
    session_seconds: int
    events: Sequence[str]

    def __str__(self) -> str:
        return f"{'dynamic' if self.dynamic else 'static'}-{self.partitions}"


PARTITIONS = (4, 12)
INSTANT_REVIEWS = dict.fromkeys((1, 2, 4), 60_000)
SLOW_REVIEWS = {workers: 6_000 * workers for workers in (1, 2, 4)}

FULL = {
    "growing": [
        Growing(device, partitions, reviews, device.extra)
        for device, reviews in ((INSTANT, INSTANT_REVIEWS), (SLOW, SLOW_REVIEWS))
        for partitions in PARTITIONS
    ],
    "changing": [
        Changing(partitions, 3, 400, dynamic, 6, 3 * ("join", "restart", "stop", "join", "kill", "crash"))
        for dynamic in (False, True)
        for partitions in PARTITIONS
    ],
}
SMALL = {
    "growing": [Growing(INSTANT, 4, {2: 2_000}, {"WORKER_BATCH__MAX_REVIEWS": "50"}, every_seconds=0.5)],
    "changing": [Changing(4, 1, 100, False, 6, ("join", "kill"))],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The sizes that were asked for."""
    rows = FULL if metafunc.config.getoption("--full-scale") else SMALL
    for name in rows.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(name, rows[name], ids=str)


@pytest.mark.kafka
def test_more_workers_share_a_backlog_and_lose_nothing(
    growing: Growing, request: pytest.FixtureRequest, kafka: Broker, tiny_model: Path, tmp_path: Path
) -> None:
    alone: float | None = None
    for workers, total in growing.reviews.items():
        stage = Stage(kafka.address, growing.partitions)
        stage.make_topics()
        folder = tmp_path / str(workers)
        folder.mkdir()
        with opened(Arena(stage, tiny_model, folder, total, dict(growing.extra), Brokers([kafka]))) as arena:
            speed = measure_speed(arena, workers, growing.every_seconds)
        alone = speed.reviews_per_second if workers == 1 else alone
        cells = speed_cells(growing, workers, speed, alone)
        if request.config.getoption("--full-scale"):
            SPEED.note(request, *cells)
        assert speed.finding.sound, speed.finding
        assert (speed.finding.inputs, speed.finding.dead_letters) == (total, 0)


@pytest.mark.kafka
def test_a_worker_comes_and_goes_and_nothing_is_lost(
    changing: Changing, request: pytest.FixtureRequest, kafka: Broker, tiny_model: Path, tmp_path: Path
) -> None:
    stage = Stage(kafka.address, changing.partitions)
    stage.make_topics()
    extra = PATIENCE | SLOW.extra | {"WORKER_KAFKA__SESSION_TIMEOUT_SECONDS": str(changing.session_seconds)}
    with opened(Arena(stage, tiny_model, tmp_path, 0, extra, Brokers([kafka]))) as arena:
        changes, sent, finding = measure_changes(
            arena,
            changing.events,
            changing.staying,
            dynamic=changing.dynamic,
            reviews_per_second=changing.reviews_per_second,
        )
    assert finding.sound, finding
    assert finding.dead_letters == 0
    for name, times in changes.items():
        cells = change_cells(changing, name, [(it.whole_seconds, it.scored_seconds(sent)) for it in times], finding)
        if request.config.getoption("--full-scale"):
            REBALANCES.note(request, *cells)


def speed_cells(growing: Growing, workers: int, speed: Speed, alone: float | None) -> tuple[str, ...]:
    """A row of the table; `alone` is the speed of one worker."""
    rate, limit = speed.reviews_per_second, growing.device.reviews_per_second
    return (
        growing.device.name,
        str(growing.partitions),
        str(workers),
        f"{speed.finding.inputs:,}",
        f"{rate:,.0f}" if rate else "-",
        f"{rate / alone:.2f} x" if rate and alone else "-",
        f"{rate / limit / workers:.0%}" if rate and limit else "-",
        "-" if speed.machine_busy is None else f"{speed.machine_busy:.0%}",
        *oracle_cells(speed.finding),
    )


def change_cells(
    changing: Changing, name: str, times: Sequence[tuple[float, float]], finding: Finding
) -> tuple[str, ...]:
    """A row of the table: median and worst of each time."""
    whole, scored = (f"{statistics.median(its):.1f} s, at most {max(its):.1f}" for its in zip(*times, strict=True))
    return (
        str(changing.partitions),
        f"{'dynamic' if changing.dynamic else 'static'}, {changing.session_seconds} s",
        name,
        str(len(times)),
        whole,
        scored,
        f"{finding.inputs:,}",
        *oracle_cells(finding),
    )


def oracle_cells(finding: Finding) -> tuple[str, str, str]:
    """Missing, twice, out of order."""
    return str(len(finding.missing)), str(len(finding.duplicated)), str(len(finding.disordered))


# === What is read off ===

TWO = {0: Share("a", 1, (0,), 5.0), 1: Share("b", 1, (1,), 5.5)}


def test_the_steady_state_ends_when_a_first_worker_has_nothing_left() -> None:
    sent = {0: [10.0 + n for n in range(10)], 1: [10.5 + n for n in range(20)]}

    assert steady_state(sent, TWO) == (11.5, 19.0)


def test_a_worker_goes_on_with_its_other_partition() -> None:
    alone = dict.fromkeys(range(2), Share("a", 1, (0, 1), 5.0))

    assert steady_state({0: [1.0, 2.0], 1: [3.0, 4.0]}, alone) == (1.0, 4.0)


def test_a_change_ends_with_the_last_share_and_the_last_partition_that_is_scored_by_its_new_owner() -> None:
    change = Change("joins", 4.0, TWO)
    # The first of partition 1 is still by the owner that it had before.
    sent = {0: [3.0, 5.25, 6.0], 1: [5.4, 5.75]}

    assert change.whole_seconds == 1.5
    assert change.scored_seconds(sent) == 1.75


def test_a_worker_that_keeps_its_partitions_has_to_score_after_the_change() -> None:
    change = Change("restart", 7.0, {0: Share("a", 1, (0,), 5.0), 1: Share("b", 1, (1,), 8.0)})

    assert change.scored_seconds({0: [6.0, 9.5], 1: [8.5]}) == 2.5


def test_the_machine_is_looked_at_within_the_steady_state_only() -> None:
    samples = [Sample(0, 0, 0), Sample(1, 100, 200), Sample(2, 130, 400), Sample(3, 330, 600)]

    assert busy_share(samples, 1, 2.5) == 30 / 200
    assert busy_share(samples, 1.5, 2.5) is None
    assert busy_share([], 0, 1) is None
