"""Intake: a message's bytes in, a review or a rejection out. It never raises on what a message holds."""

from pydantic import ValidationError

from schemas import Reason, Rejection, Review
from worker.message import Message

CONFLUENT_MAGIC = (b"\x00", b"\x01")
"""First byte of a payload framed by a schema registry's serializer: 0 before a schema's number, 1 before its GUID. JSON
begins with neither."""

_REASONS = {
    "json_invalid": Reason.NOT_JSON,
    "missing": Reason.MISSING_FIELD,
    "string_type": Reason.WRONG_TYPE,
    "model_type": Reason.NOT_AN_OBJECT,
    "string_too_short": Reason.OUT_OF_BOUNDS,
    "string_too_long": Reason.OUT_OF_BOUNDS,
    "string_pattern_mismatch": Reason.OUT_OF_BOUNDS,
}
_DETAILS = {
    "string_pattern_mismatch": {
        "review_id": "holds a control character",
        "text": "has no visible character",
    },
}

MAX_KEY_BYTES = 32 << 10
"""A prediction has its review's key: one that fills a record by itself would leave no room for the prediction, and stop
the worker."""


def read_review(message: Message, max_bytes: int) -> Review | Rejection:
    """Decode and validate one message.

    Args:
        message: as it came.
        max_bytes: a larger value is refused before it is parsed.
    """
    value = message.value
    if value is None:
        return _reject(message, Reason.TOMBSTONE, "the value is null")
    if message.key is not None and len(message.key) > MAX_KEY_BYTES:
        return _reject(
            message, Reason.TOO_LARGE, f"the key has {len(message.key):,} bytes, accepted are {MAX_KEY_BYTES:,}"
        )
    if len(value) > max_bytes:
        return _reject(message, Reason.TOO_LARGE, f"the value has {len(value):,} bytes, accepted are {max_bytes:,}")
    try:
        return Review.model_validate_json(value)
    except ValidationError as error:
        return _explain(message, value, error)


def _explain(message: Message, value: bytes, error: ValidationError) -> Rejection:
    """The reason of a refused value; only here, so that a good one pays for none of these questions."""
    if not value.strip():
        return _reject(message, Reason.EMPTY, "the value is empty")
    if value.startswith(CONFLUENT_MAGIC):
        return _reject(
            message,
            Reason.CONFLUENT_FRAMED,
            "the value starts with a schema registry's magic byte; publish plain JSON",
        )
    try:
        value.decode()
    except UnicodeDecodeError as fault:
        return _reject(message, Reason.NOT_UTF8, f"byte {fault.start} is not UTF-8")
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    kind, where = first["type"], ".".join(map(str, first["loc"]))
    text = _DETAILS.get(kind, {}).get(where, first["msg"])
    return _reject(message, _REASONS.get(kind, Reason.OUT_OF_BOUNDS), f"{where}: {text}" if where else text)


def _reject(message: Message, reason: Reason, detail: str) -> Rejection:
    return Rejection(reason=reason, detail=detail, source=message.source)
