"""Scorer: the stations between intake and outbox for one model: tokens, engine, verdict.

The loop and the file commands score through this same piece, so that a review gets the same label either way.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from schemas import Prediction, Reason, Rejection, Review, Source
from worker.artifact import Artifact
from worker.cache import Answer, Cache, digest_of
from worker.engine import Engine, Logits
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
    digests: Sequence[bytes] = ()
    """Of the texts of the rows; none without a cache."""
    known: Mapping[int, Answer] = field(default_factory=dict)
    """By place among what was read: reviews that have no row, since their texts were scored before."""

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

    def __init__(self, artifact: Artifact, engine: Engine, cached_reviews: int = 0) -> None:
        """Put a verified artefact's tokenizer, labels and temperature around its engine.

        Args:
            artifact: whose model it is.
            engine: what computes.
            cached_reviews: so many of the last texts are not scored again; 0 for none.
        """
        manifest = artifact.manifest
        self.artifact = artifact
        self.engine = engine
        self._tokenizer = artifact.tokenizer()
        self._rescue = Rescue(engine)
        self._cache = Cache(cached_reviews) if cached_reviews else None
        self._verdict = Verdict(artifact.name, manifest.labels, manifest.temperature)

    def prepare(self, read: Sequence[Review | Rejection]) -> Prepared:
        """Clean, tokenize and cut the reviews among what was read.

        Raises:
            EngineError: the tokenizer fails on everything.
        """
        known, digests = self._recall(read, self._cache) if self._cache is not None else ({}, {})
        unknown = [item.text for place, item in enumerate(read) if isinstance(item, Review) and place not in known]
        if not unknown:
            return Prepared(read, [], known=known)
        try:
            return Prepared(read, self._tokenizer.encode(unknown), tuple(digests.values()), known)
        except Exception:
            encoded = iter(_encode_each(self._tokenizer, unknown))
        found = {
            place: next(encoded) for place, item in enumerate(read) if isinstance(item, Review) and place not in known
        }
        faults = {place: row for place, row in found.items() if isinstance(row, Fault)}
        return Prepared(
            [faults.get(place, item) for place, item in enumerate(read)],
            [row for row in found.values() if isinstance(row, TokenRow)],
            tuple(digest for place, digest in digests.items() if place not in faults),
            known,
        )

    def _recall(self, read: Sequence[Review | Rejection], cache: Cache) -> tuple[dict[int, Answer], dict[int, bytes]]:
        """By place: the answers that are known, and the digests of the other reviews' texts."""
        known: dict[int, Answer] = {}
        digests: dict[int, bytes] = {}
        for place, item in enumerate(read):
            if isinstance(item, Review):
                digest = digest_of(self._tokenizer.clean(item.text))
                answer = cache.get(digest)
                if answer is None:
                    digests[place] = digest
                else:
                    known[place] = answer
        return known, digests

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
        read = list(prepared.read)
        rows: Sequence[TokenRow | Answer] = prepared.rows
        logits = collected.logits
        if collected.faults:
            numbers = count()
            for place, item in enumerate(prepared.read):
                if isinstance(item, Review) and place not in prepared.known:
                    read[place] = collected.faults.get(next(numbers), item)
            kept = [number for number in range(len(rows)) if number not in collected.faults]
            rows, logits = [rows[number] for number in kept], logits[kept]
        if self._cache is not None:
            _remember(prepared, collected, self._cache)
        if prepared.known:
            rows, logits = _with_known(read, rows, logits, prepared.known)
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


def _remember(prepared: Prepared, collected: Collected, cache: Cache) -> None:
    """Keep what the model said of each row that it did not fail on."""
    rows = zip(prepared.digests, prepared.rows, collected.logits[: len(prepared.rows)].tolist(), strict=True)
    for number, (digest, row, logits) in enumerate(rows):
        if number not in collected.faults:
            cache.put(digest, Answer(tuple(logits), row.tokens, row.truncated))


def _with_known(
    read: Sequence[Review | Rejection | Fault],
    rows: Sequence[TokenRow | Answer],
    logits: Logits,
    known: Mapping[int, Answer],
) -> tuple[list[TokenRow | Answer], Logits]:
    """Rows and logits of all reviews in the order in which they were read, the known ones among the others."""
    numbers = count()
    all_rows: list[TokenRow | Answer] = []
    all_logits: list[Sequence[float]] = []
    scored = logits.tolist()
    for place, item in enumerate(read):
        if not isinstance(item, Review):
            continue
        if place in known:
            all_rows.append(known[place])
            all_logits.append(known[place].logits)
        else:
            number = next(numbers)
            all_rows.append(rows[number])
            all_logits.append(scored[number])
    # float32 goes through Python's float and back without a change.
    return all_rows, np.array(all_logits, dtype=np.float32).reshape(len(all_rows), -1)


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
