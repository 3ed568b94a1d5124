"""Every metric of the worker, each with the name that dashboards and alerts use; prefix `review_worker_`.

Labels come from closed sets only (model labels, reasons, stages, topic and partition of the input), never from a
record. Ratios are 0 to 1, times are seconds.
"""

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from schemas import ModelName, Prediction, Reason, Rejection
from worker.cache import Answer
from worker.engine import EngineDescription
from worker.engine.memory import DeviceMemory
from worker.message import Message
from worker.rescue import Collected

Stage = Literal["poll", "intake", "tokenize", "score", "commit"]
Outcome = Literal["committed", "aborted", "unknown"]
Reload = Literal["taken", "refused"]
Agreement = Literal["same", "different", "failed", "skipped"]
Recall = Literal["hit", "miss"]

STAGES: tuple[Stage, ...] = ("poll", "intake", "tokenize", "score", "commit")
OUTCOMES: tuple[Outcome, ...] = ("committed", "aborted", "unknown")
RELOADS: tuple[Reload, ...] = ("taken", "refused")
RECALLS: tuple[Recall, ...] = ("hit", "miss")
AGREEMENTS: tuple[Agreement, ...] = ("same", "different", "failed", "skipped")

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_TOKENS = (64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86_400)
_DIFFERENCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


