"""Shadow: a second model is compared, and can neither delay nor end the first one."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from fake_engine import FakeEngine
from schemas import Prediction, Reason, Rejection, Review, Source
from worker.artifact import Artifact, open_artifact
from worker.metrics import Metrics
from worker.scorer import Scorer
from worker.shadow import Shadow
from worker.tokens import Ids

Fail = Callable[[Sequence[Ids], np.ndarray], None]
READ = [Review(review_id="a", text="good"), Review(review_id="b", text="not a good film , but fun !")]


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return open_artifact(tiny_artifact(tmp_path_factory.mktemp("shadow")))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def shadow(artifact: Artifact, metrics: Metrics) -> Iterator[Callable[..., Shadow]]:
    made: list[Shadow] = []

    def make(fail: Fail = lambda _, __: None, share: float = 1) -> Shadow:
        made.append(Shadow(Scorer(artifact, FakeEngine(fail)), share, metrics))
        return made[-1]

    yield make
    for it in made:
        it.close()


def published(artifact: Artifact, fail: Fail = lambda _, __: None) -> list[Prediction | Rejection]:
    """What a first model made of them."""
    scorer = Scorer(artifact, FakeEngine(fail))
    prepared = scorer.prepare(READ)
    sources = [Source(topic="reviews", partition=0, offset=number) for number in range(len(READ))]
    outcomes = scorer.conclude(prepared, sources, scorer.collect(scorer.submit(prepared)))
    scorer.close()
    return outcomes


def counted(metrics: Metrics, agreement: str) -> float:
    text = generate_latest(metrics.registry).decode()
    start = f'review_worker_shadow_reviews_total{{agreement="{agreement}"}} '
    return next(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))


def follow(shadow: Shadow, outcomes: Sequence[Prediction | Rejection]) -> bool:
    under_way = shadow.follow(READ, outcomes)
    if under_way is not None:
        under_way.result(timeout=10)
    return under_way is not None


def test_the_same_model_agrees(shadow: Callable[..., Shadow], artifact: Artifact, metrics: Metrics) -> None:
    assert follow(shadow(), published(artifact))

    assert counted(metrics, "same") == 2
    assert counted(metrics, "different") == 0
    assert "review_worker_shadow_difference_sum 0.0" in generate_latest(metrics.registry).decode()


def test_another_label_is_counted_with_its_difference(
    shadow: Callable[..., Shadow], artifact: Artifact, metrics: Metrics
) -> None:
    def other(_: Sequence[Ids], logits: np.ndarray) -> None:
        logits[:] = [0, 0, 500]

    assert follow(shadow(other), published(artifact))

    assert counted(metrics, "different") == 2
    assert 'shadow_difference_bucket{le="0.5"} 0.0' in generate_latest(metrics.registry).decode()


def test_it_scores_its_share(shadow: Callable[..., Shadow], artifact: Artifact) -> None:
    third, outcomes = shadow(share=0.3), published(artifact)

    assert sum(follow(third, outcomes) for _ in range(100)) in (29, 30)


def test_what_it_cannot_keep_up_with_is_left_out_and_counted(
    shadow: Callable[..., Shadow], artifact: Artifact, metrics: Metrics
) -> None:
    go_on = threading.Event()
    slow, outcomes = shadow(lambda _, __: go_on.wait(10) and None), published(artifact)

    first = slow.follow(READ, outcomes)
    second = slow.follow(READ, outcomes)
    go_on.set()

    assert first is not None
    first.result(timeout=10)
    assert second is None
    assert (counted(metrics, "same"), counted(metrics, "skipped")) == (2, 2)


def test_its_failures_are_counted_and_go_no_further(
    shadow: Callable[..., Shadow], artifact: Artifact, metrics: Metrics
) -> None:
    def fail(_: Sequence[Ids], __: np.ndarray) -> None:
        raise RuntimeError

    assert follow(shadow(fail), published(artifact))

    assert counted(metrics, "failed") == 2


def test_one_review_that_it_fails_on_is_counted_alone(
    shadow: Callable[..., Shadow], artifact: Artifact, metrics: Metrics
) -> None:
    def fail(rows: Sequence[Ids], _: np.ndarray) -> None:
        if any(len(row) > 4 for row in rows):
            raise RuntimeError

    assert follow(shadow(fail), published(artifact))

    assert (counted(metrics, "same"), counted(metrics, "failed")) == (1, 1)


def test_dead_letters_are_not_compared(shadow: Callable[..., Shadow]) -> None:
    source = Source(topic="reviews", partition=0, offset=1)
    letter = Rejection(reason=Reason.NOT_JSON, detail="x", source=source)

    assert shadow().follow([letter], [letter]) is None
    assert shadow().follow([], []) is None
