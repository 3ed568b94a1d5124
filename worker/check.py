"""Check: everything the worker needs, tried one after the other, each with a line of its own. It changes nothing."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.artifact import Artifact
from worker.engine import open_engine
from worker.errors import BrokerError, ReviewScorerError
from worker.scorer import Scorer
from worker.service import open_model
from worker.settings import KafkaSettings, Settings
from worker.topics import (
    DEAD_LETTER_ROOM,
    admin,
    create_missing,
    describe,
    forbidden,
    group_rights,
    max_message_bytes,
    refuse_absent,
    topic_names,
    transaction_rights,
)

SAMPLE = "It starts slowly, and then it is wonderful."


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str
    """What was found; for a failure, what is wrong and what to do."""


def check(settings: Settings, create_topics: int | None = None) -> Iterator[Finding]:
    """Try model, engine, broker, topics, rights and port.

    Args:
        settings: which already hold together.
        create_topics: make missing topics with so many partitions.
    """
    artifact: list[Artifact] = []

    def model() -> str:
        artifact.append(open_model(settings))
        name = artifact[0].name
        return f"{name.name} version {name.version}, {len(artifact[0].manifest.files)} files match their hashes"

    yield _try("model", model)
    if artifact:
        yield _try("engine", lambda: _score_once(artifact[0], settings))
    yield _try("http", lambda: _bind(settings.http.host, settings.http.port))
    broker = _try("broker", lambda: _reach(settings.kafka))
    yield broker
    if broker.ok:
        yield _try("topics", lambda: _topics(settings.kafka, create_topics))
        yield _try("rights", lambda: _rights(settings))


def _try(name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, attempt())
    except ReviewScorerError as error:
        return Finding(name, False, str(error))


def _score_once(artifact: Artifact, settings: Settings) -> str:
    """A real forward pass through tokens, network and verdict."""
    from schemas import Prediction, Review, Source

    engine = open_engine(artifact, settings.engine, settings.precision)
    try:
        scorer = Scorer(artifact, engine)
        prepared = scorer.prepare([Review(review_id="check", text=SAMPLE)])
        source = Source(topic="check", partition=0, offset=0)
        (outcome,) = scorer.conclude(prepared, [source], scorer.collect(scorer.submit(prepared)))
    finally:
        engine.close()
    assert isinstance(outcome, Prediction)  # noqa: S101 - a review has a prediction
    it = engine.description
    return f"{it.name} on {it.device} in {it.precision} ({it.reason}); a sample scored {outcome.label}"


def _bind(host: str, port: int) -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BrokerError(
                f"{host}:{port}: {error.strerror}; is a worker running? Choose with WORKER_HTTP__PORT"
            ) from None
    return f"{host}:{port} is free"


def _reach(kafka: KafkaSettings) -> str:
    with admin(kafka) as client:
        brokers = client.describe_cluster()["brokers"]
    return f"{len(brokers)} broker(s) behind {kafka.bootstrap_servers} over {kafka.security_protocol}"


def _topics(kafka: KafkaSettings, create: int | None) -> str:
    with admin(kafka) as client:
        made = create_missing(client, kafka, create) if create else []
        topics = describe(client, topic_names(kafka))
        refuse_absent(topics)
        room, taken = (max_message_bytes(client, name) for name in (kafka.dead_letter_topic, kafka.input_topic))
    if room is None or taken is None:
        unknown = "; whether every message fits into a dead letter is not known without DESCRIBE_CONFIGS of both topics"
    elif room > taken:
        unknown = ""
    else:
        raise BrokerError(
            f"{kafka.dead_letter_topic} takes records of {room:,} bytes, {kafka.input_topic} of {taken:,}: the largest "
            f"could not become a dead letter; set its max.message.bytes to {DEAD_LETTER_ROOM * taken}"
        )
    listed = ", ".join(f"{topic.name} ({topic.partitions})" for topic in topics)
    return f"{listed} partitions" + (f"; made {', '.join(made)}" if made else "") + unknown


def _rights(settings: Settings) -> str:
    kafka = settings.kafka
    needed = dict(zip(topic_names(kafka), ("READ", "WRITE", "WRITE"), strict=True))
    with admin(kafka) as client:
        for topic in describe(client, list(needed)):
            if needed[topic.name] not in topic.rights:
                raise BrokerError(forbidden(needed[topic.name], f"topic {topic.name}"))
        rights = group_rights(client, kafka.group_id)
        if rights is not None and "READ" not in rights:
            raise BrokerError(forbidden("READ", f"group {kafka.group_id}"))
        transaction_rights(client, settings.transactional_id)
    return f"read {kafka.input_topic}, write the two others, group {kafka.group_id}, transactions"
