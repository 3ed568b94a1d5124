"""What an evaluation finds: the records of its report."""

from typing import Self

from pydantic import Field

from schemas import ModelName
from schemas.record import Digest, Record
from trainer.info import Split

AVERAGES = ("macro avg", "weighted avg")


class LabelFigures(Record):
    """How one label fared.

    Example: `{"precision": 0.93, "recall": 0.94, "f1": 0.935, "reviews": 2473}`
    """

    precision: float
    recall: float
    f1: float
    reviews: int
    """That carry the label in truth."""


class Interval(Record):
    """A 95 % interval.

    Example: `{"low": 0.9268, "high": 0.9406}`
    """

    low: float
    high: float


class Calibration(Record):
    """How far the stated probabilities of some reviews can be trusted; the smaller, the better.

    Example: `{"nll": 0.19, "brier": 0.108, "ece": 0.012}`
    """

    nll: float
    """Negative log-likelihood: mean of the negative logarithm of the true label's probability."""
    brier: float
    """Mean over the reviews of the squared differences to 1 for the true label and to 0 for the others, summed over the
    labels (Brier 1950): 0 to 2, with two labels twice the figure that looks at one of them."""
    ece: float
    """Expected calibration error: reviews by the probability of the label given, in 15 bins of equal width; the
    difference between mean probability and accuracy in each, weighted by its reviews (Guo et al. 2017): 0 to 1."""


class RatingError(Record):
    """How far predicted ratings are from the given ones, in the unit of the ratings.

    Example: `{"mae": 0.61, "rmse": 0.82, "r2": 0.67}`
    """

    mae: float
    """Mean absolute error."""
    rmse: float
    """Root of the mean squared error."""
    r2: float
    """Share of the ratings' variance that is explained; 0 for predicting their mean."""

    @classmethod
    def of(cls, absolute: float, squared: float, variance: float) -> Self:
        """From means over some reviews.

        Args:
            absolute: mean absolute error.
            squared: mean squared error.
            variance: of the given ratings; where all are the same, nothing is there to explain.
        """
        return cls(mae=absolute, rmse=squared**0.5, r2=1 - squared / variance if variance else 0.0)


class Score(Record):
    """Accuracy on one split.

    Example: `{"reviews": 5000, "accuracy": 0.846, "accuracy_interval": {"low": 0.8357, "high": 0.8558}}`
    """

    reviews: int
    accuracy: float
    accuracy_interval: Interval
    """Wilson's, at 95 %."""


class Evaluation(Record):
    """What an evaluation found.

    Example: `{"model": {"name": "imdb", "version": 3, "digest": "sha256:5e88...d8"}, "data": "imdb", "split": "test",
    "data_digest": "sha256:...", "reviews": 5000, "refused": 0, "accuracy": 0.934, "accuracy_interval": {...},
    "loss": 0.19, "temperature": 1.31, "calibration": {...}, "uncalibrated": {...}, "cuts": null, "baseline": null,
    "rating": null, "labels": {"negative": {...}, "positive": {...}},
    "averages": {"macro avg": {...}, "weighted avg": {...}},
    "confusion": [[2362, 165], [165, 2308]],
    "truncated": 651, "tokens": 1322540, "seconds": 131.9, "reviews_per_second": 37.9, "engine": "tensorflow",
    "device": "cpu", "precision": "bfloat16"}`
    """

    model: ModelName
    data: str
    """Name of the folder or the file."""
    split: Split | None
    """None for a CSV."""
    data_digest: Digest
    """SHA-256 of the file that was read."""
    reviews: int
    refused: int
    accuracy: float
    accuracy_interval: Interval
    """Wilson's, at 95 %."""
    loss: float
    """Mean of the negative logarithm of the true label's probability."""
    temperature: float
    """The artefact's: its logits were divided by it."""
    calibration: Calibration
    uncalibrated: Calibration
    """The same with a temperature of 1."""
    cuts: tuple[str, ...] | None
    """The readings of each review whose logits were averaged; None for the artefact's own cut alone."""
    baseline: Score | None
    """What `baseline` reached on the same reviews, where it was run."""
    rating: RatingError | None = None
    """Of the expected ratings, which the worker's predictions hold as well; None where labels are names."""
    labels: dict[str, LabelFigures]
    averages: dict[str, LabelFigures]
    """`macro avg` counts every label alike, `weighted avg` by its reviews."""
    confusion: tuple[tuple[int, ...], ...] = Field(min_length=2)
    """Reviews by true label (row) and predicted label (column), in the order of `labels`."""
    truncated: int
    """Reviews that the model did not read to the end."""
    tokens: int
    seconds: float
    """Tokenizing and scoring."""
    reviews_per_second: float
    engine: str
    device: str
    precision: str
