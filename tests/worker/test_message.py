"""A message as it came."""

import dataclasses

import pytest

from schemas import Source
from worker.message import Message

MESSAGE = Message(
    "reviews", 3, 4211, b"secret key", b"secret value", (("secret-name", b"secret header"),), 1_795_000_000
)


def test_its_text_form_names_the_place_and_never_the_payload() -> None:
    shown = f"{MESSAGE} {MESSAGE!r}"

    assert "secret" not in shown
    assert "topic='reviews', partition=3, offset=4211" in shown


def test_its_source_are_its_coordinates() -> None:
    assert MESSAGE.source == Source(topic="reviews", partition=3, offset=4211)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MESSAGE.offset = 0  # type: ignore[misc]


def test_without_more_it_has_no_headers_and_no_time() -> None:
    bare = Message("reviews", 0, 0, None, None)

    assert (bare.headers, bare.timestamp_ms) == ((), -1)
