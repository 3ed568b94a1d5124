"""Prepared data, read back and held to its own `info.json`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.data import LabelledReview
from trainer.errors import DataError
from trainer.info import SPLITS, DataInfo, Split, read_info, records_file
from worker.artifact import digest_file


@dataclass(frozen=True)
class Prepared:
    """A folder that agrees with its `info.json`.

    Attributes:
        info: the file's content.
        splits: every review, read back.
    """

    info: DataInfo
    splits: dict[Split, list[LabelledReview]]

    def examples(self, count: int) -> list[LabelledReview]:
        """The first `count` training reviews of each label, label by label."""
        chosen: list[LabelledReview] = []
        for index in range(len(self.info.labels)):
            own = (review for review in self.splits["train"] if review.label == index)
            chosen += [review for review, _ in zip(own, range(count), strict=False)]
        return chosen


def read_prepared(folder: Path) -> Prepared:
    """Read and check all three files.

    Raises:
        DataError: see `read_split`.
    """
    info = read_info(folder)
    return Prepared(info, {name: read_split(folder, name, info) for name in SPLITS})


def read_split(folder: Path, name: Split, info: DataInfo) -> list[LabelledReview]:
    """Read and check one file.

    Raises:
        DataError: it is missing, cut short, altered, or its counts differ from those in `info`; says what.
    """
    from trainer.records import read_records

    if name not in info.splits:
        raise DataError(f"{folder}: info.json says nothing of {name}")
    path = records_file(folder, name)
    reviews = read_records(path)
    for fault in _faults(path, reviews, info, name):
        raise DataError(f"{path}: {fault}; run `review-trainer prepare` again")
    return reviews


def _faults(path: Path, reviews: list[LabelledReview], info: DataInfo, name: Split) -> Iterator[str]:
    said = info.splits[name]
    if len(reviews) != said.reviews:
        yield f"holds {len(reviews):,} reviews, info.json says {said.reviews:,}"
    counted = Counter(review.label for review in reviews)
    strange = sorted(label for label in counted if not 0 <= label < len(info.labels))
    if strange:
        yield f"holds the label {strange[0]}, info.json names {len(info.labels)} labels"
    for index, label in enumerate(info.labels):
        if counted[index] != said.labels.get(label):
            yield f"holds {counted[index]:,} reviews labelled {label!r}, info.json says {said.labels.get(label)}"
    if digest_file(path).sha256 != said.sha256:
        yield "its SHA-256 is not the one in info.json"
