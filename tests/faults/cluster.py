"""A cluster of brokers on this machine, each of which can be killed, stopped, paused and brought back.

Every node is broker and controller, so that two of three are enough to elect leaders and to take a record. Everything
is kept three times, and a record counts as written when two have it.
"""

import base64
import os
import signal
import socket
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest, MetadataRequest

from contract.pieces import wait_for
from running import HOST, Broker, free_ports

COPIES = 3
IN_SYNC = 2
HEAP = "192m"

START_SECONDS = 120
"""The nodes start at the same time and share the machine's cores."""

ANSWER_SECONDS = 2
"""A paused node accepts connections and answers nothing."""

METADATA_VERSION = 12
COORDINATOR_VERSION = 4
"""Of the requests Metadata and FindCoordinator, which kafka-python and Kafka 4 both know."""


def properties(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Broker properties as options of the broker script."""
    return tuple(option for key, value in settings.items() for option in ("--set", f"{key}={value}"))


@dataclass(frozen=True)
class Node(Broker):
    """A broker that is started with options of its own, each time."""

    options: tuple[str, ...]

    def start_again(self) -> None:
        """At first or once more: on the same port, with the same data."""
        self.command("start", "--timeout", str(START_SECONDS), *self.options)

    def stop(self) -> None:
        """In good order: what it leads goes to others first."""
        self.command("stop")

    def pause(self) -> None:
        """It keeps its connections, accepts new ones, and does nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, as if nothing had happened."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The script removes this file when it ends the broker.
        os.kill(int((self.data / "broker.pid").read_text()), number)


@dataclass(frozen=True)
class Cluster:
    """Nodes are named by their place in `nodes`; for Kafka, node 0 has the id 1."""

    nodes: tuple[Node, ...]

    @property
    def address(self) -> str:
        """All of them, for a client that must find one that lives."""
        return ",".join(node.address for node in self.nodes)

    def leader_of(self, topic: str, partition: int) -> int:
        """The node that leads a partition. After a fault it stays the old one until the cluster has noticed."""
        return int(wait_for(lambda: self._leader(topic, partition), f"{topic}-{partition} has a leader")) - 1

    def coordinator_of(self, name: str, kind: CoordinatorType = CoordinatorType.GROUP) -> int:
        """The node that coordinates a group, or with `CoordinatorType.TRANSACTION` a transactional id."""
        return int(wait_for(lambda: self._coordinator(name, kind), f"{name} has a coordinator")) - 1

    def wait_until_whole(self, seconds: float = 60) -> None:
        """Wait until every node lives, knows all others, and has every copy of what it is to have."""
        wait_for(self._is_whole, "no node is away and no copy behind", seconds)

    def _leader(self, topic: str, partition: int) -> int | None:
        """The leader's id. A node that was paused may still believe in an old one: the newest epoch counts."""
        known = [
            (state.leader_epoch, state.leader_id)
            for node in self.nodes
            for of_topic in _topics(node)
            if of_topic.name == topic
            for state in of_topic.partitions
            if state.partition_index == partition and state.leader_id >= 0
        ]
        return max(known)[1] if known else None

    def _coordinator(self, name: str, kind: CoordinatorType) -> int | None:
        for node in self.nodes:
            request = FindCoordinatorRequest(version=COORDINATOR_VERSION, key_type=kind.value, coordinator_keys=[name])
            answer = _ask(node, request)
            if answer is not None and answer.coordinators[0].error_code == 0:
                return int(answer.coordinators[0].node_id)
        return None

    def _is_whole(self) -> bool:
        for node in self.nodes:
            metadata = _metadata(node)
            if metadata is None or len(metadata.brokers) < len(self.nodes):
                return False
            for topic in metadata.topics:
                for state in topic.partitions:
                    if state.leader_id < 0 or set(state.isr_nodes) != set(state.replica_nodes):
                        return False
        return True


def _metadata(node: Node) -> Any:
    """What a node knows of the cluster; None from one that does not answer."""
    return _ask(node, MetadataRequest(version=METADATA_VERSION, topics=None, allow_auto_topic_creation=False))


def _topics(node: Node) -> list[Any]:
    metadata = _metadata(node)
    return [] if metadata is None else list(metadata.topics)


def _ask(node: Node, request: Any) -> Any:
    """The answer of this very node, or None. A client of kafka-python would ask any, and wait long for one that is
    paused."""
    request.with_header(correlation_id=1)
    host, _, port = node.address.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as link,
            link.makefile("rwb") as stream,
        ):
            stream.write(request.encode(framed=True, header=True))
            stream.flush()
            (size,) = struct.unpack(">i", stream.read(4))
            body = stream.read(size)
    except (OSError, struct.error):
        return None
    return request.header.get_response_class().decode(body, header=True)


@contextmanager
def cluster(folder: Path, nodes: int = 3) -> Iterator[Cluster]:
    """A cluster that is whole, and gone afterwards whatever happened to it."""
    ports = free_ports(2 * nodes)
    brokers, controllers = ports[:nodes], ports[nodes:]
    voters = ",".join(f"{number}@{HOST}:{port}" for number, port in enumerate(controllers, start=1))
    name = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
    copies, in_sync = min(COPIES, nodes), min(IN_SYNC, nodes)

    def node(number: int, port: int, controller: int) -> Node:
        settings = {
            "node.id": number,
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "controller.quorum.voters": voters,
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
        }
        options = ("--port", str(port), f"--cluster-id={name}", "--fast-failover", "--heap", HEAP)
        return Node(folder / f"node-{number}", f"{HOST}:{port}", (*options, *properties(settings)))

    made = Cluster(tuple(map(node, range(1, nodes + 1), brokers, controllers)))
    with ExitStack() as ending:
        for each in made.nodes:
            # Not stopped: the last ones would wait for a quorum to leave in good order.
            ending.callback(each.kill)
        with ThreadPoolExecutor(nodes) as threads:
            list(threads.map(Node.start_again, made.nodes))
        made.wait_until_whole(START_SECONDS)
        yield made
