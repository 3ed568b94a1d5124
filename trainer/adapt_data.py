"""Texts without labels to rows whose masked words are to be guessed (Devlin et al. 2019, section 3.1).

A text is cut into as few rows as it needs, all of nearly one length; rows of nearly one length make a batch, so that
hardly anything is padding. Every batch is masked anew, from (seed, epoch, step) alone: any of them can be made again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trainer.checkpoint import Checkpoint, control_tokens
from trainer.dataset import TOKENIZE_AT_ONCE, Buckets, Lengths, Plan
from worker.errors import ArtifactError
from worker.tokens import Ids, ReviewTokenizer, pad

SHARE = 0.15
"""Of a row's tokens that are to be guessed."""

HIDDEN, REPLACED = 0.8, 0.1
"""Of these, what [MASK] stands for and what another word stands for; the rest is as it was. Fine-tuning never sees
[MASK], so the network must not learn to look at nothing else."""

CONTINUES = "##"
"""How WordPiece writes a piece that goes on with the word before it."""

Batch = tuple[tuple[NDArray[np.int32], dict[str, Ids]], NDArray[np.int32]]
"""Where the masked tokens stand, (masked,), in the batch's tokens one row after the other; the inputs of the network,
each (rows, width); and the masked tokens, (masked,). All int32."""


@dataclass(frozen=True)
class Rows:
    """Tokenized rows.

    Attributes:
        ids: one row after the other, control tokens included, int32, (tokens,).
        lengths: tokens of each row, (rows,).
        starts: where each row begins in `ids`, (rows,).
    """

    ids: Ids
    lengths: Lengths
    starts: Lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> Ids:
        """One row, (length,)."""
        return self.ids[self.starts[number] : self.starts[number] + self.lengths[number]]


def read_rows(texts: Sequence[str], tokenizer: ReviewTokenizer, length: int, advance: Callable[[int], None]) -> Rows:
    """Clean, tokenize, and cut into rows.

    Args:
        texts: that are read to their end.
        tokenizer: of the checkpoint, without a cut.
        length: tokens of a row at most.
        advance: told how many texts were done since it was last called.
    """
    rows: list[Ids] = []
    for start in range(0, len(texts), TOKENIZE_AT_ONCE):
        part = texts[start : start + TOKENIZE_AT_ONCE]
        for found in tokenizer.encode(part):
            rows += cut_rows(found.ids, length)
        advance(len(part))
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    return Rows(ids, lengths, np.cumsum(lengths) - lengths)


def cut_rows(ids: Ids, length: int) -> list[Ids]:
    """One text's rows, each between the text's own two control tokens; none where nothing stands between them."""
    content = ids[1:-1]
    parts = np.array_split(content, -(-len(content) // (length - 2))) if len(content) else []
    return [np.concatenate([ids[:1], part, ids[-1:]]) for part in parts]


@dataclass(frozen=True)
class Masking:
    """What is masked, and by what.

    Attributes:
        mask: the id of [MASK].
        ordinary: ids of all that is no control token, (words,).
        continues: for each id whether it goes on with the word before, (vocabulary,), where whole words are masked;
            None where each token is masked for itself.
    """

    mask: int
    ordinary: Ids
    continues: NDArray[np.bool_] | None = None

    def choose(self, ids: Ids, rng: np.random.Generator) -> NDArray[np.int64]:
        """The places in one row that are to be guessed: `SHARE` of what is no control token, one at the least.

        Whole words are taken until the next one would be too much, but the first one in any case.
        """
        content = ids[1:-1]
        wanted = max(1, round(SHARE * len(content)))
        if self.continues is None:
            return 1 + rng.choice(len(content), wanted, replace=False)
        begins = ~self.continues[content]
        begins[0] = True
        words = np.cumsum(begins) - 1
        order = rng.permutation(words[-1] + 1)
        fits = np.cumsum(np.bincount(words)[order]) <= wanted
        fits[0] = True
        return 1 + np.flatnonzero(np.isin(words, order[fits]))

    def batch(self, rows: Sequence[Ids], width: int, rng: np.random.Generator) -> Batch:
        """Mask rows and put them side by side.

        Args:
            rows: at least one.
            width: columns, at least the longest row's.
            rng: what all is drawn from.
        """
        ids, mask = pad(rows, width)
        places = np.concatenate([at * width + self.choose(row, rng) for at, row in enumerate(rows)])
        flat = ids.reshape(-1)
        wanted = flat[places]
        fate = rng.random(len(places))
        flat[places[fate < HIDDEN]] = self.mask
        replaced = places[fate >= 1 - REPLACED]
        flat[replaced] = rng.choice(self.ordinary, len(replaced))
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return (places.astype(np.int32), inputs), wanted


def masking_of(checkpoint: Checkpoint, whole_words: bool) -> Masking:
    """What masks this checkpoint's tokens.

    Raises:
        ArtifactError: its tokenizer has no [MASK].
    """
    words = Tokenizer.from_str(checkpoint.tokenizer).get_vocab(with_added_tokens=True)
    if "[MASK]" not in words:
        raise ArtifactError(f"{checkpoint.folder}: its tokenizer has no [MASK]; words cannot be masked for it")
    control = control_tokens(checkpoint.tokenizer)
    ordinary = np.array(sorted(index for word, index in words.items() if word not in control), dtype=np.int32)
    continues = np.zeros(checkpoint.config.vocab_size, dtype=np.bool_)
    continues[[index for word, index in words.items() if word.startswith(CONTINUES)]] = True
    return Masking(words["[MASK]"], ordinary, continues if whole_words else None)


def masked_batches(rows: Rows, plan: Plan, buckets: Buckets, masking: Masking, seeds: Sequence[Sequence[int]]) -> Any:
    """The plan as a `tf.data.Dataset` of `Batch`.

    Args:
        rows: all of them.
        plan: row numbers of each batch.
        buckets: of the run.
        masking: of the checkpoint.
        seeds: what each batch is masked from.
    """

    def generate() -> Iterator[Batch]:
        for part, seed in zip(plan, seeds, strict=True):
            width = buckets.width(rows.lengths[part])
            yield masking.batch([rows.row(number) for number in part], width, np.random.default_rng(seed))

    matrix, vector = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int32)
    inputs = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), matrix)
    return tf.data.Dataset.from_generator(generate, output_signature=((vector, inputs), vector)).prefetch(2)
