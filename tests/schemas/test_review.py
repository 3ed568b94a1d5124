"""The review that people publish."""

import json

import pytest
from pydantic import ValidationError

from schemas import Review
from schemas.review import MAX_TEXT_CHARACTERS


def read(text: str) -> Review:
    return Review.model_validate_json(json.dumps({"review_id": "tt0111161-17", "text": text}))


def test_the_longest_text_is_that_of_the_contract() -> None:
    assert MAX_TEXT_CHARACTERS == 100_000


@pytest.mark.parametrize("text", ["a", "a" * 100_000, "🎬" * 100_000, " a ", "\x00a", "[SEP]", "\u202egood"])
def test_a_text_of_1_to_100_000_characters_is_kept_as_it_is(text: str) -> None:
    assert read(text).text == text


def test_a_text_is_bounded_in_characters() -> None:
    with pytest.raises(ValidationError, match="at most 100000 characters"):
        read("a" * 100_001)


def test_a_text_is_not_empty() -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        read("")


@pytest.mark.parametrize(
    "text", [" ", "\n\t ", "\u00a0", "\u3000\u2003", "\u2028\u2029", "\x00", "\x1c\x1f", "\x7f", "\x85", " \x9b "]
)
def test_a_text_of_spaces_and_control_characters_alone_is_no_review(text: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        read(text)
