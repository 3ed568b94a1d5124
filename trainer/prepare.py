"""Prepare: two CSVs in, a folder with `train/validation/test.tfrecord` and `info.json` out.

Rows are drawn exactly as the original notebook drew them with pandas, so the same seed gives the same split.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.data import LabelledFile, LabelledReview, Refusal, read_labelled
from trainer.folders import new_folder
from trainer.info import INFO, SPLITS, DataInfo, SourceInfo, Split, SplitInfo, records_file
from trainer.labels import Labels
from worker.artifact import digest_file
from worker.errors import UsageError

Splits = dict[Split, list[LabelledReview]]
Sources = dict[Literal["train", "test"], LabelledFile]


@dataclass(frozen=True)
class Sampling:
    """How much of the training CSV is used, and how much of that is trained on.

    Attributes:
        sample_fraction: of the CSV's good rows, above 0 and at most 1.
        train_fraction: of the sample, above 0 and below 1; the rest validates.
        seed: of both draws.
    """

    sample_fraction: float
    train_fraction: float
    seed: int


def draw(count: int, fraction: float, seed: int) -> list[int]:
    """The rows that `DataFrame.sample(frac=fraction, random_state=seed)` takes of `count`, in its order.

    pandas seeds the legacy generator and draws without replacement; `round` is Python's, half to even.
    """
    chosen = np.random.RandomState(seed).choice(count, size=round(fraction * count), replace=False)
    return [int(row) for row in chosen]


def split(reviews: Sequence[LabelledReview], sampling: Sampling) -> tuple[list[LabelledReview], list[LabelledReview]]:
    """Training and validation reviews: a sample, a sample of that sample, and the rest in the sample's order."""
    sample = [reviews[at] for at in draw(len(reviews), sampling.sample_fraction, sampling.seed)]
    taken = draw(len(sample), sampling.train_fraction, sampling.seed)
    left = set(range(len(sample))) - set(taken)
    return [sample[at] for at in taken], [sample[at] for at in sorted(left)]


def read_splits(
    train: Path, test: Path, labels: Labels, sampling: Sampling, refuse: Callable[[Path, Refusal], None]
) -> tuple[Splits, Sources]:
    """Read both CSVs and split.

    Raises:
        UsageError: a file cannot be used (see `read_labelled`), or a split would be empty or lack a label.
    """
    train_file = read_labelled(train, labels, lambda refusal: refuse(train, refusal))
    test_file = read_labelled(test, labels, lambda refusal: refuse(test, refusal))
    training, validation = split(train_file.reviews, sampling)
    splits: Splits = {"train": training, "validation": validation, "test": test_file.reviews}
    counts = _label_counts(training, labels)
    absent = [name for name, count in counts.items() if not count]
    if not validation or absent:
        what = f"no review labelled {absent[0]!r} to train on" if absent else "no review to validate on"
        raise UsageError(
            f"{train}: {len(training):,} reviews to train on and {len(validation):,} to validate on leave {what}; "
            "give more rows, or a larger --sample-fraction or another --train-fraction"
        )
    return splits, {"train": train_file, "test": test_file}


def write_folder(
    out: Path, splits: Splits, sources: Sources, labels: Labels, sampling: Sampling, force: bool
) -> DataInfo:
    """Write the folder: whole, or not at all.

    Raises:
        UsageError: `out` exists and `force` is not given, or it is no folder of prepared data.
    """
    from trainer.records import write_records

    with new_folder(out, marker=INFO, force=force) as folder:
        for name in SPLITS:
            write_records(records_file(folder, name), splits[name])
        info = DataInfo(
            labels=labels.names,
            seed=sampling.seed,
            sample_fraction=sampling.sample_fraction,
            train_fraction=sampling.train_fraction,
            sources={
                name: SourceInfo(name=file.name, sha256=file.sha256, reviews=len(file.reviews), refused=file.refused)
                for name, file in sources.items()
            },
            splits={
                name: SplitInfo(
                    reviews=len(splits[name]),
                    labels=_label_counts(splits[name], labels),
                    sha256=digest_file(records_file(folder, name)).sha256,
                )
                for name in SPLITS
            },
            data_digest=training_digest(folder),
        )
        (folder / INFO).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return info


def repeated(splits: Splits) -> int:
    """Test reviews whose text is also trained or validated on: a score on them proves nothing."""
    known = {review.text for review in (*splits["train"], *splits["validation"])}
    return sum(review.text in known for review in splits["test"])


def between(splits: Splits) -> int:
    """Reviews whose rating lies between two labels."""
    return sum(review.rating is not None for reviews in splits.values() for review in reviews)


def training_digest(folder: Path) -> str:
    """SHA-256 of the training and the validation file, one after the other."""
    digest = hashlib.sha256()
    names: tuple[Split, ...] = ("train", "validation")
    for name in names:
        digest.update(records_file(folder, name).read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _label_counts(reviews: Sequence[LabelledReview], labels: Labels) -> dict[str, int]:
    counted = Counter(review.label for review in reviews)
    return {name: counted[index] for index, name in enumerate(labels.names)}
