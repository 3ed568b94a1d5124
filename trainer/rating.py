"""Regression: one output that learns a number, for labels whose names are numbers, such as one to five stars.

The network is trained on the mean squared error of standardized ratings, so that rates and clipping fit whatever the
scale is. What is written is a classifier all the same, of the same weights: where ratings are the output z plus a
normal error of variance s², the probability of each label's z_k is the softmax of (z_k z - z_k² / 2) / s², which is
linear in z and so fits into the weights of one output a label. It says for every review the nearest label, how probable
each is, and with the mean over the labels the rating itself; and everything that reads a classifier reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from trainer.run import RatingError
from worker.bert_config import BertConfig
from worker.errors import UsageError
from worker.network import Bert

LEAST_VARIANCE = 1e-3
"""Of a standardized rating's error: below it the logits of far labels would leave float16's range."""


@dataclass(frozen=True)
class Ratings:
    """The numbers that labels stand for.

    Attributes:
        values: in the order of the labels.
        mean: over the training reviews.
        spread: standard deviation over the training reviews, above 0.
    """

    values: tuple[float, ...]
    mean: float
    spread: float

    @property
    def standard(self) -> NDArray[np.float32]:
        """The values less their mean, in standard deviations; (labels, 1)."""
        return np.array([[(value - self.mean) / self.spread] for value in self.values], dtype=np.float32)

    def error(self, loss: float, absolute: float, counts: Mapping[str, int]) -> RatingError:
        """The figures of some reviews.

        Args:
            loss: mean squared error of the standardized ratings.
            absolute: mean absolute error of the same.
            counts: reviews of each label, in the order of the labels.
        """
        _, spread = _moments(self.values, list(counts.values()))
        squared = loss * self.spread**2
        # Where all reviews have one rating, nothing is there to explain.
        r2 = 1 - squared / spread**2 if spread else 0.0
        return RatingError(mae=absolute * self.spread, rmse=squared**0.5, r2=r2)


def ratings_of(counts: Mapping[str, int]) -> Ratings:
    """The numbers that these labels stand for.

    Args:
        counts: training reviews of each label, in the order of the labels.

    Raises:
        UsageError: a label is no number, or two are the same.
    """
    try:
        values = tuple(float(name) for name in counts)
    except ValueError:
        values = ()
    if not values or not np.isfinite(values).all() or len(set(values)) < len(values):
        raise UsageError(
            f"--task regression: the labels must be different numbers, these are {', '.join(counts)}; prepare the data "
            "with numbers, such as --labels 1,2,3,4,5 or --labels 0=neg,1=pos"
        )
    return Ratings(values, *_moments(values, list(counts.values())))


def _moments(values: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = float(np.average(values, weights=counts))
    return mean, float(np.average((np.array(values) - mean) ** 2, weights=counts) ** 0.5)


def rating_metrics(ratings: Ratings) -> list[Any]:
    """Share of the reviews whose nearest rating is the right one, and the mean absolute error."""
    values = ratings.standard[:, 0]

    def nearest(wanted: Any, found: Any) -> Any:
        return ops.equal(*(ops.argmin(ops.abs(side - values), axis=-1) for side in (wanted, found)))

    return [keras.metrics.MeanMetricWrapper(nearest, name="accuracy"), keras.metrics.MeanAbsoluteError(name="mae")]


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
    values = ratings.standard[:, 0]
    shown.classifier.kernel.assign(network.classifier.kernel.numpy() * (values / variance))
    shown.classifier.bias.assign((values * network.classifier.bias.numpy() - values**2 / 2) / variance)
    return shown
