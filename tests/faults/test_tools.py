"""The tools of the fault tests do to real brokers what they say: a fault that is none would prove everything."""

import gc
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError
from kafka.protocol.metadata import CoordinatorType

from contract.pieces import in_time, visible, wait_for
from faults.cluster import Cluster, Node, cluster
from faults.proxy import Api, Cut, DropReply, HoldRequest, Proxy, proxied_broker
from running import Stage
from worker.connection import client_options, discard
from worker.settings import KafkaSettings

# kafka-python leaves the sockets of connections that were refused to the garbage collector.
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")]


@pytest.fixture(scope="module", autouse=True)
def _collected_here() -> Iterator[None]:
    """What it leaves is collected before some other module's test, where the warning is an error."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Proxy]]:
    """A broker and the proxy in front of it. It has seen a transaction: the first one takes seconds."""
    with proxied_broker(tmp_path_factory.mktemp("proxied") / "broker") as (node, link):
        with producer_at(node.address, "the first") as producer:
            in_time(producer.commit_transaction)
        yield node, link


@pytest.fixture
def link(proxied: tuple[Node, Proxy]) -> Iterator[Proxy]:
    """Whole, before and after."""
    _, link = proxied
    yield link
    link.heal()


@pytest.fixture
def beside(proxied: tuple[Node, Proxy]) -> Stage:
    """Fresh topics with one partition, by the address that does not lead through the proxy."""
    node, _ = proxied
    made = Stage(node.address, partitions=1)
    made.make_topics()
    return made


@contextmanager
def producer_at(address: str, name: str, patience: float = 10) -> Iterator[KafkaProducer]:
    """A producer as the worker's, in a transaction; it waits `patience` seconds for an answer."""
    producer = KafkaProducer(
        **client_options(KafkaSettings(bootstrap_servers=address, request_timeout_seconds=patience)),
        transactional_id=name,
        transaction_timeout_ms=60_000,
        delivery_timeout_ms=60_000,
        retry_backoff_ms=20,
        acks="all",
    )
    try:
        in_time(producer.init_transactions, 30)
        producer.begin_transaction()
        yield producer
    finally:
        discard(producer)


def outputs(stage: Stage) -> list[bytes]:
    """What is committed, once no transaction is open."""
    return [record.value for record in visible(stage, stage.output)]


# === The proxy: single requests ===


def test_a_commit_whose_reply_is_dropped_has_landed_though_the_client_did_not_hear_of_it(
    link: Proxy, beside: Stage
) -> None:
    with producer_at(link.address, beside.name, patience=2) as producer:
        producer.send(beside.output, b"landed").get(10)
        dropped = link.on(Api.END_TXN, DropReply())
        with pytest.raises(KafkaError):
            in_time(producer.commit_transaction)
        dropped.wait_until_done()
    assert outputs(beside) == [b"landed"]


def test_a_dropped_reply_can_take_the_connection_along(link: Proxy, beside: Stage) -> None:
    """The client need not wait then: it asks again on another connection."""
    with producer_at(link.address, beside.name, patience=30) as producer:
        producer.send(beside.output, b"landed").get(10)
        dropped = link.on(Api.END_TXN, DropReply(close_after=1))
        began = time.monotonic()
        in_time(producer.commit_transaction)
        assert time.monotonic() - began > 1
        dropped.wait_until_done(0)
    assert outputs(beside) == [b"landed"]


def test_a_held_request_is_late_and_other_connections_are_not(link: Proxy, beside: Stage) -> None:
    with (
        producer_at(link.address, f"{beside.name}-late") as late,
        producer_at(link.address, f"{beside.name}-free") as free,
        ThreadPoolExecutor(1) as thread,
    ):
        late.send(beside.output, b"late").get(10)
        free.send(beside.output, b"free").get(10)
        held = link.on(Api.END_TXN, HoldRequest(4))
        began = time.monotonic()
        commit = thread.submit(in_time, late.commit_transaction)
        held.wait_until_met()
        in_time(free.commit_transaction, 3)
        assert not commit.done()
        commit.result(10)
        assert time.monotonic() - began > 4
    assert outputs(beside) == [b"late", b"free"]


