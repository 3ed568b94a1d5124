"""The topics, and `check`: what is missing or forbidden is named with what to do about it, and nothing is changed."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACLOperation, ResourceType

from contract.pieces import denied, settings_of
from running import Stage
from worker.check import Finding, check
from worker.errors import BrokerError
from worker.settings import Settings
from worker.topics import admin, create_missing, describe, max_message_bytes, require_topics, topic_names

pytestmark = pytest.mark.kafka


def without_topics(stage: Stage) -> Stage:
    """A stage on the same broker whose topics were not made."""
    return Stage(stage.address, stage.partitions)


def finding(name: str, settings: Settings, create_topics: int | None = None) -> Finding:
    """What `check` finds of one thing. Without a model it loads no TensorFlow, and goes on all the same."""
    (found,) = [it for it in check(settings, create_topics) if it.name == name]
    return found


def test_topics_are_described_in_the_order_of_their_names(stage: Stage) -> None:
    with admin(settings_of(stage).kafka) as client:
        found = describe(client, [stage.dead, "no-such-topic", stage.input])
    assert [(topic.name, topic.partitions) for topic in found] == [
        (stage.dead, 1),
        ("no-such-topic", 0),
        (stage.input, 2),
    ]
    assert {"READ", "WRITE"} <= found[2].rights


def test_a_missing_topic_is_named_with_the_way_to_make_it(stage: Stage) -> None:
    settings = settings_of(stage, output_topic="no-such-topic")
    with pytest.raises(BrokerError, match=r"topic no-such-topic does not exist; .*check --create-topics"):
        require_topics(settings.kafka)


def test_missing_topics_are_made_and_the_others_left_alone(stage: Stage) -> None:
    new = without_topics(stage)
    settings = settings_of(new, input_topic=stage.input)
    with admin(settings.kafka) as client:
        assert create_missing(client, settings.kafka, 3) == [new.output, new.dead]
        assert create_missing(client, settings.kafka, 5) == []
        assert [topic.partitions for topic in describe(client, topic_names(settings.kafka))] == [2, 3, 3]
        # Every message that fits into the input can become a dead letter.
        assert max_message_bytes(client, new.dead) > max_message_bytes(client, stage.input)
    require_topics(settings.kafka)


def test_check_finds_all_in_order_and_changes_nothing(stage: Stage) -> None:
    settings = settings_of(stage)
    found = {it.name: it for it in check(settings)}
    assert {name for name, it in found.items() if not it.ok} == {"model"}
    assert found["topics"].detail == f"{stage.input} (2), {stage.output} (2), {stage.dead} (1) partitions"
    assert stage.address in found["broker"].detail
    client = KafkaAdminClient(bootstrap_servers=stage.address)
    try:
        assert client.describe_groups([stage.name])[stage.name]["group_state"] == "Dead"
    finally:
        client.close()


def test_check_says_how_to_name_a_model(stage: Stage) -> None:
    found = finding("model", settings_of(stage))
    assert not found.ok
    assert "WORKER_MODEL or --model" in found.detail


def test_check_finds_an_altered_model(stage: Stage, tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_artifact(tmp_path / "models")
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    settings = settings_of(stage).model_copy(update={"model": folder.parent})
    found = {it.name: it for it in check(settings)}
    assert "tokenizer.json does not match the manifest" in found["model"].detail
    assert "engine" not in found, "an altered model was loaded"


def test_check_finds_a_port_that_is_taken(stage: Stage) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = settings_of(stage)
        found = finding("http", settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})}))
    assert not found.ok
    assert f"127.0.0.1:{port}: Address already in use" in found.detail
    assert "WORKER_HTTP__PORT" in found.detail


def test_check_finds_a_missing_topic_and_makes_it_when_asked(stage: Stage) -> None:
    new = without_topics(stage)
    settings = settings_of(new)
    found = finding("topics", settings)
    assert not found.ok
    assert f"topic {new.input} does not exist" in found.detail
    assert finding("topics", settings, create_topics=4).detail == (
        f"{new.input} (4), {new.output} (4), {new.dead} (4) partitions; made {new.input}, {new.output}, {new.dead}"
    )
    assert finding("topics", settings).ok


def test_check_finds_dead_letters_that_would_be_too_large(stage: Stage) -> None:
    new = without_topics(stage)
    client = KafkaAdminClient(bootstrap_servers=stage.address)
    try:
        plain = {name: {"num_partitions": 1} for name in (new.input, new.output, new.dead)}
        client.create_topics(plain, wait_for_metadata=True)
    finally:
        client.close()
    found = finding("topics", settings_of(new))
    assert not found.ok
    assert "could not become a dead letter" in found.detail
    assert "set its max.message.bytes to 2097176" in found.detail


RIGHTS = {
    "read the input": (ResourceType.TOPIC, "-in", ACLOperation.READ, "may not READ topic {}-in"),
    "write the output": (ResourceType.TOPIC, "-out", ACLOperation.WRITE, "may not WRITE topic {}-out"),
    "write dead letters": (ResourceType.TOPIC, "-dead", ACLOperation.WRITE, "may not WRITE topic {}-dead"),
    "read the group": (ResourceType.GROUP, "", ACLOperation.DESCRIBE, "may not READ group {}"),
    "use the id": (ResourceType.TRANSACTIONAL_ID, "-tx", ACLOperation.DESCRIBE, "may not WRITE transactional id {}-tx"),
}


@pytest.mark.parametrize("right", RIGHTS)
def test_check_names_a_right_that_is_missing(fragile: Stage, right: str) -> None:
    kind, suffix, operation, expected = RIGHTS[right]
    settings = settings_of(fragile)
    assert finding("rights", settings).ok
    with denied(fragile, kind, fragile.name + suffix, operation):
        found = finding("rights", settings)
    assert not found.ok
    assert f"{expected.format(fragile.name)}; add an ACL for it" in found.detail


def test_a_topic_that_may_not_be_seen_is_not_taken_for_missing(fragile: Stage) -> None:
    """Making it, as the line for a missing one says, would be in vain."""
    settings = settings_of(fragile)
    expected = f"this client may not DESCRIBE topic {fragile.input}; add an ACL for it"
    with denied(fragile, ResourceType.TOPIC, fragile.input, ACLOperation.DESCRIBE):
        assert finding("topics", settings, create_topics=2).detail == expected
        with pytest.raises(BrokerError, match=expected):
            require_topics(settings.kafka)
