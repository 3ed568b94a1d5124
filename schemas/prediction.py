"""What the worker says of one review, as consumers read it from the output topic."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from schemas.record import Digest, Identifier, Record

Probability = Annotated[float, Field(ge=0, le=1)]


class ModelName(Record):
    """Which model spoke: artefact name, integer version, and the SHA-256 of its manifest.

    The manifest holds the SHA-256 of every other file of the artefact, so the digest names the weights exactly.

    Example: `{"name": "imdb", "version": 3, "digest": "sha256:5e88...d8"}` (64 digits)
    """

    name: Identifier
    version: Annotated[int, Field(ge=1)]
    digest: Digest


class Source(Record):
    """Where the review was read: the three together name an input record for ever.

    Example: `{"topic": "reviews", "partition": 0, "offset": 4211}`
    """

    topic: Annotated[str, Field(min_length=1)]
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]


class Prediction(Record):
    """One scored review.

    Example: `{"review_id": "tt0111161-17", "label": "positive", "label_id": 1, "confidence": 0.98,
    "probabilities": {"negative": 0.02, "positive": 0.98},
    "model": {"name": "imdb", "version": 3, "digest": "sha256:5e88...d8"},
    "source": {"topic": "reviews", "partition": 0, "offset": 4211}, "tokens": 12, "truncated": false,
    "scored_at": "2026-11-23T09:00:00Z"}`
    """

    review_id: Identifier
    label: str
    label_id: Annotated[int, Field(ge=0)]
    """Index of `label` among the labels of the model's manifest."""
    confidence: Probability
    """The probability of `label`."""
    probabilities: dict[str, Probability]
    """One a label, in the order of the manifest; they sum to 1."""
    rating: Annotated[float | None, Field(exclude_if=lambda rating: rating is None)] = None
    """What the model expects where its labels are numbers, such as stars: their mean, weighted by the probabilities. It
    is left out where labels are names."""
    model: ModelName
    source: Source
    tokens: Annotated[int, Field(ge=2)]
    """Tokens that the model read, the opening and closing control tokens included."""
    truncated: bool
    """True when the review was longer than the model's cut and its middle or end was not read."""
    scored_at: AwareDatetime