def test_a_held_request_arrives_after_its_client_has_given_up(link: Proxy, beside: Stage) -> None:
    with producer_at(link.address, beside.name, patience=2) as producer:
        producer.send(beside.output, b"late").get(10)
        held = link.on(Api.END_TXN, HoldRequest(5))
        with pytest.raises(KafkaError):
            in_time(producer.commit_transaction)
        assert beside.read(beside.output) == []
    held.wait_until_done()
    assert outputs(beside) == [b"late"]


def test_a_commit_that_is_held_can_arrive_in_the_next_transaction(link: Proxy, beside: Stage) -> None:
    """B7, and a flaw of the protocol: the broker takes the late one for the end of what has begun since. Only another
    epoch, which a new producer has, would show it."""
    with producer_at(link.address, beside.name) as producer:
        producer.send(beside.output, b"first").get(10)
        held = link.on(Api.END_TXN, HoldRequest(3, hang_up=True))
        in_time(producer.commit_transaction)  # asked again on another connection
        producer.begin_transaction()
        producer.send(beside.output, b"second").get(10)
        assert [record.value for record in beside.read(beside.output)] == [b"first"]
        held.wait_until_done()
        assert outputs(beside) == [b"first", b"second"], "nobody has committed the second"


def test_the_next_so_many_requests_are_cut_and_never_arrive(link: Proxy, beside: Stage) -> None:
    producer = KafkaProducer(
        **client_options(KafkaSettings(bootstrap_servers=link.address)), retries=0, enable_idempotence=False
    )
    with closing(producer):
        producer.send(beside.output, b"before").get(10)
        cut = link.on(Api.PRODUCE, Cut(), times=2)
        for value in (b"lost", b"lost as well"):
            with pytest.raises(KafkaError):
                producer.send(beside.output, value).get(10)
        cut.wait_until_done(0)
        producer.send(beside.output, b"after").get(10)
    assert outputs(beside) == [b"before", b"after"]


def test_waiting_for_a_fault_that_did_not_happen_fails(link: Proxy) -> None:
    rule = link.on(Api.END_TXN, Cut())
    with pytest.raises(AssertionError, match="1 more END_TXN did not come"):
        rule.wait_until_met(0.1)
    with pytest.raises(AssertionError, match="1 more END_TXN were not done"):
        rule.wait_until_done(0.1)


# === The proxy: the whole link ===


@pytest.mark.parametrize(
    ("to_broker", "to_client", "lands"), [(True, True, False), (True, False, False), (False, True, True)]
)
def test_a_stalled_link_delays_and_loses_nothing(
    link: Proxy, beside: Stage, to_broker: bool, to_client: bool, lands: bool
) -> None:
    with producer_at(link.address, beside.name) as producer:
        producer.send(beside.output, b"before").get(10)
        link.stall(to_broker=to_broker, to_client=to_client)
        late = producer.send(beside.output, b"late")
        time.sleep(1)
        assert not late.is_done
        assert beside.ends(beside.output, "read_uncommitted") == {0: 2 if lands else 1}
        link.heal()
        late.get(10)
        in_time(producer.commit_transaction)
    assert outputs(beside) == [b"before", b"late"]


def test_a_cut_link_refuses_everybody_until_it_is_healed(link: Proxy, beside: Stage) -> None:
    host, _, port = link.address.rpartition(":")
    with producer_at(link.address, beside.name) as producer:
        producer.send(beside.output, b"before").get(10)
        link.cut()
        late = producer.send(beside.output, b"late")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        beside.publish([b"past the proxy"])
        assert not late.is_done
        link.heal()
        late.get(10)
        in_time(producer.commit_transaction)
    assert outputs(beside) == [b"before", b"late"]


