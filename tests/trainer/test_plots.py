"""The pictures of a report."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pytest

from trainer import plots
from trainer.document import Picture
from trainer.run import EpochRecord

ODD = ("plain", "<b>&amp;", "$x_1$ costs $", "très bien", "很好 😀", "a name that is far too long for any axis")


def epochs(count: int) -> list[EpochRecord]:
    return [
        EpochRecord(
            epoch=at + 1,
            loss=0.6 / (at + 1),
            accuracy=0.7 + 0.02 * at,
            validation_loss=0.5,
            validation_accuracy=0.8,
            seconds=3.0,
            reviews_per_second=30.0,
        )
        for at in range(count)
    ]


def answers(reviews: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(labels, size=reviews)
    shares = rng.dirichlet(np.ones(labels) * 0.5, size=reviews)
    shares[np.arange(reviews), truth] += 1
    return shares / shares.sum(axis=1, keepdims=True), truth


TWO, MANY = answers(400, 2), answers(600, 6)
LENGTHS = [
    ("1 to 64", 10, 0.9, 0.6, 0.98),
    ("65 to 128", 200, 1.0, 0.97, 1.0),
    ("more than 512, cut", 3, 0.0, 0.0, 0.5),
]
LABELS = ("negative", "positive")

DRAW: dict[str, Callable[[], Picture | None]] = {
    "curves": lambda: plots.curves(epochs(5), 4),
    "one epoch": lambda: plots.curves(epochs(1), 1),
    "confusion": lambda: plots.confusion([[2362, 165], [165, 2308]], LABELS),
    "confusion of odd labels": lambda: plots.confusion(np.eye(6, dtype=int).tolist(), ODD),
    "confusion of many labels": lambda: plots.confusion(
        np.eye(40, dtype=int).tolist(), [f"label {at}" for at in range(40)]
    ),
    "confusion without a review of a label": lambda: plots.confusion([[3, 0], [0, 0]], LABELS),
    "roc": lambda: plots.curves_by_label(*TWO, LABELS),
    "roc of odd labels": lambda: plots.curves_by_label(*MANY, ODD),
    "reliability": lambda: plots.reliability_diagram(
        TWO[0], TWO[0] ** 2 / (TWO[0] ** 2).sum(axis=1, keepdims=True), TWO[1]
    ),
    "reliability of one": lambda: plots.reliability_diagram(MANY[0], None, MANY[1]),
    "scores": lambda: plots.histogram(*TWO, LABELS),
    "scores of odd labels": lambda: plots.histogram(*MANY, ODD),
    "scores of one label": lambda: plots.histogram(TWO[0][:1], TWO[1][:1], LABELS),
    "length": lambda: plots.accuracy_by_length(LENGTHS),
}


@pytest.mark.parametrize("name", DRAW)
def test_a_picture_is_a_whole_svg_in_the_colours_of_the_page(name: str) -> None:
    picture = DRAW[name]()

    assert picture is not None
    root = ElementTree.fromstring(picture.svg)  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert plots.INK not in picture.svg
    assert "currentColor" in picture.svg
    assert "prefers-color-scheme: dark" in picture.svg
    assert "<!--" not in picture.svg
    assert len(picture.alt) > 20


@pytest.mark.parametrize("name", ["curves", "reliability"])
def test_the_same_figures_give_the_same_picture(name: str) -> None:
    assert DRAW[name]() == DRAW[name]()


def test_the_words_of_a_picture_say_its_figures() -> None:
    curves = DRAW["curves"]()
    assert curves is not None
    assert "over 5 epochs" in curves.alt
    assert "validation accuracy 80.0%" in curves.alt
    confusion = plots.confusion([[2362, 165], [160, 2308]], LABELS)
    assert "4,670 of 4,995 reviews lie on the diagonal" in confusion.alt


def test_each_label_of_many_has_its_curve_and_two_labels_share_one() -> None:
    two, many = DRAW["roc"](), DRAW["roc of odd labels"]()

    assert two is not None
    assert many is not None
    assert two.alt.count("area") == 1
    assert "positive: area" in two.alt
    assert many.alt.count("area") == 6


def test_reviews_of_one_label_have_no_curves() -> None:
    shares, _ = TWO

    assert plots.curves_by_label(shares, np.ones(len(shares), dtype=np.int64), LABELS) is None
