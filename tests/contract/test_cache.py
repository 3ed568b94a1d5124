"""A worker that answers texts that come again from memory, through a real broker."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.pieces import StubWorker, examined, started_stubs, visible, wait_for
from running import Stage

pytestmark = pytest.mark.kafka

TEXTS = ["the movie was great", "a bad film", "<br>the plot", "good"]


def review(number: int) -> bytes:
    return json.dumps({"review_id": f"r{number}", "text": TEXTS[number % len(TEXTS)]}).encode()


def recalled(worker: StubWorker) -> dict[str, float]:
    """Hits and misses."""
    _, text = worker.get("/metrics")
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "review_worker_cache_reviews_total"
    }


def test_repeated_texts_are_answered_once_each_and_anew_by_a_newer_model(
    stage: Stage, tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    parent = tiny_artifact(tmp_path / "models" / "tiny").parent
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_CACHE__REVIEWS="100", WORKER_RELOAD__SECONDS="0.2")
        worker.wait_until_ready()
        stage.publish([review(number) for number in range(4)])
        stage.wait_until_drained(60)
        stage.publish([review(number) for number in range(4, 40)])
        stage.wait_until_drained(60)
        first = wait_for(lambda: (it := recalled(worker))["hit"] + it["miss"] == 40 and it, "all are counted")
        tiny_artifact(parent, 2)
        wait_for(lambda: any(line["event"] == "newer model taken" for line in worker.lines), "it is taken")
        stage.publish([review(number) for number in range(40, 44)])
        stage.wait_until_drained(60)
        second = wait_for(lambda: (it := recalled(worker))["hit"] + it["miss"] == 44 and it, "all are counted")
        assert worker.stop() == 0
    found = examined(stage)
    assert found.sound, found
    assert found.predictions == 44
    assert first["hit"] == 36
    assert second["miss"] >= first["miss"] + 1
    said: dict[tuple[str, int], set[str]] = {}
    for record in visible(stage, stage.output):
        value = json.loads(record.value)
        text = TEXTS[int(value["review_id"][1:]) % len(TEXTS)]
        kept = {name: value[name] for name in ("label", "confidence", "probabilities", "tokens", "truncated")}
        said.setdefault((text, value["model"]["version"]), set()).add(json.dumps(kept))
    assert set(said) == {(text, version) for text in TEXTS for version in (1, 2)}
    assert all(len(of_one) == 1 for of_one in said.values()), said