def test_a_broker_behind_a_proxy_can_be_killed_and_comes_back_behind_it(
    proxied: tuple[Node, Proxy], link: Proxy, beside: Stage
) -> None:
    node, _ = proxied
    with producer_at(link.address, beside.name) as producer:
        producer.send(beside.output, b"before").get(10)
        node.kill()
        node.start_again()
        committed = link.on(Api.END_TXN, DropReply(close_after=0))
        producer.send(beside.output, b"after").get(30)
        in_time(producer.commit_transaction)
        committed.wait_until_done(0)
    assert outputs(beside) == [b"before", b"after"]


# === The cluster ===


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers; whoever takes one away brings it back."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def spread(three: Cluster) -> Stage:
    """Fresh topics with three partitions."""
    made = Stage(three.address, partitions=3)
    made.make_topics()
    return made


def test_everything_is_kept_three_times_and_is_written_when_two_have_it(three: Cluster, spread: Stage) -> None:
    spread.publish([b"a", b"b", b"c"])
    with closing(KafkaAdminClient(bootstrap_servers=three.address)) as admin:
        described = {topic["name"]: topic for topic in admin.describe_topics()}
        asked = [ConfigResource(ConfigResourceType.TOPIC, spread.input)]
        settings = admin.describe_configs(asked, config_filter="all")["topic"][spread.input]
    assert {len(partition["replica_nodes"]) for partition in described[spread.input]["partitions"]} == {3}
    assert {three.leader_of(spread.input, number) for number in range(3)} == {0, 1, 2}
    assert settings["min.insync.replicas"]["value"] == "2"


def test_what_a_killed_node_led_goes_to_another_and_the_cluster_heals(three: Cluster, spread: Stage) -> None:
    lost = three.leader_of(spread.input, 0)
    spread.publish([b"before"] * 3)
    three.nodes[lost].kill()
    try:
        wait_for(lambda: three.leader_of(spread.input, 0) != lost, "another node leads")
        spread.publish([b"meanwhile"] * 3)
        with pytest.raises(AssertionError, match="no node is away"):
            three.wait_until_whole(0)
    finally:
        three.nodes[lost].start_again()
    three.wait_until_whole()
    assert sorted(record.value for record in spread.read(spread.input)) == [b"before"] * 3 + [b"meanwhile"] * 3


def test_a_transaction_outlives_its_coordinator(three: Cluster, spread: Stage) -> None:
    with producer_at(three.address, spread.name) as producer:
        producer.send(spread.output, b"survives").get(20)
        lost = three.coordinator_of(spread.name, CoordinatorType.TRANSACTION)
        three.nodes[lost].kill()
        try:
            in_time(producer.commit_transaction, 40)
            assert three.coordinator_of(spread.name, CoordinatorType.TRANSACTION) != lost
        finally:
            three.nodes[lost].start_again()
    three.wait_until_whole()
    assert outputs(spread) == [b"survives"]


def test_a_stopped_node_hands_over_what_it_leads_before_it_goes(three: Cluster, spread: Stage) -> None:
    leaving = three.leader_of(spread.input, 0)
    three.nodes[leaving].stop()
    try:
        assert three.leader_of(spread.input, 0) != leaving
    finally:
        three.nodes[leaving].start_again()
    three.wait_until_whole()


def test_a_paused_node_is_replaced_and_goes_on_when_it_is_resumed(three: Cluster, spread: Stage) -> None:
    still = three.coordinator_of(spread.name)
    three.nodes[still].pause()
    try:
        wait_for(lambda: three.coordinator_of(spread.name) != still, "another node coordinates the group")
    finally:
        three.nodes[still].resume()
    three.wait_until_whole()
    assert spread.committed() == {}


def test_a_cluster_is_gone_after_a_test_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        made.nodes[0].pause()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), cluster(tmp_path, nodes=1) as made:
        fail()
    host, _, port = made.address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
