"""The settings of an adaptation: one frozen model, saved with what it read as `adapt.json` beside the weights."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.record import Digest, Record
from trainer.settings import NARROW, Precision, TrainSettings, validated
from trainer.stored import read_stored
from worker.text import NOTEBOOK

ADAPT = "adapt.json"


class AdaptSettings(BaseModel):
    """Everything that decides what an adaptation computes, but for the texts and the machine. The optimizer is that of
    fine-tuning with its defaults.

    `None` and `auto` are resolved before the first step, so the saved file says what was used.

    Example: `{"base": "bert-base-cased", "epochs": 1, "batch_size": 32, "learning_rate": 0.0001, "length": 128}`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    """A folder in Hugging Face layout, or a name on its hub."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """In place of `epochs`: as many steps as should take so long, at the speed measured before the first."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """What `minutes` came to; never asked for."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """The highest rate of the schedule; by the network's width where absent."""
    length: Annotated[int, Field(ge=8)] = 128
    """Tokens of a row, control tokens included; a longer text is several rows."""
    whole_words: bool = False
    """Mask all pieces of a word or none."""
    cleaning: tuple[str, ...] = NOTEBOOK
    precision: Precision = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def devices(self) -> int:
        """It runs on one."""
        return 1

    @property
    def optimizer(self) -> TrainSettings:
        """What the optimizer is made by."""
        return TrainSettings(base=self.base)


class TextSource(Record):
    """One file of texts as it was read.

    Example: `{"name": "unlabelled.csv.gz", "sha256": "sha256:9f86...08", "texts": 49997, "refused": 3}`
    """

    name: str
    """File name without its folder."""
    sha256: Digest
    texts: Annotated[int, Field(ge=0)]
    refused: Annotated[int, Field(ge=0)]


class Adaptation(Record):
    """What `adapt.json` holds.

    Example: `{"format": 1, "settings": {...}, "sources": [{...}], "data_digest": "sha256:9f86...08"}`
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    settings: AdaptSettings
    sources: tuple[TextSource, ...]
    data_digest: Digest
    """SHA-256 of the files' own, in their order."""


def adapt_settings_from(**values: object) -> AdaptSettings:
    """Settings from options.

    Raises:
        SettingsError: a value is out of range; says which and what is accepted.
    """
    return validated(AdaptSettings, values)


def default_adapt_rate(width: int) -> float:
    """The rate where none is given: 3e-4 for a network of at most 384 columns, 1e-4 for a wider one."""
    return 3e-4 if width <= NARROW else 1e-4


def read_adaptation(out: Path) -> Adaptation:
    """What an adaptation was begun with.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    return read_stored(out / ADAPT, Adaptation, "`review-trainer adapt` makes such a folder")
