"""Verdict: logits in, predictions out."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from schemas import ModelName, Prediction, Review, Source
from worker.cache import Answer
from worker.engine import Logits
from worker.tokens import TokenRow

Probabilities = NDArray[np.float64]

_PREDICTIONS = TypeAdapter(list[Prediction], config=ConfigDict(hide_input_in_errors=True))
"""All of a batch in one call: less than half of the time of one call each."""


def probabilities(logits: Logits, temperature: float) -> Probabilities:
    """Softmax of `logits / temperature` along the last axis, in float64 so that the parts sum to 1.

    Args:
        logits: (rows, labels).
        temperature: the manifest's; above 0.
    """
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: Probabilities = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def label_numbers(labels: Sequence[str]) -> NDArray[np.float64] | None:
    """The numbers that labels such as one to five stars stand for, (labels,); None where they are names.

    The mean of these numbers, weighted by the probabilities of their labels, is the rating that the model expects.
    """
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError:
        return None
    different = len(set(numbers.tolist())) == len(labels)
    return numbers if different and bool(np.isfinite(numbers).all()) else None


class Verdict:
    """Names the label of each row, for one model."""

    def __init__(self, model: ModelName, labels: Sequence[str], temperature: float) -> None:
        self._model = model
        self._labels = labels
        self._numbers = label_numbers(labels)
        self._temperature = temperature

    def predict(
        self, reviews: Sequence[Review], sources: Sequence[Source], rows: Sequence[TokenRow | Answer], logits: Logits
    ) -> list[Prediction]:
        """One prediction a review.

        Args:
            reviews: what was asked.
            sources: where each was read.
            rows: what of each the model read, or did when it read the same text before.
            logits: (reviews, labels), in the same order.
        """
        now = datetime.now(UTC)
        shares = probabilities(logits, self._temperature)
        best = shares.argmax(axis=-1)
        ratings = [None] * len(reviews) if self._numbers is None else (shares @ self._numbers).tolist()
        return _PREDICTIONS.validate_python(
            [
                {
                    "review_id": review.review_id,
                    "label": self._labels[label_id],
                    "label_id": label_id,
                    "confidence": share[label_id],
                    "probabilities": dict(zip(self._labels, share, strict=True)),
                    "rating": rating,
                    "model": self._model,
                    "source": source,
                    "tokens": row.tokens,
                    "truncated": row.truncated,
                    "scored_at": now,
                }
                for review, source, row, share, label_id, rating in zip(
                    reviews, sources, rows, shares.tolist(), best.tolist(), ratings, strict=True
                )
            ]
        )
