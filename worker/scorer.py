"""Scorer: the stations between intake and outbox for one model: tokens, engine, verdict.

The loop and the file commands score through this same piece, so that a review gets the same label either way.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from schemas import Prediction, Reason, Rejection, Review, Source
from worker.artifact import Artifact
from worker.engine import Engine
from worker.errors import EngineError
from worker.rescue import Collected, Fault, Rescue, Work
from worker.tokens import ReviewTokenizer, TokenRow
from worker.verdict import Verdict

log = logging.getLogger(__name__)

HARMLESS = "good"
"""A text that every tokenizer can read."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Reviews on their way to the device: what was read of each message, and the token rows of the reviews."""

    read: Sequence[Review | Rejection | Fault]
    """A fault stands where the tokenizer failed on a review."""
    rows: Sequence[TokenRow]

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(row.ids) for row in self.rows)


class Scorer:
    """One model, ready to score.

    Attributes:
        artifact: what it was made of.
        engine: what computes.
    """

    def __init__(self, artifact: Artifact, engine: Engine) -> None:
        """Put a verified artefact's tokenizer, labels and temperature around its engine."""
        manifest = artifact.manifest
        self.artifact = artifact
        self.engine = engine
        self._tokenizer = artifact.tokenizer()
        self._rescue = Rescue(engine)
        self._verdict = Verdict(artifact.name, manifest.labels, manifest.temperature)

    def prepare(self, read: Sequence[Review | Rejection]) -> Prepared:
        """Clean, tokenize and cut the reviews among what was read.

        Raises:
            EngineError: the tokenizer fails on everything.
        """
        texts = [item.text for item in read if isinstance(item, Review)]
        if not texts:
            return Prepared(read, [])
        try:
            return Prepared(read, self._tokenizer.encode(texts))
        except Exception:
            encoded = iter(_encode_each(self._tokenizer, texts))
        found = [next(encoded) if isinstance(item, Review) else None for item in read]
        return Prepared(
            [row if isinstance(row, Fault) else item for item, row in zip(read, found, strict=True)],
            [row for row in found if isinstance(row, TokenRow)],
        )

    def submit(self, prepared: Prepared) -> Work:
        """Start the device on it, without waiting."""
        return self._rescue.submit([row.ids for row in prepared.rows])

    def collect(self, work: Work) -> Collected:
        """Wait for the device.

        Raises:
            EngineError: the device fails on everything.
        """
        return self._rescue.collect(work)

    def conclude(
        self, prepared: Prepared, sources: Sequence[Source], collected: Collected
    ) -> list[Prediction | Rejection]:
        """One outcome for each thing that was read, in its order."""
        read, rows, logits = prepared.read, prepared.rows, collected.logits
        if collected.faults:
            faults, numbers = collected.faults, count()
            read = [faults.get(next(numbers), item) if isinstance(item, Review) else item for item in read]
            kept = [number for number in range(len(rows)) if number not in faults]
            rows, logits = [rows[number] for number in kept], logits[kept]
        reviews, places = [], []
        for item, source in zip(read, sources, strict=True):
            if isinstance(item, Review):
                reviews.append(item)
                places.append(source)
        predictions = iter(self._verdict.predict(reviews, places, rows, logits))
        return [
            next(predictions)
            if isinstance(item, Review)
            else Rejection(reason=item.reason, detail=item.detail, source=source)
            if isinstance(item, Fault)
            else item
            for item, source in zip(read, sources, strict=True)
        ]

    def close(self) -> None:
        """Free the device."""
        self.engine.close()


def _encode_each(tokenizer: ReviewTokenizer, texts: Sequence[str]) -> list[TokenRow | Fault]:
    """One text at a time, since together they failed."""
    found: list[TokenRow | Fault] = []
    for text in texts:
        try:
            found += tokenizer.encode([text])
        except Exception as error:
            kind = type(error).__name__
            log.warning("the tokenizer failed", extra={"cause": kind})
            found.append(Fault(Reason.SCORER_FAILED, f"the tokenizer fails on this review ({kind})"))
    if all(isinstance(row, Fault) for row in found):
        try:
            tokenizer.encode([HARMLESS])
        except Exception as error:
            raise EngineError(f"the tokenizer fails on every text ({type(error).__name__})") from None
    return found
