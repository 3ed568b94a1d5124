"""What the route's tests share: the reference model as a user imports it, and real reviews."""

import csv
import gzip
from itertools import islice
from pathlib import Path

import pytest

from route.commands import command

REVIEWS = 200


@pytest.fixture(scope="session")
def reviews(shared: Path) -> list[tuple[str, str]]:
    """Text and label of the first test reviews."""
    csv.field_size_limit(1 << 24)
    with gzip.open(shared / "data" / "imdb" / "test.csv.gz", "rt", encoding="utf-8", newline="") as stream:
        return [(row["text"], row["sentiment"]) for row in islice(csv.DictReader(stream), REVIEWS)]


@pytest.fixture(scope="session")
def model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent folder of the reference model's artefact."""
    out = tmp_path_factory.mktemp("models") / "imdb"
    command("trainer", "import", str(shared / "models" / "minilm-l6-imdb"), "--out", str(out))
    return out
