"""Labelled reviews to batches: tokenized once, planned by length, padded to a small closed set of lengths.

A plan is a list of index arrays, one a batch, drawn from (seed, epoch) alone: the number of steps is known before the
first, and any epoch can be planned again without those before it.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from schemas import Cut
from trainer.data import LabelledReview, given_ratings
from worker.tokens import ReviewTokenizer

Plan = list[NDArray[np.int64]]
Lengths = NDArray[np.int64]

WINDOW = 64
"""Batches whose reviews are sorted together: wide enough that a batch holds reviews of nearly one length, narrow enough
that every epoch mixes them anew. 4,000 IMDB reviews in batches of 16: 2.4 % padding; 10 % in windows of 8 batches."""

TOKENIZE_AT_ONCE = 512


@dataclass(frozen=True)
class Examples:
    """Tokenized reviews.

    Attributes:
        ids: every row's token ids, one row after the other, int32, (tokens,).
        lengths: tokens of each row, (rows,).
        labels: index of each row's label, int32, (rows,).
        truncated: rows that the cut shortened.
        ratings: the number that was given to each row, float64, (rows,); None where labels are not taken for numbers.
    """

    ids: NDArray[np.int32]
    lengths: Lengths
    labels: NDArray[np.int32]
    truncated: int
    ratings: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.lengths)


def tokenize(
    reviews: Sequence[LabelledReview],
    tokenizer: ReviewTokenizer,
    advance: Callable[[int], None] = lambda _: None,
    numbers: Sequence[float] | None = None,
) -> Examples:
    """Clean, tokenize and cut, exactly as the worker does.

    Args:
        reviews: at least one.
        tokenizer: of the checkpoint.
        advance: told how many reviews were done since it was last called.
        numbers: that the labels stand for, where they are learned as such.
    """
    rows = []
    for start in range(0, len(reviews), TOKENIZE_AT_ONCE):
        part = reviews[start : start + TOKENIZE_AT_ONCE]
        rows += tokenizer.encode([review.text for review in part])
        advance(len(part))
    return Examples(
        ids=np.concatenate([row.ids for row in rows]),
        lengths=np.array([len(row.ids) for row in rows], dtype=np.int64),
        labels=np.array([review.label for review in reviews], dtype=np.int32),
        truncated=sum(row.truncated for row in rows),
        ratings=None if numbers is None else given_ratings(reviews, numbers),
    )


def shortened(examples: Examples, cut: Cut) -> Examples:
    """The same reviews as a shorter cut reads them.

    A row's ends are the review's own whatever it was cut to before, so that nothing is tokenized again.

    Args:
        examples: read by a cut whose head and tail are at least as long.
        cut: what is left of a row.
    """
    if examples.lengths.max() <= cut.head + cut.tail:
        return examples
    starts = np.cumsum(examples.lengths) - examples.lengths
    longer = examples.lengths > cut.head + cut.tail
    place = np.arange(len(examples.ids)) - np.repeat(starts, examples.lengths)
    left = np.repeat(examples.lengths, examples.lengths) - place
    kept = (place < cut.head) | (left <= cut.tail) | ~np.repeat(longer, examples.lengths)
    return replace(
        examples,
        ids=examples.ids[kept],
        lengths=np.where(longer, cut.head + cut.tail, examples.lengths),
        truncated=int(longer.sum()),
    )


@dataclass(frozen=True)
class Buckets:
    """The closed set of lengths that batches are padded to.

    Attributes:
        lengths: tokens, ascending; the last is the longest row that the model reads.
    """

    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """The longest row, tokens."""
        return self.lengths[-1]

    def width(self, rows: Lengths) -> int:
        """The length that a batch with rows of these lengths is padded to."""
        return self.lengths[bisect_left(self.lengths, int(rows.max()))]


def fine_buckets(longest: int) -> Buckets:
    """Steps of about a thirtieth: 2 tokens up to 64, 4 up to 128, 8 beyond. Rounding up costs 1 to 3 %."""
    every = (*range(2, 64, 2), *range(64, 128, 4), *range(128, longest, 8))
    return Buckets((*(length for length in every if length < longest), longest))


def wide_buckets(longest: int) -> Buckets:
    """Steps of 64: for XLA, which compiles once a length, in some ten seconds."""
    return Buckets((*range(64, longest, 64), longest))


def training_plan(lengths: Lengths, batch: int, seed: int, epoch: int, window: int = WINDOW) -> Plan:
    """One epoch: every row once, in random company of nearly its own length, batches in random order.

    Args:
        lengths: tokens of each row.
        batch: rows of a batch; the last one of the plan's making may have fewer.
        seed: of the run.
        epoch: from 0.
        window: batches that are sorted together.

    Returns:
        ceil(rows / batch) arrays of row numbers.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    plan: Plan = []
    for start in range(0, len(order), window * batch):
        rows = order[start : start + window * batch]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        plan += [rows[at : at + batch] for at in range(0, len(rows), batch)]
    return [plan[at] for at in rng.permutation(len(plan))]


def reading_plan(lengths: Lengths, batch: int) -> Plan:
    """Every row once, shortest first: for validation, where the order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return [order[at : at + batch] for at in range(0, len(order), batch)]


def padding_share(plans: Sequence[Plan], lengths: Sequence[Lengths], buckets: Buckets) -> float:
    """The share of all computed tokens that is padding, from 0 to 1.

    Args:
        plans: one an epoch.
        lengths: tokens of each row, for each epoch.
        buckets: that batches are padded to.
    """
    batches = [own[rows] for plan, own in zip(plans, lengths, strict=True) for rows in plan]
    computed = sum(len(rows) * buckets.width(rows) for rows in batches)
    return 1 - sum(int(rows.sum()) for rows in batches) / computed


@dataclass(frozen=True)
class Targets:
    """What is learned of a row, where it is not its label's number.

    Attributes:
        values: for each row the number that one output learns, float32, (rows, 1); None for classes.
        weights: for each label what an error on it counts, float32, (labels,); None where all count alike.
    """

    values: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None


def batches(examples: Examples, plan: Plan, buckets: Buckets, targets: Targets = Targets()) -> Any:
    """The plan as a `tf.data.Dataset` of (inputs, labels) or (inputs, labels, weights).

    Inputs are those of `worker.network.BertInputs`, int32, (rows, width); labels int32, (rows,), or float32, (rows, 1),
    where they are numbers; weights float32, (rows,). Rows are gathered in TensorFlow's own threads while the device
    works on the batch before.
    """
    ragged = tf.RaggedTensor.from_row_lengths(examples.ids, examples.lengths)
    labels = tf.constant(examples.labels)
    rows = tf.RaggedTensor.from_row_lengths(np.concatenate(plan), [len(part) for part in plan])
    widths = tf.constant([buckets.width(examples.lengths[part]) for part in plan], dtype=tf.int64)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def gather(part: Any, width: Any) -> Any:
        chosen = tf.gather(ragged, part)
        ids = chosen.to_tensor(shape=tf.stack([-1, width]))
        mask = tf.sequence_mask(chosen.row_lengths(), width, dtype=tf.int32)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": tf.zeros_like(ids)}
        own = tf.gather(labels, part)
        wanted = own if targets.values is None else tf.gather(targets.values, part)
        return (inputs, wanted) if targets.weights is None else (inputs, wanted, tf.gather(targets.weights, own))

    return tf.data.Dataset.from_tensor_slices((rows, widths)).map(gather).prefetch(2)
