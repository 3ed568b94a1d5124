"""Metrics: the names of the contract, and what a committed batch does to them, as Prometheus reads them."""

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas import ModelName, Prediction, Reason, Rejection
from worker.engine import EngineDescription
from worker.engine.memory import DeviceMemory
from worker.message import Message
from worker.metrics import AGREEMENTS, OUTCOMES, RELOADS, STAGES, BatchHistogram, Metrics
from worker.rescue import Collected

CONTRACT = {
    "review_worker_reviews_consumed_total",
    "review_worker_predictions_total",
    "review_worker_rejections_total",
    "review_worker_batch_reviews",
    "review_worker_batch_tokens",
    "review_worker_padding_ratio",
    "review_worker_stage_seconds",
    "review_worker_device_busy_seconds_total",
    "review_worker_device_memory_bytes",
    "review_worker_device_memory_limit_bytes",
    "review_worker_end_to_end_seconds",
    "review_worker_lag_records",
    "review_worker_drain_seconds",
    "review_worker_transactions_total",
    "review_worker_rebalances_total",
    "review_worker_corrupt_records_total",
    "review_worker_confidence",
    "review_worker_model_info",
    "review_worker_model_reloads_total",
    "review_worker_cache_reviews_total",
    "review_worker_shadow_reviews_total",
    "review_worker_shadow_difference",
    "review_worker_ready",
}
LABELS = {
    "predictions_total": {"label"},
    "rejections_total": {"reason"},
    "stage_seconds": {"stage"},
    "lag_records": {"topic", "partition"},
    "transactions_total": {"outcome"},
    "model_reloads_total": {"outcome"},
    "cache_reviews_total": {"outcome"},
    "shadow_reviews_total": {"agreement"},
    "model_info": {"name", "version", "digest", "engine", "device", "precision"},
}
MODEL = ModelName(name="imdb", version=3, digest="sha256:" + "0" * 64)
ENGINE = EngineDescription("tensorflow", "cpu", "bfloat16", "this CPU multiplies bfloat16 natively")

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Series:
    """Every sample of the worker's own metrics, by name without the prefix and by labels."""
    return {
        (sample.name.removeprefix("review_worker_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
        if sample.name.startswith("review_worker_")
    }


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return scrape(metrics)[name, frozenset(labels.items())]


def message(offset: int, timestamp_ms: int = -1) -> Message:
    return Message("reviews", 0, offset, b"key", b"value", (), timestamp_ms)


def prediction(label: str, confidence: float, tokens: int) -> Prediction:
    return Prediction(
        review_id="a",
        label=label,
        label_id=0,
        confidence=confidence,
        probabilities={label: confidence},
        model=MODEL,
        source=message(0).source,
        tokens=tokens,
        truncated=False,
        scored_at=datetime.now(UTC),
    )


def rejection(reason: Reason) -> Rejection:
    return Rejection(reason=reason, detail="x", source=message(0).source)


def count(
    metrics: Metrics, messages: Sequence[Message], outcomes: Sequence[Prediction | Rejection], device_tokens: int
) -> None:
    logits = np.zeros((len(outcomes), 2), dtype=np.float32)
    metrics.count_batch(messages, outcomes, Collected(logits, 0.5, device_tokens, {}))


def in_use() -> Metrics:
    """Metrics with at least one series each."""
    metrics = Metrics()
    metrics.show_model(MODEL, ENGINE, ["negative", "positive"])
    metrics.show_lag({("reviews", 0): 5}, rate=1)
    return metrics


def test_the_names_are_those_of_the_contract_and_no_others() -> None:
    text = generate_latest(in_use().registry).decode()

    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE review_worker_")}
    assert names == CONTRACT


def test_every_metric_has_a_unit_or_a_count_in_its_type() -> None:
    kinds = {
        family.name.removeprefix("review_worker_"): family.type
        for family in text_string_to_metric_families(generate_latest(in_use().registry).decode())
        if family.name.startswith("review_worker_")
    }

    assert {name for name, kind in kinds.items() if kind == "histogram"} == {
        "batch_reviews",
        "batch_tokens",
        "stage_seconds",
        "end_to_end_seconds",
        "confidence",
        "shadow_difference",
    }
    assert {name for name, kind in kinds.items() if kind == "gauge"} == {
        "device_memory_bytes",
        "device_memory_limit_bytes",
        "padding_ratio",
        "lag_records",
        "drain_seconds",
        "model_info",
        "ready",
    }


def test_the_labels_are_those_of_the_contract() -> None:
    for name, labels in scrape(in_use()):
        family = next(
            known for known in sorted(CONTRACT, key=len, reverse=True) if f"review_worker_{name}".startswith(known)
        )
        expected = LABELS.get(family.removeprefix("review_worker_"), set())
        assert {label for label, _ in labels} - {"le"} == expected, name


def test_series_that_are_known_start_at_0() -> None:
    """A rate over a series that appears with its first event misses that event."""
    metrics = Metrics()
    metrics.show_model(MODEL, ENGINE, ["negative", "positive"])

    for reason in Reason:
        assert value(metrics, "rejections_total", reason=reason.value) == 0
    for stage in STAGES:
        assert value(metrics, "stage_seconds_count", stage=stage) == 0
    for outcome in OUTCOMES:
        assert value(metrics, "transactions_total", outcome=outcome) == 0
    for outcome in RELOADS:
        assert value(metrics, "model_reloads_total", outcome=outcome) == 0
    for agreement in AGREEMENTS:
        assert value(metrics, "shadow_reviews_total", agreement=agreement) == 0
    for label in ("negative", "positive"):
        assert value(metrics, "predictions_total", label=label) == 0


def test_a_committed_batch_is_counted() -> None:
    metrics = Metrics()
    outcomes = [
        prediction("positive", 0.97, tokens=10),
        rejection(Reason.NOT_JSON),
        prediction("negative", 0.65, tokens=20),
        prediction("positive", 0.5, tokens=30),
    ]

    count(metrics, [message(offset) for offset in range(4)], outcomes, device_tokens=80)

    assert value(metrics, "reviews_consumed_total") == 4
    assert value(metrics, "predictions_total", label="positive") == 2
    assert value(metrics, "predictions_total", label="negative") == 1
    assert value(metrics, "rejections_total", reason="not_json") == 1
    assert value(metrics, "rejections_total", reason="empty") == 0
    assert value(metrics, "transactions_total", outcome="committed") == 1
    assert value(metrics, "transactions_total", outcome="aborted") == 0
    assert value(metrics, "batch_reviews_sum") == 4
    assert value(metrics, "batch_tokens_sum") == 60
    assert value(metrics, "padding_ratio") == 0.25
    assert value(metrics, "confidence_count") == 3
    assert value(metrics, "confidence_bucket", le="0.7") == 2
    assert value(metrics, "confidence_bucket", le="0.98") == 3


def test_counts_add_up_over_batches() -> None:
    metrics = Metrics()

    for _ in range(3):
        count(metrics, [message(0)], [prediction("positive", 0.9, tokens=8)], device_tokens=16)

    assert value(metrics, "reviews_consumed_total") == value(metrics, "batch_reviews_count") == 3
    assert value(metrics, "padding_ratio") == 0.5


def test_a_batch_of_markers_alone_is_a_transaction_and_no_batch() -> None:
    metrics = Metrics()

    count(metrics, [], [], device_tokens=0)

    assert value(metrics, "transactions_total", outcome="committed") == 1
    assert value(metrics, "batch_reviews_count") == 0
    assert value(metrics, "padding_ratio") == 0


def test_a_batch_of_rejections_alone_leaves_the_padding_as_it_was() -> None:
    metrics = Metrics()
    count(metrics, [message(0)], [prediction("positive", 0.9, tokens=12)], device_tokens=16)

    count(metrics, [message(1)], [rejection(Reason.EMPTY)], device_tokens=0)

    assert value(metrics, "padding_ratio") == 0.25


def test_the_way_from_end_to_end_is_measured_from_the_records_timestamp() -> None:
    metrics = Metrics()
    now = round(time.time() * 1000)

    messages = [message(0, now - 3_000), message(1, -1), message(2, 0)]
    count(metrics, messages, [rejection(Reason.EMPTY)] * 3, device_tokens=0)

    # One had no time; one is from 1970.
    assert value(metrics, "end_to_end_seconds_count") == 2
    assert value(metrics, "end_to_end_seconds_bucket", le="2.5") == 0
    assert value(metrics, "end_to_end_seconds_bucket", le="5.0") == 1
    assert value(metrics, "end_to_end_seconds_bucket", le="86400.0") == 1


def test_a_clock_that_is_ahead_makes_no_negative_delay() -> None:
    metrics = Metrics()

    count(metrics, [message(0, round(time.time() * 1000) + 60_000)], [rejection(Reason.EMPTY)], device_tokens=0)

    assert value(metrics, "end_to_end_seconds_count") == 1
    assert value(metrics, "end_to_end_seconds_sum") == 0


def test_messages_and_outcomes_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        count(Metrics(), [message(0)], [], device_tokens=0)


def test_the_time_of_a_stage_is_observed() -> None:
    metrics = Metrics()

    with metrics.timed("commit"):
        time.sleep(0.02)

    assert value(metrics, "stage_seconds_count", stage="commit") == 1
    assert 0.02 <= value(metrics, "stage_seconds_sum", stage="commit") < 10
    assert value(metrics, "stage_seconds_count", stage="poll") == 0


def test_lag_is_shown_for_the_partitions_of_now() -> None:
    metrics = Metrics()
    metrics.show_lag({("reviews", 0): 10, ("reviews", 1): 20}, rate=3.0)
    assert value(metrics, "lag_records", topic="reviews", partition="1") == 20
    assert value(metrics, "drain_seconds") == 10

    metrics.show_lag({("reviews", 0): 4}, rate=2.0)

    shown = {labels: lag for (name, labels), lag in scrape(metrics).items() if name == "lag_records"}
    assert shown == {frozenset({("topic", "reviews"), ("partition", "0")}): 4}
    assert value(metrics, "drain_seconds") == 2


@pytest.mark.parametrize(("behind", "seconds"), [(0, 0.0), (7, math.inf)])
def test_without_progress_a_lag_lasts_for_ever_and_no_lag_not_at_all(behind: int, seconds: float) -> None:
    metrics = Metrics()

    metrics.show_lag({("reviews", 0): behind}, rate=0)

    assert value(metrics, "drain_seconds") == seconds


def test_the_model_in_use_is_named() -> None:
    metrics = in_use()

    assert (
        value(
            metrics,
            "model_info",
            name="imdb",
            version="3",
            digest="sha256:" + "0" * 64,
            engine="tensorflow",
            device="cpu",
            precision="bfloat16",
        )
        == 1
    )


def test_another_model_takes_the_place_of_the_one_before() -> None:
    metrics = in_use()

    metrics.show_model(MODEL.model_copy(update={"version": 4}), ENGINE, ["negative", "positive"])

    versions = {dict(labels)["version"] for name, labels in scrape(metrics) if name == "model_info"}
    assert versions == {"4"}


def test_two_workers_in_one_process_do_not_share_counts() -> None:
    first, second = Metrics(), Metrics()

    first.rebalances.inc()

    assert (value(first, "rebalances_total"), value(second, "rebalances_total")) == (1, 0)


def test_the_processs_own_metrics_are_there() -> None:
    text = generate_latest(Metrics().registry).decode()

    assert "python_info{" in text
    assert "python_gc_collections_total{" in text


def test_the_memory_of_the_device_is_asked_for_when_somebody_scrapes() -> None:
    metrics = Metrics()
    held = iter((3.0, 5.0))
    metrics.show_memory(lambda: DeviceMemory(next(held), 8.0))
    assert value(metrics, "device_memory_bytes") == 3.0
    metrics.show_memory(lambda: DeviceMemory(4.0, 8.0))
    assert value(metrics, "device_memory_bytes") == 4.0
    assert value(metrics, "device_memory_limit_bytes") == 8.0


def test_a_device_that_tells_nothing_of_its_memory_does_not_end_the_scrape() -> None:
    def broken() -> DeviceMemory:
        raise RuntimeError("the device is lost")

    metrics = Metrics()
    metrics.show_memory(broken)
    assert math.isnan(value(metrics, "device_memory_bytes"))
    assert math.isnan(value(metrics, "device_memory_limit_bytes"))


@given(st.lists(st.floats(0, 200) | st.sampled_from([0.0, 0.01, 1.0, 60.0, 86_400.0, 1e9])))
def test_a_batch_is_counted_as_if_each_value_was_observed(amounts: list[float]) -> None:
    """A bucket's bound is in it."""
    bounds = (0.01, 1.0, 60.0, 86_400.0)
    at_once, each = (
        BatchHistogram("h", "h", registry=None, buckets=bounds),
        Histogram("h", "h", registry=None, buckets=bounds),
    )

    at_once.observe_all(amounts)
    for amount in amounts:
        each.observe(amount)

    (found,), (expected,) = at_once.collect(), each.collect()
    assert [(it.name, it.labels) for it in found.samples] == [(it.name, it.labels) for it in expected.samples]
    assert [it.value for it in found.samples] == pytest.approx([it.value for it in expected.samples])
