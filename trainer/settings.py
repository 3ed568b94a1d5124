"""The settings of a training run: one frozen model, saved as `settings.json` beside the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas import Cut
from trainer.stored import read_stored
from worker.errors import SettingsError
from worker.text import NOTEBOOK, RULES

SETTINGS = "settings.json"

CutName = Literal["head", "head+tail"]
Optimizer = Literal["adamw", "adam"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Task = Literal["classification", "regression"]
ClassWeights = Literal["balanced"] | dict[str, Annotated[float, Field(gt=0, le=1e6)]]
Settings = TypeVar("Settings", bound=BaseModel)

NARROW = 384
"""Columns. Up to this width a network keeps learning at a rate at which a wider one forgets its pre-training."""

LONGEST = 512
"""Tokens. What BERT's published checkpoints read at most."""


class TrainSettings(BaseModel):
    """Everything that decides what a run computes, but for the data and the machine.

    `None` and `auto` are resolved before training starts, so the saved file says what was used.

    Example: `{"base": "bert-base-cased", "epochs": 3, "batch_size": 8, "learning_rate": 3e-05, "optimizer": "adam"}`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    """A folder in Hugging Face layout, or a name on its hub."""
    task: Task = "classification"
    """`regression`: one output and the mean squared error, for labels whose names are numbers (`trainer.rating`)."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better one after which the run stops; None to run them all."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    """Batches whose gradients are averaged for one update: the memory of `batch_size`, the step of so many of them."""
    class_weights: ClassWeights | None = None
    """What an error on a review of each label counts in training; `balanced` gives every label the same say."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """The highest rate of the schedule; by the network's width where absent."""
    optimizer: Optimizer = "adamw"
    """`adamw`: warm-up, linear decay to 0, weight decay. `adam`: a constant rate and no decay, as in the notebook."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps over which the rate rises from 0; adamw only."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Adamw only; never on biases and normalisations."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients together are scaled down to this length; 0 turns it off."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the rate is multiplied by from each layer to the one below it; 1 is the same rate everywhere."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the old in the moving average of the weights that is validated and kept; 0 keeps the weights as they
    are. 0.998 looks back on some 500 updates."""
    max_tokens: Annotated[int, Field(ge=3)] | None = None
    """Tokens read of a review, control tokens included; the network's limit, at most 512, where absent."""
    first_tokens: Annotated[tuple[Annotated[int, Field(ge=3)], ...], Field(min_length=1)] | None = None
    """Tokens read of a review in the first epochs, one number an epoch; `max_tokens` holds from then on. Much of what
    there is to learn is in short readings too, and those take a fraction of the time."""
    cut: CutName = "head+tail"
    cleaning: tuple[str, ...] = NOTEBOOK
    precision: Precision = "auto"
    xla: bool = False
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that share each batch."""
    deterministic: bool = False
    """Only operations that give the same bits every time; on CPUs all that is used here do."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def token_cut(self, positions: int) -> Cut:
        """The cut for a network that reads `positions` tokens.

        Raises:
            SettingsError: `max_tokens` is more than the network reads.
        """
        return cut_of(self.cut, self.max_tokens, positions)

    def epoch_cuts(self, positions: int) -> tuple[Cut, ...]:
        """The cut of each epoch, for a network that reads `positions` tokens; the last is `token_cut`'s.

        Raises:
            SettingsError: as `token_cut`, or `first_tokens` are more than later epochs read, or leave no such epoch.
        """
        whole = self.token_cut(positions)
        first, longest = self.first_tokens or (), whole.head + whole.tail
        if any(tokens > longest for tokens in first):
            raise SettingsError(f"--first-tokens {max(first)}: later epochs read at most {longest}")
        if len(first) >= self.epochs:
            raise SettingsError(
                f"--first-tokens names {len(first)} of {self.epochs} epochs; the last one has to read all that the "
                "model will read"
            )
        return (*(cut_of(self.cut, tokens, positions) for tokens in first), *[whole] * (self.epochs - len(first)))


def parse_first_tokens(spec: str | None) -> tuple[int, ...] | None:
    """Read numbers of tokens, parted by commas.

    Raises:
        SettingsError: one is no number.
    """
    try:
        return None if spec is None else tuple(int(part) for part in spec.split(","))
    except ValueError:
        raise SettingsError(f"--first-tokens {spec!r}: give a number for each of the first epochs: 128,256") from None


def parse_cleaning(spec: str) -> tuple[str, ...]:
    """Read names of cleaning rules, parted by commas; none is no rule.

    Raises:
        SettingsError: a rule is not known.
    """
    names = tuple(name.strip() for name in spec.split(",") if name.strip())
    unknown = [name for name in names if name not in RULES]
    if unknown:
        raise SettingsError(f"--cleaning: unknown cleaning rule {unknown[0]!r}; known: {', '.join(RULES)}")
    return names


def parse_class_weights(spec: str | None) -> ClassWeights | None:
    """Read `balanced`, or `label=weight,label=weight`.

    Raises:
        SettingsError: it is neither.
    """
    if spec is None or spec == "balanced":
        return spec  # type: ignore[return-value]
    weights: dict[str, float] = {}
    for part in spec.split(","):
        name, _, weight = part.rpartition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            name = ""
        if not name.strip():
            raise SettingsError(f"--class-weights {spec!r}: give `balanced`, or label=weight,label=weight")
    return weights


def cut_of(name: CutName, max_tokens: int | None, positions: int) -> Cut:
    """Head and tail for a network that reads `positions` tokens; a quarter goes to the head (129 + 383 of 512).

    Raises:
        SettingsError: `max_tokens` is more than the network reads.
    """
    if max_tokens is not None and max_tokens > positions:
        raise SettingsError(f"--max-tokens {max_tokens}: the network reads at most {positions}")
    longest = min(positions, LONGEST) if max_tokens is None else max_tokens
    head = longest // 4 + 1 if name == "head+tail" else longest - 1
    return Cut(head=head, tail=longest - head)


def default_learning_rate(width: int) -> float:
    """The rate where none is given: 1e-4 for a network of at most 384 columns, 3e-5 for a wider one."""
    return 1e-4 if width <= NARROW else 3e-5


def settings_from(**values: object) -> TrainSettings:
    """Settings from options.

    Raises:
        SettingsError: a value is out of range; says which and what is accepted.
    """
    return validated(TrainSettings, values)


def validated(model: type[Settings], values: Mapping[str, object]) -> Settings:
    """A model of settings from options of the same names; see `settings_from`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise SettingsError(f"{option}: {first['msg']}") from None


def read_settings(run: Path) -> TrainSettings:
    """The settings of a run.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    return read_stored(run / SETTINGS, TrainSettings, "`review-trainer train` makes a run folder")
