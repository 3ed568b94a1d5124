"""What the training loop, its estimate and its resumption ask of a job, whatever it learns: labels (`trainer.job`) or
masked words (`trainer.adapt_job`)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainer.adapt_settings import AdaptSettings
from trainer.checkpoint import Checkpoint
from trainer.dataset import Buckets, Lengths, Plan
from trainer.device import Device
from trainer.evaluation import RatingError
from trainer.settings import TrainSettings
from worker.bert_config import BertConfig


class Sized(Protocol):
    """Tokenized rows."""

    @property
    def lengths(self) -> Lengths:
        """Tokens of each row, (rows,)."""


class Work(Protocol):
    """A job with nothing left to choose."""

    @property
    def settings(self) -> TrainSettings | AdaptSettings:
        """As resolved."""

    @property
    def patience(self) -> int | None:
        """Epochs without a better one after which the run stops."""

    @property
    def marker(self) -> str:
        """The file with the settings, by which a folder of such work is known."""

    @property
    def unit(self) -> str:
        """What a row is called."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What it starts from."""

    @property
    def data_digest(self) -> str:
        """SHA-256 of what it learns from."""

    @property
    def shape(self) -> BertConfig:
        """Of the network that is written."""

    @property
    def device(self) -> Device:
        """That computes."""

    @property
    def buckets(self) -> Buckets:
        """Widths of batches."""

    @property
    def lengths(self) -> list[Lengths]:
        """Tokens of each training row, (rows,), as each epoch reads it."""

    @property
    def validation(self) -> Sized:
        """Rows held out."""

    @property
    def plans(self) -> list[Plan]:
        """Training batches, one plan an epoch."""

    @property
    def validation_plan(self) -> Plan:
        """The same batches every time."""

    @property
    def padding(self) -> float:
        """The share of the computed training tokens that is padding."""

    @property
    def smaller(self) -> str:
        """What to do where a step does not fit into the memory."""

    def head_numbers(self, tokens: int) -> int:
        """Numbers that a step keeps behind the layers for so many tokens, where they are worth counting."""

    def begin(self, folder: Path) -> None:
        """Write what is known before the first step into a new folder."""

    def begun(self, out: Path) -> tuple[TrainSettings | AdaptSettings, str]:
        """The settings and the data's digest that a folder was begun with."""

    def batches_from(self, network: Any, epoch: int, step: int) -> Iterator[Any]:
        """What the network's training step takes, from a step of an epoch on; both count from 0."""

    def validation_batches(self, network: Any) -> Iterator[Any]:
        """What its validation step takes."""

    def rating_error(self, figures: Mapping[str, float]) -> RatingError | None:
        """Of the held-out rows, from their means, where ratings are learned."""

    def stage(self, out: Path, network: Any, loss: float) -> Path:
        """Write the network under a name that no reader looks for.

        Args:
            out: the run folder.
            network: as it is to be kept.
            loss: of the held-out rows.
        """
