"""Calibration: how far a stated confidence can be trusted, and the one number that mends it.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks"): logits are divided by a temperature
before the softmax. No label changes, since the order of the logits does not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from trainer.evaluation import Calibration, Interval
from worker.engine import Logits
from worker.verdict import Probabilities, probabilities

Truth = NDArray[np.int64]

MEASURES = {"loss": "nll", "brier": "brier", "ece": "ece"}
"""Names in a manifest's metrics, and in `Calibration`."""

BINS = 15
"""Of equal width, as in the literature, so that errors can be compared."""

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures looked at. Fine-tuned BERTs need 1 to 3; a value at an end says that the reviews cannot tell."""


Z95 = 1.959964
"""The normal distribution's 97.5 % quantile."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Reviews of about the same confidence.

    Attributes:
        low: the bin holds confidences above it.
        high: and up to it.
        reviews: at least one.
        confidence: their mean confidence.
        accuracy: the share of them that are labelled right.
        interval: the ends of its 95 % interval.
    """

    low: float
    high: float
    reviews: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def wilson(right: int, count: int) -> Interval:
    """The 95 % score interval of a share (Wilson 1927); unlike the normal one it holds near 0 and 1."""
    share = right / count
    scale = 1 + Z95**2 / count
    centre = (share + Z95**2 / (2 * count)) / scale
    half = Z95 / scale * (share * (1 - share) / count + Z95**2 / (4 * count**2)) ** 0.5
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def reliability(shares: Probabilities, truth: Truth) -> list[Bin]:
    """Reviews by the probability of the label that is given, in 15 bins of equal width, empty ones left out.

    Args:
        shares: (reviews, labels), at least one review.
        truth: (reviews,).
    """
    confidence, right = shares.max(axis=-1), shares.argmax(axis=-1) == truth
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for at in range(BINS):
        held = number == at
        reviews, hits = int(held.sum()), int(right[held].sum())
        if reviews:
            interval = wilson(hits, reviews)
            ends = (interval.low, interval.high)
            mean = float(confidence[held].mean())
            bins.append(Bin(at / BINS, (at + 1) / BINS, reviews, mean, hits / reviews, ends))
    return bins


def calibration(shares: Probabilities, truth: Truth) -> Calibration:
    """Three measures of stated probabilities; see `Calibration` for their definitions."""
    rows = np.arange(len(truth))
    true_shares = np.maximum(shares[rows, truth], np.finfo(np.float64).tiny)
    wanted = np.zeros_like(shares)
    wanted[rows, truth] = 1
    gaps = sum(part.reviews * abs(part.accuracy - part.confidence) for part in reliability(shares, truth))
    return Calibration(
        nll=abs(float(np.log(true_shares).mean())),  # and no "-0.0" where every review is certain
        brier=float(((shares - wanted) ** 2).sum(axis=-1).mean()),
        ece=float(gaps / len(truth)),
    )


def fit_temperature(logits: Logits, truth: Truth) -> float | None:
    """The temperature with the least negative log-likelihood, which has no second minimum.

    Args:
        logits: (reviews, labels), of reviews that were not trained on.
        truth: (reviews,).

    Returns:
        None where the reviews do not tell: without a mistake among them any more certain temperature is better, and
        for a model that knows nothing any less certain one.
    """

    if (logits.argmax(axis=-1) == truth).all():
        return None

    def loss(logarithm: float) -> float:
        return calibration_loss(logits, truth, float(np.exp(logarithm)))

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
    return found if LOWEST * 1.01 < found < HIGHEST / 1.01 else None


def calibration_loss(logits: Logits, truth: Truth, temperature: float) -> float:
    """Mean negative log-likelihood of the true labels at a temperature, from the logits: no probability underflows."""
    scaled = logits.astype(np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=-1)) - scaled[np.arange(len(truth)), truth]).mean())


def calibration_metrics(logits: Logits, truth: Truth, temperature: float) -> dict[str, float]:
    """What the manifest keeps: `validation_accuracy`, `validation_ece` and their like, and without the temperature."""
    after = calibration(probabilities(logits, temperature), truth)
    before = calibration(probabilities(logits, 1.0), truth)
    found = {
        "validation_reviews": float(len(truth)),
        "validation_accuracy": float((logits.argmax(axis=-1) == truth).mean()),
    }
    for name, measure in MEASURES.items():
        found[f"validation_{name}"] = getattr(after, measure)
        found[f"validation_{name}_uncalibrated"] = getattr(before, measure)
    return found