class BatchHistogram(Histogram):
    """One that takes a whole batch at once: `observe` costs a lock for each value, and counts the buckets in Python."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """As if each was observed."""
        if not amounts:
            return
        # A bucket's bound belongs to it.
        places = np.searchsorted(self._upper_bounds, amounts, side="left")
        self._sum.inc(sum(amounts))
        for place, number in Tally(places.tolist()).items():
            self._buckets[place].inc(number)


class Metrics:
    """One registry with the worker's metrics and the process's own."""

    def __init__(self) -> None:
        # The `_created` series double the number of series, and Prometheus does not use them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.consumed = Counter(
            "review_worker_reviews_consumed", "Input records whose batch was committed.", registry=registry
        )
        self.predictions = Counter(
            "review_worker_predictions", "Predictions published and committed.", ["label"], registry=registry
        )
        self.rejections = Counter(
            "review_worker_rejections", "Dead letters published and committed.", ["reason"], registry=registry
        )
        self.batch_reviews = Histogram(
            "review_worker_batch_reviews", "Records of a micro-batch.", buckets=_SIZES, registry=registry
        )
        self.batch_tokens = Histogram(
            "review_worker_batch_tokens", "Tokens of a micro-batch.", buckets=_TOKENS, registry=registry
        )
        self.stage_seconds = Histogram(
            "review_worker_stage_seconds",
            "Time of a stage for one micro-batch.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.device_busy = Counter(
            "review_worker_device_busy_seconds", "Time in which the engine was scoring.", registry=registry
        )
        self.device_memory = Gauge(
            "review_worker_device_memory_bytes",
            "Memory of the device in use; of a CPU, that of the process.",
            registry=registry,
        )
        self.device_memory_limit = Gauge(
            "review_worker_device_memory_limit_bytes",
            "Memory that there is for it; of a CPU, that of the container or the machine.",
            registry=registry,
        )
        self.padding_ratio = Gauge(
            "review_worker_padding_ratio",
            "Share of the last batch's device tokens that were padding.",
            registry=registry,
        )
        self.end_to_end = BatchHistogram(
            "review_worker_end_to_end_seconds",
            "From the record's timestamp to the commit.",
            buckets=_AGES,
            registry=registry,
        )
        self.lag = Gauge(
            "review_worker_lag_records",
            "Committed input records not yet scored.",
            ["topic", "partition"],
            registry=registry,
        )
        self._behind: set[tuple[str, int]] = set()
        """Partitions that have a lag."""
        self.drain_seconds = Gauge(
            "review_worker_drain_seconds", "Lag divided by the recent rate of scoring.", registry=registry
        )
        self.transactions = Counter(
            "review_worker_transactions", "Transactions by outcome.", ["outcome"], registry=registry
        )
        self.rebalances = Counter("review_worker_rebalances", "Changes of this worker's partitions.", registry=registry)
        self.corrupt_records = Counter(
            "review_worker_corrupt_records",
            "Records that could not be decoded as Kafka records and were stepped over.",
            registry=registry,
        )
        self.confidence = BatchHistogram(
            "review_worker_confidence", "Confidence of predictions.", buckets=_SHARES, registry=registry
        )
        self.model = Info("review_worker_model", "The model, engine, device and precision in use.", registry=registry)
        self.ready = Gauge(
            "review_worker_ready", "1 when the worker takes part in the group with a warm model.", registry=registry
        )
        self.reloads = Counter(
            "review_worker_model_reloads", "Newer versions of the model by outcome.", ["outcome"], registry=registry
        )
        self.shadowed = Counter(
            "review_worker_shadow_reviews",
            "Reviews given to the shadow model, by its agreement with the published label.",
            ["agreement"],
            registry=registry,
        )
        self.cached = Counter(
            "review_worker_cache_reviews",
            "Reviews whose text was asked for in the cache: answered from there, or scored.",
            ["outcome"],
            registry=registry,
        )
        self.shadow_difference = Histogram(
            "review_worker_shadow_difference",
            "Difference of the shadow model's and the published probability of the published label.",
            buckets=_DIFFERENCES,
            registry=registry,
        )
        # A rate() over a series that appears with its first event misses that event.
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for outcome in OUTCOMES:
            self.transactions.labels(outcome)
        for reason in Reason:
            self.rejections.labels(reason.value)
        for reload in RELOADS:
            self.reloads.labels(reload)
        for recall in RECALLS:
            self.cached.labels(recall)
        for agreement in AGREEMENTS:
            self.shadowed.labels(agreement)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Observe the time that the body takes as one of `stage`."""
        start = time.perf_counter()
        yield
        self.stage_seconds.labels(stage).observe(time.perf_counter() - start)

    def count_batch(
        self,
        messages: Sequence[Message],
        outcomes: Sequence[Prediction | Rejection],
        collected: Collected,
        known: Collection[Answer] = (),
    ) -> None:
        """A batch was committed: one outcome a message. What was known had no part in what was collected."""
        now = time.time()
        self.transactions.labels("committed").inc()
        self.consumed.inc(len(messages))
        predictions: list[Prediction] = []
        rejections: list[Rejection] = []
        ages: list[float] = []
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
            else:
                predictions.append(outcome)
            if message.timestamp_ms >= 0:
                ages.append(max(0.0, now - message.timestamp_ms / 1000))
        for label, number in Tally(prediction.label for prediction in predictions).items():
            self.predictions.labels(label).inc(number)
        for reason, number in Tally(rejection.reason.value for rejection in rejections).items():
            self.rejections.labels(reason).inc(number)
        self.confidence.observe_all([prediction.confidence for prediction in predictions])
        self.end_to_end.observe_all(ages)
        tokens = sum(prediction.tokens for prediction in predictions)
        if messages:
            self.batch_reviews.observe(len(messages))
            self.batch_tokens.observe(tokens)
        if collected.device_tokens:
            scored = tokens - sum(answer.tokens for answer in known)
            self.padding_ratio.set(1 - scored / collected.device_tokens)

    def count_cached(self, hits: int, misses: int) -> None:
        """A batch was committed whose texts were asked for in the cache."""
        self.cached.labels("hit").inc(hits)
        self.cached.labels("miss").inc(misses)

    def show_lag(self, behind: Mapping[tuple[str, int], int], rate: float) -> None:
        """Records that wait, by topic and partition, and how long they will at the recent rate (records/s)."""
        # Not clear(): a scrape in between would see no lag at all, and an alert would begin to count anew.
        for topic, partition in self._behind - behind.keys():
            self.lag.remove(topic, str(partition))
        self._behind = set(behind)
        for (topic, partition), records in behind.items():
            self.lag.labels(topic, str(partition)).set(records)
        waiting = sum(behind.values())
        self.drain_seconds.set(waiting / rate if rate else (math.inf if waiting else 0.0))

    def show_memory(self, memory: Callable[[], DeviceMemory]) -> None:
        """Ask the engine in use for its memory whenever somebody asks for the metrics."""

        def part(name: str) -> float:
            try:
                return float(getattr(memory(), name))
            except Exception:  # whatever a driver raises: a device that is broken is told of elsewhere
                return math.nan

        self.device_memory.set_function(lambda: part("used"))
        self.device_memory_limit.set_function(lambda: part("limit"))

    def show_model(self, model: ModelName, engine: EngineDescription, labels: Sequence[str]) -> None:
        """Name the model and what computes it, and start each label's series at 0."""
        self.model.info(
            {
                "name": model.name,
                "version": str(model.version),
                "digest": model.digest,
                "engine": engine.name,
                "device": engine.device,
                "precision": engine.precision,
            }
        )
        for label in labels:
            self.predictions.labels(label)
