"""Evaluate: labelled reviews through the exported artefact and the worker's own engine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import classification_report, confusion_matrix

from trainer.data import LabelledReview, Refusal, read_labelled
from trainer.evaluation import AVERAGES, Evaluation, Interval, LabelFigures
from trainer.info import Split, read_info
from trainer.labels import Labels, labels_of
from trainer.prepared import read_split
from trainer.progress import Reporter
from trainer.scoring import Model
from worker.errors import UsageError

Z95 = 1.959964
"""The normal distribution's 97.5 % quantile."""


@dataclass(frozen=True)
class Labelled:
    """Reviews to evaluate on, labels by the model's numbering."""

    name: str
    split: Split | None
    digest: str
    reviews: Sequence[LabelledReview]
    refused: int


def wilson(right: int, count: int) -> Interval:
    """The 95 % score interval of a share (Wilson 1927); unlike the normal one it holds near 0 and 1."""
    share = right / count
    scale = 1 + Z95**2 / count
    centre = (share + Z95**2 / (2 * count)) / scale
    half = Z95 / scale * (share * (1 - share) / count + Z95**2 / (4 * count**2)) ** 0.5
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def read_folder(folder: Path, split: Split, names: Sequence[str]) -> Labelled:
    """A split of prepared data for a model with the labels `names`.

    Raises:
        DataError: the data does not agree with its `info.json`.
        UsageError: the labels are others.
    """
    info = read_info(folder)
    ours = labels_of(names)
    numbers = [ours.index(label) for label in info.labels]
    if len(info.labels) != len(names) or sorted(number for number in numbers if number is not None) != list(
        range(len(names))
    ):
        raise UsageError(f"{folder}: its labels are {', '.join(info.labels)}; the model's are {', '.join(names)}")
    reviews = [
        LabelledReview(review.row, review.text, number)
        for review in read_split(folder, split, info)
        if (number := numbers[review.label]) is not None
    ]
    return Labelled(folder.resolve().name, split, info.splits[split].sha256, reviews, refused=0)


def read_csv(path: Path, labels: Labels, names: Sequence[str], reporter: Reporter) -> Labelled:
    """A CSV for a model with the labels `names`.

    Raises:
        UsageError: the CSV cannot be used, or `labels` are not the model's.
    """
    if labels.names != tuple(names):
        raise UsageError(f"--labels names {', '.join(labels.names)}; the model's labels are {', '.join(names)}")

    def refuse(refusal: Refusal) -> None:
        reporter.say(f"{path}: {refusal}")

    file = read_labelled(path, labels, refuse)
    return Labelled(file.name, None, file.sha256, file.reviews, file.refused)


def evaluate(model: Model, data: Labelled, reporter: Reporter) -> Evaluation:
    """Score every review and count."""
    names = model.artifact.manifest.labels
    texts = [review.text for review in data.reviews]
    truth = np.array([review.label for review in data.reviews])
    start = time.perf_counter()
    with reporter.bar("scoring", len(texts)) as advance:

        def show(done: int) -> None:
            advance(done, f"{done / (time.perf_counter() - start):.1f} reviews/s")

        answers = list(model.score(texts, show))
    seconds = time.perf_counter() - start
    shares = np.concatenate([answer.probabilities for answer in answers])
    rows = [row for answer in answers for row in answer.rows]
    predicted = shares.argmax(axis=-1)
    right = int((predicted == truth).sum())
    true_shares = shares[np.arange(len(truth)), truth]
    figures = _figures(truth, predicted, names)
    engine = model.engine
    return Evaluation(
        model=model.artifact.name,
        data=data.name,
        split=data.split,
        data_digest=data.digest,
        reviews=len(texts),
        refused=data.refused,
        accuracy=right / len(texts),
        accuracy_interval=wilson(right, len(texts)),
        loss=float(-np.log(np.maximum(true_shares, np.finfo(np.float64).tiny)).mean()),
        labels={name: figures[name] for name in names},
        averages={name: figures[name] for name in AVERAGES},
        confusion=_confusion(truth, predicted, names),
        truncated=sum(row.truncated for row in rows),
        tokens=sum(len(row.ids) for row in rows),
        seconds=seconds,
        reviews_per_second=len(texts) / seconds,
        engine=engine.name,
        device=engine.device,
        precision=engine.precision,
    )


def _figures(truth: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]) -> dict[str, LabelFigures]:
    """scikit-learn's classification report: a row a label, then `macro avg` and `weighted avg`."""
    # Labels by number: a label may be called "accuracy" or "macro avg" itself.
    report = classification_report(truth, predicted, labels=range(len(names)), output_dict=True, zero_division=0)
    rows = {**{name: str(index) for index, name in enumerate(names)}, **{name: name for name in AVERAGES}}
    return {
        name: LabelFigures(
            precision=float(report[row]["precision"]),
            recall=float(report[row]["recall"]),
            f1=float(report[row]["f1-score"]),
            reviews=int(report[row]["support"]),
        )
        for name, row in rows.items()
    }


def _confusion(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    counts = confusion_matrix(truth, predicted, labels=range(len(names)))
    return tuple(tuple(int(count) for count in row) for row in counts)
