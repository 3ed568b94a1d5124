"""The mathematics of calibration, held to scikit-learn's and to cases counted by hand."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from trainer.calibrate import calibration, calibration_loss, calibration_metrics, fit_temperature, reliability
from worker.verdict import probabilities


def drawn(reviews: int, labels: int, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at a temperature: a model that is that much too sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(reviews, labels), scale=3).astype(np.float32)
    shares = probabilities(logits, temperature)
    return logits, np.array([rng.choice(labels, p=row) for row in shares])


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(labels: int, temperature: float) -> None:
    logits, truth = drawn(6000, labels, temperature, seed=labels)

    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.08)


def test_no_other_temperature_gives_less_loss() -> None:
    logits, truth = drawn(500, 3, 1.7, seed=5)

    found = fit_temperature(logits, truth)

    assert found is not None
    least = calibration_loss(logits, truth, found)
    assert all(least <= calibration_loss(logits, truth, other) for other in np.geomspace(0.1, 10, 500))
    assert least == pytest.approx(log_loss(truth, probabilities(logits, found), labels=range(3)))


def test_reviews_without_a_mistake_tell_no_temperature() -> None:
    logits = np.array([[9.0, -9.0], [-30.0, 30.0]], dtype=np.float32)

    assert fit_temperature(logits, np.array([0, 1])) is None


def test_a_model_that_knows_nothing_tells_no_temperature() -> None:
    logits = np.array([[1.0, -1.0]] * 10, dtype=np.float32)

    assert fit_temperature(logits, np.array([0, 1] * 5)) is None


@pytest.mark.parametrize("labels", [2, 4])
def test_loss_and_brier_score_are_scikit_learns(labels: int) -> None:
    logits, truth = drawn(300, labels, 2.0, seed=1)
    shares = probabilities(logits, 1.0)

    found = calibration(shares, truth)

    assert found.nll == pytest.approx(log_loss(truth, shares, labels=range(labels)))
    own = sum(brier_score_loss(truth == at, shares[:, at]) for at in range(labels))
    assert found.brier == pytest.approx(own)


def test_the_calibration_error_is_counted_by_hand() -> None:
    # Bins of 1/15: 0.61 and 0.65 share one (9/15 to 10/15), 0.9 and 0.92 another (13/15 to 14/15).
    shares = np.array([[0.61, 0.39], [0.65, 0.35], [0.9, 0.1], [0.08, 0.92]])
    truth = np.array([0, 1, 0, 1])

    bins = reliability(shares, truth)

    assert [(part.reviews, part.accuracy) for part in bins] == [(2, 0.5), (2, 1.0)]
    assert [part.confidence for part in bins] == pytest.approx([0.63, 0.91])
    assert calibration(shares, truth).ece == pytest.approx((2 * 0.13 + 2 * 0.09) / 4)


def test_every_confidence_has_a_bin() -> None:
    shares = np.array([[1.0, 0.0], [0.5, 0.5], [1 / 15, 1 - 1 / 15]])

    assert sum(part.reviews for part in reliability(shares, np.array([0, 0, 1]))) == 3
    assert all(part.low < part.confidence <= part.high for part in reliability(shares, np.array([0, 0, 1])))


def test_a_certain_mistake_is_a_number_and_a_certain_hit_is_no_minus_zero() -> None:
    certain = np.array([[1.0, 0.0]])

    assert np.isfinite(calibration(certain, np.array([1])).nll)
    assert str(calibration(certain, np.array([0])).nll) == "0.0"


def test_the_metrics_of_a_manifest_tell_before_from_after() -> None:
    logits, truth = drawn(2000, 2, 3.0, seed=2)

    found = calibration_metrics(logits, truth, 3.0)

    assert found["validation_reviews"] == 2000
    assert found["validation_accuracy"] == (logits.argmax(axis=-1) == truth).mean()
    for name in ("loss", "brier", "ece"):
        assert found[f"validation_{name}"] < found[f"validation_{name}_uncalibrated"]
