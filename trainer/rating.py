"""Regression: one output that learns a number, for labels whose names are numbers, such as one to five stars.

The network is trained on the mean squared error of standardized ratings, so that rates and clipping fit whatever the
scale is. What is written is a classifier all the same, of the same weights: where ratings are the output z plus a
normal error of variance s², the probability of each label's z_k is the softmax of (z_k z - z_k² / 2) / s², which is
linear in z and so fits into the weights of one output a label. It says for every review the nearest label, how probable
each is, and with the mean over the labels the rating itself; and everything that reads a classifier reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from trainer.evaluation import RatingError
from worker.bert_config import BertConfig
from worker.errors import UsageError
from worker.network import Bert
from worker.verdict import label_numbers

LEAST_VARIANCE = 1e-3
"""Of a standardized rating's error: below it the logits of far labels would leave float16's range."""

TIE = 1e-4
"""Of a standard deviation: less than any difference between ratings, and more than float32 loses in it."""


@dataclass(frozen=True)
class Ratings:
    """A scale of ratings.

    Attributes:
        values: the numbers that labels stand for, in the order of the labels.
        mean: over the training reviews.
        spread: standard deviation over the training reviews, above 0.
    """

    values: tuple[float, ...]
    mean: float
    spread: float

    def standardized(self, numbers: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float32]:
        """Numbers less the mean, in standard deviations; (numbers, 1)."""
        return ((np.array(numbers, dtype=np.float64)[:, None] - self.mean) / self.spread).astype(np.float32)

    def error(self, loss: float, absolute: float, given: NDArray[np.float64]) -> RatingError:
        """The figures of some reviews.

        Args:
            loss: mean squared error of the standardized ratings.
            absolute: mean absolute error of the same.
            given: their ratings, (reviews,).
        """
        return RatingError.of(absolute * self.spread, loss * self.spread**2, float(given.var()))


def rating_numbers(names: Sequence[str]) -> tuple[float, ...]:
    """The numbers that labels stand for.

    Raises:
        UsageError: a label is no number, or two are the same.
    """
    found = label_numbers(names)
    if found is None:
        raise UsageError(
            f"--task regression: the labels must be different numbers, these are {', '.join(names)}; prepare the data "
            "with numbers, such as --labels 1,2,3,4,5 or --labels 0=neg,1=pos"
        )
    return tuple(found.tolist())


def ratings_of(values: Sequence[float], given: NDArray[np.float64]) -> Ratings:
    """The scale of the training reviews, whose ratings were `given`."""
    return Ratings(tuple(values), float(given.mean()), float(given.std()))


def rating_metrics(ratings: Ratings) -> list[Any]:
    """Share of the reviews whose nearest rating is the right one, and the mean absolute error."""
    values = ratings.standardized(ratings.values)[:, 0]

    def nearest(side: Any) -> Any:
        # Of two labels equally near the higher: `trainer.labels`.
        return ops.argmin(ops.abs(side - values) - TIE * values, axis=-1)

    def agree(wanted: Any, found: Any) -> Any:
        return ops.equal(nearest(wanted), nearest(found))

    return [keras.metrics.MeanMetricWrapper(agree, name="accuracy"), keras.metrics.MeanAbsoluteError(name="mae")]


def as_classifier(network: Bert, config: BertConfig, ratings: Ratings, variance: float) -> Bert:
    """The same network with one output a label: see above.

    Args:
        network: with one output.
        config: with the labels.
        ratings: of the labels.
        variance: of the standardized error, as the validation found it.
    """
    shown = Bert(config)
    pairs = {variable.path.partition("/")[2]: variable for variable in network.trainable_variables}
    for variable in shown.trainable_variables:
        name = variable.path.partition("/")[2]
        if not name.startswith("classifier/"):
            variable.assign(pairs[name].numpy())
    variance = max(variance, LEAST_VARIANCE)
    values = ratings.standardized(ratings.values)[:, 0]
    shown.classifier.kernel.assign(network.classifier.kernel.numpy() * (values / variance))
    shown.classifier.bias.assign((values * network.classifier.bias.numpy() - values**2 / 2) / variance)
    return shown
