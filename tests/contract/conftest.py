"""What the contract's tests share beside `live`: a broker that they may pause and kill."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.pieces import GUARDED, StubWorker, started_stubs
from running import Broker, Stage, broker


@pytest.fixture(scope="session")
def fragile_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that tests pause and kill, and on which they deny rights. Whoever does brings it back."""
    with broker(tmp_path_factory.mktemp("fragile"), *GUARDED) as running:
        yield running


@pytest.fixture
def fragile(fragile_broker: Broker) -> Stage:
    """Fresh topics with two partitions and a fresh group on a broker that may be paused and killed."""
    made = Stage(fragile_broker.address, partitions=2)
    made.make_topics()
    return made


@pytest.fixture
def start_stub(stage: Stage, tiny_model: Path, tmp_path: Path) -> Iterator[Callable[..., StubWorker]]:
    """Start workers without TensorFlow on the stage."""
    with started_stubs(stage, tiny_model, tmp_path) as start:
        yield start
