"""Pace: how many records the next poll may bring, so that a micro-batch holds about a budget of tokens."""

_SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of a review's tokens."""


class Pace:
    """Starts from the longest possible review, so that the first batch cannot be too large, and follows the mean."""

    def __init__(self, max_reviews: int, token_budget: int, longest_review: int) -> None:
        self._max_reviews = max_reviews
        self._token_budget = token_budget
        self._tokens_per_review = float(longest_review)

    @property
    def next_reviews(self) -> int:
        """Records to ask for: at least one, at most the limit."""
        return max(1, min(self._max_reviews, int(self._token_budget / self._tokens_per_review)))

    def observe(self, reviews: int, tokens: int) -> None:
        """A batch of `reviews` scored reviews had `tokens` tokens."""
        if reviews:
            newest = tokens / reviews
            self._tokens_per_review += _SMOOTHING * (newest - self._tokens_per_review)
