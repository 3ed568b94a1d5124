"""A worker takes a newer model while the stream runs, and lets a second one score along."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.pieces import StubWorker, examined, review, started_stubs, visible, wait_for
from running import Stage
from schemas import Prediction
from worker.artifact import digest_file

pytestmark = pytest.mark.kafka

BuildArtifact = Callable[..., Path]


@pytest.fixture
def parent(tiny_artifact: BuildArtifact, tmp_path: Path) -> Path:
    """Version 1 stands in it."""
    return tiny_artifact(tmp_path / "models" / "tiny").parent


def events(worker: StubWorker) -> list[object]:
    return [line["event"] for line in worker.lines]


def versions(stage: Stage) -> dict[int, list[int]]:
    """Of the predictions, in the order of the log, by partition."""
    named: dict[int, list[int]] = {}
    for record in sorted(visible(stage, stage.output), key=lambda record: (record.partition, record.offset)):
        named.setdefault(record.partition, []).append(Prediction.model_validate_json(record.value).model.version)
    return named


def test_a_newer_version_is_taken_between_two_batches(
    stage: Stage, parent: Path, tiny_artifact: BuildArtifact, tmp_path: Path
) -> None:
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_RELOAD__SECONDS="0.2", WORKER_BATCH__MAX_REVIEWS="20", STUB_SECONDS="0.05")
        worker.wait_until_ready()
        stage.publish([review(number) for number in range(1_000)])
        wait_for(lambda: stage.read(stage.output), "the first are scored")
        tiny_artifact(parent, 2)
        wait_for(lambda: "newer model taken" in events(worker), "it is taken")
        stage.publish([review(number) for number in range(1_000, 1_200)])
        stage.wait_until_drained(60)
        _, metrics = worker.get("/metrics")
        assert worker.stop() == 0
    found = examined(stage)
    assert found.sound, found
    named = versions(stage)
    assert {version for partition in named.values() for version in partition} == {1, 2}
    assert all(partition == sorted(partition) for partition in named.values()), "back to the old one in between"
    assert 'version="2"' in metrics
    assert 'review_worker_model_reloads_total{outcome="taken"} 1.0' in metrics


def test_a_broken_version_is_refused_and_the_old_one_goes_on(
    stage: Stage, parent: Path, tiny_artifact: BuildArtifact, tmp_path: Path
) -> None:
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_RELOAD__SECONDS="0.2")
        worker.wait_until_ready()
        broken = tiny_artifact(tmp_path / "elsewhere", 2)
        with (broken / "model.safetensors").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xff")
        broken.rename(parent / "2")
        wait_for(lambda: "newer model refused" in events(worker), "it is refused")
        stage.publish([review(number) for number in range(100)])
        stage.wait_until_drained(60)
        status, _ = worker.get("/readyz")
        assert worker.stop() == 0
    assert status == 200
    assert all(set(partition) == {1} for partition in versions(stage).values())
    (line,) = [line for line in worker.lines if line["event"] == "newer model refused"]
    assert "model.safetensors does not match the manifest" in str(line["cause"])


def test_a_hang_up_signal_looks_at_once(
    stage: Stage, parent: Path, tiny_artifact: BuildArtifact, tmp_path: Path
) -> None:
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_RELOAD__SECONDS="0")
        worker.wait_until_ready()
        worker.signal(signal.SIGHUP)
        wait_for(lambda: "no newer model" in events(worker), "it has looked")
        tiny_artifact(parent, 2)
        worker.signal(signal.SIGHUP)
        wait_for(lambda: "newer model taken" in events(worker), "it is taken")
        assert worker.stop() == 0


def test_a_shadow_model_is_compared_and_publishes_nothing(
    stage: Stage, parent: Path, tiny_artifact: BuildArtifact, tmp_path: Path
) -> None:
    shadow = tiny_artifact(tmp_path / "shadow", 7)
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_SHADOW__MODEL=str(shadow), WORKER_SHADOW__SHARE="1")
        stage.publish([review(number) for number in range(50)])
        stage.wait_until_drained(60)
        wait_for(lambda: 'shadow_reviews_total{agreement="same"} 0.0' not in worker.get("/metrics")[1], "it compares")
        assert worker.stop() == 0
    assert examined(stage).sound
    assert all(set(partition) == {1} for partition in versions(stage).values())


def test_a_shadow_with_other_labels_is_refused_at_the_start(
    stage: Stage, parent: Path, tiny_artifact: BuildArtifact, tmp_path: Path
) -> None:
    labels = ["bad", "so-so", "good"]
    shadow = tiny_artifact(tmp_path / "shadow", labels=labels)
    config = json.loads((shadow / "config.json").read_text())
    config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    config["label2id"] = {label: number for number, label in enumerate(labels)}
    (shadow / "config.json").write_text(json.dumps(config))
    manifest = json.loads((shadow / "manifest.json").read_text())
    manifest["files"]["config.json"] = digest_file(shadow / "config.json").model_dump()
    (shadow / "manifest.json").write_text(json.dumps(manifest))
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_SHADOW__MODEL=str(shadow))
        assert worker.wait(30) == 2
    assert "its labels are bad, so-so, good" in worker.log.read_text()
    assert stage.committed() == {}


def test_a_version_that_vanishes_while_it_is_in_use_hurts_nobody(stage: Stage, parent: Path, tmp_path: Path) -> None:
    with started_stubs(stage, parent, tmp_path) as start:
        worker = start(WORKER_RELOAD__SECONDS="0.2")
        worker.wait_until_ready()
        shutil.rmtree(parent)
        stage.publish([review(number) for number in range(50)])
        stage.wait_until_drained(60)
        assert worker.stop() == 0
    assert examined(stage).sound
