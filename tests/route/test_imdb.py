"""The whole route on real input: reference model, real reviews, real broker, and the same labels as from a file."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.oracle import examine
from route.commands import command
from running import Stage, Worker
from schemas import Prediction

pytestmark = pytest.mark.kafka

REFERENCE_ACCURACY = 0.934
"""Of the reference model on the 5,000 test reviews, from its README."""
SIGMAS = 3
AGREEMENT = 0.02
"""Largest difference of a probability between the two ways. Both compute in the same precision, but bfloat16 rounds
differently in other company: batches are made by what arrives."""


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
    assert (found.inputs, found.predictions, found.dead_letters) == (len(reviews), len(reviews), 0)

    streamed = {p.review_id: p for p in (Prediction.model_validate_json(r.value) for r in stage.read(stage.output))}
    printed = command("worker", "score", str(file), "-", "--model", str(model)).splitlines()
    filed = {p.review_id: p for p in map(Prediction.model_validate_json, printed)}
    assert streamed.keys() == filed.keys() == {str(number) for number in range(len(reviews))}
    for review_id, prediction in streamed.items():
        other = filed[review_id]
        assert prediction.label == other.label
        assert prediction.confidence == pytest.approx(other.confidence, abs=AGREEMENT)
        assert prediction.model == other.model
        assert (prediction.tokens, prediction.truncated) == (other.tokens, other.truncated)

    right = sum(streamed[str(number)].label.startswith(label) for number, (_, label) in enumerate(reviews))
    sampling_error = math.sqrt(REFERENCE_ACCURACY * (1 - REFERENCE_ACCURACY) / len(reviews))
    assert right / len(reviews) == pytest.approx(REFERENCE_ACCURACY, abs=SIGMAS * sampling_error)
