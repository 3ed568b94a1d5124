"""Evaluate: labelled reviews through the exported artefact and the worker's own engine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import classification_report, confusion_matrix

from trainer.calibrate import calibration, wilson
from trainer.cuts import Views
from trainer.data import LabelledReview, Refusal, given_ratings, read_labelled
from trainer.evaluation import AVERAGES, Evaluation, LabelFigures, RatingError, Score
from trainer.info import Split, read_info
from trainer.labels import Labels, labels_of
from trainer.prepared import read_split
from trainer.progress import Reporter
from trainer.scoring import Model
from worker.engine import Logits
from worker.errors import UsageError
from worker.verdict import Probabilities, label_numbers, probabilities


@dataclass(frozen=True)
class Labelled:
    """Reviews to evaluate on, labels by the model's numbering."""

    name: str
    split: Split | None
    digest: str
    reviews: Sequence[LabelledReview]
    refused: int


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
        replace(review, label=number)
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


@dataclass(frozen=True)
class Scores:
    """What a model said of labelled reviews.

    Attributes:
        rows: number of each review in its CSV, (reviews,).
        truth: label of each, (reviews,).
        logits: (reviews, labels).
        tokens: that the artefact's cut reads of each, (reviews,).
        truncated: reviews that are longer, bool, (reviews,).
        computed: tokens of all readings of all reviews.
        temperature: the artefact's.
        seconds: tokenizing and scoring.
        ratings: given to each, float64, (reviews,); None where labels are names.
    """

    rows: NDArray[np.int64]
    truth: NDArray[np.int64]
    logits: Logits
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    computed: int
    temperature: float
    seconds: float
    ratings: NDArray[np.float64] | None = None

    @property
    def shares(self) -> Probabilities:
        """Probabilities, float64, (reviews, labels)."""
        return probabilities(self.logits, self.temperature)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Label given to each review, (reviews,)."""
        found: NDArray[np.int64] = self.logits.argmax(axis=-1)
        return found


def score(model: Model, data: Labelled, reporter: Reporter, views: Views | None = None) -> Scores:
    """Score every review, by the artefact's cut, or by other readings."""
    texts = [review.text for review in data.reviews]
    start = time.perf_counter()
    with reporter.bar("scoring", len(texts)) as advance:

        def show(done: int) -> None:
            advance(done, f"{done / (time.perf_counter() - start):.1f} reviews/s")

        answers = list(model.score(texts, show, views=views))
    seconds = time.perf_counter() - start
    rows = [row for answer in answers for row in answer.rows]
    numbers = label_numbers(model.artifact.manifest.labels)
    return Scores(
        rows=np.array([review.row for review in data.reviews]),
        truth=np.array([review.label for review in data.reviews]),
        logits=np.concatenate([answer.logits for answer in answers]),
        tokens=np.array([len(row.ids) for row in rows]),
        truncated=np.array([row.truncated for row in rows]),
        computed=sum(sum(answer.tokens) for answer in answers),
        temperature=model.artifact.manifest.temperature,
        seconds=seconds,
        ratings=None if numbers is None else given_ratings(data.reviews, numbers.tolist()),
    )


def evaluate(model: Model, data: Labelled, reporter: Reporter, views: Views | None = None) -> Evaluation:
    """Score every review and count."""
    return count(model, data, score(model, data, reporter, views), views)


def count(
    model: Model, data: Labelled, scores: Scores, views: Views | None = None, baseline: Score | None = None
) -> Evaluation:
    """The figures of what was scored."""
    names = model.artifact.manifest.labels
    truth, predicted, reviews = scores.truth, scores.predicted, len(scores.truth)
    figures = label_figures(truth, predicted, names)
    calibrated = calibration(scores.shares, truth)
    accuracy = score_of(truth, predicted)
    engine = model.engine
    return Evaluation(
        model=model.artifact.name,
        data=data.name,
        split=data.split,
        data_digest=data.digest,
        reviews=reviews,
        refused=data.refused,
        accuracy=accuracy.accuracy,
        accuracy_interval=accuracy.accuracy_interval,
        loss=calibrated.nll,
        temperature=scores.temperature,
        calibration=calibrated,
        uncalibrated=calibration(probabilities(scores.logits, 1.0), truth),
        cuts=None if views is None else views.names,
        baseline=baseline,
        rating=_rating_error(scores, names),
        labels={name: figures[name] for name in names},
        averages={name: figures[name] for name in AVERAGES},
        confusion=_confusion(truth, predicted, names),
        truncated=int(scores.truncated.sum()),
        tokens=scores.computed,
        seconds=scores.seconds,
        reviews_per_second=reviews / scores.seconds,
        engine=engine.name,
        device=engine.device,
        precision=engine.precision,
    )


def _rating_error(scores: Scores, names: Sequence[str]) -> RatingError | None:
    """Of the expected ratings, which are what the worker publishes."""
    numbers = label_numbers(names)
    if numbers is None or scores.ratings is None:
        return None
    off = scores.shares @ numbers - scores.ratings
    return RatingError.of(float(np.abs(off).mean()), float((off**2).mean()), float(scores.ratings.var()))


def score_of(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> Score:
    """Accuracy and its interval."""
    right, reviews = int((predicted == truth).sum()), len(truth)
    return Score(reviews=reviews, accuracy=right / reviews, accuracy_interval=wilson(right, reviews))


def label_figures(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]
) -> dict[str, LabelFigures]:
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
