"""Models: a newer version is taken once it is whole and warm, and a broken one leaves the old one in use."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from fake_engine import FakeEngine
from worker.artifact import Artifact, digest_file, open_artifact
from worker.metrics import Metrics
from worker.models import Models
from worker.scorer import Scorer

BuildArtifact = Callable[..., Path]
Watch = Callable[..., Models]
QUICK = 0.01


@pytest.fixture
def parent(tiny_artifact: BuildArtifact, tmp_path: Path) -> Path:
    """Version 1 stands in it."""
    return tiny_artifact(tmp_path / "tiny").parent


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watch(parent: Path, metrics: Metrics) -> Iterator[Watch]:
    """Begin with version 1 and watch: `watch(seconds=…, load=…, folder=…)`."""
    with ExitStack() as stack:

        def begin(
            seconds: float = QUICK,
            load: Callable[[Artifact], Scorer] = lambda it: Scorer(it, FakeEngine()),
            folder: Path | None = parent,
        ) -> Models:
            first = Scorer(open_artifact(parent / "1"), FakeEngine())
            return stack.enter_context(Models(first, folder, load, seconds, metrics))

        yield begin


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sample(metrics: Metrics, line: str) -> bool:
    return line in generate_latest(metrics.registry).decode()


def refused(metrics: Metrics, times: int) -> bool:
    return sample(metrics, f'review_worker_model_reloads_total{{outcome="refused"}} {times}.0')


def test_a_newer_version_waits_until_it_is_taken(
    watch: Watch, tiny_artifact: BuildArtifact, parent: Path, metrics: Metrics
) -> None:
    models = watch()
    old = models.current
    tiny_artifact(parent, 2)
    until(lambda: models.waiting)
    assert models.current is old
    assert sample(metrics, 'version="1"')

    models.take()

    assert models.current.artifact.manifest.version == 2
    assert not models.waiting
    assert sample(metrics, 'version="2"')
    assert sample(metrics, 'review_worker_model_reloads_total{outcome="taken"} 1.0')
    until(lambda: old.engine.closed)  # type: ignore[attr-defined]


def test_taking_without_a_newer_one_changes_nothing(watch: Watch, metrics: Metrics) -> None:
    models = watch()
    before = models.current
    models.take()
    assert models.current is before
    assert not before.engine.closed  # type: ignore[attr-defined]
    assert sample(metrics, 'review_worker_model_reloads_total{outcome="taken"} 0.0')


def test_the_newest_of_several_is_taken_and_older_ones_never(
    watch: Watch, tiny_artifact: BuildArtifact, parent: Path
) -> None:
    tiny_artifact(parent, 2)
    tiny_artifact(parent, 10)
    models = watch()
    until(lambda: models.waiting)
    models.take()
    assert models.current.artifact.manifest.version == 10
    time.sleep(1.5)
    assert not models.waiting


def test_a_broken_version_is_refused_once_and_tried_again_when_it_changed(
    watch: Watch, tiny_artifact: BuildArtifact, parent: Path, metrics: Metrics
) -> None:
    models = watch()
    whole = (tiny_artifact(parent, 2) / "config.json").read_bytes()
    (parent / "2" / "config.json").write_bytes(b"{}")
    until(lambda: refused(metrics, 1))
    time.sleep(1.5)
    assert refused(metrics, 1)
    assert not models.waiting

    (parent / "2" / "config.json").write_bytes(whole)

    until(lambda: models.waiting)


def test_a_version_that_cannot_be_loaded_is_refused(
    watch: Watch, tiny_artifact: BuildArtifact, parent: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def load(_: Artifact) -> Scorer:
        raise RuntimeError("a text that nobody should read")

    models = watch(load=load)
    tiny_artifact(parent, 2)
    until(lambda: refused(metrics, 1))
    assert not models.waiting
    assert models.current.artifact.manifest.version == 1
    assert not models.current.engine.closed  # type: ignore[attr-defined]
    until(lambda: "RuntimeError" in [getattr(record, "cause", None) for record in caplog.records])


def test_other_labels_are_refused(watch: Watch, tiny_artifact: BuildArtifact, parent: Path, metrics: Metrics) -> None:
    """Whole in itself, but its readers know of no such labels."""
    models = watch()
    folder = tiny_artifact(parent.parent / "elsewhere", 2, labels=["bad", "so-so", "good"])
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "bad", "1": "so-so", "2": "good"}, "label2id": {"bad": 0, "so-so": 1, "good": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = digest_file(folder / "config.json").model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert list(open_artifact(folder).manifest.labels) == ["bad", "so-so", "good"]

    folder.rename(parent / "2")

    until(lambda: refused(metrics, 1))
    assert not models.waiting


def test_a_folder_that_is_still_being_written_is_left_alone(
    watch: Watch, tiny_artifact: BuildArtifact, parent: Path, metrics: Metrics
) -> None:
    models = watch()
    whole = tiny_artifact(parent.parent / "elsewhere", 2)
    target = parent / "2"
    target.mkdir()
    for number in range(20):
        (target / "model.safetensors").write_bytes(b"\0" * number)
        time.sleep(0.1)
    assert refused(metrics, 0)
    shutil.copytree(whole, target, dirs_exist_ok=True)
    until(lambda: models.waiting)
    assert refused(metrics, 0)


def test_nothing_is_looked_for_unless_asked_when_the_interval_is_0(
    watch: Watch, tiny_artifact: BuildArtifact, parent: Path
) -> None:
    models = watch(seconds=0)
    tiny_artifact(parent, 2)
    time.sleep(1.5)
    assert not models.waiting

    models.ask()

    until(lambda: models.waiting)


def test_one_version_that_is_named_itself_stays(watch: Watch, tiny_artifact: BuildArtifact, parent: Path) -> None:
    models = watch(folder=None)
    tiny_artifact(parent, 2)
    models.ask()
    time.sleep(1.5)
    assert not models.waiting


def test_a_folder_that_goes_away_hurts_nobody(watch: Watch, parent: Path, tiny_artifact: BuildArtifact) -> None:
    models = watch()
    parent.rename(parent.with_name("gone"))
    time.sleep(1)
    parent.with_name("gone").rename(parent)
    tiny_artifact(parent, 2)
    until(lambda: models.waiting)


def test_both_models_are_freed_at_the_end(parent: Path, tiny_artifact: BuildArtifact, metrics: Metrics) -> None:
    engines: list[FakeEngine] = []

    def load(artifact: Artifact) -> Scorer:
        engines.append(FakeEngine())
        return Scorer(artifact, engines[-1])

    tiny_artifact(parent, 2)
    with Models(load(open_artifact(parent / "1")), parent, load, QUICK, metrics) as models:
        until(lambda: models.waiting)
    assert [engine.closed for engine in engines] == [True, True]
