"""Verdict: logits in, predictions out."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from schemas import ModelName, Prediction, Review, Source
from worker.engine import Logits
from worker.tokens import TokenRow

Probabilities = NDArray[np.float64]


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


class Verdict:
    """Names the label of each row, for one model."""

    def __init__(self, model: ModelName, labels: tuple[str, ...], temperature: float) -> None:
        self._model = model
        self._labels = labels
        self._temperature = temperature

    def predict(self, reviews: list[tuple[Review, Source, TokenRow]], logits: Logits) -> list[Prediction]:
        """One prediction a review.

        Args:
            reviews: with where each was read and what of it the model read.
            logits: (reviews, labels), in the same order.
        """
        now = datetime.now(UTC)
        shares = probabilities(logits, self._temperature)
        best = shares.argmax(axis=-1)
        return [
            Prediction(
                review_id=review.review_id,
                label=self._labels[label_id],
                label_id=label_id,
                confidence=row[label_id],
                probabilities=dict(zip(self._labels, row, strict=True)),
                model=self._model,
                source=source,
                tokens=len(tokens.ids),
                truncated=tokens.truncated,
                scored_at=now,
            )
            for (review, source, tokens), row, label_id in zip(reviews, shares.tolist(), best.tolist(), strict=True)
        ]
