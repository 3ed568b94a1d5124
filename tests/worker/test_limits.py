"""Limits: a few dead letters are accidents, a thousand in a row are not."""

from datetime import UTC, datetime

import pytest

from schemas import ModelName, Prediction, Reason, Rejection, Source
from worker.errors import LimitError
from worker.limits import DeadLetterCount
from worker.settings import LimitSettings

SOURCE = Source(topic="reviews", partition=2, offset=77)
BAD = Rejection(reason=Reason.NOT_JSON, detail="Invalid JSON", source=SOURCE)
GOOD = Prediction(
    review_id="a",
    label="positive",
    label_id=0,
    confidence=1.0,
    probabilities={"positive": 1.0},
    model=ModelName(name="imdb", version=1, digest="sha256:" + "0" * 64),
    source=SOURCE,
    tokens=3,
    truncated=False,
    scored_at=datetime.now(UTC),
)


def limits(consecutive: int = 0, total: int = 0) -> LimitSettings:
    return LimitSettings(consecutive_dead_letters=consecutive, dead_letters=total)


def test_a_prediction_ends_a_row() -> None:
    count = DeadLetterCount().after([BAD, BAD, GOOD, BAD], limits(consecutive=2))

    assert count == DeadLetterCount(total=3, consecutive=1)
    assert count.after([BAD, GOOD], limits(consecutive=2)) == DeadLetterCount(total=4, consecutive=0)


def test_a_row_goes_on_from_batch_to_batch() -> None:
    count = DeadLetterCount().after([GOOD, BAD, BAD], limits(consecutive=3)).after([BAD], limits(consecutive=3))

    assert count.consecutive == 3
    with pytest.raises(LimitError, match="more than 3 dead letters in a row"):
        count.after([BAD, GOOD], limits(consecutive=3))


def test_the_total_counts_whatever_stands_between() -> None:
    count = DeadLetterCount().after([BAD, GOOD] * 3, limits(total=3))

    assert count.total == 3
    with pytest.raises(LimitError, match="more than 3 dead letters since the start"):
        count.after([GOOD, BAD], limits(total=3))


def test_0_is_no_limit() -> None:
    assert DeadLetterCount().after([BAD] * 5_000, limits()).total == 5_000


def test_the_line_says_what_where_and_what_to_do() -> None:
    with pytest.raises(LimitError) as caught:
        DeadLetterCount().after([BAD], limits(total=0, consecutive=1)).after([BAD], limits(consecutive=1))

    assert "not_json (Invalid JSON) at reviews/2/77" in str(caught.value)
    assert "WORKER_LIMITS__CONSECUTIVE_DEAD_LETTERS" in str(caught.value)


def test_the_default_stops_a_thousand_in_a_row_and_no_total() -> None:
    assert DeadLetterCount().after([BAD] * 1_000, LimitSettings()).consecutive == 1_000
    assert DeadLetterCount().after([BAD, GOOD] * 10_000, LimitSettings()).total == 10_000
    with pytest.raises(LimitError):
        DeadLetterCount().after([BAD] * 1_001, LimitSettings())
