"""Score: the worker's scoring over a file, without Kafka; the same labels as through the topics."""

from collections.abc import Iterator
from itertools import islice

from schemas import Prediction, Rejection
from worker.intake import read_review
from worker.message import Message
from worker.pace import Pace
from worker.scorer import Scorer


def score_messages(
    messages: Iterator[Message], scorer: Scorer, pace: Pace, max_message_bytes: int
) -> Iterator[Prediction | Rejection]:
    """One outcome a message, in their order, a micro-batch at a time."""
    while batch := list(islice(messages, pace.next_reviews)):
        prepared = scorer.prepare([read_review(message, max_message_bytes) for message in batch])
        pace.observe(len(prepared.rows), prepared.tokens)
        collected = scorer.collect(scorer.submit(prepared))
        pace.measure(prepared.tokens, collected.seconds)
        yield from scorer.conclude(prepared, [message.source for message in batch], collected)
