"""The whole route: a backlog through a real broker and a worker's own process, with transactions.

A backlog is published in one transaction, so that the worker sees all of it at once and reads nothing while it is being
published. How fast it was is read off the predictions afterwards, which nobody reads meanwhile: each holds the time at
which its batch was scored, and that at which it was sent.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from schemas import Review
from worker.artifact import Artifact
from worker.bench.place import Place
from worker.bench.process import Samples, WorkerProcess
from worker.bench.rounds import Spread, spread
from worker.bench.stream import Stream
from worker.bench.stub import StubScorer
from worker.connection import begin
from worker.errors import ReviewScorerError
from worker.letters import Letters
from worker.message import Message
from worker.metrics import STAGES, Stage

LOOK_SECONDS = 0.5
"""How often the worker's metrics are asked for: each time costs it some milliseconds."""

STALL_SECONDS = 300.0
LATE_SECONDS = 60.0
"""How long the last predictions of a paced stream are waited for."""

MADE_REVIEWS = 500
STEADY_BATCHES = 3
"""With fewer there is none between the first and the last."""


@dataclass(frozen=True)
class Backlog:
    """What became of one backlog."""

    reviews: int
    reviews_per_second: float
    """In the steady state."""
    transactions: float
    stages: dict[Stage, float]
    """Share of the time that the loop spent in each stage. They add up to more than 1: scoring overlaps the rest."""
    memory_bytes: float
    """Of the worker, resident, afterwards."""
    records: list[Any] = field(repr=False)
    """The predictions, as they were read afterwards."""


@dataclass(frozen=True)
class RouteFigures:
    """What the route does under backlogs."""

    engine: str
    device: str
    precision: str
    reviews: int
    """Of each backlog."""
    bytes_per_review: float
    """Of a record's value, as it is published."""
    reviews_per_second: Spread
    reviews_per_transaction: float
    stages: dict[Stage, float]
    """Shares of the time; median of the rounds."""
    transactions_share: float
    """Of the time: sending, flushing and committing, without making the predictions."""
    ready_seconds: float
    """From the start of the process."""
    memory_bytes: float


@dataclass(frozen=True)
class Latency:
    """From a review's publication until its prediction is read with `read_committed`, in seconds."""

    reviews: int
    reviews_per_second: float
    """At which they were published."""
    p50: float
    p95: float
    p99: float
    most: float


class Route:
    """A place with a worker that is ready.

    Args:
        place: its topics.
        worker: that works on them.
    """

    def __init__(self, place: Place, worker: WorkerProcess) -> None:
        self.worker = worker
        self.stream = Stream(place.settings.kafka)

    def backlog(self, values: Sequence[bytes]) -> Backlog:
        """Publish at once, and wait until everything is answered.

        Raises:
            ReviewScorerError: the worker ended, stands still, or made something else than one prediction a review.
        """
        starts = self.stream.ends()
        with self.stream.hidden(values) as show:
            before = self.worker.samples()
            begun = time.time()
            show()
        seen = self._wait(before["reviews_consumed_total"] + len(values))
        records = self.stream.predictions(starts)
        if len(records) != len(values):
            raise ReviewScorerError(f"{len(values):,} reviews were published, and {len(records):,} predictions came")
        batches = batches_of(records)
        first, last = batches[0], batches[-1]
        steady = len(batches) >= STEADY_BATCHES and last[1] > first[1]
        rate = (len(values) - first[0]) / (last[1] - first[1]) if steady else len(values) / (last[1] - begun)
        after = seen[-1][1]
        return Backlog(
            reviews=len(values),
            reviews_per_second=rate,
            transactions=_advance(before, after, "transactions_total committed"),
            stages={
                stage: _poll_share([(begun, before), *seen], before["reviews_consumed_total"] + len(values))
                if stage == "poll"
                else _advance(before, after, f"stage_seconds_sum {stage}") / (last[1] - begun)
                for stage in STAGES
            },
            memory_bytes=after["process_resident_memory_bytes"],
            records=records,
        )

    def latency(self, values: Sequence[bytes], reviews_per_second: float) -> Latency:
        """Publish at an even rate, and read what comes of it.

        Raises:
            ReviewScorerError: a prediction did not come.
        """
        sent, arrived, over = dict[bytes, float](), dict[bytes, float](), Event()
        with self.stream.reader(self.stream.ends()) as consumer:
            consumer.poll(0)
            publisher = begin(lambda: self.stream.pace(values, reviews_per_second, sent, over), "publisher")
            deadline = time.monotonic() + len(values) / reviews_per_second + LATE_SECONDS
            try:
                while len(arrived) < len(values):
                    self.worker.require_running()
                    if publisher.done():
                        publisher.result()
                    if time.monotonic() > deadline:
                        raise ReviewScorerError(f"{len(values) - len(arrived):,} predictions did not come")
                    found = consumer.poll(200)
                    now = time.time()
                    arrived.update({record.key: now for some in found.values() for record in some})
            finally:
                over.set()
        p50, p95, p99, most = np.quantile([arrived[key] - sent[key] for key in sent], (0.5, 0.95, 0.99, 1)).tolist()
        return Latency(len(values), reviews_per_second, p50, p95, p99, most)

    def _wait(self, total: float) -> list[tuple[float, Samples]]:
        """What the worker's metrics said on the way to so many reviews, and when."""
        seen: list[tuple[float, Samples]] = []
        moved_at, before = time.monotonic(), -1.0
        while before < total:
            time.sleep(LOOK_SECONDS)
            samples = self.worker.samples()
            seen.append((time.time(), samples))
            if samples["reviews_consumed_total"] > before:
                moved_at, before = time.monotonic(), samples["reviews_consumed_total"]
            elif time.monotonic() > moved_at + STALL_SECONDS:
                raise ReviewScorerError(f"the worker stands still, {total - before:,.0f} reviews from the end")
        return seen


