"""Predict: texts in, labels with their probabilities out."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated

from pydantic import Field

from schemas.record import Record
from trainer.scoring import Model
from worker.verdict import label_numbers

AT_ONCE = 32
"""Lines read before any is scored: a pipe flows, and the device still gets a batch."""


class TextPrediction(Record):
    """What the model says of one text.

    Example: `{"label": "positive", "confidence": 0.98, "probabilities": {"negative": 0.02, "positive": 0.98},
    "tokens": 12, "truncated": false}`
    """

    label: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    probabilities: dict[str, float]
    rating: Annotated[float | None, Field(exclude_if=lambda rating: rating is None)] = None
    """As in `schemas.Prediction`."""
    tokens: int
    """Tokens that the model read, control tokens included."""
    truncated: bool
    """The text was longer than the model's cut."""


def predictions(model: Model, texts: Iterable[str], at_once: int = AT_ONCE) -> Iterator[TextPrediction]:
    """One prediction a text, in their order; `at_once` texts are read before the first of them is answered."""
    labels = model.artifact.manifest.labels
    numbers = label_numbers(labels)
    waiting = iter(texts)
    while part := list(islice(waiting, at_once)):
        for answers in model.score(part):
            for row, shares in zip(answers.rows, answers.probabilities, strict=True):
                best = int(shares.argmax())
                yield TextPrediction(
                    label=labels[best],
                    confidence=shares[best],
                    probabilities=dict(zip(labels, shares.tolist(), strict=True)),
                    rating=None if numbers is None else float(shares @ numbers),
                    tokens=len(row.ids),
                    truncated=row.truncated,
                )
