"""Score: the worker's scoring over a file, without Kafka; the same labels as through the topics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from schemas import Prediction, Rejection
from worker.intake import read_review
from worker.message import Message
from worker.pace import Pace
from worker.scorer import Scorer


@dataclass(frozen=True)
class Tally:
    """What became of a file."""

    predictions: int
    rejections: int


def score_messages(
    messages: Iterator[Message], scorer: Scorer, pace: Pace, max_message_bytes: int
) -> Iterator[Prediction | Rejection]:
    """One outcome a message, in their order, a micro-batch at a time."""
    while batch := list(islice(messages, pace.next_reviews)):
        prepared = scorer.prepare([read_review(message, max_message_bytes) for message in batch])
        pace.observe(len(prepared.rows), prepared.tokens)
        scored = scorer.submit(prepared).result()
        yield from scorer.conclude(prepared, [message.source for message in batch], scored)


def report(
    outcomes: Iterator[Prediction | Rejection],
    write: Callable[[str], object],
    refuse: Callable[[Rejection], object],
    steps: Sequence[Callable[[], object]] = (),
) -> Tally:
    """Write predictions as JSON lines, and name each refused record.

    Args:
        outcomes: in the order of the file.
        write: takes a line of JSON without its end.
        refuse: told of each rejection.
        steps: called after each outcome, for progress.
    """
    predictions = rejections = 0
    for outcome in outcomes:
        if isinstance(outcome, Rejection):
            rejections += 1
            refuse(outcome)
        else:
            predictions += 1
            write(outcome.model_dump_json())
        for step in steps:
            step()
    return Tally(predictions, rejections)
