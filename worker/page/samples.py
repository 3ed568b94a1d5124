"""Samples: the last few predictions with the beginning of each review, for the page of a demo."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import Prediction, Rejection, Review
from worker.rescue import Fault

TEXT_CHARACTERS = 160
"""As much of a review as tells what it is about."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A scored review, cut."""

    text: str
    label: str
    confidence: float


class Samples:
    """Keeps the last `number` predictions; the only place outside of a batch in hand that holds a review's text.

    Attributes:
        last: the newest first. Replaced and never changed, since another thread reads it.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.last: tuple[Sample, ...] = ()

    def follow(self, read: Sequence[Review | Rejection | Fault], outcomes: Sequence[Prediction | Rejection]) -> None:
        """Take note of the end of a batch that was committed.

        Args:
            read: what was read of each message.
            outcomes: what became of each.
        """
        newest: list[Sample] = []
        for review, outcome in zip(reversed(read), reversed(outcomes), strict=True):
            if len(newest) == self._number:
                break
            if isinstance(review, Review) and isinstance(outcome, Prediction):
                newest.append(Sample(cut(review.text), outcome.label, outcome.confidence))
        self.last = (*newest, *self.last)[: self._number]


def cut(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 4 * TEXT_CHARACTERS].split())
    return line if len(line) <= TEXT_CHARACTERS else f"{line[: TEXT_CHARACTERS - 1].rstrip()}…"
