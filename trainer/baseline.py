"""Baseline: counted n-grams and a logistic regression on the very reviews that a BERT is trained on.

What any model has to beat. In: a folder of prepared data. Out: `baseline.json` in it, which reports stand beside the
model. Texts are cleaned by the rules that training uses unless told otherwise.
"""

import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, ValidationError
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from schemas.record import Digest, Record
from trainer.data import LabelledReview
from trainer.errors import DataError
from trainer.evaluate import label_figures, score_of
from trainer.evaluation import LabelFigures, Score
from trainer.folders import replace_file, writing
from trainer.info import Split
from trainer.prepared import Prepared
from trainer.progress import Reporter
from worker.text import NOTEBOOK, cleaner

BASELINE = "baseline.json"
LONGEST = 3
"""Words of the longest n-gram."""

ITERATIONS = 300

SCORED: tuple[Split, ...] = ("validation", "test")


class BaselineScore(Score):
    """What the baseline reached on one split.

    Example: `{"reviews": 5000, "accuracy": 0.8464, "accuracy_interval": {...}, "labels": {"negative": {...}, ...}}`
    """

    data_digest: Digest
    """SHA-256 of the split's file."""
    labels: dict[str, LabelFigures]
    """scikit-learn's classification report, its averages included."""


class Baseline(Record):
    """What `baseline.json` holds.

    Example: `{"format": 1, "data_digest": "sha256:...", "cleaning": ["line-breaks"], "features": 1111919,
    "iterations": 54, "converged": true, "seconds": 40.9, "library": "scikit-learn 1.9.1", "splits": {"test": {...}}}`
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    data_digest: Digest
    """Of what it was trained on; see `DataInfo`."""
    cleaning: tuple[str, ...]
    features: Annotated[int, Field(ge=1)]
    """Different n-grams of one to three words."""
    iterations: int
    converged: bool
    seconds: float
    library: str
    splits: dict[Split, BaselineScore]


def run_baseline(prepared: Prepared, reporter: Reporter) -> Baseline:
    """Count, fit, and score validation and test reviews.

    Raises:
        DataError: no training review has a word.
    """
    start = time.perf_counter()
    info, training = prepared.info, prepared.splits["train"]
    clean = cleaner(NOTEBOOK)
    vectorizer = CountVectorizer(ngram_range=(1, LONGEST))

    def texts(reviews: list[LabelledReview], what: str) -> Iterator[str]:
        with reporter.bar(what, len(reviews)) as advance:
            for done, review in enumerate(reviews):
                advance(done, "")
                yield clean(review.text)

    try:
        counts = vectorizer.fit_transform(texts(training, "counting n-grams"))
    except ValueError:
        raise DataError("the training reviews hold no word of two letters or more: nothing to count") from None
    reporter.fact("n-grams", f"{counts.shape[1]:,} of one to {LONGEST} words in {len(training):,} reviews")
    reporter.fact("fitting", f"a logistic regression, {ITERATIONS} iterations at most")
    model = LogisticRegression(max_iter=ITERATIONS)
    with reporter.working("fitting a logistic regression"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(counts, [review.label for review in training])
    iterations = int(np.max(model.n_iter_))
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    reporter.fact(
        "fitted",
        f"{iterations} iterations, {time.perf_counter() - start:.0f} s" + ("" if converged else "; cut off there"),
    )
    splits: dict[Split, BaselineScore] = {}
    for name in SCORED:
        reviews = prepared.splits[name]
        if not reviews:
            continue
        truth = np.array([review.label for review in reviews])
        predicted = model.predict(vectorizer.transform(texts(reviews, f"scoring {name}")))
        score = score_of(truth, predicted)
        splits[name] = BaselineScore(
            reviews=score.reviews,
            accuracy=score.accuracy,
            accuracy_interval=score.accuracy_interval,
            data_digest=info.splits[name].sha256,
            labels=label_figures(truth, predicted, info.labels),
        )
    return Baseline(
        data_digest=info.data_digest,
        cleaning=NOTEBOOK,
        features=counts.shape[1],
        iterations=iterations,
        converged=converged,
        seconds=time.perf_counter() - start,
        library=f"scikit-learn {installed('scikit-learn')}",
        splits=splits,
    )


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """Keep it beside the data.

    Raises:
        ReviewScorerError: the folder cannot be written.
    """
    with writing(folder):
        replace_file(folder / BASELINE, baseline.model_dump_json(indent=2) + "\n")


def find_score(folder: Path, split: Split, digest: str) -> Score | None:
    """What the baseline reached on this very split; None where it was not run, or on other data."""
    try:
        found = Baseline.model_validate_json((folder / BASELINE).read_bytes())
    except (OSError, ValidationError):
        return None
    score = found.splits.get(split)
    if score is None or score.data_digest != digest:
        return None
    return Score(reviews=score.reviews, accuracy=score.accuracy, accuracy_interval=score.accuracy_interval)
