"""Cache: a text that comes again is answered as it was, by the same model only."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_engine import FakeEngine
from schemas import Prediction, Reason, Rejection, Review, Source
from worker.artifact import Artifact, open_artifact
from worker.cache import Answer, Cache, digest_of
from worker.message import Message
from worker.metrics import Metrics
from worker.scorer import Prepared, Scorer
from worker.tokens import Ids

Outcomes = Sequence[Prediction | Rejection]


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return open_artifact(tiny_artifact(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def scorer(artifact: Artifact, engine: FakeEngine) -> Scorer:
    return Scorer(artifact, engine, cached_reviews=100)


def source(offset: int) -> Source:
    return Source(topic="reviews", partition=0, offset=offset)


def reviews(*texts: str) -> list[Review]:
    return [Review(review_id=f"r{place}", text=text) for place, text in enumerate(texts)]


def score(scorer: Scorer, read: Sequence[Review | Rejection], first: int = 0) -> tuple[Prepared, Outcomes]:
    prepared = scorer.prepare(read)
    sources = [source(first + place) for place in range(len(read))]
    return prepared, scorer.conclude(prepared, sources, scorer.collect(scorer.submit(prepared)))


def said(outcome: Prediction | Rejection) -> dict[str, object]:
    """All but when, where and of whom."""
    return outcome.model_dump(exclude={"scored_at", "source", "review_id"})


# --- answers by text ---


def test_a_text_that_comes_again_needs_no_device_and_has_the_same_prediction(
    scorer: Scorer, engine: FakeEngine
) -> None:
    _, first = score(scorer, reviews("good film", "a bad film " * 40))
    prepared, again = score(scorer, reviews("a bad film " * 40, "good film"), first=7)

    assert [len(call) for call in engine.calls] == [2, 0]
    assert (len(prepared.rows), len(prepared.known), prepared.tokens) == (0, 2, 0)
    assert [said(outcome) for outcome in again] == [said(outcome) for outcome in reversed(first)]
    assert [outcome.source.offset for outcome in again] == [7, 8]
    assert [outcome.review_id for outcome in again if isinstance(outcome, Prediction)] == ["r0", "r1"]
    assert any(outcome.truncated for outcome in again if isinstance(outcome, Prediction))


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["good", "bad film", "the film was", "plot", None]), max_size=30), st.integers(1, 4))
def test_with_and_without_it_everything_is_answered_the_same(texts: list[str | None], size: int) -> None:
    """In whatever order known texts, others and refused records stand; with room for a few only."""
    plain, cached = Scorer(ARTIFACT[0], FakeEngine()), Scorer(ARTIFACT[0], FakeEngine(), cached_reviews=2)
    try:
        for start in range(0, len(texts), size):
            read = [
                Review(review_id="r", text=text)
                if text
                else Rejection(reason=Reason.NOT_JSON, detail="x", source=source(start + place))
                for place, text in enumerate(texts[start : start + size])
            ]
            expected, found = score(plain, read, start)[1], score(cached, read, start)[1]
            assert [outcome.model_dump(exclude={"scored_at"}) for outcome in found] == [
                outcome.model_dump(exclude={"scored_at"}) for outcome in expected
            ]
    finally:
        plain.close()
        cached.close()


ARTIFACT: list[Artifact] = []
"""For Hypothesis, which does not like fixtures."""


@pytest.fixture(autouse=True)
def shared_artifact(artifact: Artifact) -> None:
    ARTIFACT[:] = [artifact]


def test_texts_that_are_cleaned_to_the_same_are_the_same(scorer: Scorer) -> None:
    score(scorer, reviews("good<br />film"))

    prepared, _ = score(scorer, reviews("good<br>film", "good  film"))

    assert list(prepared.known) == [0]


def test_another_model_does_not_answer_with_what_this_one_said(artifact: Artifact, scorer: Scorer) -> None:
    """A newer version is a scorer of its own."""
    score(scorer, reviews("good film"))
    newer = Scorer(artifact, FakeEngine(lambda rows, logits: logits.__imul__(-1)), cached_reviews=100)

    prepared, (outcome,) = score(newer, reviews("good film"))

    assert not prepared.known
    assert isinstance(outcome, Prediction)
    assert outcome.label_id == 2


def test_without_the_setting_nothing_is_kept(artifact: Artifact, engine: FakeEngine) -> None:
    plain = Scorer(artifact, engine)

    prepared = [score(plain, reviews("good film"))[0] for _ in range(2)][1]

    assert (len(prepared.rows), prepared.known, prepared.digests) == (1, {}, ())


def test_a_review_that_the_model_failed_on_is_asked_again(artifact: Artifact) -> None:
    """It may have been the device."""
    length = 5

    def fail(rows: Sequence[Ids], logits: np.ndarray) -> None:
        if any(len(row) == length for row in rows):
            raise ValueError("poison")

    engine = FakeEngine(fail)
    scorer = Scorer(artifact, engine, cached_reviews=100)
    read = reviews("good film", "the film was", "plot")
    _, first = score(scorer, read)
    assert [isinstance(outcome, Rejection) for outcome in first] == [False, True, False]
    engine.fail = lambda rows, logits: None

    prepared, again = score(scorer, read)

    assert set(prepared.known) == {0, 2}
    assert all(isinstance(outcome, Prediction) for outcome in again)
    assert [said(again[place]) for place in (0, 2)] == [said(first[place]) for place in (0, 2)]


# --- room ---


def answer(number: int) -> Answer:
    return Answer((float(number),), number, False)


def test_what_was_asked_for_the_longest_ago_goes_first() -> None:
    cache = Cache(2)
    cache.put(b"a", answer(1))
    cache.put(b"b", answer(2))
    assert cache.get(b"a") == answer(1)

    cache.put(b"c", answer(3))

    assert [cache.get(name) for name in (b"a", b"b", b"c")] == [answer(1), None, answer(3)]
    assert len(cache) == 2


def test_it_never_has_more_than_its_room() -> None:
    cache = Cache(10)
    for number in range(1_000):
        cache.put(digest_of(f"text {number}"), answer(number))

    assert len(cache) == 10


@given(st.text(max_size=50), st.text(max_size=50))
def test_different_texts_have_different_digests(one: str, other: str) -> None:
    assert (digest_of(one) == digest_of(other)) is (one == other)


def test_a_text_that_is_no_unicode_has_a_digest() -> None:
    assert digest_of("\ud800") != digest_of("?")


# --- what is told of it ---


def test_hits_and_misses_are_counted_and_padding_is_that_of_the_device() -> None:
    metrics = Metrics()
    metrics.count_cached(3, 1)

    counts = {
        outcome: metrics.registry.get_sample_value("review_worker_cache_reviews_total", {"outcome": outcome})
        for outcome in ("hit", "miss")
    }
    assert counts == {"hit": 3, "miss": 1}


def test_what_was_known_is_not_taken_for_what_the_device_computed(scorer: Scorer) -> None:
    """Else the share of padding would be below zero."""
    score(scorer, reviews("the film was good"))
    read = reviews("the film was good", "plot")
    prepared = scorer.prepare(read)
    collected = scorer.collect(scorer.submit(prepared))
    outcomes = scorer.conclude(prepared, [source(0), source(1)], collected)
    metrics = Metrics()

    messages = [Message("reviews", 0, place, None, b"") for place in range(2)]
    metrics.count_batch(messages, outcomes, collected, prepared.known.values())

    assert metrics.registry.get_sample_value("review_worker_padding_ratio") == 0
