"""The rejection that says why a record became a dead letter."""

import pytest
from pydantic import ValidationError

from schemas import Reason, Rejection, Source

SOURCE = Source(topic="reviews", partition=0, offset=4212)


def test_the_list_of_reasons_is_closed_and_public() -> None:
    """Dashboards, alerts and replays name them: a new one is an addition to the contract, a changed one a break."""
    assert [reason.value for reason in Reason] == [
        "tombstone",
        "empty",
        "too_large",
        "confluent_framed",
        "not_utf8",
        "not_json",
        "not_an_object",
        "missing_field",
        "wrong_type",
        "out_of_bounds",
        "out_of_memory",
        "scorer_failed",
    ]


def test_a_reason_outside_the_list_is_refused() -> None:
    with pytest.raises(ValidationError, match="tombstone"):
        Rejection.model_validate_json(
            '{"reason": "bored", "detail": "x", "source": {"topic": "reviews", "partition": 0, "offset": 1}}'
        )


@pytest.mark.parametrize("length", [1, 500])
def test_a_detail_has_1_to_500_characters(length: int) -> None:
    assert len(Rejection(reason=Reason.EMPTY, detail="x" * length, source=SOURCE).detail) == length


@pytest.mark.parametrize("length", [0, 501])
def test_a_detail_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValidationError):
        Rejection(reason=Reason.EMPTY, detail="x" * length, source=SOURCE)
