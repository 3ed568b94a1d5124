"""Reviews to measure with: real ones from a file, or made ones of realistic lengths, or all of one size."""

import random
from collections.abc import Sequence
from itertools import islice

from schemas import Review
from worker.errors import UsageError
from worker.intake import read_review
from worker.reviews import read_messages

MEDIAN_WORDS = 178
SIGMA = 0.754
"""Of the logarithm. IMDB reviews have a median of 222 and a mean of 295 WordPiece tokens, 13 % more than 512, and four
words of plain English are five tokens with their punctuation: a log-normal distribution of these two has all three."""

MOST_WORDS = 2_000
SENTENCE = 9
"""Words between two marks of punctuation."""

TEXT = (
    "the a an and but or of in on at to for with from by as it this that these there he she they we you i his her "
    "their our is was are were be been has had have do does did can could will would should not no very really quite "
    "too so just only even still never always often movie film story plot scene scenes actor actors acting cast role "
    "character characters director script dialogue music score camera ending beginning middle hour minutes time years "
    "day night man woman people family friend friends life world love death war money house city good great best "
    "better bad worst worse fine nice funny sad dark bright slow fast long short old new young little big whole first "
    "last next same other many much more most some any every each one two three see seen watch watched think thought "
    "know knew feel felt make made take took give gave find found go went come came say said tell told look looked "
    "like liked enjoy enjoyed hate hated laugh cry wonderful terrible boring brilliant awful beautiful ugly clever "
    "stupid simple strange perfect poor weak strong interesting predictable memorable forgettable"
)
"""Of a word or two tokens each in any vocabulary of English."""

WORDS = TEXT.split()


def read_reviews(path: str, count: int, max_bytes: int) -> list[Review]:
    """The first `count` reviews of a file that the worker would score; fewer where it holds fewer.

    Raises:
        UsageError: the file cannot be read, or holds none.
    """
    read = (read_review(message, max_bytes) for message in read_messages(path))
    found = list(islice((item for item in read if isinstance(item, Review)), count))
    if not found:
        raise UsageError(f"{path}: no review in it that could be scored")
    return found


def make_reviews(count: int, seed: int = 0) -> list[Review]:
    """Common English words in IMDB's lengths; the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - words, not secrets
    return [Review(review_id=str(number), text=_text(rng)) for number in range(count)]


def _text(rng: random.Random) -> str:
    words = rng.choices(WORDS, k=min(MOST_WORDS, max(1, round(rng.lognormvariate(0, SIGMA) * MEDIAN_WORDS))))
    return " ".join(word + ("." if place % SENTENCE == 0 else "") for place, word in enumerate(words, 1))


def records(reviews: Sequence[Review], count: int) -> list[bytes]:
    """Values for the input topic, as `review-worker publish` sends them, the reviews in turn, each with an id of its
    own."""
    return [
        reviews[number % len(reviews)].model_copy(update={"review_id": f"bench-{number}"}).model_dump_json().encode()
        for number in range(count)
    ]


def sized_records(count: int, size: int) -> list[bytes]:
    """Values of `size` bytes each, at least 100."""
    made = []
    for number in range(count):
        frame = Review(review_id=f"bench-{number}", text="x").model_dump_json().encode()
        filler = ("the movie was great " * (size // 20 + 1))[: size - len(frame)]
        made.append(Review(review_id=f"bench-{number}", text=f"x{filler}").model_dump_json().encode())
    return made
