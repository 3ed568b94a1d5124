"""Cache: what one model said of the texts that it read last, so that a text that comes again needs no device.

One a model: a newer version begins with an empty one, and never answers with what the one before it said.
"""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock

DIGEST_BYTES = 32
"""As strong as SHA-256: nobody finds two texts with one digest, so that no publisher can have a review answered with
what was said of another."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said of a text, in place of the text's row.

    Attributes:
        logits: one a label.
        tokens: that it read.
        truncated: it did not read all.
    """

    logits: tuple[float, ...]
    tokens: int
    truncated: bool


class Cache:
    """Answers by the digest of a cleaned text: neither the text nor anything of it is kept.

    Args:
        reviews: answers that are kept; those that were asked for the longest ago go first.
    """

    def __init__(self, reviews: int) -> None:
        self._most = reviews
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        # One batch is prepared while the one before is concluded.
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, digest: bytes) -> Answer | None:
        """The answer, if there is one."""
        with self._lock:
            answer = self._answers.get(digest)
            if answer is not None:
                self._answers.move_to_end(digest)
            return answer

    def put(self, digest: bytes, answer: Answer) -> None:
        """Keep it."""
        with self._lock:
            self._answers[digest] = answer
            self._answers.move_to_end(digest)
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)


def digest_of(text: str) -> bytes:
    """Of a cleaned text."""
    # Not every text of a file can be encoded otherwise.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
