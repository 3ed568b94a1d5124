"""A place on the user's broker: topics and a group of one measurement's own, which are gone afterwards."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from kafka import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError, KafkaError

from worker.console import err
from worker.errors import BrokerError, ReviewScorerError
from worker.settings import Settings, load_settings, variable
from worker.topics import admin, create_missing, topic_names

TERMINATED = 128 + signal.SIGTERM
GROUP_PATIENCE_SECONDS = 10.0
"""For the broker to notice that the group has no member left."""

PASSING = frozenset({"NonEmptyGroupError", "CoordinatorLoadInProgressError", "CoordinatorNotAvailableError"})
"""What it answers meanwhile; a broker that never had a group has to make its list of groups first."""


@dataclass(frozen=True)
class Place:
    """Where a measurement's records are."""

    settings: Settings
    config: Path | None
    flags: Mapping[str, Any]
    """Nested values that win over environment and file."""

    @property
    def environment(self) -> dict[str, str]:
        """The flags as variables, for a worker's process."""
        return {variable(name): str(value) for name, value in _leaves(self.flags)}

    def sizes(self, records: int) -> tuple[float, float] | None:
        """Mean bytes of a review and of a prediction in the broker's log, of one copy; None where this client may not
        ask.

        Args:
            records: how many are on the input topic, and answered.
        """
        kafka = self.settings.kafka
        try:
            with admin(kafka) as client:
                nodes = client.describe_log_dirs([kafka.input_topic, kafka.output_topic])
        except BrokerError:
            return None
        copies: dict[tuple[str, int], int] = {}
        for folder in (folder for node in nodes for folder in node["log_dirs"]):
            for topic in folder["topics"]:
                for partition in topic["partitions"]:
                    key = topic["name"], partition["partition_index"]
                    copies[key] = max(copies.get(key, 0), partition["partition_size"])
        sizes = [
            sum(size for (name, _), size in copies.items() if name == topic) / records
            for topic in (kafka.input_topic, kafka.output_topic)
        ]
        return (sizes[0], sizes[1]) if all(sizes) else None


def _leaves(flags: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in flags.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@contextmanager
def own_place(config: Path | None, flags: Mapping[str, Any], partitions: int) -> Iterator[Place]:
    """Topics and a group with a random name; removed at the end, after errors, Ctrl-C and SIGTERM too.

    Args:
        config: a TOML file of settings.
        flags: nested settings of the user's; those of the place win.
        partitions: of the topics.

    Raises:
        BrokerError: no broker answers, or it refuses to make the topics.
    """
    name = f"bench-{uuid4().hex[:8]}"
    kafka = {
        "group_id": name,
        "input_topic": f"{name}-reviews",
        "output_topic": f"{name}-predictions",
        "dead_letter_topic": f"{name}-dead-letters",
        "transactional_id": f"{name}-worker",
        # A static member would keep the group from being deleted until its session ends.
        "group_instance_id": "",
    }
    mine: dict[str, Any] = dict(flags)
    mine |= {
        "kafka": {**flags.get("kafka", {}), **kafka},
        "http": {**flags.get("http", {}), "host": "127.0.0.1", "port": 0},
        # Its log says where its HTTP server is.
        "log_level": "info",
    }
    place = Place(load_settings(config, mine), config, mine)
    before = signal.signal(signal.SIGTERM, _leave)
    begun = False
    try:
        with admin(place.settings.kafka) as client:
            begun = True
            create_missing(client, place.settings.kafka, partitions)
        yield place
    finally:
        if begun:
            _remove(place.settings)
        signal.signal(signal.SIGTERM, before)


def _leave(_: int, __: FrameType | None) -> None:
    """So that what is open is closed, which the signal by itself would not do."""
    sys.exit(TERMINATED)


def _remove(settings: Settings) -> None:
    kafka = settings.kafka
    try:
        with admin(kafka) as client:
            client.delete_topics(topic_names(kafka))
            deadline = time.monotonic() + GROUP_PATIENCE_SECONDS
            while _fault_of_deletion(client, kafka.group_id) in PASSING:
                if time.monotonic() > deadline:
                    err.print(f"the group {kafka.group_id} is left on {kafka.bootstrap_servers}")
                    break
                time.sleep(0.2)
    except (ReviewScorerError, KafkaError):
        err.print(f"the topics {', '.join(topic_names(kafka))} are left on {kafka.bootstrap_servers}")


def _fault_of_deletion(client: KafkaAdminClient, group: str) -> str | None:
    """Try to delete the group; the name of the broker's refusal. Where no group has a coordinator yet, the client does
    not return that but raises it."""
    try:
        refusal: str | None = client.delete_groups([group]).get(group)
    except CoordinatorNotAvailableError as error:
        return type(error).__name__
    return refusal
