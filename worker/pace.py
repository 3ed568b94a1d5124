"""Pace: how many records the next poll may bring, so that the device works on a micro-batch for about a target time.

Larger batches spread a transaction's round trips over more reviews, smaller ones bring each review back sooner. The
target is the time that a review may wait for its batch; what that is in reviews follows from what was measured.
"""

from worker.settings import BatchSettings

FIRST_TOKENS = 2_048
"""Of the first batch, of which nothing is known: a few of the longest reviews, half a minute for a large network on
a slow CPU."""

_SMOOTHING = 0.2
"""Weight of the newest batch in the running means."""


class Pace:
    """Starts as if every review were the longest, and follows the mean length and the device's speed.

    A batch has room for one of the longest reviews at least, however slow the device seems: the part of its time that
    does not depend on the batch must not make batches ever smaller.

    Args:
        batch: the limits and the target.
        longest_review: tokens that the model reads at most.
    """

    def __init__(self, batch: BatchSettings, longest_review: int) -> None:
        self._batch = batch
        self._longest_review = longest_review
        self._tokens_per_review = float(longest_review)
        self._tokens_per_second: float | None = None

    @property
    def next_reviews(self) -> int:
        """Records to ask for: at least one, at most the limit."""
        tokens = float(FIRST_TOKENS)
        if self._tokens_per_second is not None:
            tokens = self._tokens_per_second * self._batch.target_seconds
        tokens = min(max(tokens, self._longest_review), self._batch.token_budget)
        return max(1, min(self._batch.max_reviews, int(tokens / self._tokens_per_review)))

    def observe(self, reviews: int, tokens: int) -> None:
        """A batch of `reviews` reviews has `tokens` tokens, both without those that were refused."""
        if reviews:
            newest = tokens / reviews
            self._tokens_per_review += _SMOOTHING * (newest - self._tokens_per_review)

    def measure(self, tokens: int, seconds: float) -> None:
        """The device worked for `seconds` on `tokens` tokens."""
        if tokens:
            newest = tokens / max(seconds, 1e-6)
            speed = self._tokens_per_second
            self._tokens_per_second = newest if speed is None else speed + _SMOOTHING * (newest - speed)
