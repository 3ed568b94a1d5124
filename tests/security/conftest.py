"""What the security tests share: one broker for all of them, and workers that are gone afterwards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.pieces import StubWorker, started_stubs
from running import Stage
from security.pieces import Secured, documented_rights, given, secured_broker


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The broker that trusts nobody."""
    with secured_broker(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture
def closed(secured: Secured) -> Stage:
    """Fresh topics with two partitions and a fresh group, on which no user has a right."""
    made = Stage(secured.address, partitions=2)
    made.make_topics()
    return made


@pytest.fixture
def entitled(secured: Secured, closed: Stage) -> Iterator[Stage]:
    """The same, and the documentation's rights of the worker on it."""
    with given(secured, closed, documented_rights("worker")):
        yield closed


@pytest.fixture
def start_stub(closed: Stage, tiny_model: Path, tmp_path: Path) -> Iterator[Callable[..., StubWorker]]:
    """Start workers without TensorFlow, `start("name", WORKER_…=…)`."""
    with started_stubs(closed, tiny_model, tmp_path) as start:
        yield start
