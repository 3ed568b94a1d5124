"""The folder of a run: `settings.json`, `info.json`, `history.json`, and the best epoch in Hugging Face layout."""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from schemas.record import Record
from trainer.adapt_settings import AdaptSettings
from trainer.disk import sync
from trainer.evaluation import RatingError
from trainer.folders import replace_file
from trainer.info import INFO, DataInfo
from trainer.settings import SETTINGS, TrainSettings
from trainer.stored import read_stored

HISTORY = "history.json"


class EpochRecord(Record):
    """How one epoch went.

    Example: `{"epoch": 1, "loss": 0.41, "accuracy": 0.81, "validation_loss": 0.31, "validation_accuracy": 0.87,
    "seconds": 190.2, "reviews_per_second": 23.4}`
    """

    epoch: Annotated[int, Field(ge=1)]
    loss: float
    """Mean over the training reviews while the weights were changing, with dropout."""
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    """Training and validation."""
    reviews_per_second: float
    """Training alone."""
    rating: RatingError | None = None
    """Of the validation reviews; None where labels are classes. The losses are then mean squared errors of ratings less
    their mean, over their standard deviation; the accuracies the share whose nearest rating is the right one."""


class Before(Record):
    """How a network does before the first step.

    Example: `{"loss": 9.87, "accuracy": 0.031}`
    """

    loss: float
    accuracy: float


class History(Record):
    """What `history.json` holds.

    Example: `{"device": "CPU, AMD EPYC, 2 cores", "parameters": 22713986, "padding": 0.024, "estimated_seconds": 570.0,
    "seconds": 561.3, "best_epoch": 3, "epochs": [...]}`
    """

    model_config = ConfigDict(extra="forbid")

    device: str
    parameters: int
    padding: float
    """Share of the computed training tokens that was padding."""
    estimated_seconds: float
    """What was said before training started."""
    seconds: float = 0.0
    """What it took so far, from the first step on."""
    before: Before | None = None
    """What the network said of the held-out rows before it learned: where words are guessed, which it can from the
    start."""
    best_epoch: int | None = None
    """The epoch whose weights the folder holds: highest validation accuracy, then lowest validation loss; of ratings
    the lowest loss."""
    stopped_early: bool = False
    """No epoch was better than the best for as many as `patience` allows."""
    epochs: tuple[EpochRecord, ...] = ()

    @property
    def best(self) -> EpochRecord | None:
        """The record of the best epoch."""
        return next((record for record in self.epochs if record.epoch == self.best_epoch), None)

    def finished(self, settings: TrainSettings | AdaptSettings) -> bool:
        """Whether nothing of the run is left to do."""
        return self.stopped_early or len(self.epochs) >= settings.epochs

    def with_epoch(self, record: EpochRecord) -> "History":
        """This history and one more epoch."""
        best = self.best
        better = best is None or _merit(record) > _merit(best)
        return self.model_copy(
            update={
                "epochs": (*self.epochs, record),
                "best_epoch": record.epoch if better else self.best_epoch,
                "seconds": self.seconds + record.seconds,
            }
        )


def _merit(record: EpochRecord) -> tuple[float, float]:
    if record.rating is not None:
        return -record.validation_loss, 0.0
    return record.validation_accuracy, -record.validation_loss


def start_run(folder: Path, settings: TrainSettings, info: DataInfo) -> None:
    """Write what is known before training into a new folder."""
    replace_file(folder / SETTINGS, settings.model_dump_json(indent=2) + "\n")
    replace_file(folder / INFO, info.model_dump_json(indent=2) + "\n")


def write_history(out: Path, history: History) -> None:
    """Replace `history.json`. It is on the disk when this returns: that a run is finished is read from it."""
    replace_file(out / HISTORY, history.model_dump_json(indent=2) + "\n")
    sync(out / HISTORY)
    sync(out)


def read_history(run: Path) -> History:
    """Read `history.json`.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    return read_stored(run / HISTORY, History, "this run stopped before the end of its first epoch")
