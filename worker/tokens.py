"""Tokens: review texts in, rows of token ids out; cleaned, tokenized and cut as the artefact's manifest says.

WordPiece itself is the `tokenizers` library on the checkpoint's own `tokenizer.json`: one call for many texts, on all
cores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from schemas import Cut
from worker.errors import ArtifactError
from worker.text import cleaner

Ids = NDArray[np.int32]

CHARACTERS_AT_ONCE = 1_000_000
"""Of the texts that go into one call of the library, which holds every token of each until the cut: 116 bytes for a
character of Chinese were measured. A batch of ordinary reviews is one to three calls; one of 2,000 of the longest
reviews, which compress to a few hundred kB, would hold 23 GB.
"""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One review as the network reads it.

    Attributes:
        ids: int32, (length,), from the opening to the closing control token.
        truncated: tokens between the cut's head and tail were left out.
    """

    ids: Ids
    truncated: bool

    @property
    def tokens(self) -> int:
        """Its length."""
        return len(self.ids)


class ReviewTokenizer:
    """Clean, tokenize, cut.

    A review that says "[SEP]" or "[MASK]" is text like any other: the control tokens' ids are added here and never
    come out of what a user wrote.

    Attributes:
        clean: what is done to a text first.
    """

    def __init__(self, tokenizer: Tokenizer, cut: Cut, cleaning: Sequence[str]) -> None:
        """Take over `tokenizer`: its padding, truncation and special-token settings are replaced.

        Raises:
            ArtifactError: the tokenizer frames a text with other than one opening and one closing token, or a
                cleaning rule is unknown.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        frame = tokenizer.encode("", add_special_tokens=True).ids
        if len(frame) != 2:
            raise ArtifactError(
                f"the tokenizer frames a text with {len(frame)} control tokens; BERT needs two, [CLS] and [SEP]"
            )
        self._tokenizer = tokenizer
        self._opening, self._closing = frame
        self._cut = cut
        self.clean = cleaner(cleaning)

    @classmethod
    def load(cls, path: Path, cut: Cut, cleaning: Sequence[str]) -> "ReviewTokenizer":
        """Read a `tokenizer.json`.

        Raises:
            ArtifactError: the file is missing or not a tokenizer.
        """
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(f"{path}: not a tokenizer.json: {error}") from None
        return cls(tokenizer, cut, cleaning)

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id: a word that stands twice in a `vocab.txt` leaves a gap, so that counting the
        words is not enough."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, texts: Sequence[str]) -> list[TokenRow]:
        """One row a text, in their order."""
        return [row for some in _portions(texts) for row in self._encode(some)]

    def _encode(self, texts: Sequence[str]) -> list[TokenRow]:
        cleaned = [self.clean(text) for text in texts]
        with panics_as(lambda panic: RuntimeError(f"the tokenizer ended with {panic}")):
            encodings = self._tokenizer.encode_batch_fast(cleaned, add_special_tokens=False)
        return [self._row(encoding.ids) for encoding in encodings]

    def _row(self, content: list[int]) -> TokenRow:
        head, tail = self._cut.head - 1, self._cut.tail - 1
        truncated = len(content) > head + tail
        if truncated:
            # A tail of 0 is the plain head cut; content[-0:] would be everything.
            content = content[:head] + content[len(content) - tail :]
        return TokenRow(np.array([self._opening, *content, self._closing], dtype=np.int32), truncated)


@contextmanager
def panics_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn a panic of the tokenizer's Rust, which is no Exception and would end the process, or the thread that loads a
    newer model, into the exception that `make` makes of its name."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise make(type(panic).__name__) from None


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in runs of at most `CHARACTERS_AT_ONCE`; a longer one is a run of its own."""
    start = characters = 0
    for place, text in enumerate(texts):
        if characters + len(text) > CHARACTERS_AT_ONCE and place > start:
            yield texts[start:place]
            start, characters = place, 0
        characters += len(text)
    if start < len(texts):
        yield texts[start:]


def pad(rows: Sequence[Ids], length: int | None = None) -> tuple[Ids, Ids]:
    """Rows of ids side by side.

    Args:
        rows: at least one row.
        length: columns of the result; the longest row's length when absent.

    Returns:
        ids and mask, int32, (rows, length); the mask is 1 where a token stands. Padding has id 0, which is never
        looked at.
    """
    width = max(len(row) for row in rows) if length is None else length
    ids = np.zeros((len(rows), width), dtype=np.int32)
    mask = np.zeros((len(rows), width), dtype=np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
