"""Reading: what the metrics say at one moment, as plain numbers that can be compared with those of another moment."""

import math
import time
from dataclasses import dataclass

from worker.metrics import Metrics

BUCKETS = ("end_to_end_seconds_bucket", "confidence_bucket")
"""The histograms that the page shows more of than their mean."""

Values = dict[str, float]
"""By label, stage, reason, outcome, partition or upper bound of a bucket; by "" where a metric has no such thing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts since the start, and the present value of what goes up and down.

    Attributes:
        clock: monotonic time in seconds.
        at: seconds since 1970.
        model: the labels of `review_worker_model_info`; empty before a model is warm.
        values: by the metric's name without its prefix, such as `predictions_total`.
    """

    clock: float
    at: float
    model: dict[str, str]
    values: dict[str, Values]

    def of(self, name: str) -> Values:
        """The values of one metric; none where it has no series."""
        return self.values.get(name, {})

    def sum(self, name: str) -> float:
        """Over all series of one metric."""
        return math.fsum(self.of(name).values())

    def since(self, before: "Reading", name: str) -> Values:
        """What each series of a counter grew by."""
        then = before.of(name)
        return {series: value - then.get(series, 0.0) for series, value in self.of(name).items()}

    def growth(self, before: "Reading", name: str) -> float:
        """What all series of a counter grew by."""
        return self.sum(name) - before.sum(name)


def read(metrics: Metrics, clock: float | None = None) -> Reading:
    """Read the metrics that the page shows: a few dozen numbers, whatever the traffic.

    Args:
        metrics: the worker's.
        clock: monotonic time in seconds; now unless given.
    """
    values: dict[str, Values] = {}
    for metric in (
        metrics.consumed,
        metrics.predictions,
        metrics.rejections,
        metrics.batch_reviews,
        metrics.batch_tokens,
        metrics.stage_seconds,
        metrics.device_busy,
        metrics.padding_ratio,
        metrics.end_to_end,
        metrics.lag,
        metrics.drain_seconds,
        metrics.transactions,
        metrics.rebalances,
        metrics.corrupt_records,
        metrics.confidence,
        metrics.reloads,
        metrics.shadowed,
    ):
        for family in metric.collect():
            for sample in family.samples:
                name = sample.name.removeprefix("review_worker_")
                if name.endswith("_bucket") and name not in BUCKETS:
                    continue
                # What is left has one label that tells its series apart: the lag's other one is the only input topic.
                values.setdefault(name, {})[next(reversed(sample.labels.values()), "")] = sample.value
    info = [sample.labels for family in metrics.model.collect() for sample in family.samples]
    return Reading(time.monotonic() if clock is None else clock, time.time(), dict(info[0]) if info else {}, values)


def quantile(buckets: Values, share: float) -> float | None:
    """A quantile of what a histogram counted, as Prometheus' `histogram_quantile` gives it.

    Args:
        buckets: the cumulated count by upper bound, `+Inf` included.
        share: 0 to 1.

    Returns:
        By linear interpolation within the bucket; the last finite bound for what lies beyond; None of nothing.
    """
    bounds = sorted((float(bound), count) for bound, count in buckets.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank = share * bounds[-1][1]
    low, below = 0.0, 0.0
    for bound, count in bounds:
        if count >= rank and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low


def parts(buckets: Values) -> list[tuple[float, float]]:
    """Upper bound and count of each bucket, not cumulated, in ascending order."""
    bounds = sorted((float(bound), count) for bound, count in buckets.items())
    return [
        (bound, count - before)
        for (bound, count), before in zip(bounds, [0.0, *(count for _, count in bounds)], strict=False)
    ]


def mean(total: float, count: float) -> float | None:
    """None of nothing."""
    return total / count if count > 0 else None
