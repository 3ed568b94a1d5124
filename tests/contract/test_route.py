"""The whole route through a real broker: each input exactly one output, in order, and what the worker tells of it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.oracle import examine
from running import Stage, Worker
from schemas import Prediction

pytestmark = pytest.mark.kafka

StartWorker = Callable[..., Worker]
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def review(number: int, text: str = "the movie was great") -> bytes:
    return json.dumps({"review_id": f"r{number}", "text": text}).encode()


def test_every_input_has_one_output_in_order(stage: Stage, start: StartWorker, tiny_model: Path) -> None:
    keys = [None if number % 5 == 0 else f"k{number % 7}".encode() for number in range(600)]
    stage.publish([review(number) for number in range(600)], keys)
    worker = start(tiny_model)
    stage.wait_until_drained(60)
    assert worker.stop() == 0
    found = examine(stage)
    assert found.sound, found
    assert (found.inputs, found.predictions, found.dead_letters) == (600, 600, 0)


def test_a_prediction_is_a_cloud_event_that_names_its_input(stage: Stage, start: StartWorker, tiny_model: Path) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=stage.address)
    headers = [("traceparent", TRACE), ("secret", b"stays behind"), ("nothing", b"")]
    producer.send(stage.input, key=b"k", value=review(1), headers=headers, partition=1).get(timeout=30)
    producer.close(timeout=10)
    start(tiny_model)
    stage.wait_until_drained(60)
    (record,) = stage.read(stage.output)
    prediction = Prediction.model_validate_json(record.value)
    assert record.key == b"k"
    assert prediction.review_id == "r1"
    assert (prediction.source.topic, prediction.source.partition, prediction.source.offset) == (stage.input, 1, 0)
    assert prediction.model.name == "tiny"
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.confidence == prediction.probabilities[prediction.label]
    found = dict(record.headers)
    assert found["ce_id"] == f"{stage.input}/1/0".encode()
    assert found["ce_specversion"] == b"1.0"
    assert found["ce_type"] == b"review.scored.v1"
    assert found["content-type"] == b"application/json"
    assert found["traceparent"] == TRACE
    assert "secret" not in found


def test_aborted_and_open_transactions_of_publishers_are_never_scored(
    stage: Stage, start: StartWorker, tiny_model: Path
) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=stage.address, transactional_id=f"{stage.name}-publisher")
    producer.init_transactions()
    for number in range(30):
        producer.begin_transaction()
        producer.send(stage.input, key=b"k", value=review(number)).get(timeout=30)
        if number % 3:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close(timeout=10)
    start(tiny_model)
    # The markers take offsets too: drained means that the group's offsets stand behind the last of them.
    stage.wait_until_drained(60)
    scored = [Prediction.model_validate_json(record.value).review_id for record in stage.read(stage.output)]
    assert scored == [f"r{number}" for number in range(30) if number % 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_the_batch_in_hand_committed(
    stage: Stage, start: StartWorker, tiny_model: Path, number: signal.Signals
) -> None:
    worker = start(tiny_model)
    worker.wait_until_ready()
    stage.publish([review(count) for count in range(3_000)])
    worker.signal(number)
    assert worker.wait(30) == 0
    assert [line["event"] for line in worker.lines][-1] == "stopped"
    second = start(tiny_model, "second")
    stage.wait_until_drained(60)
    assert second.stop() == 0
    found = examine(stage)
    assert found.sound, found
    assert found.predictions == 3_000


def test_probes_and_metrics_tell_the_state(stage: Stage, start: StartWorker, tiny_model: Path) -> None:
    worker = start(tiny_model)
    worker.wait_until_ready()
    assert worker.get("/livez")[0] == 200
    assert worker.get("/anything")[0] == 404
    stage.publish([review(number) for number in range(50)])
    stage.wait_until_drained(30)
    status, metrics = worker.get("/metrics")
    assert status == 200
    assert "review_worker_ready 1.0" in metrics
    assert "review_worker_reviews_consumed_total 50.0" in metrics
    assert "review_worker_model_info{" in metrics
    assert worker.stop() == 0


def test_no_review_text_is_logged(stage: Stage, start: StartWorker, tiny_model: Path) -> None:
    stage.publish(
        [review(1, "xyzzy plugh"), b'{"review_id": "xyzzy", "text": 5}', b"xyzzy"], [b"plugh", b"plugh", None]
    )
    worker = start(tiny_model, WORKER_LOG_LEVEL="debug")
    stage.wait_until_drained(60)
    _, metrics = worker.get("/metrics")
    assert worker.stop() == 0
    seen = worker.log.read_text() + metrics
    assert "xyzzy" not in seen
    assert "plugh" not in seen
