"""How far the openvino engine is from float32 in shorter types: IMDB test reviews through the reference model, or any.

For each precision, with what it is in doubt of scored again and alone, the share of reviews with float32's label, the
mean and the largest difference of a probability, and the accuracy. Float32 is held to PyTorch's logits elsewhere.

    PYTHONPATH=tests .venv/bin/python tests/bench/parity.py --reviews 1000
    PYTHONPATH=tests .venv/bin/python tests/bench/parity.py --reviews 1000 --model models/imdb   # with its int8 form
"""

import argparse
import csv
import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.artifact import Artifact, digest_file, open_artifact
from worker.engine import Precision, open_engine
from worker.verdict import probabilities

SHARED = Path(__file__).parents[3] / "shared"
AT_ONCE = 256

SAME_LABEL = 0.995
MEAN_DIFFERENCE = 0.002
LARGEST_DIFFERENCE = 0.05
"""What a shorter type is held to: share of the reviews, and of a probability."""


@dataclass(frozen=True)
class Parity:
    """How some precision does beside float32.

    Attributes:
        same: share of the reviews with the same label.
        mean: difference of the first label's probability, over the reviews.
        largest: of these.
        accuracy: share of the reviews with the right label.
    """

    same: float
    mean: float
    largest: float
    accuracy: float

    def __str__(self) -> str:
        return (
            f"same label {self.same:.2%}, probability differs by {self.mean:.5f} on average and {self.largest:.4f} at "
            f"most, accuracy {self.accuracy:.4f}"
        )


def reference_artifact(parent: Path) -> Artifact:
    """The reference model as an artefact, without a SavedModel, which this engine does not read."""
    folder = parent / "imdb" / "1"
    folder.mkdir(parents=True)
    names = ("config.json", "model.safetensors", "tokenizer.json")
    for name in names:
        shutil.copyfile(SHARED / "models" / "minilm-l6-imdb" / name, folder / name)
    manifest = {
        "name": "imdb",
        "version": 1,
        "created_at": "2026-11-23T09:00:00Z",
        "labels": ["negative", "positive"],
        "cut": {"head": 129, "tail": 383},
        "cleaning": ["line-breaks"],
        "base": "minilm-l6-imdb",
        "metrics": {},
        "data_digest": None,
        "libraries": {},
        "files": {name: digest_file(folder / name).model_dump() for name in names},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return open_artifact(folder)


def read_reviews(count: int) -> tuple[list[str], NDArray[np.bool_]]:
    """Texts of the first test reviews, and which of them are positive."""
    with gzip.open(SHARED / "data" / "imdb" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(islice(csv.DictReader(file), count))
    return [row["text"] for row in rows], np.array([row["sentiment"] == "pos" for row in rows])


def score(artifact: Artifact, precision: Precision, texts: Sequence[str], rescore: bool) -> NDArray[np.float64]:
    """Probabilities, (reviews, labels)."""
    tokenizer, temperature = artifact.tokenizer(), artifact.manifest.temperature
    engine = open_engine(artifact, "openvino", precision, rescore=rescore)
    try:
        parts = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
        logits = [engine.submit([row.ids for row in tokenizer.encode(part)]).result().logits for part in parts]
    finally:
        engine.close()
    return probabilities(np.concatenate(logits), temperature)


def compare(
    artifact: Artifact, precisions: Sequence[Precision], texts: Sequence[str], positive: NDArray[np.bool_]
) -> Iterator[tuple[str, Parity]]:
    """Float32 first, then each precision beside it, and alone."""
    exact = score(artifact, "float32", texts, rescore=True)
    yield "float32", parity_of(exact, exact, positive)
    for precision in precisions:
        yield precision, parity_of(score(artifact, precision, texts, rescore=True), exact, positive)
        yield f"{precision} alone", parity_of(score(artifact, precision, texts, rescore=False), exact, positive)


def parity_of(found: NDArray[np.float64], exact: NDArray[np.float64], positive: NDArray[np.bool_]) -> Parity:
    """Of probabilities, (reviews, labels)."""
    difference = np.abs(found - exact)[:, 0]
    label = found.argmax(axis=1)
    same = float((label == exact.argmax(axis=1)).mean())
    right = float((label == positive).mean())
    return Parity(same, float(difference.mean()), float(difference.max()), right)


def main() -> None:
    """Print a line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=1000)
    parser.add_argument("--model", type=Path, help="an artefact with the labels negative, positive")
    asked = parser.parse_args()
    texts, positive = read_reviews(asked.reviews)
    with tempfile.TemporaryDirectory() as folder:
        artifact = open_artifact(asked.model) if asked.model else reference_artifact(Path(folder))
        precisions: list[Precision] = ["bfloat16"] + (["int8"] if artifact.int8 else [])
        print(f"{len(texts):,} reviews, {artifact.name.name} version {artifact.name.version}")
        for precision, found in compare(artifact, precisions, texts, positive):
            print(f"{precision:<14} {found}", flush=True)


if __name__ == "__main__":
    main()
