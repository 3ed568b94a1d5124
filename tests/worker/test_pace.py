"""How many records the next poll may bring."""

import pytest

from worker.pace import FIRST_TOKENS, Pace
from worker.settings import BatchSettings


def pace(longest: int = 512, **settings: float) -> Pace:
    return Pace(BatchSettings(**settings), longest)  # type: ignore[arg-type]


def settled(made: Pace, tokens_per_review: int, tokens_per_second: int) -> int:
    """What it asks for after many batches of one kind."""
    for _ in range(60):
        made.observe(reviews=10, tokens=10 * tokens_per_review)
        made.measure(tokens=10 * tokens_per_review, seconds=10 * tokens_per_review / tokens_per_second)
    return made.next_reviews


def test_the_first_batch_is_small_since_nothing_is_known_of_the_device() -> None:
    assert pace(longest=512).next_reviews == FIRST_TOKENS / 512


@pytest.mark.parametrize(
    ("tokens", "speed", "seconds", "expected"),
    [(64, 6_400, 1, 100), (256, 6_400, 1, 25), (256, 6_400, 2, 50), (128, 6_400, 0.1, 5), (256, 256_000, 1, 1_000)],
)
def test_it_settles_at_what_the_device_does_in_the_target_time(
    tokens: int, speed: int, seconds: float, expected: int
) -> None:
    assert settled(pace(target_seconds=seconds), tokens, speed) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("tokens", "expected"), [(64, 256), (256, 64), (16_384, 1)])
def test_no_batch_has_more_tokens_than_the_budget(tokens: int, expected: int) -> None:
    made = pace(token_budget=16_384)

    assert settled(made, tokens, tokens_per_second=10_000_000) == pytest.approx(expected, abs=1)


def test_one_odd_batch_moves_it_by_a_fifth() -> None:
    made = pace(longest=100, token_budget=1_000)

    made.observe(reviews=4, tokens=4 * 200)
    assert made.next_reviews == 1_000 // 120

    made.measure(tokens=500, seconds=1)
    made.measure(tokens=1_000, seconds=1)
    assert made.next_reviews == 600 // 120


def test_short_reviews_do_not_pass_the_limit() -> None:
    assert settled(pace(longest=10, max_reviews=50), 10, tokens_per_second=10_000_000) == 50


def test_a_device_that_takes_no_time_is_given_the_limit() -> None:
    made = pace(longest=10, max_reviews=50)

    made.measure(tokens=100, seconds=0)

    assert made.next_reviews == 50


def test_at_least_one_record_is_asked_for() -> None:
    assert pace(longest=4_096).next_reviews == 1
    assert settled(pace(), 512, tokens_per_second=1) == 1


def test_a_slow_device_is_given_as_much_as_the_longest_review_has() -> None:
    assert settled(pace(longest=512), 64, tokens_per_second=1) == pytest.approx(8, abs=1)


def test_a_batch_of_rejections_alone_teaches_nothing() -> None:
    made = pace(longest=512)

    made.observe(reviews=0, tokens=0)
    made.measure(tokens=0, seconds=0.001)

    assert made.next_reviews == FIRST_TOKENS / 512
