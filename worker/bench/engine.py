"""The engine alone: reviews through tokenizer and engine in this process, without Kafka."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from schemas import Review
from worker.bench.limit import measure_limit, review_flop
from worker.bench.rounds import Spread, spread
from worker.scorer import Prepared, Scorer
from worker.tokens import Ids

LENGTHS = (16, 32, 64, 128, 256, 512)
LENGTH_TOKENS = 16_384
"""Of one round at one length: a second or two on a CPU."""


@dataclass(frozen=True)
class EngineFigures:
    """What tokenizer and engine do. Rates are a second."""

    engine: str
    device: str
    precision: str
    reviews: int
    tokens_per_review: float
    reviews_per_second: Spread
    """Tokenized, then scored."""
    tokens_per_second: Spread
    engine_reviews_per_second: Spread
    """Scored, tokenizing not counted."""
    tokenizer_reviews_per_second: Spread
    """On all cores."""
    padding_ratio: float
    """Share of the tokens which the device computes that is padding."""
    flop_per_review: float
    limit_flop_per_second: Spread | None
    """Of plain matrix products on this device."""
    share_of_limit: float | None
    """Of the engine, tokenizing not counted."""


@dataclass(frozen=True)
class LengthFigures:
    """What the engine does with reviews of one length."""

    tokens: int
    reviews_per_second: Spread
    limit_reviews_per_second: float | None
    """What the matrix products alone would do."""


@dataclass(frozen=True)
class _Round:
    tokenize_seconds: float
    score_seconds: float
    device_tokens: int


def measure_engine(
    scorer: Scorer, reviews: Sequence[Review], rounds: int, batch_reviews: int, advance: Callable[[], object]
) -> EngineFigures:
    """Score the reviews once before the clock, and then `rounds` times.

    Args:
        scorer: warm.
        reviews: at least one.
        rounds: how often.
        batch_reviews: the most that the engine is given at once.
        advance: called after each round, the first included.
    """
    batches = [reviews[start : start + batch_reviews] for start in range(0, len(reviews), batch_reviews)]
    prepared = [scorer.prepare(batch) for batch in batches]
    lengths = [len(row.ids) for it in prepared for row in it.rows]
    found = []
    for _ in range(1 + rounds):
        found.append(_round(scorer, batches))
        advance()
    del found[0]
    description, config = scorer.engine.description, scorer.artifact.config
    flop = float(np.mean([review_flop(config, length) for length in lengths]))
    limit = measure_limit(description, config, rounds)
    alone = spread(len(lengths) / it.score_seconds for it in found)
    whole = [it.tokenize_seconds + it.score_seconds for it in found]
    return EngineFigures(
        engine=description.name,
        device=description.device,
        precision=description.precision,
        reviews=len(lengths),
        tokens_per_review=float(np.mean(lengths)),
        reviews_per_second=spread(len(lengths) / seconds for seconds in whole),
        tokens_per_second=spread(sum(lengths) / seconds for seconds in whole),
        engine_reviews_per_second=alone,
        tokenizer_reviews_per_second=spread(len(lengths) / it.tokenize_seconds for it in found),
        padding_ratio=1 - sum(lengths) / found[-1].device_tokens,
        flop_per_review=flop,
        limit_flop_per_second=limit,
        share_of_limit=alone.median * flop / limit.median if limit else None,
    )


def _round(scorer: Scorer, batches: Sequence[Sequence[Review]]) -> _Round:
    tokenize = score = 0.0
    device_tokens = 0
    for batch in batches:
        begun = time.perf_counter()
        prepared: Prepared = scorer.prepare(batch)
        tokenized = time.perf_counter()
        device_tokens += scorer.collect(scorer.submit(prepared)).device_tokens
        tokenize += tokenized - begun
        score += time.perf_counter() - tokenized
    return _Round(tokenize, score, device_tokens)


def measure_lengths(
    scorer: Scorer, reviews: Sequence[Review], rounds: int, limit: float | None, advance: Callable[[], object]
) -> list[LengthFigures]:
    """The engine's rate at each length up to the longest that the model reads.

    Args:
        scorer: warm.
        reviews: whose tokens the rows are made of.
        rounds: at each length.
        limit: operations a second of plain matrix products.
        advance: called after each length.
    """
    cut, config = scorer.artifact.manifest.cut, scorer.artifact.config
    longest = cut.head + cut.tail
    stream = np.array(list(chain.from_iterable(row.ids for row in scorer.prepare(reviews).rows)), dtype=np.int32)
    found = []
    for length in [length for length in LENGTHS if length < longest] + [longest]:
        rows = _rows(stream, length)
        rates = []
        for _ in range(1 + rounds):
            begun = time.perf_counter()
            scorer.engine.submit(rows).result()
            rates.append(len(rows) / (time.perf_counter() - begun))
        flop = review_flop(config, length)
        found.append(LengthFigures(length, spread(rates[1:]), limit / flop if limit else None))
        advance()
    return found


def _rows(stream: Ids, length: int) -> list[Ids]:
    count = max(8, min(256, LENGTH_TOKENS // length))
    return list(np.resize(stream, (count, length)))
