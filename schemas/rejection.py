"""Why an input record became a dead letter."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schemas.prediction import Source
from schemas.record import Record


class Reason(StrEnum):
    """The closed list of reasons: a header value and a metric label, so never anything read from the record."""

    TOMBSTONE = "tombstone"
    """The value is null."""
    EMPTY = "empty"
    """The value has no bytes."""
    TOO_LARGE = "too_large"
    """Value or key have more bytes than the worker accepts; the value was not parsed."""
    CONFLUENT_FRAMED = "confluent_framed"
    """The value starts with a schema registry's magic byte, 0 or 1."""
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    """JSON, but a list, a number or a string."""
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    """A field is there with a value of another type."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """A field is empty, too long, or holds characters that are not allowed."""
    OUT_OF_MEMORY = "out_of_memory"
    """The device has no room for this review, even alone."""
    SCORER_FAILED = "scorer_failed"
    """Tokenizer or model fail on this review, alone, and not on others."""


class Rejection(Record):
    """One record that could not be scored. Its text never holds a part of the record.

    Example: `{"reason": "missing_field", "detail": "text: Field required",
    "source": {"topic": "reviews", "partition": 0, "offset": 4212}}`
    """

    reason: Reason
    detail: Annotated[str, Field(min_length=1, max_length=500)]
    """One line for a person: which field, what was expected."""
    source: Source
