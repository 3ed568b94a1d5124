"""A review as people publish it on the input topic."""

from typing import Annotated

from pydantic import StringConstraints

from schemas.record import Identifier, Record

MAX_TEXT_CHARACTERS = 100_000


class Review(Record):
    """One review. Unknown fields are ignored, so that publishers may carry their own.

    Example: `{"review_id": "tt0111161-17", "text": "A slow start, and then it has you."}`
    """

    review_id: Identifier
    """The publisher's name for the review; it need not be unique."""

    text: Annotated[
        str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS, pattern=r"[^\s\x00-\x1f\x7f-\x9f]")
    ]
    """1 to 100,000 characters, at least one of them neither space nor control character."""
