"""Suite: what is measured, in which order, and what came of it.

    engine   reviews through tokenizer and engine, in this process
    route    reviews through a real broker and a worker's own process, and back, with transactions
    stub     the same with a scorer that takes no time, at two sizes of reviews

Route and stub need a broker. Everything is done once before the clock, and then in several rounds.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from schemas import Review
from worker.artifact import Artifact
from worker.bench.engine import EngineFigures, LengthFigures, measure_engine, measure_lengths
from worker.bench.place import own_place
from worker.bench.process import worker_process
from worker.bench.reviews import make_reviews, read_reviews, records, sized_records
from worker.bench.rounds import Spread, spread
from worker.bench.route import Latency, Route, RouteFigures, making, summary
from worker.console import err
from worker.errors import UsageError
from worker.service import load_scorer, open_model
from worker.settings import load_settings
from worker.versions import versions

Part = Literal["engine", "route", "stub"]
PARTS: tuple[Part, ...] = get_args(Part)

STUB_BYTES = (300, 1_300)
"""Of a record's value: a short review, and one of IMDB's mean length."""

HOW_TO_GET_A_BROKER = (
    "`deploy/kafka/broker start --data DIR` starts one on this machine and prints its address for --bootstrap-servers; "
    "see deploy/kafka/README.md"
)

BACKLOGS = (1_000, 10_000, 100_000)
BACKLOG_BATCH = "200"
BACKLOG_RATE = 4_000.0
"""Where the cost of a backlog is measured: reviews of a batch, so that the smallest backlog has several too, and
reviews/s of the stub: a device that is always busy, as a real one, but lets 100,000 through in half a minute."""

MOST_TIMES = 5
"""In a round, of one size of backlog."""

LATENCY_SECONDS = 20.0
"""The longest that a paced stream lasts, unless its rate was given."""

HALF = 0.5


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    config: Path | None
    flags: Mapping[str, Any]
    """Nested settings."""
    broker: bool
    """The user has named one: nothing is published to a broker that only the environment names."""
    parts: Sequence[Part] = PARTS
    data: str | None = None
    reviews: int = 200
    rounds: int = 3
    partitions: int = 4
    stub_reviews: int = 30_000
    rate: float | None = None
    backlogs: Sequence[int] = BACKLOGS
    plot: Path | None = None


@dataclass(frozen=True)
class StubFigures:
    """The route without a model, at one size of reviews."""

    bytes_per_review: int
    reviews: int
    reviews_per_second: Spread
    reviews_per_transaction: float
    transactions_share: float


@dataclass(frozen=True)
class BacklogFigures:
    """What backlogs of one size cost, with a stub of `BACKLOG_RATE` for a model."""

    reviews: int
    milliseconds_per_review: Spread
    memory_bytes: float
    """Of the worker, resident, afterwards."""


@dataclass
class Found:
    """What was measured; None where it was not."""

    model: str
    machine: dict[str, Any]
    versions: dict[str, str]
    input_bytes: float
    """Mean of a review: in the broker's log where the route was measured, else its record before compression."""
    output_bytes: float
    """The same of a prediction."""
    engine: EngineFigures | None = None
    route: RouteFigures | None = None
    latency: Latency | None = None
    stub: list[StubFigures] = field(default_factory=list)
    lengths: list[LengthFigures] = field(default_factory=list)
    backlogs: list[BacklogFigures] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For a program; the first five are what `review-worker capacity --from` reads."""
        rate = self.route or self.engine
        return {
            "reviews_per_second": rate.reviews_per_second.median if rate else None,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "device": rate.device if rate else "no device",
            "reviews_per_transaction": self.route.reviews_per_transaction if self.route else None,
        } | asdict(self)


def bench(asked: Asked) -> Found:
    """Measure the parts that were asked for; those that need a broker are left out where there is none, and said so.

    Raises:
        UsageError: no reviews, or a part was asked for by name that cannot be measured.
        ReviewScorerError: model, engine, broker or worker are not usable.
    """
    settings = load_settings(asked.config, asked.flags)
    if asked.plot:
        require_matplotlib()
    artifact = open_model(settings)
    reviews = (
        read_reviews(asked.data, asked.reviews, settings.batch.max_message_bytes)
        if asked.data
        else make_reviews(asked.reviews)
    )
    values = records(reviews, asked.reviews)
    making_seconds, output_bytes = making(artifact)
    found = Found(
        model=f"{artifact.manifest.name}/{artifact.manifest.version}",
        machine=_machine(),
        versions=versions(),
        input_bytes=sum(map(len, values)) / len(values),
        output_bytes=output_bytes,
    )
    if "engine" in asked.parts:
        _measure_engine(asked, found, artifact, reviews)
    if "route" in asked.parts and asked.broker:
        _measure_route(asked, found, values, making_seconds)
    if "stub" in asked.parts and asked.broker:
        _measure_stub(asked, found, making_seconds)
    if asked.plot:
        from worker.bench.pictures import draw

        draw(found, asked.plot)
    return found


def require_matplotlib() -> None:
    """Before hours of measuring.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib; pip install 'review-scorer[report]'") from None


