"""The published contract: the documents of `deploy/contract` are those that the code makes."""

from difflib import unified_diff
from pathlib import Path

import pytest

from worker.contract import documents

PUBLISHED = Path(__file__).parents[2] / "deploy" / "contract"
REMEDY = "if that is meant, run: review-worker contract --out deploy/contract"


@pytest.mark.parametrize("name", documents())
def test_a_published_document_is_what_the_code_makes(name: str) -> None:
    path = PUBLISHED / name

    assert path.is_file(), f"{name} is not published; {REMEDY}"
    published, made = path.read_bytes(), documents()[name].encode()
    lines = (text.decode().splitlines(keepends=True) for text in (published, made))
    difference = "".join(unified_diff(*lines, "published", "made", n=0))
    assert published == made, f"the contract has changed; {REMEDY}\n{difference}"


def test_nothing_else_is_published() -> None:
    """Such as a schema that nobody makes any more."""
    assert {path.name for path in PUBLISHED.iterdir()} == set(documents())
