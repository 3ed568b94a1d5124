"""The tokenizers that hostile texts are given to."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from hostile.stations import CUT
from worker.tokens import ReviewTokenizer

CONTROL = ("[CLS]", "[SEP]", "[MASK]", "[PAD]")


@pytest.fixture(scope="session", params=["tiny-bert-3-labels", "minilm-l6-imdb"])
def vocabulary(request: pytest.FixtureRequest, shared: Path) -> Path:
    """A `tokenizer.json`: one of 77 words, which knows next to nothing, and one of 30,522."""
    return shared / "models" / request.param / "tokenizer.json"


@pytest.fixture(scope="session")
def tokenizer(vocabulary: Path) -> ReviewTokenizer:
    """As the worker uses it."""
    return ReviewTokenizer.load(vocabulary, CUT, ("ellipses", "escaped-quotes", "newlines", "line-breaks"))


@pytest.fixture(scope="session")
def control_ids(vocabulary: Path) -> list[int]:
    """Of [CLS], [SEP], [MASK] and [PAD]."""
    plain = Tokenizer.from_file(str(vocabulary))
    return [plain.token_to_id(name) for name in CONTROL]
