"""How many records the next poll may bring."""

import pytest

from worker.pace import Pace


def test_the_first_batch_fits_even_if_every_review_is_the_longest() -> None:
    pace = Pace(max_reviews=2_000, token_budget=16_384, longest_review=512)

    assert pace.next_reviews == 32


@pytest.mark.parametrize(("tokens", "expected"), [(64, 256), (256, 64), (16_384, 1)])
def test_it_settles_at_the_budget_divided_by_the_mean_length(tokens: int, expected: int) -> None:
    pace = Pace(max_reviews=2_000, token_budget=16_384, longest_review=512)

    for _ in range(60):
        pace.observe(reviews=10, tokens=10 * tokens)

    assert pace.next_reviews == pytest.approx(expected, abs=1)


def test_one_odd_batch_moves_it_by_a_fifth() -> None:
    pace = Pace(max_reviews=2_000, token_budget=10_000, longest_review=100)

    pace.observe(reviews=4, tokens=4 * 200)

    assert pace.next_reviews == int(10_000 / 120)


def test_short_reviews_do_not_pass_the_limit() -> None:
    pace = Pace(max_reviews=50, token_budget=1_000_000, longest_review=10)

    assert pace.next_reviews == 50


def test_at_least_one_record_is_asked_for() -> None:
    assert Pace(max_reviews=50, token_budget=512, longest_review=4_096).next_reviews == 1


def test_a_batch_of_rejections_alone_teaches_nothing() -> None:
    pace = Pace(max_reviews=2_000, token_budget=16_384, longest_review=512)

    pace.observe(reviews=0, tokens=0)

    assert pace.next_reviews == 32
