"""The whole route on real input: reference model, real reviews, real broker, and the same labels as from a file."""

import csv
import gzip
import json
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from faults.oracle import examine
from running import ROOT, Stage, Worker
from schemas import Prediction

pytestmark = pytest.mark.kafka

REVIEWS = 200
REFERENCE_ACCURACY = 0.934
"""Of the reference model on the 5,000 test reviews, from its README."""
SIGMAS = 3
AGREEMENT = 0.02
"""Largest difference of a probability between the two ways. Both compute in the same precision, but bfloat16 rounds
differently in other company: batches are made by what arrives."""


@pytest.fixture(scope="module")
def reviews(shared: Path) -> list[tuple[str, str]]:
    """Text and label of the first test reviews."""
    csv.field_size_limit(1 << 24)
    with gzip.open(shared / "data" / "imdb" / "test.csv.gz", "rt", encoding="utf-8", newline="") as stream:
        return [(row["text"], row["sentiment"]) for row in islice(csv.DictReader(stream), REVIEWS)]


@pytest.fixture(scope="module")
def model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model as a user imports it."""
    out = tmp_path_factory.mktemp("models") / "imdb"
    command("trainer", "import", str(shared / "models" / "minilm-l6-imdb"), "--out", str(out))
    return out


def command(package: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", package, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imdb_reviews_through_kafka_get_the_labels_that_the_file_command_gives(
    stage: Stage,
    start: Callable[..., Worker],
    model: Path,
    reviews: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    lines = [json.dumps({"review_id": str(n), "text": text}) for n, (text, _) in enumerate(reviews)]
    file = tmp_path / "reviews.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    worker = start(model)
    command(
        "worker",
        "publish",
        str(file),
        "--bootstrap-servers",
        stage.address,
        "--set",
        f"kafka.input_topic={stage.input}",
        "--set",
        f"kafka.output_topic={stage.output}",
        "--set",
        f"kafka.dead_letter_topic={stage.dead}",
    )
    stage.wait_until_drained(180)
    assert worker.stop() == 0

    found = examine(stage)
    assert found.sound, found
    assert (found.inputs, found.predictions, found.dead_letters) == (REVIEWS, REVIEWS, 0)

    streamed = {p.review_id: p for p in (Prediction.model_validate_json(r.value) for r in stage.read(stage.output))}
    printed = command("worker", "score", str(file), "-", "--model", str(model)).splitlines()
    filed = {p.review_id: p for p in map(Prediction.model_validate_json, printed)}
    assert streamed.keys() == filed.keys() == {str(number) for number in range(REVIEWS)}
    for review_id, prediction in streamed.items():
        other = filed[review_id]
        assert prediction.label == other.label
        assert prediction.confidence == pytest.approx(other.confidence, abs=AGREEMENT)
        assert prediction.model == other.model
        assert (prediction.tokens, prediction.truncated) == (other.tokens, other.truncated)

    right = sum(streamed[str(number)].label.startswith(label) for number, (_, label) in enumerate(reviews))
    sampling_error = math.sqrt(REFERENCE_ACCURACY * (1 - REFERENCE_ACCURACY) / REVIEWS)
    assert right / REVIEWS == pytest.approx(REFERENCE_ACCURACY, abs=SIGMAS * sampling_error)
