"""Figures: what the page shows, from readings that are a few seconds apart.

Rates and shares of the device are of the last 10 seconds, latency, stages and batches of the last minute, labels,
confidence and dead letters of the last quarter of an hour; each since the start where that is shorter. Everything is
bounded: a worker that runs for months keeps as much as one that runs for a quarter of an hour.
"""

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from worker.page.reading import Reading, Values, mean, parts, quantile

STEP_SECONDS = 2.0
"""Between two readings."""

RATE_SECONDS = 10.0
MINUTE_SECONDS = 60.0
LONG_SECONDS = 900.0

COARSE_SECONDS = 30.0
"""Between the readings that are kept for the longest window; of the last minute all are."""

IDLE_SECONDS = 10.0
"""A worker that has committed nothing for so long, while nothing waits, is idle."""

STUCK_SECONDS = 30.0
"""A worker that has committed nothing for so long, while records wait, is stuck."""

EVENTS = 20
DIGITS = 5
"""Significant ones, of what is no count."""

ConditionName = Literal["starting", "loading", "joining", "ready", "idle", "stuck", "stopping"]


class Condition(NamedTuple):
    """What the worker is doing: a word, and a line that says more."""

    name: ConditionName
    detail: str


COLUMNS = (
    "number",
    "at",
    "reviews_per_second",
    "lag_records",
    "latency_p50",
    "latency_p95",
    "latency_p99",
    "device_busy",
    "padding",
    "batch_reviews",
    "dead_letters_per_minute",
)
"""Of a row of the history."""

TOLD: Mapping[tuple[str, str], str] = {
    ("model_reloads_total", "taken"): "A newer model was taken",
    ("model_reloads_total", "refused"): "A newer model was refused; the log says why",
    ("rebalances_total", ""): "The group shared out its partitions",
    ("transactions_total", "aborted"): "A transaction was aborted, and its batch is read again",
    ("transactions_total", "unknown"): "The end of a transaction was in doubt, and is being settled",
    ("corrupt_records_total", ""): "A record that is no Kafka record was stepped over",
    ("shadow_reviews_total", "failed"): "The shadow model failed",
}
"""What is worth a line when it counts further, by metric and series."""


