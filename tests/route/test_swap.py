"""A newer model is loaded beside the one in use: reviews that come meanwhile wait hardly longer than usual."""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from kafka import KafkaProducer

from contract.pieces import visible, wait_for
from running import Stage, Worker
from schemas import Prediction

pytestmark = pytest.mark.kafka

PER_SECOND = 5
CHARACTERS = 200
"""Of each review: light load even where two cores have other work, so that what is measured is waiting."""

SECONDS = 10
"""Of usual traffic, before the newer version appears."""

TWICE = 2
SLACK_SECONDS = 0.15
"""What the machine's other work may add to a median."""


class Stream(Thread):
    """Publishes at a steady rate, and remembers when."""

    def __init__(self, stage: Stage, texts: list[str]) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._texts = texts
        self.over = Event()
        self.sent: dict[str, float] = {}

    def run(self) -> None:
        """Until it is over."""
        producer = KafkaProducer(bootstrap_servers=self._stage.address)
        begun = time.time()
        number = 0
        while not self.over.wait(max(0.0, begun + number / PER_SECOND - time.time())):
            value = {"review_id": str(number), "text": self._texts[number % len(self._texts)]}
            self.sent[str(number)] = time.time()
            producer.send(self._stage.input, json.dumps(value).encode())
            number += 1
        producer.close(timeout=10)


def test_reviews_do_not_wait_while_a_newer_model_is_loaded(
    stage: Stage,
    start: Callable[..., Worker],
    model: Path,
    reviews: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    parent = tmp_path / "imdb"
    shutil.copytree(model, parent)
    newer = tmp_path / "newer"
    shutil.copytree(parent / "1", newer)
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    worker = start(parent, WORKER_RELOAD__SECONDS="1")
    worker.wait_until_ready()
    stream = Stream(stage, [text[:CHARACTERS] for text, _ in reviews])
    stream.start()
    time.sleep(SECONDS)
    appeared = time.time()
    newer.rename(parent / "2")
    wait_for(lambda: "newer model taken" in worker.log.read_text(), "it is taken", 60)
    taken = time.time()
    time.sleep(2)
    stream.over.set()
    stream.join(20)
    stage.wait_until_drained(30)
    assert worker.stop() == 0
    usual, meanwhile = [], []
    for record in visible(stage, stage.output):
        prediction = Prediction.model_validate_json(record.value)
        sent = stream.sent[prediction.review_id]
        waited = record.timestamp / 1000 - sent
        if sent < appeared:
            usual.append(waited)
        elif sent < taken:
            meanwhile.append(waited)
        else:
            assert prediction.model.version == 2
    before, during = statistics.median(usual[len(usual) // 2 :]), statistics.median(meanwhile)
    print(f"median {before * 1000:.0f} ms before, {during * 1000:.0f} ms while loading ({taken - appeared:.1f} s)")
    print(f"longest {max(usual[len(usual) // 2 :]) * 1000:.0f} ms before, {max(meanwhile) * 1000:.0f} ms while loading")
    assert during < TWICE * before + SLACK_SECONDS
