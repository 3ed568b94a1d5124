"""The fault matrix in its small sizes. `make faults` runs the full ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.arena import Arena, Brokers, opened, play
from faults.cluster import cluster
from faults.matrix import ROWS, Fault
from faults.proxy import proxied_broker
from faults.table import note
from running import Broker, Stage, broker

pytestmark = pytest.mark.kafka


@pytest.fixture
def shared_broker(kafka: Broker) -> Brokers:
    """One that nothing happens to."""
    return Brokers([kafka])


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """A broker that rows stop, kill and freeze."""
    with broker(tmp_path_factory.mktemp("own")) as running:
        yield Brokers([running])


@pytest.fixture(scope="module")
def cluster_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """A cluster of three."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield Brokers(made.nodes, cluster=made)


@pytest.fixture(scope="module")
def proxy_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """A broker that workers reach through a proxy."""
    with proxied_broker(tmp_path_factory.mktemp("behind")) as (node, link):
        yield Brokers([node], link=link)


@pytest.mark.parametrize("fault", ROWS, ids=lambda fault: fault.name)
def test_each_review_has_one_answer_whatever_happens(
    fault: Fault, request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path
) -> None:
    size = fault.full if request.config.getoption("--full-faults") else fault.small
    brokers: Brokers = request.getfixturevalue(f"{fault.on}_broker")
    stage = Stage(brokers.address, size.partitions)
    stage.make_topics()
    with opened(Arena(stage, tiny_model, tmp_path, size.messages, fault.extra, brokers)) as arena:
        result = play(arena, lambda it: fault.inject(it, size), fault.drain_seconds)
    note(request, fault.name, fault.what, result)
    assert result.sound, result
    assert result.finding.inputs >= size.messages * fault.arrive, "the publisher gave up"
    assert result.finding.dead_letters == fault.dead_letters(size)
