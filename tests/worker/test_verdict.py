"""Verdict: logits in, predictions out."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import ModelName, Prediction, Review, Source
from worker.tokens import TokenRow
from worker.verdict import Verdict, label_numbers, probabilities

MODEL = ModelName(name="tiny", version=7, digest="sha256:" + "0" * 64)
LABELS = ("negative", "neutral", "positive")


def row(length: int, truncated: bool = False) -> TokenRow:
    return TokenRow(np.zeros(length, dtype=np.int32), truncated)


def predict(logits: list[list[float]], temperature: float = 1.0, labels: tuple[str, ...] = LABELS) -> list[Prediction]:
    count = len(logits)
    return Verdict(MODEL, labels, temperature).predict(
        [Review(review_id=f"id-{n}", text="x") for n in range(count)],
        [Source(topic="reviews", partition=0, offset=100 + n) for n in range(count)],
        [row(10 + n, truncated=n % 2 == 1) for n in range(count)],
        np.array(logits, dtype=np.float32).reshape(count, len(LABELS)),
    )


def test_a_prediction_says_everything_about_its_review() -> None:
    before = datetime.now(UTC)
    first, second = predict([[0.0, 1.0, 3.0], [2.0, -1.0, 0.0]])

    assert (first.review_id, first.label, first.label_id) == ("id-0", "positive", 2)
    assert (second.review_id, second.label, second.label_id) == ("id-1", "negative", 0)
    assert first.source.offset == 100
    assert second.source.offset == 101
    assert (first.tokens, first.truncated) == (10, False)
    assert (second.tokens, second.truncated) == (11, True)
    assert first.model == MODEL
    assert timedelta() <= first.scored_at - before < timedelta(minutes=1)
    assert first.scored_at == second.scored_at


def test_the_confidence_is_the_probability_of_the_label() -> None:
    (prediction,) = predict([[0.0, 1.0, 3.0]])

    assert list(prediction.probabilities) == list(LABELS)
    assert prediction.probabilities["positive"] == prediction.confidence == max(prediction.probabilities.values())
    assert prediction.confidence == pytest.approx(np.e**3 / (1 + np.e + np.e**3))


def test_equal_logits_give_the_first_label_every_time() -> None:
    assert {prediction.label for prediction in predict([[1.0, 1.0, 1.0]] * 3)} == {"negative"}


def test_the_temperature_divides_the_logits() -> None:
    (hot,), (cold,) = predict([[0.0, 0.0, 4.0]], temperature=4.0), predict([[0.0, 0.0, 1.0]])

    assert hot.probabilities == cold.probabilities
    assert hot.label == cold.label


def test_labels_that_are_numbers_give_the_rating_that_is_expected() -> None:
    first, second = predict([[np.log(1), np.log(1), np.log(2)], [0.0, 9.0, 0.0]], labels=("1", "2.5", "5"))

    assert first.rating == pytest.approx((1 + 2.5 + 2 * 5) / 4)
    assert second.rating == pytest.approx(2.5, abs=1e-3)
    assert predict([[0.0, 1.0, 3.0]])[0].rating is None


@pytest.mark.parametrize("labels", [("1", "two"), ("1", "1.0"), ("0", "inf"), ("nan", "1")])
def test_labels_that_are_no_different_numbers_are_names(labels: tuple[str, ...]) -> None:
    assert label_numbers(labels) is None


def test_no_reviews_give_no_predictions() -> None:
    assert predict([]) == []


def test_logits_that_are_no_numbers_never_become_a_prediction() -> None:
    """A broken device must end the process, not publish."""
    with np.errstate(invalid="ignore"), pytest.raises(ValidationError):
        predict([[float("nan"), 0.0, 1.0]])


def test_lists_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        Verdict(MODEL, LABELS, 1.0).predict(
            [Review(review_id="a", text="x")], [], [row(2)], np.zeros((1, 3), dtype=np.float32)
        )


finite = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5), st.floats(0.01, 100))
def test_probabilities_sum_to_1_whatever_the_logits(rows: list[tuple[float, ...]], temperature: float) -> None:
    shares = probabilities(np.array(rows, dtype=np.float32), temperature)

    assert shares.dtype == np.float64
    assert shares.sum(axis=-1) == pytest.approx(1, abs=1e-12)
    assert ((shares >= 0) & (shares <= 1)).all()
    for share, row in zip(shares, rows, strict=True):
        assert share[np.argmax(row)] == share.max()
