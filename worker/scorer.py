"""Scorer: the stations between intake and outbox for one model: tokens, engine, verdict.

The loop and the file commands score through this same piece, so that a review gets the same label either way.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from schemas import Prediction, Rejection, Review, Source
from worker.artifact import Artifact
from worker.engine import Engine, Scored
from worker.tokens import ReviewTokenizer, TokenRow
from worker.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Prepared:
    """Reviews on their way to the device: what was read of each message, and the token rows of the reviews."""

    read: Sequence[Review | Rejection]
    rows: Sequence[TokenRow]

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(row.ids) for row in self.rows)


class Scorer:
    """One model, ready to score."""

    def __init__(self, tokenizer: ReviewTokenizer, engine: Engine, verdict: Verdict) -> None:
        self._tokenizer = tokenizer
        self._verdict = verdict
        self.engine = engine

    @classmethod
    def open(cls, artifact: Artifact, engine: Engine) -> Self:
        """Put a verified artefact's tokenizer, labels and temperature around its engine."""
        manifest = artifact.manifest
        verdict = Verdict(artifact.name, manifest.labels, manifest.temperature)
        return cls(artifact.tokenizer(), engine, verdict)

    def prepare(self, read: Sequence[Review | Rejection]) -> Prepared:
        """Clean, tokenize and cut the reviews among what was read."""
        texts = [item.text for item in read if isinstance(item, Review)]
        return Prepared(read, self._tokenizer.encode(texts) if texts else [])

    def submit(self, prepared: Prepared) -> Future[Scored]:
        """Start the device on it."""
        return self.engine.submit([row.ids for row in prepared.rows])

    def conclude(self, prepared: Prepared, sources: Sequence[Source], scored: Scored) -> list[Prediction | Rejection]:
        """One outcome for each thing that was read, in its order."""
        reviews, places = [], []
        for item, source in zip(prepared.read, sources, strict=True):
            if isinstance(item, Review):
                reviews.append(item)
                places.append(source)
        predictions = iter(self._verdict.predict(reviews, places, prepared.rows, scored.logits))
        return [item if isinstance(item, Rejection) else next(predictions) for item in prepared.read]