def batches_of(records: Sequence[Any]) -> list[tuple[int, float]]:
    """For each batch of predictions how many it has and when its last one was sent, in seconds since 1970."""
    batches: dict[bytes, list[float]] = defaultdict(list)
    for record in records:
        batches[dict(record.headers)["ce_time"]].append(record.timestamp / 1000)
    return [(len(times), max(times)) for _, times in sorted(batches.items())]


def _advance(before: Samples, after: Samples, name: str) -> float:
    return after[name] - before[name]


def _poll_share(seen: Sequence[tuple[float, Samples]], total: float) -> float:
    """Share of the time that the loop spent in polls while there was something to read: before and afterwards it waits
    in one.

    Args:
        seen: what the metrics said and when, at least twice.
        total: reviews at the end.
    """
    before = seen[0][1]["reviews_consumed_total"]
    busy = [(at, it) for at, it in seen if before < it["reviews_consumed_total"] < total]
    (start, first), (end, last) = (busy[0], busy[-1]) if len(busy) > 1 else (seen[0], seen[-1])
    return _advance(first, last, "stage_seconds_sum poll") / (end - start)


def summary(
    backlogs: Sequence[Backlog], values: Sequence[bytes], worker: WorkerProcess, making_seconds: float
) -> RouteFigures:
    """Several backlogs of the same reviews.

    Args:
        backlogs: at least one.
        values: of each.
        worker: that answered them.
        making_seconds: for one prediction, as `making` measures it.
    """
    stages = {stage: spread(it.stages[stage] for it in backlogs).median for stage in STAGES}
    rate = spread(it.reviews_per_second for it in backlogs)
    model = worker.model()
    return RouteFigures(
        engine=model["engine"],
        device=model["device"],
        precision=model["precision"],
        reviews=len(values),
        bytes_per_review=sum(map(len, values)) / len(values),
        reviews_per_second=rate,
        reviews_per_transaction=sum(it.reviews for it in backlogs) / sum(it.transactions for it in backlogs),
        stages=stages,
        transactions_share=max(0.0, stages["commit"] - making_seconds * rate.median),
        ready_seconds=worker.ready_seconds,
        memory_bytes=backlogs[-1].memory_bytes,
    )


def making(artifact: Artifact) -> tuple[float, int]:
    """Seconds that making one prediction's record takes, and its bytes, key and headers included: what the commit stage
    does besides the transaction."""
    scorer, letters = StubScorer(artifact), Letters("predictions", "dead-letters")
    messages = [Message("reviews", 0, number, b"k", b"") for number in range(MADE_REVIEWS)]
    prepared = scorer.prepare([Review(review_id=str(number), text="x") for number in range(MADE_REVIEWS)])
    collected = scorer.collect(scorer.submit(prepared))
    scorer.close()
    begun = time.perf_counter()
    outcomes = scorer.conclude(prepared, [message.source for message in messages], collected)
    made = [letters.write(message, outcome) for message, outcome in zip(messages, outcomes, strict=True)]
    seconds = (time.perf_counter() - begun) / MADE_REVIEWS
    last = made[-1]
    headers = sum(len(name) + len(value) for name, value in last.headers)
    return seconds, len(last.key or b"") + len(last.value or b"") + headers
