"""The rules that every record of the contract shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""1 to 128 characters without control characters (C0, DEL, C1): safe in a log line, a header and a table."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A SHA-256 as `sha256:` and 64 hexadecimal digits."""


class Record(BaseModel):
    """Frozen, strict, and silent about its input.

    Strict: a number is not a string, `1` is not `true`. `hide_input_in_errors`: a review text must never reach a
    log through the text of a `ValidationError`. Numbers are finite: JSON has no other, and pydantic would write NaN as
    null, which nobody could read back.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)