class Figures:
    """Takes readings in their order."""

    def __init__(self) -> None:
        self._fine: deque[Reading] = deque(maxlen=round(MINUTE_SECONDS / STEP_SECONDS) + 1)
        self._coarse: deque[Reading] = deque(maxlen=round(LONG_SECONDS / COARSE_SECONDS) + 1)
        self._rows: deque[tuple[int, str]] = deque(maxlen=round(LONG_SECONDS / STEP_SECONDS))
        self._newest: dict[str, float | None] = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._started_at = 0.0
        self._state = Condition("starting", "")
        self._state_since = 0.0
        self._moved = 0.0
        """When something was last committed, or the worker became ready: monotonic."""

    def take(self, reading: Reading, state: Condition) -> None:
        """The next reading, and what the worker was doing at that time."""
        before = self._fine[-1] if self._fine else reading
        if before is reading:
            self._started_at = self._state_since = reading.at
            self._moved = reading.clock
        for (metric, series), text in TOLD.items():
            if reading.since(before, metric).get(series, 0) > 0:
                self._events.append({"at": reading.at, "text": text})
        self._enter(self._refined(state, reading, before), reading.at)
        self._fine.append(reading)
        if not self._coarse or reading.clock - self._coarse[-1].clock >= COARSE_SECONDS:
            self._coarse.append(reading)
        number = self._rows[-1][0] + 1 if self._rows else 1
        self._newest = self._compared(reading)
        row = {"number": number, "at": reading.at, **self._newest}
        self._rows.append((number, dumps([row[name] for name in COLUMNS])))

    @property
    def rows(self) -> tuple[tuple[int, str], ...]:
        """Number and JSON of each row of the history, the oldest first."""
        return tuple(self._rows)

    @property
    def document(self) -> dict[str, Any]:
        """What is known from readings, as `Page` documents it. At least one was taken."""
        now = self._fine[-1]
        minute, long = _oldest(self._fine, now.clock - MINUTE_SECONDS), _oldest(self._coarse, now.clock - LONG_SECONDS)
        return {
            "at": now.at,
            "started_at": self._started_at,
            "state": {"name": self._state.name, "detail": self._state.detail, "since": self._state_since},
            "model": now.model or None,
            "figures": self._newest,
            "drain_seconds": now.sum("drain_seconds"),
            "reviews": round(now.sum("reviews_consumed_total")),
            "labels": _counted(now, long, "predictions_total"),
            "dead_letters": [one for one in _counted(now, long, "rejections_total") if one["total"]],
            "confidence": [
                {"below": None if math.isinf(bound) else bound, "recent": round(count)}
                for bound, count in parts(now.since(long, "confidence_bucket"))
            ],
            "batch_tokens": mean(now.growth(minute, "batch_tokens_sum"), now.growth(minute, "batch_tokens_count")),
            "stages": _stages(now, minute),
            "partitions": [
                {"partition": int(p), "lag": round(lag)} for p, lag in sorted(now.of("lag_records").items())
            ],
            "reloads": _whole(now.of("model_reloads_total")),
            "shadow_reviews": _whole(now.of("shadow_reviews_total")),
            "transactions": _whole(now.of("transactions_total")),
            "rebalances": round(now.sum("rebalances_total")),
            "corrupt_records": round(now.sum("corrupt_records_total")),
            "events": list(reversed(self._events)),
        }

    def _refined(self, state: Condition, reading: Reading, before: Reading) -> Condition:
        """A member of the group that commits nothing is idle or stuck, by whether records wait for it."""
        if state.name != "ready" or reading.growth(before, "reviews_consumed_total"):
            self._moved = reading.clock
        still = reading.clock - self._moved
        waiting = round(reading.sum("lag_records"))
        if waiting and still >= STUCK_SECONDS:
            return Condition("stuck", f"{waiting:,} records wait, and none was committed for {still:.0f} s")
        if not waiting and still >= IDLE_SECONDS:
            return Condition("idle", "nothing waits on the input topic")
        return state

    def _enter(self, state: Condition, at: float) -> None:
        if state.name != self._state.name:
            self._state_since = at
            self._events.append({"at": at, "text": f"State: {state.name}"})
        self._state = state

    def _compared(self, now: Reading) -> dict[str, float | None]:
        """The columns of a row behind its number and time."""
        recent, minute = _oldest(self._fine, now.clock - RATE_SECONDS), _oldest(self._fine, now.clock - MINUTE_SECONDS)
        seconds, long_seconds = now.clock - recent.clock, now.clock - minute.clock
        ages = now.since(minute, "end_to_end_seconds_bucket")
        return {
            "reviews_per_second": mean(now.growth(recent, "reviews_consumed_total"), seconds),
            "lag_records": now.sum("lag_records"),
            "latency_p50": quantile(ages, 0.5),
            "latency_p95": quantile(ages, 0.95),
            "latency_p99": quantile(ages, 0.99),
            # A batch is counted at its end, so that a long one can be more than the window it ends in.
            "device_busy": _at_most_one(mean(now.growth(recent, "device_busy_seconds_total"), seconds)),
            "padding": now.sum("padding_ratio"),
            "batch_reviews": mean(now.growth(minute, "batch_reviews_sum"), now.growth(minute, "batch_reviews_count")),
            "dead_letters_per_minute": mean(60 * now.growth(minute, "rejections_total"), long_seconds),
        }


def dumps(value: Any) -> str:
    """JSON without spaces; what is not finite is null, and what is no count is rounded."""
    return json.dumps(_rounded(value), allow_nan=False, separators=(",", ":"))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # Times since 1970 and counts keep what stands before the point.
        return round(value, max(1, DIGITS - 1 - math.floor(math.log10(abs(value))))) if value else 0
    return value


def _oldest(readings: deque[Reading], clock: float) -> Reading:
    """The newest reading that is not after `clock`, or the first of all.

    A step may come a little early: half of one is let pass.
    """
    found = readings[0]
    for reading in readings:
        if reading.clock > clock + STEP_SECONDS / 2:
            break
        found = reading
    return found


def _counted(now: Reading, before: Reading, metric: str) -> list[dict[str, Any]]:
    """Each series of a counter, with what was counted since the start and what of it recently."""
    recent = now.since(before, metric)
    return [{"name": name, "total": round(n), "recent": round(recent[name])} for name, n in now.of(metric).items()]


def _stages(now: Reading, before: Reading) -> list[dict[str, Any]]:
    """The mean time of each stage for one batch, in the order of the route; null where there was none."""
    spent, times = now.since(before, "stage_seconds_sum"), now.since(before, "stage_seconds_count")
    return [{"stage": stage, "seconds": mean(spent[stage], times[stage])} for stage in spent]


def _whole(values: Values) -> dict[str, int]:
    return {name: round(value) for name, value in values.items()}


def _at_most_one(share: float | None) -> float | None:
    return None if share is None else min(1.0, share)
