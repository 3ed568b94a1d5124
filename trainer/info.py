"""`info.json`: what a folder of prepared data holds and where it came from. No time and no path of this machine is in
it, so the same files and options give the same folder, byte for byte."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from schemas.record import Digest, Record
from trainer.stored import read_stored

INFO = "info.json"

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class SourceInfo(Record):
    """One CSV as it was read.

    Example: `{"name": "train.csv.gz", "sha256": "sha256:9f86...08", "reviews": 24998, "refused": 2}`
    """

    name: str
    """File name without its folder."""
    sha256: Digest
    reviews: Count
    """Rows that can be used, before sampling."""
    refused: Count


class SplitInfo(Record):
    """One TFRecord file.

    Example: `{"reviews": 4000, "labels": {"negative": 2021, "positive": 1979}, "sha256": "sha256:9f86...08"}`
    """

    reviews: Count
    labels: dict[str, Count]
    sha256: Digest


class DataInfo(Record):
    """What `info.json` holds.

    Example: `{"format": 1, "labels": ["negative", "positive"], "seed": 0, "sample_fraction": 0.2,
    "train_fraction": 0.8, "sources": {"train": {...}, "test": {...}}, "splits": {"train": {...}, "validation": {...},
    "test": {...}}, "data_digest": "sha256:9f86...08"}`
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    """In the order of the network's outputs."""
    seed: Count
    sample_fraction: Fraction
    train_fraction: Fraction
    sources: dict[Literal["train", "test"], SourceInfo]
    splits: dict[Split, SplitInfo]
    data_digest: Digest
    """SHA-256 of the training and the validation file, one after the other: all that training sees."""

    @property
    def refused(self) -> int:
        """Rows of both CSVs that could not be used."""
        return sum(source.refused for source in self.sources.values())


def records_file(folder: Path, split: Split) -> Path:
    """Where a split lies."""
    return folder / f"{split}.tfrecord"


def read_info(folder: Path) -> DataInfo:
    """Read `info.json`.

    Raises:
        DataError: there is none, or it is not one; says which and what makes one.
    """
    return read_stored(folder / INFO, DataInfo, "`review-trainer prepare` makes a folder of data")