def _machine() -> dict[str, Any]:
    """Its load says whether it was quiet."""
    return {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}


def _measure_engine(asked: Asked, found: Found, artifact: Artifact, reviews: Sequence[Review]) -> None:
    settings = load_settings(asked.config, asked.flags)
    scorer = load_scorer(artifact, settings)
    try:
        with _progress("engine", 1 + asked.rounds) as advance:
            found.engine = measure_engine(scorer, reviews, asked.rounds, settings.batch.max_reviews, advance)
        if asked.plot:
            limit = found.engine.limit_flop_per_second
            with _progress("engine, by length", None) as advance:
                found.lengths = measure_lengths(scorer, reviews, asked.rounds, limit.median if limit else None, advance)
    finally:
        scorer.close()


def _measure_route(asked: Asked, found: Found, values: Sequence[bytes], making_seconds: float) -> None:
    with own_place(asked.config, asked.flags, asked.partitions) as place, worker_process(place) as worker:
        route = Route(place, worker)
        with _progress("route", 1 + asked.rounds) as advance:
            backlogs = [_advancing(route.backlog, values, advance) for _ in range(1 + asked.rounds)][1:]
        found.route = summary(backlogs, values, worker, making_seconds)
        sizes = place.sizes((1 + asked.rounds) * len(values))
        if sizes:
            found.input_bytes, found.output_bytes = sizes
        rate = asked.rate or HALF * found.route.reviews_per_second.median
        paced = values if asked.rate else values[: max(1, round(rate * LATENCY_SECONDS))]
        with _progress(f"route, {rate:,.3g} reviews/s for {len(paced) / rate:,.0f} s", None):
            found.latency = route.latency(paced, rate)


def _measure_stub(asked: Asked, found: Found, making_seconds: float) -> None:
    with (
        own_place(asked.config, asked.flags, asked.partitions) as place,
        worker_process(place, stub_rate=math.inf) as worker,
    ):
        route = Route(place, worker)
        with _progress("stub", len(STUB_BYTES) * (1 + asked.rounds)) as advance:
            for size in STUB_BYTES:
                values = sized_records(asked.stub_reviews, size)
                backlogs = [_advancing(route.backlog, values, advance) for _ in range(1 + asked.rounds)][1:]
                its = summary(backlogs, values, worker, making_seconds)
                found.stub.append(
                    StubFigures(
                        size, len(values), its.reviews_per_second, its.reviews_per_transaction, its.transactions_share
                    )
                )
    if asked.plot:
        found.backlogs = _measure_backlogs(asked)


def _measure_backlogs(asked: Asked) -> list[BacklogFigures]:
    """The sizes in turn in every round, so that none has the quiet time of the machine for itself; small ones several
    times, since a tenth of a second says little."""
    cost: dict[int, list[float]] = {size: [] for size in asked.backlogs}
    memory: dict[int, float] = {}
    with (
        own_place(asked.config, asked.flags, asked.partitions) as place,
        worker_process(place, stub_rate=BACKLOG_RATE, WORKER_BATCH__MAX_REVIEWS=BACKLOG_BATCH) as worker,
    ):
        route = Route(place, worker)
        times = {size: min(MOST_TIMES, max(asked.backlogs) // size) for size in asked.backlogs}
        with _progress("stub, by backlog", 1 + sum(times.values()) * asked.rounds) as advance:
            _advancing(route.backlog, sized_records(max(asked.backlogs) // 10 + 1, STUB_BYTES[0]), advance)
            for _ in range(asked.rounds):
                for size in (size for size, number in times.items() for _ in range(number)):
                    backlog = _advancing(route.backlog, sized_records(size, STUB_BYTES[0]), advance)
                    cost[size].append(1000 / backlog.reviews_per_second)
                    memory[size] = backlog.memory_bytes
    return [BacklogFigures(size, spread(costs), memory[size]) for size, costs in cost.items()]


def _advancing(
    measure: Callable[[Sequence[bytes]], Any], values: Sequence[bytes], advance: Callable[[], object]
) -> Any:
    found = measure(values)
    advance()
    return found


@contextmanager
def _progress(what: str, steps: int | None) -> Iterator[Callable[[], object]]:
    """A bar on a terminal; a line that says what is being measured elsewhere."""
    if not err.is_terminal:
        err.print(f"measuring: {what}", markup=False)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(what, total=steps)
        yield lambda: progress.advance(task)
