"""Fixtures of the tests that run against a real broker: one broker for the whole run, topics of each test's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from running import Broker, Stage, Worker, broker, worker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker that tests share; one that a test kills is its own."""
    with broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_model(tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent folder of an artefact that scores in no time."""
    return tiny_artifact(tmp_path_factory.mktemp("models") / "tiny").parent


@pytest.fixture
def stage(kafka: Broker) -> Stage:
    """Fresh topics with two partitions and a fresh group."""
    made = Stage(kafka.address, partitions=2)
    made.make_topics()
    return made


@pytest.fixture
def start(stage: Stage, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker on the stage: `start(model, WORKER_…=…)`. All are gone afterwards."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def started(model: Path, name: str = "worker", **extra: str) -> Worker:
            return stack.enter_context(worker(stage, model, tmp_path / f"{name}.log", **extra))

        yield started
