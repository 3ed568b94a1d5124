"""The manifest of a versioned model artefact: what it is, how text reaches it, and the hash of its every file."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, model_validator

from schemas.record import Digest, Record


class Cut(Record):
    """How many tokens the model reads of a review that is too long: the first `head` and the last `tail`.

    Both counts include the control token at their end ([CLS] in the head, [SEP] in the tail), so a plain head cut
    at 512 tokens is `{"head": 511, "tail": 1}`, and `head + tail` is the longest row the model ever sees. Head and
    tail together read more of the verdict of a long review than the head alone (Sun et al. 2019, "How to Fine-Tune
    BERT for Text Classification?", section 5.3.1).

    Example: `{"head": 129, "tail": 383}`
    """

    model_config = ConfigDict(extra="forbid")

    head: Annotated[int, Field(ge=1)]
    tail: Annotated[int, Field(ge=1)]


class FileDigest(Record):
    """Size in bytes and SHA-256 of one file.

    Example: `{"bytes": 45439980, "sha256": "sha256:9f86...08"}` (64 digits)
    """

    model_config = ConfigDict(extra="forbid")

    bytes: Annotated[int, Field(ge=0)]
    sha256: Digest


class Int8(Record):
    """How the int8 form of a model was made, and what it costs: both accuracies are of the same validation reviews,
    scored by the worker's own engine.

    Example: `{"calibration_reviews": 300, "validation_reviews": 2000, "float_accuracy": 0.934, "float_precision":
    "bfloat16", "int8_accuracy": 0.9335}`
    """

    model_config = ConfigDict(extra="forbid")

    calibration_reviews: Annotated[int, Field(ge=1)]
    """Training reviews that the ranges of the integers were taken from."""
    validation_reviews: Annotated[int, Field(ge=1)]
    float_accuracy: Annotated[float, Field(ge=0, le=1)]
    float_precision: str
    int8_accuracy: Annotated[float, Field(ge=0, le=1)]


class Manifest(Record):
    """What `manifest.json` holds. A field this version does not know is refused, not ignored: it may change how text
    must be read, and a silent difference between training and serving is the worst fault of such a system.

    Example: `{"format": 1, "name": "imdb", "version": 3, "created_at": "2026-11-23T09:00:00Z",
    "labels": ["negative", "positive"], "cut": {"head": 129, "tail": 383}, "cleaning": ["line-breaks"],
    "temperature": 1.0, "base": "bert-base-cased", "metrics": {"accuracy": 0.91}, "data_digest": null,
    "int8": null, "libraries": {"keras": "3.15.1"},
    "files": {"config.json": {"bytes": 671, "sha256": "sha256:9f86...08"}}}`
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[int, Field(ge=1)]
    created_at: AwareDatetime
    labels: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000)]
    """In the order of the network's outputs."""
    cut: Cut
    cleaning: tuple[str, ...]
    """Names of the rules of `worker.text`, in the order in which they are applied."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it before the softmax."""
    base: str
    """The checkpoint that training started from, or that was imported."""
    metrics: dict[str, float]
    data_digest: Digest | None
    """SHA-256 of the training data; null where it is not known."""
    int8: Int8 | None = None
    """Of the form in `int8/`; null where there is none."""
    libraries: dict[str, str]
    files: Annotated[dict[str, FileDigest], Field(min_length=1)]
    """Every other file of the artefact, by its path relative to the folder, with `/` between the parts."""

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be distinct")
        return self
