"""The whole route: a backlog through a real broker and a worker's own process, with transactions.

A backlog is published in one transaction, so that the worker sees all of it at once and reads nothing while it is being
published. How fast it was is read off the predictions afterwards, which nobody reads meanwhile: each holds the time at
which its batch was scored, and that at which it was sent.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import numpy as np
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from schemas import Review
from worker.artifact import Artifact
from worker.bench.place import Place
from worker.bench.process import Samples, WorkerProcess
from worker.bench.rounds import Spread, spread
from worker.bench.stub import StubScorer
from worker.connection import client_options, connect, discard, trouble
from worker.errors import BrokerError, ReviewScorerError
from worker.letters import Letters
from worker.message import Message
from worker.metrics import STAGES, Stage

LOOK_SECONDS = 0.5
"""How often the worker's metrics are asked for: each time costs it some milliseconds."""

STALL_SECONDS = 300.0
PUBLISH_MS = 600_000
LATE_SECONDS = 60.0
"""How long the last predictions of a paced stream are waited for."""

MADE_REVIEWS = 500
STEADY_BATCHES = 3
"""With fewer there is none between the first and the last."""


@dataclass(frozen=True)
class Backlog:
    """What became of one backlog."""

    reviews: int
    seconds: float
    """From its publication to the last prediction sent."""
    reviews_per_second: float
    """In the steady state."""
    transactions: float
    stages: dict[Stage, float]
    """Share of the time that the loop spent in each stage. They add up to more than 1: scoring overlaps the rest."""
    memory_bytes: float
    """Of the worker, resident, afterwards."""


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
        self._kafka = place.settings.kafka
        self._published = 0

    def backlog(self, values: Sequence[bytes]) -> Backlog:
        """Publish at once, and wait until everything is answered.

        Raises:
            ReviewScorerError: the worker ended, stands still, or made something else than one prediction a review.
        """
        starts = self._ends()
        with self._hidden(values) as show:
            before = self.worker.samples()
            begun = time.time()
            show()
        seen = self._wait(before["reviews_consumed_total"] + len(values))
        batches = self._batches(starts)
        if (answered := sum(count for count, _ in batches)) != len(values):
            raise ReviewScorerError(f"{len(values):,} reviews were published, and {answered:,} predictions came")
        first, last = batches[0], batches[-1]
        steady = len(batches) >= STEADY_BATCHES and last[1] > first[1]
        rate = (len(values) - first[0]) / (last[1] - first[1]) if steady else len(values) / (last[1] - begun)
        after = seen[-1][1]
        return Backlog(
            reviews=len(values),
            seconds=last[1] - begun,
            reviews_per_second=rate,
            transactions=_advance(before, after, "transactions_total committed"),
            stages=_shares([(begun, before), *seen], before["reviews_consumed_total"]),
            memory_bytes=after["process_resident_memory_bytes"],
        )

    def latency(self, values: Sequence[bytes], reviews_per_second: float) -> Latency:
        """Publish at an even rate, and read what comes of it.

        Raises:
            ReviewScorerError: a prediction did not come.
        """
        starts, sent, over = self._ends(), dict[bytes, float](), Event()
        publisher = Thread(target=self._pace, args=(values, reviews_per_second, sent, over), daemon=True)
        consumer = self._consumer()
        try:
            consumer.assign(list(starts))
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
            consumer.poll(0)
            publisher.start()
            arrived: dict[bytes, float] = {}
            deadline = time.monotonic() + len(values) / reviews_per_second + LATE_SECONDS
            while len(arrived) < len(values):
                self.worker.require_running()
                if time.monotonic() > deadline:
                    raise ReviewScorerError(f"{len(values) - len(arrived):,} predictions did not come")
                found = consumer.poll(200)
                now = time.time()
                arrived.update({record.key: now for some in found.values() for record in some})
        except KafkaError as error:
            raise BrokerError(trouble(error, self._kafka)) from None
        finally:
            over.set()
            consumer.close(autocommit=False)
        publisher.join()
        p50, p95, p99, most = np.quantile([arrived[key] - sent[key] for key in arrived], (0.5, 0.95, 0.99, 1)).tolist()
        return Latency(len(values), reviews_per_second, p50, p95, p99, most)

    def _pace(self, values: Sequence[bytes], rate: float, sent: dict[bytes, float], over: Event) -> None:
        producer = self._producer(linger_ms=0)
        begun = time.monotonic()
        try:
            for number, value in enumerate(values):
                if over.wait(max(0.0, begun + number / rate - time.monotonic())):
                    return
                key = f"k{number}".encode()
                sent[key] = time.time()
                producer.send(self._kafka.input_topic, key=key, value=value)
            producer.flush(timeout=LATE_SECONDS)
        finally:
            discard(producer)

    @contextmanager
    def _hidden(self, values: Sequence[bytes]) -> Iterator[Callable[[], None]]:
        """Publish, the partitions in turn; gives the call that shows it to the worker."""
        self._published += 1
        producer = self._producer(
            linger_ms=20,
            transactional_id=f"{self._kafka.group_id}-publisher",
            transaction_timeout_ms=PUBLISH_MS,
            delivery_timeout_ms=PUBLISH_MS,
        )
        try:
            producer.init_transactions()
            producer.begin_transaction()
            partitions = len(producer.partitions_for(self._kafka.input_topic))
            futures = [
                producer.send(
                    self._kafka.input_topic, key=f"k{number}".encode(), value=value, partition=number % partitions
                )
                for number, value in enumerate(values)
            ]
            producer.flush(timeout=PUBLISH_MS / 1000)
            if not all(future.succeeded() for future in futures):
                raise BrokerError(f"{self._kafka.input_topic}: the broker did not take every review")
            yield producer.commit_transaction
        except KafkaError as error:
            raise BrokerError(trouble(error, self._kafka)) from None
        finally:
            discard(producer)

    def _producer(self, **options: object) -> KafkaProducer:
        compression = self._kafka.compression
        return connect(
            lambda: KafkaProducer(
                **client_options(self._kafka),
                metrics_enabled=False,
                acks="all",
                batch_size=256 << 10,
                compression_type=None if compression == "none" else compression,
                **options,
            ),
            self._kafka,
        )

    def _consumer(self) -> KafkaConsumer:
        return connect(
            lambda: KafkaConsumer(
                **client_options(self._kafka),
                metrics_enabled=False,
                group_id=None,
                isolation_level="read_committed",
                enable_auto_commit=False,
            ),
            self._kafka,
        )

    def _ends(self) -> dict[TopicPartition, int]:
        """Where the predictions end now."""
        topic, consumer = self._kafka.output_topic, self._consumer()
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            return dict(consumer.end_offsets(partitions))
        except KafkaError as error:
            raise BrokerError(trouble(error, self._kafka)) from None
        finally:
            consumer.close(autocommit=False)

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

    def _batches(self, starts: dict[TopicPartition, int]) -> list[tuple[int, float]]:
        """Of the predictions since `starts`, for each batch how many it has and when its last one was sent."""
        ends, consumer = self._ends(), self._consumer()
        batches: dict[bytes, list[float]] = defaultdict(list)
        try:
            consumer.assign(list(starts))
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for some in consumer.poll(500, max_records=10_000).values():
                    for record in some:
                        batches[dict(record.headers)["ce_time"]].append(record.timestamp / 1000)
        except KafkaError as error:
            raise BrokerError(trouble(error, self._kafka)) from None
        finally:
            consumer.close(autocommit=False)
        return [(len(times), max(times)) for _, times in sorted(batches.items())]


def _advance(before: Samples, after: Samples, name: str) -> float:
    return after[name] - before[name]


def _shares(seen: Sequence[tuple[float, Samples]], consumed: float) -> dict[Stage, float]:
    """Share of the time that each stage took, from the first batch that was committed to the last: before it the worker
    waited for something to read."""
    begun = next((place for place, (_, it) in enumerate(seen) if it["reviews_consumed_total"] > consumed), 0)
    begun = begun if begun < len(seen) - 1 else 0
    (start, before), (end, after) = seen[begun], seen[-1]
    return {stage: _advance(before, after, f"stage_seconds_sum {stage}") / (end - start) for stage in STAGES}


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
    begun = time.perf_counter()
    outcomes = scorer.conclude(prepared, [message.source for message in messages], collected)
    made = [letters.write(message, outcome) for message, outcome in zip(messages, outcomes, strict=True)]
    seconds = (time.perf_counter() - begun) / MADE_REVIEWS
    last = made[-1]
    headers = sum(len(name) + len(value) for name, value in last.headers)
    return seconds, len(last.key or b"") + len(last.value or b"") + headers
